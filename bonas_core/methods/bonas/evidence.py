"""How large signal and noise are, by the evidence: the one search that all regressions of this project share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_LOG_RATIO = (-8.0, 10.0)  # range of log(rho * mean eigenvalue)
MIN_NOISE = 1e-4
"""Least noise, as a share of the targets' variance: an exact fit would let the evidence grow without bound."""


@dataclass(frozen=True)
class Evidence:
    """The ratio of signal to noise at which the targets are most probable."""

    ratio: float
    """rho: the variance of the signal, per unit of the eigenvalues, in units of the noise."""
    noise: float
    """v: variance of the noise."""
    log_evidence: float
    """log p(targets), natural logarithm."""


def most_evident(eigenvalues: Vector, projected: Vector, targets: Vector, min_noise: float = MIN_NOISE) -> Evidence:
    """Maximises the evidence of targets with covariance v (rho K + I).

    For each ratio rho the best v is known in closed form, so the maximum is found by a search on one line and cannot
    diverge. The precisions of a linear regression are alpha = 1 / (rho v), beta = 1 / v.

    Args:
        eigenvalues: (r,) of K, those that vanish left out.
        projected: (r,) the targets on its eigenvectors.
        targets: (n,)
        min_noise: least v, as a share of the targets' variance. Features that were learnt from these very targets fit
            them better than they will fit others, and the evidence takes that for lack of noise.
    """
    n = len(targets)
    scale = max(float(eigenvalues.sum()) / n, 1e-12)
    total = float(targets @ targets)
    floor = min_noise * max(total / n, 1e-12)

    def noise_and_evidence(log_rho: Vector) -> tuple[Vector, Vector]:
        d = np.exp(log_rho)[:, None] * eigenvalues + 1
        v = (np.sum(projected**2 / d, axis=1) + total - projected @ projected) / n
        v = np.maximum(v, floor)
        # at its optimum v makes the quadratic term n/2; at the floor it is smaller
        quadratic = 0.5 * (np.sum(projected**2 / d, axis=1) + total - projected @ projected) / v
        return v, -0.5 * n * np.log(2 * np.pi * v) - quadratic - 0.5 * np.log(d).sum(axis=1)

    grid = np.linspace(*_LOG_RATIO, 73) - np.log(scale)
    best = int(np.argmax(noise_and_evidence(grid)[1]))
    step = grid[1] - grid[0]
    fine = np.linspace(grid[best] - step, grid[best] + step, 41)
    noise, evidence = noise_and_evidence(fine)
    best = int(np.argmax(evidence))
    return Evidence(float(np.exp(fine[best])), float(noise[best]), float(evidence[best]))
