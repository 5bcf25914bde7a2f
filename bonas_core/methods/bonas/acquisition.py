"""Acquisition functions: what a candidate is worth evaluating for, given only the posterior of its score."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfcx, ndtr

Vector = NDArray[np.float64]

_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
_SQRT_HALF_PI = np.sqrt(np.pi / 2)


@dataclass(frozen=True)
class Posterior:
    """The predictive distribution of n scores, each a normal: all that an acquisition function sees."""

    mean: Vector
    """(n,)"""
    variance: Vector
    """(n,), positive: the observation noise included (paper Eq. 5)."""

    @property
    def std(self) -> Vector:
        """(n,) standard deviation."""
        return np.sqrt(self.variance)


def expected_improvement(posterior: Posterior, best: float) -> Vector:
    """EI = E(max(score - best, 0)) = sigma (gamma Phi(gamma) + phi(gamma)) with gamma = (mu - best) / sigma (paper
    Eq. 1, 2).

    Args:
        posterior: predictive mean and variance of the candidates' scores, larger is better.
        best: the score to improve upon.

    NOTE: underflows to 0 for candidates far below `best`; rank by `log_expected_improvement`.

    Example:
        >>> import numpy as np
        >>> round(float(expected_improvement(Posterior(np.array([-0.5]), np.array([1.0])), best=0.0)[0]), 4)
        0.1978
    """
    gamma = (posterior.mean - best) / posterior.std
    return np.asarray(posterior.std * (gamma * ndtr(gamma) + np.exp(-0.5 * gamma**2 - _LOG_SQRT_2PI)))


def log_expected_improvement(posterior: Posterior, best: float) -> Vector:
    """Logarithm of `expected_improvement`, finite and in the right order where EI itself underflows.

    For gamma < -1, with x = -gamma, EI = sigma phi(x) (1 - x m(x)) where m is the Mills ratio, computed by the scaled
    complementary error function; beyond x = 1000 the bracket is its asymptote 1/x^2 - 3/x^4 (Ament et al., NeurIPS
    2023).
    """
    gamma = (posterior.mean - best) / posterior.std
    g = np.maximum(gamma, -1)
    near = np.log(g * ndtr(g) + np.exp(-0.5 * g**2 - _LOG_SQRT_2PI))
    x = np.maximum(-gamma, 1)
    middle = np.minimum(x, 1e3)
    distant = np.maximum(x, 1e3)
    bracket = np.where(
        x < 1e3,
        np.log1p(-middle * _SQRT_HALF_PI * erfcx(middle / np.sqrt(2))),
        -2 * np.log(distant) + np.log1p(-3 / distant**2),
    )
    far = -0.5 * x**2 - _LOG_SQRT_2PI + bracket
    return np.asarray(np.where(gamma > -1, near, far) + np.log(posterior.std))
