"""The random sampler: candidates drawn uniformly from the space."""

from __future__ import annotations

import numpy as np

from bonas_core.methods.samplers.base import Pool, fresh_random
from bonas_core.spaces.base import SearchSpace
from bonas_core.trials import Trials


class RandomSampler:
    """Uniform candidates, BONAS(RS) of the paper's Table 2."""

    name = "random"

    def pool(self, space: SearchSpace, trials: Trials, size: int, rng: np.random.Generator) -> Pool:
        """Draws distinct architectures without a trial uniformly: `size` of them, or all if there are fewer."""
        found = fresh_random(space, trials.keys, size, rng)
        return Pool(found, np.ones(len(found), dtype=bool))
