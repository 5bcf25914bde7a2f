"""Bayesian linear regression on embeddings, both precisions set by evidence maximisation (paper section 3.2, Eq. 4, 5).

With prior w ~ N(0, I/alpha) and noise N(0, 1/beta), one singular value decomposition of the n x M design matrix gives
the evidence of every ratio rho = beta/alpha in O(n), with the best noise variance v = 1/beta in closed form for each
rho; so the evidence is maximised by a search on one line and cannot diverge, n < M included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bonas_core.acquisition import Posterior

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_LOG_RATIO = (-8.0, 10.0)  # range of log(rho * mean squared feature norm)
_MIN_NOISE = 1e-4  # of the targets' variance: an exact fit would let the evidence grow without bound


@dataclass(frozen=True)
class BayesianLinearRegression:
    """A fitted regression: posterior N(mean, S) over the weights of (optionally centred) features.

    Example:
        >>> import numpy as np
        >>> x = np.linspace(-1, 1, 20)[:, None]
        >>> model = fit(x, 2 * x[:, 0])
        >>> bool(abs(model.posterior(np.array([[0.5]])).mean[0] - 1) < 0.01)
        True
    """

    alpha: float
    """Precision of the weights' prior."""
    beta: float
    """Precision of the observation noise."""
    log_evidence: float
    """log p(t | alpha, beta), natural logarithm."""
    offset: Vector
    """(M,) subtracted from features before anything else; zeros where features are not centred."""
    intercept: bool
    """Whether a constant 1 is appended to the features, its weight under the same prior."""
    weights: Vector
    """(M,) or (M + 1,) posterior mean of the weights."""
    basis: Matrix
    """(r, M or M + 1) right singular vectors of the design matrix."""
    shrinkage: Vector
    """(r,) rho s^2 / (rho s^2 + 1) for singular values s."""

    def posterior(self, features: NDArray[np.floating], noise: bool = True) -> Posterior:
        """Predictive mean m.phi and variance phi' S phi + 1/beta of new features (n, M); without 1/beta if not
        `noise`."""
        phi = self._design(features)
        projected = phi @ self.basis.T
        # S = (I - V diag(shrinkage) V') / alpha, by Woodbury
        variance = (np.einsum("nm,nm->n", phi, phi) - projected**2 @ self.shrinkage) / self.alpha
        variance = np.maximum(variance, 0) + (1 / self.beta if noise else 0)
        return Posterior(phi @ self.weights, variance)

    def _design(self, features: NDArray[np.floating]) -> Matrix:
        return _design(np.asarray(features, dtype=np.float64), self.offset, self.intercept)


def _design(features: Matrix, offset: Vector, intercept: bool) -> Matrix:
    phi = features - offset
    return np.concatenate([phi, np.ones((len(phi), 1))], axis=1) if intercept else phi


def fit(features: NDArray[np.floating], targets: Vector, intercept: str = "centre") -> BayesianLinearRegression:
    """Fits the regression, alpha and beta at the maximum of the evidence.

    Args:
        features: (n, M) design matrix Phi.
        targets: (n,) standardised scores t.
        intercept: `centre` subtracts the mean of the features; `constant` appends a 1 (the paper has neither; without
            one
            of them the regression is forced through the origin).
    """
    raw = np.asarray(features, dtype=np.float64)
    constant = intercept == "constant"
    offset = np.zeros(raw.shape[1]) if constant else raw.mean(axis=0)
    phi = _design(raw, offset, constant)
    n = len(phi)
    U, s, basis = np.linalg.svd(phi, full_matrices=False)
    eigenvalues, u = s**2, U.T @ targets
    scale = max(float(eigenvalues.sum()) / n, 1e-12)  # mean squared feature norm
    total = float(targets @ targets)
    floor = _MIN_NOISE * max(total / n, 1e-12)

    def noise_and_evidence(log_rho: Vector) -> tuple[Vector, Vector]:
        d = np.exp(log_rho)[:, None] * eigenvalues + 1
        v = (np.sum(u**2 / d, axis=1) + total - u @ u) / n
        v = np.maximum(v, floor)
        # at its optimum v makes the quadratic term n/2; at the floor it is smaller
        quadratic = 0.5 * (np.sum(u**2 / d, axis=1) + total - u @ u) / v
        return v, -0.5 * n * np.log(2 * np.pi * v) - quadratic - 0.5 * np.log(d).sum(axis=1)

    grid = np.linspace(*_LOG_RATIO, 73) - np.log(scale)
    best = int(np.argmax(noise_and_evidence(grid)[1]))
    step = grid[1] - grid[0]
    fine = np.linspace(grid[best] - step, grid[best] + step, 41)
    noise, evidence = noise_and_evidence(fine)
    best = int(np.argmax(evidence))
    rho, v = float(np.exp(fine[best])), float(noise[best])
    shrinkage = rho * eigenvalues / (rho * eigenvalues + 1)
    weights = basis.T @ (u * rho * s / (rho * eigenvalues + 1))
    return BayesianLinearRegression(
        alpha=1 / (rho * v),
        beta=1 / v,
        log_evidence=float(evidence[best]),
        offset=offset,
        intercept=constant,
        weights=weights,
        basis=basis,
        shrinkage=shrinkage,
    )
