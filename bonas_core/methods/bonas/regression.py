"""Bayesian linear regression on embeddings, both precisions set by evidence maximisation (paper section 3.2, Eq. 4, 5).

With prior w ~ N(0, I/alpha) and noise N(0, 1/beta), the singular values of the n x M design matrix give the evidence
of every ratio rho = beta/alpha in O(n), with the best noise variance v = 1/beta in closed form for each rho; so the
evidence is maximised by a search on one line and cannot diverge, n < M included. They are had from the smaller of the
two Gram matrices, n x n or M x M.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bonas_core.methods.bonas.evidence import MIN_NOISE, most_evident
from bonas_core.methods.bonas.posterior import Posterior
from bonas_core.settings.predictor import PredictorSettings

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_NEGLIGIBLE = 1e-13  # of the largest eigenvalue of a Gram matrix: rounding errors


class FittedRegression(Protocol):
    """A regression of scores on embeddings that has been fitted."""

    def posterior(self, features: NDArray[np.floating], precision: type[np.floating] = np.float64) -> Posterior:
        """Predictive mean and variance, the noise included, of new features (n, M).

        Args:
            features: of the architectures to predict.
            precision: of the matrix products; float32 is twice as fast, and exact enough to rank candidates by.
        """

    def figures(self) -> dict[str, float]:
        """What people are told of it, `log_evidence` among them."""

    def described(self) -> dict[str, Any]:
        """What a model file says of it beside its arrays, as JSON values."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its arrays, in the form in which they are stored."""


class Regression(Protocol):
    """What is fitted to embeddings and scores after every trial: what `method.regression` names.

    One of one's own, named as `module:object`, is a class with `from_settings` or without arguments.
    """

    def fit(self, features: NDArray[np.floating], targets: Vector) -> FittedRegression:
        """Fits n embeddings (n, M) to standardised scores (n,)."""

    def restore(self, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> FittedRegression:
        """A fitted regression as it was stored.

        Raises:
            ValueError: what was stored is no such regression.
        """


@dataclass(frozen=True)
class LinearRegression:
    """Bayesian linear regression, the paper's: see `fit` for its two settings."""

    intercept: str = "centre"
    min_noise: float = MIN_NOISE

    @classmethod
    def from_settings(cls, settings: PredictorSettings) -> Self:
        """Makes the regression."""
        return cls(settings.intercept, settings.min_noise)

    def fit(self, features: NDArray[np.floating], targets: Vector) -> BayesianLinearRegression:
        """Fits the regression, alpha and beta at the maximum of the evidence."""
        return fit(features, targets, self.intercept, self.min_noise)

    def restore(self, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> BayesianLinearRegression:
        """A fitted regression as it was stored."""
        names = ("offset", "weights", "basis", "shrinkage")
        offset, weights, basis, shrinkage = (stored_array(arrays, name) for name in names)
        alpha, beta, log_evidence = (stored_number(described, name) for name in ("alpha", "beta", "log_evidence"))
        intercept = bool(described["intercept"])
        columns = len(offset) + intercept
        shapes = [weights.shape, basis.shape, shrinkage.shape]
        if basis.ndim != 2 or shapes != [(columns,), (len(basis), columns), (len(basis),)]:
            raise ValueError("the arrays of its regression do not belong together")
        return BayesianLinearRegression(alpha, beta, log_evidence, offset, intercept, weights, basis, shrinkage)


def stored_array(arrays: Mapping[str, NDArray[Any]], name: str) -> NDArray[Any]:
    """An array of finite numbers out of a file.

    Raises:
        ValueError: there is none, or it holds something else.
    """
    array = arrays[name] if name in arrays else np.array(np.nan)
    if not (np.issubdtype(array.dtype, np.floating) and np.isfinite(array).all()):
        raise ValueError(f"not all of its numbers are finite (`{name}`)")
    return array


def stored_number(described: Mapping[str, Any], name: str) -> float:
    """A number out of a file.

    Raises:
        ValueError: there is none.
    """
    value = described.get(name)
    if not isinstance(value, float | int) or isinstance(value, bool):
        raise ValueError(f"its regression is not one of numbers (`{name}`)")
    return float(value)


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

    def figures(self) -> dict[str, float]:
        """The precisions of prior and noise, and the evidence."""
        return {"alpha": self.alpha, "beta": self.beta, "log_evidence": self.log_evidence}

    def described(self) -> dict[str, Any]:
        """The same, and whether there is a constant among the features."""
        return {**self.figures(), "intercept": self.intercept}

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that predictions are made of."""
        return {
            "offset": self.offset,
            "weights": self.weights,
            "basis": self.basis,
            "shrinkage": self.shrinkage,
        }

    def posterior(
        self, features: NDArray[np.floating], precision: type[np.floating] = np.float64, noise: bool = True
    ) -> Posterior:
        """Predictive mean m.phi and variance phi' S phi + 1/beta of new features (n, M).

        Args:
            features: of the architectures to predict.
            precision: of the matrix products; float32 is twice as fast, and exact enough to rank candidates by.
            noise: whether the variance has 1/beta in it.
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
    U, s, basis = _decomposed(phi)
    eigenvalues, u = s**2, U.T @ targets
    found = most_evident(eigenvalues, u, targets, min_noise)
    rho, v = found.ratio, found.noise
    shrinkage = rho * eigenvalues / (rho * eigenvalues + 1)
    weights = basis.T @ (u * rho * s / (rho * eigenvalues + 1))
    return BayesianLinearRegression(
        alpha=1 / (rho * v),
        beta=1 / v,
        log_evidence=found.log_evidence,
        offset=offset,
        intercept=constant,
        weights=weights,
        basis=basis,
        shrinkage=shrinkage,
    )
