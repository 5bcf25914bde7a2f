"""From raw scores to the targets that predictor and regression are fitted to, and back.

Every transform is increasing, so the order of scores never changes, and is computed from the scores seen so far.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri

from bonas_core.ranks import average_ranks

Vector = NDArray[np.float64]

TRANSFORMS = ("rank", "standardise", "logit")
"""`rank`: normal scores of the ranks (rank-Gauss); `logit`: log-odds of a fraction; all are standardised at the end."""

_EDGE = 1e-4  # keeps the logit of 0 and 1 finite


@dataclass(frozen=True)
class Targets:
    """Standardised targets of n observed scores, and the map back to scores."""

    values: Vector
    """(n,) mean 0 and, unless all scores are equal, variance 1."""
    kind: str
    centre: float
    spread: float
    nodes: Vector
    """Distinct scores, ascending."""
    node_values: Vector
    """Their targets."""

    def to_scores(self, values: Vector) -> Vector:
        """Maps targets, also ones never observed, to scores.

        Rank targets are interpolated between observed scores. Beyond the best and the worst they go on as steeply as
        that half of the scores did on average, so that a few hopeless scores do not stretch what is hoped for.
        """
        if self.kind == "standardise":
            return self.centre + self.spread * values
        if self.kind == "logit":
            return np.asarray(expit(self.centre + self.spread * values))
        lowest, highest = self.node_values[[0, -1]]
        middle = np.interp(0, self.node_values, self.nodes)
        up = (self.nodes[-1] - middle) / highest if highest > 0 else 1.0
        down = (self.nodes[0] - middle) / lowest if lowest < 0 else 1.0
        inside = np.interp(values, self.node_values, self.nodes)
        return np.asarray(inside + up * np.maximum(values - highest, 0) + down * np.minimum(values - lowest, 0))


def transform(scores: Vector, kind: str) -> Targets:
    """Standardised targets of the scores observed so far.

    Args:
        scores: (n,) larger is better; fractions in [0, 1] for `logit`.
        kind: one of `TRANSFORMS`. `rank` is t = Phi^-1((r - 0.5) / n) with average ranks r.
    """
    if kind == "rank":
        raw = ndtri((average_ranks(scores) - 0.5) / len(scores))
    elif kind == "logit":
        raw = logit(np.clip(scores, _EDGE, 1 - _EDGE))
    else:
        raw = np.asarray(scores, dtype=np.float64)
    centre, spread = _scale(raw)
    values = (raw - centre) / spread
    nodes, first = np.unique(scores, return_index=True)
    return Targets(values, kind, centre, spread, nodes, values[first])


def _scale(raw: Vector) -> tuple[float, float]:
    if np.ptp(raw) == 0:  # their mean may differ from them by a rounding error, which is no spread
        return float(raw[0]), 1.0
    return float(raw.mean()), float(raw.std()) or 1.0  # differences below 1e-162 vanish when squared
