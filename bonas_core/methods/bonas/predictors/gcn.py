"""The graph convolutional network that embeds architectures (paper sections 2.3 and 3.1).

Every layer aggregates over predecessors, multiplies by a weight matrix, normalises over the batch and rectifies:
H' = ReLU(BatchNorm(P H W)), with P made of the adjacency with self loops (Eq. 3). The embedding is the feature vector
of the global vertex or, in spaces where vertices have fixed roles, of all vertices side by side. The linear head that
turns it into a score serves the training only; a search puts Bayesian linear regression in its place.

Weights have nothing to do with the number of vertices while the global vertex is read, so that networks trained on
small graphs can go on with larger ones. Graphs are matrices here, which is fastest for the cells of search spaces;
graphs of hundreds of vertices are better off with the message passing of `predictors.pyg`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bonas_core.methods.bonas.predictors.base import PredictorWeights
from bonas_core.methods.bonas.predictors.fitting import Network, NetworkPredictor
from bonas_core.spaces.encoding import GraphBatch, with_global_vertex

NORMALISATIONS = ("none", "row", "symmetric")
"""`none`: sums, as in the original code; `row`: means over predecessors; `symmetric`: Eq. 3 on the undirected graph."""
READOUTS = ("global", "vertices")

_EPS = 1e-5  # of batch normalisation


@dataclass(frozen=True)
class GCN(NetworkPredictor["_Inputs"]):
    """A graph convolutional predictor and how it is trained; the defaults are the paper's.

    Example:
        >>> import numpy as np
        >>> from bonas_core.spaces.nasbench201 import NASBench201
        >>> space = NASBench201()
        >>> cells = space.enumerate()[:20]
        >>> gcn = GCN(width=8, epochs=2)
        >>> weights = gcn.fit(space.encode(cells), np.linspace(-1, 1, 20), np.ones(20), seed=0)
        >>> gcn.embed(weights, space.encode(cells)).shape
        (20, 8)
    """

    layers: int = 4
    width: int = 64
    """Units of every layer, H."""
    readout: str = "global"
    normalisation: str = "none"
    initialisation: str = "uniform"
    """`uniform`: +-0.05, as in the original code; `he`: normal with variance 2 / fan-in (first layer: 1)."""

    def _inputs(self, graphs: GraphBatch, weights: PredictorWeights | None = None) -> _Inputs:
        graphs = with_global_vertex(graphs) if self.readout == "global" else graphs
        propagation = _propagation(torch.from_numpy(graphs.adjacency).float(), self.normalisation)
        features = propagation @ _one_hot(torch.from_numpy(graphs.labels), len(graphs.vocabulary))
        return _Inputs(features, propagation, torch.from_numpy(graphs.mask), self.readout)

    def _network(self, inputs: _Inputs, generator: torch.Generator | None) -> _Network:
        return _Network(self, inputs.features.shape[-1], inputs.read.shape[1], generator)


def _propagation(adjacency: Tensor, normalisation: str) -> Tensor:
    """P of Eq. 3: (B, V, V), row j holding what vertex j takes from each vertex, itself included."""
    loops = torch.eye(adjacency.shape[1])
    if normalisation == "symmetric":
        undirected = ((adjacency + adjacency.transpose(1, 2)) > 0).float() + loops
        scale = undirected.sum(dim=2).rsqrt()
        return scale[:, :, None] * undirected * scale[:, None, :]
    sums = adjacency.transpose(1, 2) + loops
    return sums / sums.sum(dim=2, keepdim=True) if normalisation == "row" else sums


def _one_hot(labels: Tensor, classes: int) -> Tensor:
    return (labels[..., None] == torch.arange(classes)).float()  # padding matches none: zeros


class _Inputs:
    """A batch of B graphs as matrices of V vertices each, padding included: N = B V vertices in a row."""

    features: Tensor
    """(N, F) one-hot labels, already aggregated once: P X."""
    share: Tensor | None
    """(N, 1) weight of every vertex in batch statistics, padding having none; None where all weigh the same."""
    read: Tensor
    """(B, R) the vertices whose features are the embedding."""

    def __init__(self, features: Tensor, propagation: Tensor, mask: Tensor, readout: str) -> None:
        """Takes features P X (B, V, F), P (B, V, V), or (1, V, V) where graphs share their edges, and mask (B, V)."""
        B, V = mask.shape
        self._propagation, self._mask, self._readout = propagation, mask, readout
        self.features = features.reshape(B * V, -1)
        self.share = None if bool(mask.all()) else (mask / mask.sum()).float().reshape(B * V, 1)
        first = torch.arange(B)[:, None] * V
        self.read = first if readout == "global" else first + torch.arange(V)

    def aggregate(self, h: Tensor) -> Tensor:
        """Sums (E, N, H) of the features (E, N, H) of predecessors, weighted by P: P H."""
        (B, V), (E, N, H) = self._mask.shape, h.shape
        return (self._propagation @ h.view(E, B, V, H)).view(E, N, H)

    def __getitem__(self, rows: Tensor) -> _Inputs:
        """The inputs of these graphs."""
        features = self.features.view(*self._mask.shape, -1)
        propagation = self._propagation if self._propagation.shape[0] == 1 else self._propagation[rows]
        return _Inputs(features[rows], propagation, self._mask[rows], self._readout)


class _Network(Network[_Inputs]):
    """E networks side by side: layers of weights (E, in, H) with batch normalisation, and linear heads (E, M)."""

    def __init__(self, gcn: GCN, features: int, vertices_read: int, generator: torch.Generator | None) -> None:
        super().__init__()
        E, H = gcn.ensemble, gcn.width
        M = H * vertices_read
        sizes = [features, *[H] * (gcn.layers - 1)]
        self.weight = nn.ParameterList(torch.empty(E, fan_in, H) for fan_in in sizes)
        self.gain = nn.ParameterList(torch.ones(E, 1, H) for _ in sizes)
        self.shift = nn.ParameterList(torch.zeros(E, 1, H) for _ in sizes)
        self.head = nn.Parameter(torch.empty(E, M, 1))
        self.head_bias = nn.Parameter(torch.zeros(E, 1))
        for layer in range(gcn.layers):
            self.register_buffer(f"mean{layer}", torch.zeros(E, 1, H))
            self.register_buffer(f"variance{layer}", torch.ones(E, 1, H))
        if generator is not None:
            with torch.no_grad():
                for layer, weight in enumerate(self.weight):
                    if gcn.initialisation == "uniform":
                        weight.uniform_(-0.05, 0.05, generator=generator)
                    else:
                        std = 1.0 if layer == 0 else math.sqrt(2 / sizes[layer])
                        weight.normal_(0, std, generator=generator)
                bound = 0.05 if gcn.initialisation == "uniform" else 1 / math.sqrt(M)
                self.head.uniform_(-bound, bound, generator=generator)

    def forward(self, inputs: _Inputs) -> Tensor:
        """Predicted targets (E, B), with statistics of this batch."""
        return self.score(self._read(self._layers(inputs, self._batch_statistics), inputs))

    def embed(self, inputs: _Inputs) -> Tensor:
        """Embeddings (E, B, M), with the settled statistics."""
        return self._read(self._layers(inputs, self._settled_statistics), inputs)

    def score(self, embeddings: Tensor) -> Tensor:
        return (embeddings @ self.head).squeeze(-1) + self.head_bias

    def settle(self, inputs: _Inputs) -> None:
        """Stores the statistics that the final weights have on the whole training set, for `embed`."""

        def store(layer: int, z: Tensor, share: Tensor | None) -> tuple[Tensor, Tensor]:
            mean, variance = self._batch_statistics(layer, z, share)
            self.get_buffer(f"mean{layer}").copy_(mean)
            self.get_buffer(f"variance{layer}").copy_(variance)
            return mean, variance

        self._layers(inputs, store)

    def _layers(
        self, inputs: _Inputs, statistics: Callable[[int, Tensor, Tensor | None], tuple[Tensor, Tensor]]
    ) -> Tensor:
        h = inputs.features
        for layer, weight in enumerate(self.weight):
            z = h @ weight if layer == 0 else inputs.aggregate(h) @ weight
            mean, variance = statistics(layer, z, inputs.share)
            scale = self.gain[layer] * (variance + _EPS).rsqrt()
            h = torch.relu(torch.addcmul(self.shift[layer] - mean * scale, z, scale))
        return h

    def _batch_statistics(self, layer: int, z: Tensor, share: Tensor | None) -> tuple[Tensor, Tensor]:
        if share is None:
            variance, mean = torch.var_mean(z, dim=1, keepdim=True, correction=0)
            return mean, variance
        mean = (z * share).sum(dim=1, keepdim=True)
        return mean, ((z - mean) ** 2 * share).sum(dim=1, keepdim=True)

    def _settled_statistics(self, layer: int, z: Tensor, share: Tensor | None) -> tuple[Tensor, Tensor]:
        return self.get_buffer(f"mean{layer}"), self.get_buffer(f"variance{layer}")

    @staticmethod
    def _read(h: Tensor, inputs: _Inputs) -> Tensor:
        return h[:, inputs.read].flatten(2)
