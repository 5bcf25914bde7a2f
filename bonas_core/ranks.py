"""Ranks of numbers.

`scipy.stats` has them too, but importing it takes a second, which every command would pay.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def average_ranks(values: ArrayLike) -> NDArray[np.float64]:
    """Ranks (n,) of n numbers from 1, the smallest; equal ones share the mean of theirs.

    >>> average_ranks([0.2, 0.1, 0.2])
    array([2.5, 1. , 2.5])
    """
    _, place, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place])
