"""Layers whose weights are drawn from a generator that is handed over, and from no other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def convolution(
    inputs: int,
    outputs: int,
    kernel: int | tuple[int, int],
    stride: int | tuple[int, int] = 1,
    dilation: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """A convolution without bias, padded so that a stride of 1 keeps the size; its weights are not drawn yet."""
    high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
    padding = (dilation * (high // 2), dilation * (wide // 2))
    kind: type[nn.Conv2d] = nn.Conv2d if (high, wide) != (1, 1) or stride == 1 else _PickedPixels
    # made on `meta`, here and below: elsewhere, constructors draw weights from the global generator
    layer = kind(inputs, outputs, kernel, stride, padding, dilation=dilation, groups=groups, bias=False, device="meta")
    # with channels last, convolutions on CPUs are up to a third faster
    layer.weight = nn.Parameter(torch.empty(layer.weight.shape, memory_format=torch.channels_last))
    return layer


class _PickedPixels(nn.Conv2d):
    """A 1x1 convolution with a stride, of pixels that are picked before it.

    With a stride of its own and up to six channels, the one of torch 2.13 corrupts memory in its backward pass on CPUs.
    """

    def forward(self, x: Tensor) -> Tensor:
        high, wide = self.stride
        picked = x[:, :, ::high, ::wide].contiguous(memory_format=torch.channels_last)
        return nn.functional.conv2d(picked, self.weight)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A linear layer with bias; its weights are not drawn yet."""
    layer: nn.Linear = nn.Linear(inputs, outputs, device="meta").to_empty(device="cpu")
    return layer


def relu_conv_norm(
    inputs: int, outputs: int, kernel: int | tuple[int, int], stride: int | tuple[int, int] = 1
) -> Sequence[nn.Module]:
    """ReLU, convolution, batch norm."""
    return nn.ReLU(), convolution(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs)


def draw_weights(network: nn.Module, generator: torch.Generator) -> None:
    """Draws all weights and biases of convolutions and linear layers uniformly in +-1 / sqrt(fan-in).

    PyTorch by itself draws them from the same distribution.

    Args:
        network: its layers are drawn in their order.
        generator: a CPU generator; the global one is neither read nor advanced, so that trainings in threads of one
            process do not disturb each other.
    """
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                bound = 1 / math.sqrt(module.weight[0].numel())
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.uniform_(-bound, bound, generator=generator)
