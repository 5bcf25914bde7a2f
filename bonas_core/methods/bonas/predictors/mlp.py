"""The multi-layer perceptron that the paper compares with (section 4.1; the meta-DNN of AlphaX, Wang et al. 2019).

It sees a graph as one row of numbers: the adjacency matrix of V vertices row by row, then a code per vertex. Its input
is therefore of one length: graphs may be smaller than those that it was trained on, padded, but not larger. The
embedding is the last hidden layer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from bonas_core.errors import ModelError
from bonas_core.methods.bonas.predictors.base import PredictorWeights
from bonas_core.methods.bonas.predictors.fitting import Network, NetworkPredictor
from bonas_core.spaces.encoding import PADDING, GraphBatch

_BOUND = 0.05  # of initial weights, as in the code of AlphaX


@dataclass(frozen=True)
class MLP(NetworkPredictor[Tensor]):
    """A multi-layer perceptron on flattened graphs; the defaults are AlphaX's.

    Example:
        >>> import numpy as np
        >>> from bonas_core.spaces.nasbench201 import NASBench201
        >>> space = NASBench201()
        >>> cells = space.encode(space.enumerate()[:20])
        >>> mlp = MLP(widths=(16, 8), epochs=2)
        >>> mlp.embed(mlp.fit(cells, np.linspace(-1, 1, 20), np.ones(20), seed=0), cells).shape
        (20, 8)
    """

    widths: tuple[int, ...] = (512, 2048, 2048, 512)
    """Units of the hidden layers; those of the last are the embedding."""

    _FUSED: ClassVar[bool] = True

    def _inputs(self, graphs: GraphBatch, weights: PredictorWeights | None = None) -> Tensor:
        """(n, V V + V) adjacency matrix and codes: 0 for padding, else 1 and the place of the label."""
        if weights is not None and "weight.0" in weights.tensors:
            graphs = _resized(graphs, weights.tensors["weight.0"].shape[1])
        n, V = graphs.labels.shape
        adjacency = np.broadcast_to(graphs.adjacency, (n, V, V)).reshape(n, V * V)
        return torch.from_numpy(np.concatenate([adjacency, graphs.labels - PADDING], axis=1).astype(np.float32))

    def _network(self, inputs: Tensor, generator: torch.Generator | None) -> _Network:
        return _Network(self.ensemble, (inputs.shape[1], *self.widths), generator)


def _resized(graphs: GraphBatch, inputs: int) -> GraphBatch:
    """The graphs with as many vertices as a network of so many inputs sees."""
    V = math.isqrt(inputs)  # V V + V inputs: less than (V + 1) squared
    if graphs.labels.shape[1] <= V:
        return graphs.padded_to(V)
    if graphs.mask[:, V:].any():
        raise ModelError(
            f"mlp: its weights are of graphs of at most {V} vertices, this one has {int(graphs.mask.sum(axis=1).max())}"
            "; train it anew, or use gcn or lstm, which take graphs of any size"
        )
    return GraphBatch(graphs.labels[:, :V], graphs.adjacency[:, :V, :V], graphs.vocabulary)


class _Network(Network[Tensor]):
    """E perceptrons side by side: weights (E, in, out), biases (E, 1, out), and linear heads."""

    def __init__(self, ensemble: int, sizes: tuple[int, ...], generator: torch.Generator | None) -> None:
        super().__init__()
        E = ensemble
        self.weight = nn.ParameterList(torch.empty(E, a, b) for a, b in pairwise(sizes))
        self.bias = nn.ParameterList(torch.zeros(E, 1, b) for b in sizes[1:])
        self.head = nn.Parameter(torch.empty(E, sizes[-1], 1))
        self.head_bias = nn.Parameter(torch.zeros(E, 1))
        if generator is not None:
            with torch.no_grad():
                for weight in self.weight:
                    weight.uniform_(-_BOUND, _BOUND, generator=generator)
                glorot = math.sqrt(6 / sum(sizes[-2:]))
                self.weight[-1].uniform_(-glorot, glorot, generator=generator)
                self.head.uniform_(-_BOUND, _BOUND, generator=generator)

    def embed(self, inputs: Tensor) -> Tensor:
        h = inputs.expand(len(self.head), *inputs.shape)
        for weight, bias in zip(self.weight, self.bias, strict=True):
            h = torch.relu(torch.baddbmm(bias, h, weight))
        return h

    def score(self, embeddings: Tensor) -> Tensor:
        return (embeddings @ self.head).squeeze(-1) + self.head_bias
