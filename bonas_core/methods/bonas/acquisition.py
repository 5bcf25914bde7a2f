"""Acquisition functions: what a candidate is worth evaluating for, given only the posterior of its score."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy.special import erfcx, log_ndtr, ndtr

from bonas_core.methods.bonas.posterior import Posterior, Vector

_LOG_SQRT_2PI = 0.5 * np.log(2 * np.pi)
_SQRT_HALF_PI = np.sqrt(np.pi / 2)
_KAPPA = 2.0  # deviations above the mean


class Acquisition(Protocol):
    """What each of n candidates is worth evaluating for.

    A function of one's own with these arguments, named as `module:object` in `method.acquisition`, serves as well.
    """

    def __call__(self, posterior: Posterior, best: float, rng: np.random.Generator) -> Vector:
        """(n,) the larger the better; only the order of the values counts.

        Args:
            posterior: predictive mean and variance of the candidates' scores, larger is better.
            best: the score to improve upon.
            rng: of a function that draws; equal generators give equal values.
        """


def expected_improvement(posterior: Posterior, best: float) -> Vector:
    """Expected improvement of every candidate, EI = E(max(score - best, 0)) (paper Eq. 1, 2).

    EI = sigma (gamma Phi(gamma) + phi(gamma)) with gamma = (mu - best) / sigma.

    Args:
        posterior: predictive mean and variance of the candidates' scores, larger is better.
        best: the score to improve upon.

    NOTE: underflows to 0 for candidates far below `best`; rank by `log_expected_improvement`.

    Example:
        >>> import numpy as np
        >>> from bonas_core.methods.bonas.posterior import Posterior
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


def ei(posterior: Posterior, best: float, rng: np.random.Generator) -> Vector:
    """Expected improvement, the paper's, as its logarithm."""
    return log_expected_improvement(posterior, best)


def ucb(posterior: Posterior, best: float, rng: np.random.Generator) -> Vector:
    """Upper confidence bound mu + kappa sigma (Srinivas et al. 2010), two deviations above the mean."""
    return np.asarray(posterior.mean + _KAPPA * posterior.std)


def thompson(posterior: Posterior, best: float, rng: np.random.Generator) -> Vector:
    """One draw of every score from its own normal distribution (independent Thompson sampling, White et al. 2021)."""
    return np.asarray(rng.normal(posterior.mean, posterior.std))


def mean(posterior: Posterior, best: float, rng: np.random.Generator) -> Vector:
    """The predicted mean: no exploration at all."""
    return posterior.mean


def probability_of_improvement(posterior: Posterior, best: float, rng: np.random.Generator) -> Vector:
    """The logarithm of P(score > best) = Phi((mu - best) / sigma) (Kushner 1964)."""
    return np.asarray(log_ndtr((posterior.mean - best) / posterior.std))
