"""The exhaustive sampler: every architecture of a space that can be enumerated."""

from __future__ import annotations

import numpy as np

from bonas_core.samplers.base import Pool
from bonas_core.spaces.base import SearchSpace
from bonas_core.trials import Trials


class ExhaustiveSampler:
    """Scores the whole space at every step; results are listed apart from those of pool samplers."""

    name = "exhaustive"

    def pool(self, space: SearchSpace, trials: Trials, size: int, rng: np.random.Generator) -> Pool:
        everything = space.enumerate()
        return Pool(everything, ~np.isin(space.keys(everything), trials.keys), whole_space=True)
