"""Multilayer perceptrons that are trained side by side, as the predictors of other people's methods."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bonas_core.determinism.threads import torch_threads

if TYPE_CHECKING:
    import torch
    from torch import Tensor

_SMALL = 128  # units up to which an optimiser that takes all tensors at once is faster than one kernel a tensor
_CHUNK = 4096  # rows predicted at a time: larger batches fall out of the processor's cache


@dataclass(frozen=True)
class MLPEnsemble:
    """E perceptrons with rectified hidden layers and one linear output, and how they are trained.

    Weights are drawn uniformly as Glorot & Bengio (2010) do, biases begin at zero. Members differ in their weights and
    in the order in which they see the data. All are trained in one pass, along a leading dimension E.
    """

    layers: int
    """Hidden layers."""
    width: int
    """Units of a hidden layer."""
    members: int = 1
    loss: str = "mse"
    """`mse` or `mae`."""
    epochs: int = 100
    learning_rate: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    """Of Adam."""
    batch_size: int = 200
    weight_decay: float = 0.0
    """Factor of half the sum of squared weights (not biases), which is added to the loss, over the rows of a batch."""
    patience: int | None = None
    """Epochs in a row without an improvement of `tolerance` after which the training ends; None: never."""
    tolerance: float = 1e-4

    @torch_threads(1)
    def fit(self, features: NDArray[np.float32], targets: NDArray[np.float64], seed: int) -> list[Tensor]:
        """Trains on n rows.

        Args:
            features: (n, F)
            targets: (n,)
            seed: of weights and order.

        Returns:
            weights and biases in turn, layer by layer: (E, in, out) and (E, 1, out).
        """
        import torch

        generator = torch.Generator().manual_seed(seed)
        x, y = torch.from_numpy(features), torch.from_numpy(targets.astype(np.float32))
        E, n = self.members, len(x)
        parameters = self._initial(x.shape[1], generator)
        matrices, biases = {"params": parameters[0::2]}, {"params": parameters[1::2]}
        fused = self.width > _SMALL
        optimiser = torch.optim.Adam(
            [matrices, biases], lr=self.learning_rate, betas=self.betas, foreach=not fused, fused=fused
        )
        best, idle = math.inf, 0
        for _ in range(self.epochs):
            order = torch.rand((E, n), generator=generator).argsort(dim=1)
            total = 0.0
            for rows in torch.split(order, self.batch_size, dim=1):
                optimiser.zero_grad()
                error = _forward(x[rows], parameters) - y[rows]
                per_member = (error.abs() if self.loss == "mae" else error.square()).mean(dim=1)
                # the members' losses are added, so that each is trained as if it were alone
                per_member.sum().backward()  # type: ignore[no-untyped-call]
                optimiser.param_groups[0]["weight_decay"] = self.weight_decay / rows.shape[1]
                optimiser.step()
                total += float(per_member.detach().mean()) * rows.shape[1]
            idle = 0 if total / n < best - self.tolerance else idle + 1
            best = min(best, total / n)
            if self.patience is not None and idle >= self.patience:
                break
        return [parameter.detach() for parameter in parameters]

    @torch_threads(1)
    def predict(self, weights: list[Tensor], features: NDArray[np.float32]) -> NDArray[np.float32]:
        """(E, m) what every member says of m rows, computed in the precision of the weights."""
        import torch

        with torch.inference_mode():
            chunks = [
                _forward(torch.from_numpy(features[begin : begin + _CHUNK]).to(weights[0].dtype), weights).float()
                for begin in range(0, len(features), _CHUNK)
            ]
        return torch.cat(chunks, dim=1).numpy() if chunks else np.zeros((self.members, 0), dtype=np.float32)

    def _initial(self, features: int, generator: torch.Generator) -> list[Tensor]:
        import torch

        sizes = [features, *[self.width] * self.layers, 1]
        parameters = []
        for fan_in, fan_out in pairwise(sizes):
            bound = math.sqrt(6 / (fan_in + fan_out))
            weight = torch.empty(self.members, fan_in, fan_out).uniform_(-bound, bound, generator=generator)
            parameters += [weight.requires_grad_(), torch.zeros(self.members, 1, fan_out, requires_grad=True)]
        return parameters


def bfloat16_is_fast() -> bool:
    """Whether this processor multiplies matrices of bfloat16 by itself; elsewhere they are slower than float32."""
    import torch

    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def _forward(x: Tensor, parameters: list[Tensor]) -> Tensor:
    """Outputs (E, B) for inputs (B, F), or (E, B, F) where each member has its own."""
    import torch

    h = x.expand(parameters[0].shape[0], -1, -1)
    for place in range(0, len(parameters), 2):
        h = torch.baddbmm(parameters[place + 1], h, parameters[place])
        if place + 2 < len(parameters):
            h = h.relu_() if not h.requires_grad else h.relu()
    return h.squeeze(-1)
