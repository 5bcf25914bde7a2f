"""Bayesian linear regression on embeddings, both precisions set by evidence maximisation (paper section 3.2, Eq. 4, 5).

With prior w ~ N(0, I/alpha) and noise N(0, 1/beta), the singular values of the n x M design matrix give the evidence
of every ratio rho = beta/alpha in O(n), with the best noise variance v = 1/beta in closed form for each rho; so the
evidence is maximised by a search on one line and cannot diverge, n < M included. They are had from the smaller of the
two Gram matrices, n x n or M x M.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bonas_core.methods.bonas.acquisition import Posterior

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_LOG_RATIO = (-8.0, 10.0)  # range of log(rho * mean squared feature norm)
MIN_NOISE = 1e-4
"""Least noise, as a share of the targets' variance: an exact fit would let the evidence grow without bound."""
_NEGLIGIBLE = 1e-13  # of the largest eigenvalue of a Gram matrix: rounding errors


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

    def posterior(
        self, features: NDArray[np.floating], noise: bool = True, precision: type[np.floating] = np.float64
    ) -> Posterior:
        """Predictive mean m.phi and variance phi' S phi + 1/beta of new features (n, M).

        Args:
            features: of the architectures to predict.
            noise: whether the variance has 1/beta in it.
            precision: of the matrix products; float32 is twice as fast, and exact enough to rank candidates by.
        """
        phi = self._design(features, precision)
        projected = phi @ self.basis.T.astype(precision)
        # S = (I - V diag(shrinkage) V') / alpha, by Woodbury
        reduction = projected**2 @ self.shrinkage.astype(precision)
        variance = (np.einsum("nm,nm->n", phi, phi) - reduction).astype(np.float64) / self.alpha
        variance = np.maximum(variance, 0) + (1 / self.beta if noise else 0)
        return Posterior((phi @ self.weights.astype(precision)).astype(np.float64), variance)

    def _design(self, features: NDArray[np.floating], precision: type[np.floating]) -> NDArray[np.floating]:
        return _design(np.asarray(features, dtype=precision), self.offset.astype(precision), self.intercept)


def _design(features: NDArray[np.floating], offset: NDArray[np.floating], intercept: bool) -> NDArray[np.floating]:
    phi = features - offset
    return np.concatenate([phi, np.ones((len(phi), 1), dtype=phi.dtype)], axis=1) if intercept else phi


def _decomposed(phi: Matrix) -> tuple[Matrix, Vector, Matrix]:
    """The singular value decomposition U, s, V' of a design matrix, without the singular values that vanish."""
    n, M = phi.shape
    eigenvalues, vectors = np.linalg.eigh(phi @ phi.T if n <= M else phi.T @ phi)
    there = eigenvalues > _NEGLIGIBLE * max(float(eigenvalues[-1]), 1e-300)
    s, vectors = np.sqrt(eigenvalues[there]), vectors[:, there]
    if n <= M:
        return vectors, s, (vectors / s).T @ phi
    return phi @ vectors / s, s, vectors.T


def fit(
    features: NDArray[np.floating], targets: Vector, intercept: str = "centre", min_noise: float = MIN_NOISE
) -> BayesianLinearRegression:
    """Fits the regression, alpha and beta at the maximum of the evidence.

    Args:
        features: (n, M) design matrix Phi.
        targets: (n,) standardised scores t.
        intercept: `centre` subtracts the mean of the features; `constant` appends a 1 (the paper has neither; without
            one of them the regression is forced through the origin).
        min_noise: least noise variance, as a share of the targets' variance. Features that were learnt from these very
            targets fit them better than they will fit others, and the evidence takes that for lack of noise.
    """
    raw = np.asarray(features, dtype=np.float64)
    constant = intercept == "constant"
    offset = np.zeros(raw.shape[1]) if constant else raw.mean(axis=0)
    phi = np.asarray(_design(raw, offset, constant), dtype=np.float64)
    n = len(phi)
    U, s, basis = _decomposed(phi)
    eigenvalues, u = s**2, U.T @ targets
    scale = max(float(eigenvalues.sum()) / n, 1e-12)  # mean squared feature norm
    total = float(targets @ targets)
    floor = min_noise * max(total / n, 1e-12)

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
