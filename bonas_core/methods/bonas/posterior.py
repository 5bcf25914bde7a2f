"""The predictive distribution of scores: all that an acquisition function sees of a surrogate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Posterior:
    """The predictive distribution of n scores, each a normal."""

    mean: Vector
    """(n,)"""
    variance: Vector
    """(n,), positive: the observation noise included (paper Eq. 5)."""

    @property
    def std(self) -> Vector:
        """(n,) standard deviation."""
        return np.sqrt(self.variance)
