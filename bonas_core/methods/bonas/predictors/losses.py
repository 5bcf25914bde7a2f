"""The four losses of the paper as weights of one weighted mean square (paper Eq. 6 and section 4.5, Figure 5a)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

LOSSES = ("exp", "log", "linear", "mse")


def loss_weights(scores: Vector, loss: str) -> Vector:
    """Weight of every squared error, from the true score y in [0, 1]: 0 at y = 0 (but for mse) and 1 at y = 1.

    exp: (exp(y) - 1) / (e - 1); log: log(1 + y) / log 2; linear: y; mse: 1.

    Args:
        scores: (n,) true scores; those outside [0, 1] count as its nearer end.
        loss: one of `LOSSES`.

    Example:
        >>> loss_weights(np.array([0.0, 1.0]), "exp").tolist()
        [0.0, 1.0]
    """
    y = np.clip(scores, 0, 1)
    match loss:
        case "exp":
            return np.asarray(np.expm1(y) / np.expm1(1.0))
        case "log":
            return np.asarray(np.log2(1 + y))
        case "linear":
            return y
        case "mse":
            return np.ones_like(y)
    raise ValueError(f"loss `{loss}` is not one of {', '.join(LOSSES)}")
