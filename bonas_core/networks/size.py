"""Parameters and multiply-adds of a network."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn


class NetworkSize(NamedTuple):
    """What papers print beside an error."""

    params: int
    """Trainable parameters of what is left after training: without an auxiliary head."""
    mult_adds: int
    """Multiply-adds of convolutions and linear layers for one image, as is usual."""


def network_size(network: nn.Module, image: tuple[int, int, int]) -> NetworkSize:
    """Counts a network; nothing is computed and the network is left as it is.

    Args:
        network: on any device; an attribute `auxiliary` is taken for an auxiliary head.
        image: channels, height and width of one image.

    Example:
        >>> network_size(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU()), (3, 4, 4))
        NetworkSize(params=216, mult_adds=3456)
    """
    counted = copy.deepcopy(network).to("meta").eval()
    products: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(module.weight, Tensor)
        products.append(output.numel() * module.weight[0].numel())

    for module in counted.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(count)
    with torch.no_grad():
        counted(torch.empty(1, *image, device="meta"))
    return NetworkSize(parameters(network), sum(products))


def parameters(network: nn.Module) -> int:
    """Trainable parameters of a network, without those of an auxiliary head."""
    return sum(
        parameter.numel()
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and not name.startswith("auxiliary.")
    )
