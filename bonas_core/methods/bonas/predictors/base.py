"""What a search needs of a predictor: embeddings of graphs, learnt from graphs with scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bonas_core.spaces.encoding import GraphBatch

Vector = NDArray[np.float64]


@dataclass(frozen=True)
class PredictorWeights:
    """A fitted predictor as plain arrays, in the form in which it is stored."""

    tensors: dict[str, NDArray[np.float32]]
    losses: tuple[float, ...] = field(default=())
    """Training loss after every epoch."""


@runtime_checkable
class Predictor(Protocol):
    """Learns embeddings of architectures; stateless: what it learns is in the weights that it returns."""

    def fit(
        self, graphs: GraphBatch, targets: Vector, weights: Vector, seed: int, start: PredictorWeights | None = None
    ) -> PredictorWeights:
        """Trains on graphs with standardised targets (n,) and loss weights (n,).

        Args:
            graphs: n cells, without the global vertex.
            targets: (n,) standardised scores.
            weights: (n,) of the squared errors.
            seed: decides initial weights and batch order; equal inputs and seed give equal weights.
            start: weights to begin from (warm start) instead of random ones.

        Raises:
            ModelError: `start` is of another kind or shape.
        """

    def embed(self, weights: PredictorWeights, graphs: GraphBatch) -> NDArray[np.float32]:
        """Embeddings phi of n graphs: (n, M)."""

    def predict(self, weights: PredictorWeights, graphs: GraphBatch) -> Vector:
        """Targets (n,) of n graphs without a regression, on the scale of the targets that it was trained on."""
