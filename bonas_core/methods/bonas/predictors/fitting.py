"""How every predictor is trained: weighted squares, Adam, batches, ensembles side by side (paper sections 2.3, 3.4).

A predictor of this project is a description of E networks and of their training; `NetworkPredictor` does with it what
a search needs, and subclasses say what the networks see and compute. The members of an ensemble are trained together:
their losses are added, so that each is trained as if it were alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bonas_core.determinism.threads import torch_threads
from bonas_core.errors import ModelError
from bonas_core.methods.bonas.predictors.adam import Adam
from bonas_core.methods.bonas.predictors.base import PredictorWeights, Vector
from bonas_core.spaces.encoding import GraphBatch

Watch = Callable[[int, Callable[[], PredictorWeights]], bool]
"""Called after every epoch with the number of epochs done and a function that returns the weights as they are; true
ends the training."""

_CHUNK = 1024  # graphs embedded at a time: larger batches fall out of the processor's cache

In = TypeVar("In", bound="Inputs")


class Inputs(Protocol):
    """What a network sees of n graphs, encoded once."""

    def __getitem__(self: In, rows: Tensor) -> In:
        """The inputs of these rows (B,)."""


class Network(nn.Module, ABC, Generic[In]):
    """E networks side by side."""

    @abstractmethod
    def embed(self, inputs: In) -> Tensor:
        """Embeddings (E, B, M) of B graphs."""

    @abstractmethod
    def score(self, embeddings: Tensor) -> Tensor:
        """Predicted targets (E, B) of embeddings (E, B, M)."""

    def forward(self, inputs: In) -> Tensor:
        """Predicted targets (E, B) of a batch, as the training sees them."""
        return self.score(self.embed(inputs))

    def settle(self, inputs: In) -> None:
        """Ends the training: stores what `embed` needs of the whole training set."""
        return


@dataclass(frozen=True)
class NetworkPredictor(ABC, Generic[In]):
    """A predictor made of E equal networks with linear heads, trained from graphs to standardised targets."""

    epochs: int = 100
    learning_rate: float = 1e-3
    batch_size: int = 128
    ensemble: int = 1
    """Number of networks E, which differ in their initial weights."""

    _FUSED: ClassVar[bool] = False
    """Whether Adam runs as one kernel a tensor: faster where tensors are large, slower where they are small."""

    @abstractmethod
    def _inputs(self, graphs: GraphBatch, weights: PredictorWeights | None = None) -> In:
        """What the networks see of n graphs; `weights`, where there are some, may say for how large ones they are."""

    @abstractmethod
    def _network(self, inputs: In, generator: torch.Generator | None) -> Network[In]:
        """Networks for such inputs, with initial weights of the generator; without one they are left undefined."""

    @torch_threads(1)
    def fit(
        self,
        graphs: GraphBatch,
        targets: Vector,
        weights: Vector,
        seed: int,
        start: PredictorWeights | None = None,
        watch: Watch | None = None,
    ) -> PredictorWeights:
        """Trains by Adam on the weighted squares; a warm start brings weights, never the state of the optimiser.

        Args:
            graphs: n cells, without the global vertex.
            targets: (n,) standardised scores.
            weights: (n,) of the squared errors.
            seed: decides initial weights and batch order; equal inputs and seed give equal weights.
            start: weights to begin from.
            watch: called after every epoch, for instance to stop early.

        Raises:
            ModelError: the networks that `start` belongs to have another shape.
        """
        generator = torch.Generator().manual_seed(seed)
        inputs = self._inputs(graphs, start)
        network = self._network(inputs, generator)
        if start is not None:
            _load(network, start, "warm start")
        optimiser = Adam(network.parameters(), self.learning_rate, self._FUSED)
        t = torch.from_numpy(targets.astype(np.float32))
        w = torch.from_numpy(weights.astype(np.float32))
        losses: list[float] = []

        def current() -> PredictorWeights:
            with torch.no_grad():
                network.settle(inputs)
            return PredictorWeights(
                # some buffers are integers, such as the counters of batch normalisation
                {name: tensor.detach().float().numpy().copy() for name, tensor in network.state_dict().items()},
                tuple(losses),
            )

        for epoch in range(self.epochs):
            losses.append(_epoch(network, inputs, t, w, optimiser, self.batch_size, generator))
            if watch is not None and watch(epoch + 1, current):
                break
        return current()

    def embed(self, weights: PredictorWeights, graphs: GraphBatch) -> NDArray[np.float32]:
        """Embeddings (n, E M) of n graphs, those of the members side by side.

        Raises:
            ModelError: the weights are of networks of another shape, or of graphs of another size.
        """
        return self._chunked(weights, graphs, lambda network, inputs: network.embed(inputs).permute(1, 0, 2).flatten(1))

    def predict(self, weights: PredictorWeights, graphs: GraphBatch) -> Vector:
        """Targets (n,) of n graphs as the linear heads predict them, the mean over the members.

        Raises:
            ModelError: the weights are of networks of another shape, or of graphs of another size.
        """
        predicted = self._chunked(weights, graphs, lambda network, inputs: network.score(network.embed(inputs)).mean(0))
        return predicted.astype(np.float64)

    @torch_threads(1)
    def _chunked(
        self, weights: PredictorWeights, graphs: GraphBatch, compute: Callable[[Network[In], In], Tensor]
    ) -> NDArray[np.float32]:
        chunks = []
        network: Network[In] | None = None
        with torch.inference_mode():
            for begin in range(0, len(graphs), _CHUNK):
                inputs = self._inputs(graphs[begin : begin + _CHUNK], weights)
                if network is None:
                    network = self._network(inputs, None).eval()
                    _load(network, weights, "predictor weights")
                chunks.append(compute(network, inputs).numpy())
        return np.concatenate(chunks)


def _epoch(
    network: Network[In],
    inputs: In,
    targets: Tensor,
    weights: Tensor,
    optimiser: Adam,
    batch_size: int,
    generator: torch.Generator,
) -> float:
    """Goes through the training set once, in batches of random order; returns the mean loss of a member."""
    n = len(targets)
    total = 0.0
    batches: list[Tensor | None] = [None]
    if n > batch_size:
        batches = list(torch.split(torch.randperm(n, generator=generator), batch_size))
    for rows in batches:
        batch, y, u = (inputs, targets, weights) if rows is None else (inputs[rows], targets[rows], weights[rows])
        optimiser.zero_grad()
        # the members' losses are added, so that each is trained as if it were alone
        loss = (u * (network(batch) - y) ** 2).mean(dim=1)
        loss.sum().backward()
        optimiser.step()
        total += float(loss.detach().mean()) * len(y)
    return total / n


def _load(network: nn.Module, weights: PredictorWeights, what: str) -> None:
    """Puts weights into a network.

    Raises:
        ModelError: names or shapes of the tensors are not the network's.
    """
    wanted = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    given = {name: tuple(tensor.shape) for name, tensor in weights.tensors.items()}
    for name in [*wanted, *given]:
        if wanted.get(name) != given.get(name):
            raise ModelError(
                f"{what}: tensor `{name}` has {_shape(given.get(name))}, this predictor needs "
                f"{_shape(wanted.get(name))}; use weights of the same kind, settings and vocabulary"
            )
    network.load_state_dict({name: torch.from_numpy(tensor) for name, tensor in weights.tensors.items()})


def _shape(shape: tuple[int, ...] | None) -> str:
    return "no place" if shape is None else "shape " + " x ".join(map(str, shape))
