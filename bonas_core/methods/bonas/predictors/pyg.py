"""Graph neural networks of torch-geometric, or of a user's own, as predictors (Fey and Lenssen 2019).

The models of torch-geometric aggregate over predecessors, as the edges point; the embedding is read from the features
of their last layer. Message passing over lists of edges knows no padding and no largest graph; for small cells the
matrices of `predictors.gcn` are faster.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bonas_core.errors import SettingsError, first_line
from bonas_core.methods.bonas.predictors.base import PredictorWeights
from bonas_core.methods.bonas.predictors.fitting import Network, NetworkPredictor
from bonas_core.registry import resolve
from bonas_core.spaces.encoding import GraphBatch, with_global_vertex

if TYPE_CHECKING:
    from torch_geometric.data import Batch

MODELS = ("EdgeCNN", "GAT", "GCN", "GIN", "GraphSAGE", "PNA")
"""The models of `torch_geometric.nn.models` that are built as Model(in_channels, hidden_channels, num_layers)."""
READOUTS = ("global", "vertices", "mean")
"""`global`: the features of the global vertex; `vertices`: those of all vertices side by side, for spaces where
vertices have fixed roles; `mean`: their mean over the vertices."""

_PNA = {"aggregators": ["mean", "min", "max", "std"], "scalers": ["identity", "amplification", "attenuation"]}


@dataclass(frozen=True)
class PyG(NetworkPredictor["_Inputs"]):
    """A graph neural network of torch-geometric, or of a user's own, and how it is trained.

    A network of your own is a `torch.nn.Module` built as `Module(in_channels, width, layers, **options)`. It is called
    with a `torch_geometric.data.Batch` of B graphs, where `x` (N, in_channels) holds one-hot labels, and returns
    embeddings (B, M); the linear head is added to it. It reads out as it pleases: with `readout="global"` the global
    vertex, first of every graph, is among its vertices, else it is not. A batch may hold a single graph, and in
    evaluation mode the embedding of a graph depends on that graph alone.

    Example:
        >>> import numpy as np
        >>> from bonas_core.spaces.nasbench201 import NASBench201
        >>> space = NASBench201()
        >>> cells = space.encode(space.enumerate()[:20])
        >>> gat = PyG(model="GAT", width=8, epochs=2, options={"heads": 2})
        >>> gat.embed(gat.fit(cells, np.linspace(-1, 1, 20), np.ones(20), seed=0), cells).shape
        (20, 8)

    Raises:
        SettingsError: there is no such model or readout.
    """

    model: str = "GIN"
    """One of MODELS, or `module:Class` for a network of your own."""
    layers: int = 4
    width: int = 16
    """Units of every layer, H."""
    readout: str = "global"
    options: Mapping[str, Any] = field(default_factory=dict)
    """Passed on to the model, for instance `{"heads": 4}` or `{"norm": "batch_norm"}`."""

    def __post_init__(self) -> None:
        """Checks what can be told without loading torch-geometric, which takes seconds."""
        if self.model not in MODELS and ":" not in self.model:
            raise SettingsError(
                f"predictor.model: `{self.model}` is none of the graph neural networks of torch-geometric that can be "
                f"used by name; use one of {', '.join(MODELS)}, or module:Class for a network of your own"
            )
        if self.readout not in READOUTS:
            raise SettingsError(f"predictor.readout: `{self.readout}` is unknown; use one of {', '.join(READOUTS)}")

    def check(self, graphs: GraphBatch) -> None:
        """Builds the networks and runs them on such graphs, so that faults are found before anything is trained.

        Raises:
            SettingsError: the model cannot be loaded, built or run, or is no network that embeds graphs.
        """
        self._network(self._inputs(graphs), torch.Generator())

    def _inputs(self, graphs: GraphBatch, weights: PredictorWeights | None = None) -> _Inputs:
        return _Inputs(with_global_vertex(graphs) if self.readout == "global" else graphs)

    def _network(self, inputs: _Inputs, generator: torch.Generator | None) -> _Network:
        network = _Network(self, inputs, torch.Generator() if generator is None else generator)
        if generator is not None:
            network.check_separation(inputs)
        return network

    def _member(self, inputs: _Inputs) -> nn.Module:
        """One network, which turns batches like that of `inputs` into embeddings (B, M)."""
        batch = inputs.batch
        if ":" in self.model:
            module: nn.Module = _own_class(self.model)(batch.x.shape[1], self.width, self.layers, **self.options)
            return module
        from torch_geometric.nn import models
        from torch_geometric.utils import degree

        options = dict(self.options)
        if self.model == "PNA":
            # scales by mean degrees, which become buffers of the model and thus part of the weights
            degrees = degree(batch.edge_index[1], num_nodes=len(batch.x), dtype=torch.long)
            options = {**_PNA, "deg": torch.bincount(degrees), **options}
        model = getattr(models, self.model)(batch.x.shape[1], self.width, self.layers, **options)
        return _WithReadout(model, self.readout, inputs.vertices)


class _Inputs:
    """B graphs as one batch of torch-geometric."""

    batch: Batch
    """The N vertices that exist, with one-hot labels `x` (N, F), and the edges between them."""
    vertices: int
    """Vertices of the largest graph, V."""

    def __init__(self, graphs: GraphBatch) -> None:
        self._graphs = graphs
        self.vertices = graphs.labels.shape[1]
        self.batch = graphs.to_pyg()
        self.batch.x = nn.functional.one_hot(self.batch.x, len(graphs.vocabulary)).float()

    def __len__(self) -> int:
        return len(self._graphs)

    def __getitem__(self, rows: Tensor | slice) -> _Inputs:
        return _Inputs(self._graphs[rows if isinstance(rows, slice) else rows.numpy()])


class _WithReadout(nn.Module):
    """A model of torch-geometric together with the readout that makes embeddings (B, M) of its features (N, H)."""

    def __init__(self, model: nn.Module, readout: str, vertices: int) -> None:
        super().__init__()
        self.model = model
        self._readout, self._vertices = readout, vertices

    def forward(self, batch: Batch) -> Tensor:
        from torch_geometric.nn import global_mean_pool
        from torch_geometric.utils import to_dense_batch

        B = batch.num_graphs
        h: Tensor = self.model(batch.x, batch.edge_index, batch=batch.batch, batch_size=B)
        match self._readout:
            case "global":
                read = h[batch.ptr[:-1]]
            case "mean":
                read = global_mean_pool(h, batch.batch, size=B)
            case _:
                read = to_dense_batch(h, batch.batch, batch_size=B, max_num_nodes=self._vertices)[0].flatten(1)
        return read


class _Network(Network[_Inputs]):
    """E modules side by side, each with a linear head (M, 1)."""

    def __init__(self, pyg: PyG, inputs: _Inputs, generator: torch.Generator) -> None:
        super().__init__()
        self._pyg = pyg
        self._generator = generator
        try:
            with _drawn_from(generator):
                self.members = nn.ModuleList(pyg._member(inputs) for _ in range(pyg.ensemble))
            with torch.no_grad():
                M = self.eval().embed(inputs[:2]).shape[2]  # gives sizes to lazy modules, too
            self.train()
        except SettingsError:
            raise
        except Exception as error:
            raise SettingsError(
                f"predictor.model: `{pyg.model}` cannot be built and run with {pyg.layers} layers of width {pyg.width} "
                f"and options {dict(pyg.options)} ({first_line(error)}); correct the setting that this names"
            ) from error
        bound = 1 / math.sqrt(M)
        self.head = nn.Parameter(torch.empty(pyg.ensemble, M, 1).uniform_(-bound, bound, generator=generator))
        self.head_bias = nn.Parameter(torch.zeros(pyg.ensemble, 1))

    def forward(self, inputs: _Inputs) -> Tensor:
        """Predicted targets (E, B); a batch of one graph, which has no spread, is seen as in an evaluation."""
        if len(inputs) > 1:
            return super().forward(inputs)
        self.eval()
        predicted = super().forward(inputs)
        self.train()
        return predicted

    def embed(self, inputs: _Inputs) -> Tensor:
        with _drawn_from(self._generator):
            # a copy each: a module may assign to attributes of its batch
            embeddings = [member(copy.copy(inputs.batch)) for member in self.members]
        for embedding in embeddings:
            self._check_shape(embedding, len(inputs))
        return torch.stack(embeddings)

    @torch.no_grad()
    def check_separation(self, inputs: _Inputs) -> None:
        """Checks that two of the graphs have the same embeddings alone and in one batch.

        Raises:
            SettingsError: they have not, as with normalisations over all vertices of a batch.
        """
        self.eval()
        alone = torch.cat([self.embed(inputs[row : row + 1]) for row in range(min(2, len(inputs)))], dim=1)
        together = self.embed(inputs[:2])
        self.train()
        if not torch.allclose(alone, together, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise SettingsError(
                f"predictor.model: `{self._pyg.model}` with options {dict(self._pyg.options)} makes the embedding of a "
                "graph depend on the other graphs of its batch, or on chance; choose a network and options that keep "
                "graphs apart and draw nothing in evaluation mode, for instance norm=batch_norm"
            )

    def _check_shape(self, embedding: object, graphs: int) -> None:
        if isinstance(embedding, Tensor):
            if embedding.ndim == 2 and len(embedding) == graphs and embedding.is_floating_point():
                return
            given = f"a tensor of {' x '.join(map(str, embedding.shape)) or 'no dimension'}, {embedding.dtype}"
        else:
            given = f"a {type(embedding).__name__}"
        raise SettingsError(
            f"predictor.model: `{self._pyg.model}` returned {given} for {graphs} graphs; return a row of numbers for "
            f"every graph, a floating-point tensor of shape {graphs} x M"
        )

    def score(self, embeddings: Tensor) -> Tensor:
        return (embeddings @ self.head).squeeze(-1) + self.head_bias

    def settle(self, inputs: _Inputs) -> None:
        """Gives batch normalisations the statistics that the final weights have on the whole training set."""
        norms = [norm for norm in self.modules() if isinstance(norm, _BatchNorm) and norm.track_running_stats]
        momenta = [norm.momentum for norm in norms]
        if not norms or len(inputs) == 1:
            return
        self.eval()  # without dropout, as in `embed`
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches that it sees
            norm.train()
        self.embed(inputs)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        self.train()


@contextmanager
def _drawn_from(generator: torch.Generator) -> Iterator[None]:
    """Lets modules, which draw from torch's global generator, draw from another one within the block."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator.get_state())
        yield
        generator.set_state(torch.get_rng_state())


def _own_class(name: str) -> type[nn.Module]:
    """The class behind `module:Class`.

    Raises:
        SettingsError: there is none, or it is no class of networks.
    """
    found = resolve("predictor", name)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise SettingsError(
            f"predictor.model: `{name}` is no subclass of torch.nn.Module; name a class that is built as "
            "Class(in_channels, width, layers, **options)"
        )
    return found
