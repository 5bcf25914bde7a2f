"""The exhaustive sampler: every architecture of a space that can be enumerated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bonas_core.methods.samplers.base import Pool
from bonas_core.spaces.base import Keys, SearchSpace
from bonas_core.trials import Trials


class ExhaustiveSampler:
    """Offers the whole space at every step; results are listed apart from those of pool samplers."""

    name = "exhaustive"

    def __init__(self) -> None:
        self._sorted: tuple[SearchSpace, Keys, NDArray[np.intp]] | None = None

    def pool(self, space: SearchSpace, trials: Trials, size: int, rng: np.random.Generator) -> Pool:
        """Offers every architecture of the space, whatever `size` is; those that have a trial are not open."""
        everything = space.enumerate()
        if self._sorted is None or self._sorted[0] is not space:
            self._sorted = (space, *_sorted_keys(space))
        _, keys, order = self._sorted
        place = np.minimum(np.searchsorted(keys, trials.keys), len(keys) - 1)
        is_open = np.ones(len(everything), dtype=bool)
        is_open[order[place[keys[place] == trials.keys]]] = False
        return Pool(everything, is_open, whole_space=True)


def _sorted_keys(space: SearchSpace) -> tuple[Keys, NDArray[np.intp]]:
    """The keys of the whole space in ascending order, and the rows that they are of."""
    keys = space.keys(space.enumerate())
    order = np.argsort(keys)
    return keys[order], order
