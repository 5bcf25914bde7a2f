"""What a strategy sees of many trials: immutable columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bonas_core.spaces.base import Genotypes, Keys


@dataclass(frozen=True)
class Trials:
    """What a strategy may know of n trials, in the order of their numbers (row i is trial i)."""

    genotypes: Genotypes
    """(n, genes)"""
    keys: Keys
    """(n,)"""
    scores: NDArray[np.float64]
    """(n,) larger is better; NaN where there is none. See `Objective.score`."""
    finished: NDArray[np.bool_]
    """(n,)"""
    diverged: NDArray[np.bool_]
    """(n,)"""

    def __len__(self) -> int:
        return len(self.keys)

    def first(self, count: int) -> Trials:
        """The trials with numbers below `count`."""
        return Trials(*(column[:count] for column in self.columns()))

    def observed(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Rows that count as observations, and their scores: DONE, and DIVERGED as the worst of them."""
        rows = np.flatnonzero(~np.isnan(self.scores) | self.diverged)
        scores = self.scores[rows]
        if self.diverged.any():
            done = scores[~np.isnan(scores)]
            scores = np.where(np.isnan(scores), done.min() if len(done) else 0.0, scores)
        return rows, scores

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The columns in the order of the fields."""
        return self.genotypes, self.keys, self.scores, self.finished, self.diverged
