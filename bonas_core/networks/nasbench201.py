"""The image network of NAS-Bench-201 (Dong & Yang, ICLR 2020, section 2): three stages of cells.

Stem (3x3 convolution and batch norm), cells, reduction to twice the channels and half the side, cells, reduction,
cells; then batch norm, ReLU, the mean over pixels, and a linear classifier. Batch norms have gain and bias.
"""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from bonas_core.errors import InvalidArchitectureError
from bonas_core.networks.layers import convolution, draw_weights, linear, relu_conv_norm
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.nasbench201 import CELL_EDGES, OPERATIONS


class NASBench201Network(nn.Module):
    """The network of one cell; as in the benchmark by default.

    Weights and biases are uniform in +-1 / sqrt(fan-in), as in the benchmark, which kept PyTorch's own initialisation.

    Args:
        architecture: a cell of the space `nasbench201`.
        generator: a CPU generator from which all weights are drawn; the global one is neither read nor advanced, so
            that trainings in threads of one process do not disturb each other.
        channels: C, channels of the stem and the first stage; the later stages have 2 C and 4 C.
        cells: cells of each stage.
        classes: number of outputs.
        in_channels: channels of the images.

    Raises:
        InvalidArchitectureError: the architecture is not such a cell.

    Example:
        >>> from bonas_core.spaces.nasbench201 import NASBench201
        >>> space = NASBench201()
        >>> cell = space.architecture(space.enumerate()[0])
        >>> network = NASBench201Network(cell, generator=torch.Generator().manual_seed(0))
        >>> network(torch.zeros(2, 3, 32, 32)).shape, sum(p.numel() for p in network.parameters())
        (torch.Size([2, 10]), 73306)
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        generator: torch.Generator,
        channels: int = 16,
        cells: int = 5,
        classes: int = 10,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        operations = architecture.operations[1:-1]
        if len(operations) != len(CELL_EDGES) or not set(operations) <= set(OPERATIONS):
            raise InvalidArchitectureError(
                f"architecture `{architecture.text}` is not a cell of nasbench201; choose the network that belongs to "
                "its space with evaluator.network.kind"
            )
        C = channels
        self.stem = nn.Sequential(convolution(in_channels, C, 3), nn.BatchNorm2d(C))
        self.stages = nn.Sequential(
            *(_Cell(operations, C) for _ in range(cells)),
            _Reduction(C, 2 * C),
            *(_Cell(operations, 2 * C) for _ in range(cells)),
            _Reduction(2 * C, 4 * C),
            *(_Cell(operations, 4 * C) for _ in range(cells)),
        )
        self.norm = nn.BatchNorm2d(4 * C)
        self.classifier = linear(4 * C, classes)
        draw_weights(self, generator)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, in_channels, height, width) to logits (B, classes)."""
        features = torch.relu(self.norm(self.stages(self.stem(images))))
        logits: Tensor = self.classifier(features.mean(dim=(2, 3)))
        return logits


class _Cell(nn.Module):
    """Four nodes, each the sum over its incoming edges of operation(source): node 0 enters, node 3 leaves."""

    def __init__(self, operations: tuple[str, ...], channels: int) -> None:
        super().__init__()
        self.edges = nn.ModuleDict(
            {
                f"{source}-{target}": _operation(operation, channels)
                for operation, (source, target) in zip(operations, CELL_EDGES, strict=True)
                if operation != "none"
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        nodes = [x]
        for target in (1, 2, 3):
            names = [f"{source}-{target}" for source in range(target)]
            incoming = [self.edges[name](node) for name, node in zip(names, nodes, strict=True) if name in self.edges]
            nodes.append(reduce(torch.add, incoming) if incoming else torch.zeros_like(x))
        return nodes[-1]


class _Reduction(nn.Module):
    """The residual block between stages: the channels change, the side of the image is halved (rounded up)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*relu_conv_norm(inputs, outputs, 3, stride=2), *relu_conv_norm(outputs, outputs, 3))
        # ceil_mode: an odd side is rounded up as the strided convolution does; on the benchmark's even sides it is idle
        self.shortcut = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), convolution(inputs, outputs, 1))

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.shortcut(x) + self.body(x)
        return total


def _operation(name: str, channels: int) -> nn.Module:
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride=1, padding=1, count_include_pad=False)
    return nn.Sequential(*relu_conv_norm(channels, channels, 1 if name == "nor_conv_1x1" else 3))
