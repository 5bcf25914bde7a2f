"""An exact Gaussian process on embeddings, in the place of the linear regression: `method.regression: gp`.

A radial kernel on standardised embeddings. Its length is chosen from a grid, and signal and noise are, by the evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bonas_core.methods.bonas.evidence import MIN_NOISE, most_evident
from bonas_core.methods.bonas.posterior import Posterior
from bonas_core.methods.bonas.regression import stored_array, stored_number
from bonas_core.settings.predictor import PredictorSettings

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

_LENGTHS = (0.25, 0.5, 1.0, 2.0, 4.0)  # in units of the median distance between embeddings
_NEGLIGIBLE = 1e-12  # of the largest eigenvalue of a kernel matrix: rounding errors
_FINEST = 1e-6  # deviation of a feature, as a share of the largest, below which it tells nothing


@dataclass(frozen=True)
class GaussianProcess:
    """An exact Gaussian process; the cost grows with the third power of the number of trials.

    Args:
        min_noise: least noise variance, as a share of the targets' variance.
    """

    min_noise: float = MIN_NOISE

    @classmethod
    def from_settings(cls, settings: PredictorSettings) -> Self:
        """Makes the regression."""
        return cls(settings.min_noise)

    def fit(self, features: NDArray[np.floating], targets: Vector) -> FittedGaussianProcess:
        """Fits n embeddings (n, M) to standardised scores (n,), the kernel's settings at the maximum of evidence.

        Example:
            >>> import numpy as np
            >>> x = np.linspace(-2, 2, 40)[:, None]
            >>> fitted = GaussianProcess().fit(x, np.sin(2 * x[:, 0]))
            >>> bool(abs(fitted.posterior(np.array([[0.5]])).mean[0] - np.sin(1.0)) < 0.02)
            True
        """
        raw = np.asarray(features, dtype=np.float64)
        offset, spread = raw.mean(axis=0), raw.std(axis=0)
        spread = np.where(spread > _FINEST * max(float(spread.max(initial=0)), 1e-300), spread, np.inf)
        inputs = (raw - offset) / spread
        centre = float(targets.mean())
        squared = _squared_distances(inputs, inputs)
        apart = squared[np.triu_indices(len(inputs), 1)]
        apart = apart[apart > 0]
        unit = float(np.median(apart)) if len(apart) else 1.0
        fits = []
        for length in _LENGTHS:
            eigenvalues, vectors = np.linalg.eigh(np.exp(-0.5 * squared / (unit * length**2)))
            there = eigenvalues > _NEGLIGIBLE * eigenvalues[-1]
            eigenvalues, vectors = eigenvalues[there], vectors[:, there]
            projected = vectors.T @ (targets - centre)
            found = most_evident(eigenvalues, projected, targets - centre, self.min_noise)
            fits.append((found.log_evidence, -length, found, eigenvalues, vectors, projected))
        _, negative, found, eigenvalues, vectors, projected = max(fits, key=lambda fit: fit[:2])
        d = found.ratio * eigenvalues + 1
        return FittedGaussianProcess(
            signal=found.ratio * found.noise,
            noise=found.noise,
            scale=unit * negative**2,
            centre=centre,
            log_evidence=found.log_evidence,
            offset=offset,
            spread=spread,
            inputs=inputs,
            weights=vectors @ (found.ratio * projected / d),
            root=vectors * np.sqrt(found.ratio / d),
        )

    def restore(self, described: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> FittedGaussianProcess:
        """A fitted process as it was stored."""
        numbers: dict[str, Any] = {name: stored_number(described, name) for name in FittedGaussianProcess.NUMBERS}
        found: dict[str, Any] = {name: stored_array(arrays, name) for name in FittedGaussianProcess.ARRAYS}
        n, M = found["inputs"].shape if found["inputs"].ndim == 2 else (-1, -1)
        shapes = [found[name].shape for name in ("offset", "inverse_spread", "weights")]
        if shapes != [(M,), (M,), (n,)] or found["root"].ndim != 2 or len(found["root"]) != n:
            raise ValueError("the arrays of its regression do not belong together")
        with np.errstate(divide="ignore"):
            spread = 1 / found.pop("inverse_spread")
        return FittedGaussianProcess(**numbers, spread=spread, **found)


@dataclass(frozen=True)
class FittedGaussianProcess:
    """The posterior of a Gaussian process with constant mean, given n embeddings and their scores."""

    NUMBERS = ("signal", "noise", "scale", "centre", "log_evidence")
    ARRAYS = ("offset", "inverse_spread", "inputs", "weights", "root")

    signal: float
    """Variance of the process."""
    noise: float
    """Variance of the observation noise."""
    scale: float
    """Squared length of the kernel, in standardised features."""
    centre: float
    """Mean of the process."""
    log_evidence: float
    offset: Vector
    """(M,)"""
    spread: Vector
    """(M,) infinite for features that do not vary."""
    inputs: Matrix
    """(n, M) standardised embeddings."""
    weights: Vector
    """(n,) of the kernels to the inputs in the predicted mean."""
    root: Matrix
    """(n, r) R with (K + noise / signal I)^-1 = R R' on the span of K."""

    def posterior(self, features: NDArray[np.floating], precision: type[np.floating] = np.float64) -> Posterior:
        """Predictive mean and variance, the noise included, of new features (m, M)."""
        x = ((np.asarray(features, dtype=np.float64) - self.offset) / self.spread).astype(precision)
        kernel = np.exp(-0.5 * _squared_distances(x, self.inputs.astype(precision)) / self.scale).astype(precision)
        mean = self.centre + (kernel @ self.weights.astype(precision)).astype(np.float64)
        reduction = ((kernel @ self.root.astype(precision)) ** 2).sum(axis=1, dtype=np.float64)
        return Posterior(mean, self.signal * np.maximum(1 - reduction, 0) + self.noise)

    def figures(self) -> dict[str, float]:
        """The variances of signal and noise, the kernel's length and the evidence."""
        return {name: float(getattr(self, name)) for name in self.NUMBERS}

    def described(self) -> dict[str, Any]:
        """The same."""
        return self.figures()

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays that predictions are made of."""
        arrays = {name: getattr(self, name) for name in self.ARRAYS if name != "inverse_spread"}
        return {**arrays, "inverse_spread": 1 / self.spread}


def _squared_distances(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """(n, m) squared Euclidean distances of the rows."""
    squares = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2 * a @ b.T
    return np.asarray(np.maximum(squares, 0))
