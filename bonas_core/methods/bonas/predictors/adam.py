"""Adam as a predictor's training needs it.

The first `torch.optim.Adam` of a process imports torch's compiler, which takes longer than importing torch itself and
than training the predictors of a short search. The function that does the arithmetic is the same here, and so is every
bit of the result.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adam import adam

_BETA1, _BETA2, _EPSILON = 0.9, 0.999, 1e-8  # torch's defaults


class Adam:
    """The optimiser `torch.optim.Adam` with its default betas and without weight decay (Kingma and Ba, 2015).

    Args:
        parameters: of the networks; those that have no gradient when a step is made stay as they are.
        learning_rate: of every step.
        fused: whether a step is one kernel a tensor, rather than one a kind of operation.
    """

    def __init__(self, parameters: Iterable[Tensor], learning_rate: float, fused: bool) -> None:
        self._parameters = list(parameters)
        self._means = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._squares = [torch.zeros_like(parameter) for parameter in self._parameters]
        self._steps = [torch.tensor(0.0) for _ in self._parameters]
        self._learning_rate = learning_rate
        self._fused = fused

    def zero_grad(self) -> None:
        """Forgets the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Moves the parameters against their gradients."""
        rows = [row for row, parameter in enumerate(self._parameters) if parameter.grad is not None]
        adam(
            [self._parameters[row] for row in rows],
            [gradient for row in rows if (gradient := self._parameters[row].grad) is not None],
            [self._means[row] for row in rows],
            [self._squares[row] for row in rows],
            [],
            [self._steps[row] for row in rows],
            foreach=not self._fused,
            fused=self._fused,
            amsgrad=False,
            beta1=_BETA1,
            beta2=_BETA2,
            lr=self._learning_rate,
            weight_decay=0.0,
            eps=_EPSILON,
            maximize=False,
        )
