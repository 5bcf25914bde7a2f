"""Image networks of NASNet cells, as DARTS builds and trains them (Liu et al., ICLR 2019, appendix A).

A network is a stem and a row of cells, each fed by the two before it. At two thirds of its length stands an auxiliary
head that helps training and is not there afterwards. Reduction cells halve the side of the image and double the
channels: their operations on the cell's inputs have stride 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from bonas_core.errors import InvalidArchitectureError, SettingsError
from bonas_core.networks.layers import convolution, draw_weights, linear, relu_conv_norm
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.nasnet import Cell, read_cells

Cells = tuple[Cell, Cell]
"""The normal and the reduction cell."""

_BOTTLENECK = 4  # how much narrower AmoebaNet's plain convolutions are inside


def cifar_network(
    cell: Architecture | Cells,
    *,
    generator: torch.Generator,
    channels: int = 36,
    cells: int = 20,
    classes: int = 10,
    in_channels: int = 3,
    auxiliary: bool = False,
    drop_path: float = 0.0,
    stem_stride: int = 1,
) -> CellNetwork:
    """The network for small images: as many cells as `cells` in all, those at one and two thirds being reductions.

    Args:
        cell: a cell of a space nasnet, or the normal and reduction cell themselves.
        generator: a CPU generator from which all weights are drawn.
        channels: C: every term of the first cells has C channels, the stem 3 C.
        cells: their number; at least 3 for two reductions.
        classes: number of outputs.
        in_channels: channels of the images.
        auxiliary: whether there is an auxiliary head behind the second reduction.
        drop_path: chance that a term is left out of a sum for an image, at the end of training; `begin_epoch` lets it
            grow from 0. Identities are never left out.
        stem_stride: 2 halves the images at once: a quarter of the work, for trials on CPUs.

    Raises:
        InvalidArchitectureError: it is not a cell of a space nasnet.
    """
    stem = nn.Sequential(convolution(in_channels, 3 * channels, 3, stem_stride), nn.BatchNorm2d(3 * channels))
    head = _head(3) if auxiliary else None
    return CellNetwork(_cells(cell), Stem([stem]), _thirds(channels, cells), classes, head, drop_path, generator)


def imagenet_network(
    cell: Architecture | Cells,
    *,
    generator: torch.Generator,
    channels: int = 48,
    cells: int = 14,
    classes: int = 1000,
    in_channels: int = 3,
    auxiliary: bool = False,
    drop_path: float = 0.0,
) -> CellNetwork:
    """The network for images of 224 x 224 in the mobile setting: its stem makes 28 x 28 of them.

    Arguments are those of `cifar_network`.
    """
    C = channels
    first = nn.Sequential(
        convolution(in_channels, C // 2, 3, 2),
        nn.BatchNorm2d(C // 2),
        *relu_conv_norm(C // 2, C, 3, 2),
    )
    second = nn.Sequential(*relu_conv_norm(C, C, 3, 2))
    head = _head(2, last_norm=False) if auxiliary else None
    return CellNetwork(_cells(cell), Stem([first, second]), _thirds(C, cells), classes, head, drop_path, generator)


def nasnet_mobile_network(
    cell: Cells,
    *,
    generator: torch.Generator,
    channels: int,
    stages: Sequence[int],
    classes: int = 1000,
    in_channels: int = 3,
) -> CellNetwork:
    """The mobile network of NASNet, AmoebaNet and PNASNet: two reduction cells stand in the stem.

    Args:
        cell: the normal and the reduction cell.
        generator: as in `cifar_network`.
        channels: F: every term of the first normal cells has F channels.
        stages: normal cells of each stage; a reduction stands before every stage but the first.
        classes: number of outputs.
        in_channels: channels of the images.
    """
    stem = nn.Sequential(convolution(in_channels, 32, 3, 2), nn.BatchNorm2d(32))
    row = [(channels // 4, True), (channels // 2, True)]
    for stage, normal in enumerate(stages):
        width = channels * 2**stage
        row += [*[(width, True)] * (stage > 0), *[(width, False)] * normal]
    return CellNetwork(cell, Stem([stem]), row, classes, None, 0.0, generator)


class CellNetwork(nn.Module):
    """Stem, cells, mean over pixels, linear classifier.

    In training, `forward` returns the logits of classifier and auxiliary head where there is one. Terms are left out
    where `begin_epoch` and, before each batch, `begin_batch` were called.

    Args:
        cells: normal and reduction cell.
        stem: makes the inputs of the first cell.
        row: channels of every cell's terms, and whether it is a reduction.
        classes: number of outputs.
        head: makes the auxiliary head from channels and classes; None for none.
        drop_path: see `cifar_network`.
        generator: a CPU generator from which all weights are drawn.
    """

    def __init__(
        self,
        cells: Cells,
        stem: Stem,
        row: Sequence[tuple[int, bool]],
        classes: int,
        head: Callable[[int, int], nn.Module] | None,
        drop_path: float,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        narrowest = min(channels for channels, _ in row)
        if narrowest < 2:
            raise SettingsError(
                f"network: cells of {narrowest} channels cannot be halved; set evaluator.network.channels to 2 or more"
            )
        self.stem = stem
        older, newer = stem.channels
        halved = stem.halves
        self.cells = nn.ModuleList()
        self.auxiliary: nn.Module | None = None
        last = max((place for place, (_, is_reduction) in enumerate(row) if is_reduction), default=-1)
        for place, (channels, is_reduction) in enumerate(row):
            cell = _Cell(cells[is_reduction], older, newer, channels, is_reduction, halved)
            self.cells.append(cell)
            older, newer, halved = newer, cell.channels, is_reduction
            if place == last and head is not None:
                self.auxiliary = head(newer, classes)
        self._head_after = last
        self.classifier = linear(newer, classes)
        self.drop_path = drop_path
        self._dropped = 0.0
        self._generator: torch.Generator | None = None
        self._kept: list[Tensor] = []
        draw_weights(self, generator)

    def begin_epoch(self, progress: float, generator: torch.Generator) -> None:
        """Says how far the training is, from 0 to 1, and where this epoch's random numbers come from.

        The generator is on the network's device.
        """
        self._dropped = self.drop_path * progress
        self._generator = generator
        self._kept = []

    def begin_batch(self, size: int, rows: slice) -> None:
        """Draws which terms are left out, for every image of a batch of `size`, of which `forward` is given `rows`.

        For every cell: (terms, rows, 1, 1, 1), what the terms are multiplied by. Drawn here, since compiled code cannot
        draw from a generator of its own.
        """
        if not self._dropped:
            return
        assert self._generator is not None
        keep, generator = 1 - self._dropped, self._generator
        shapes = [(cell.terms, size, 1, 1, 1) for cell in self.cells if isinstance(cell, _Cell)]
        drawn = [torch.rand(shape, generator=generator, device=generator.device)[:, rows] for shape in shapes]
        self._kept = [(one < keep).float() / keep for one in drawn]

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Images (B, in_channels, height, width) to logits (B, classes)."""
        older, newer = self.stem(images)
        auxiliary = None
        for place, cell in enumerate(self.cells):
            kept = self._kept[place].to(newer.dtype) if self.training and self._kept else None
            older, newer = newer, cell(older, newer, kept)
            if place == self._head_after and self.auxiliary is not None and self.training:
                auxiliary = self.auxiliary(newer)
        logits: Tensor = self.classifier(newer.mean(dim=(2, 3)))
        return logits if auxiliary is None else (logits, auxiliary)


class Stem(nn.Module):
    """One or two parts in sequence: the last two outputs are the inputs of the first cell, one serves as both."""

    def __init__(self, parts: Sequence[nn.Sequential]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)
        outputs = [next(m.num_features for m in reversed(part) if isinstance(m, nn.BatchNorm2d)) for part in parts]
        self.channels = (outputs[0], outputs[-1])
        """Of the older and the newer input of the first cell."""
        self.halves = len(parts) == 2
        """Whether the newer has half the side of the older."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Turns images (B, in_channels, height, width) into the older and the newer input of the first cell."""
        outputs = [images]
        for part in self.parts:
            outputs.append(part(outputs[-1]))
        return outputs[1], outputs[-1]


class _Cell(nn.Module):
    """One cell; both inputs are first brought to its number of channels."""

    def __init__(
        self, cell: Cell, older: int, newer: int, channels: int, is_reduction: bool, older_is_larger: bool
    ) -> None:
        super().__init__()
        C = channels
        self.older = FactorisedReduction(older, C) if older_is_larger else nn.Sequential(*relu_conv_norm(older, C, 1))
        self.newer = nn.Sequential(*relu_conv_norm(newer, C, 1))
        self.stride = 2 if is_reduction else 1
        self.operations = nn.ModuleList()
        self.blocks: list[list[tuple[int, int, bool]]] = []
        """Of every term that is not none: its operation, its source, and whether it may be left out."""
        for block in cell.blocks:
            terms = []
            for name, source in block:
                if name != "none":
                    operation = _operation(name, C, self.stride if source < 2 else 1)
                    terms.append((len(self.operations), source, not isinstance(operation, nn.Identity)))
                    self.operations.append(operation)
            self.blocks.append(terms)
        self.terms = len(self.operations)
        self.concat = cell.concat
        # an input among the outputs of a reduction has to be halved as well
        self.reduced = nn.ModuleDict(
            {str(source): FactorisedReduction(C, C) for source in cell.concat if source < 2 and is_reduction}
        )
        self.channels = C * len(cell.concat)
        """Of the output."""

    def forward(self, older: Tensor, newer: Tensor, kept: Tensor | None) -> Tensor:
        values = [self.older(older), self.newer(newer)]
        for block in self.blocks:
            terms = []
            for number, source, may_drop in block:
                term = self.operations[number](values[source])
                terms.append(term * kept[number] if kept is not None and may_drop else term)
            values.append(reduce(torch.add, terms) if terms else self._zeros(values[1]))
        outputs = [
            self.reduced[str(source)](values[source]) if str(source) in self.reduced else values[source]
            for source in self.concat
        ]
        return torch.cat(outputs, dim=1)

    def _zeros(self, like: Tensor) -> Tensor:
        B, C, *sides = like.shape
        return like.new_zeros(B, C, *(-(-side // self.stride) for side in sides))


class FactorisedReduction(nn.Module):
    """Half the side without losing pixels: two 1x1 convolutions of stride 2, the second moved by one pixel."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.even = convolution(inputs, outputs - outputs // 2, 1, 2)
        self.odd = convolution(inputs, outputs // 2, 1, 2)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, inputs, H, W) to (B, outputs, H / 2, W / 2), where halves of odd sides are rounded up."""
        x = torch.relu(x)
        high, wide = x.shape[2] % 2, x.shape[3] % 2  # odd sides are rounded up, with zeros beyond the edge
        moved = pad(x[:, :, 1:, 1:], (0, wide, 0, high))
        reduced: Tensor = self.norm(torch.cat([self.even(x), self.odd(moved)], dim=1))
        return reduced


class AuxiliaryHead(nn.Module):
    """Logits from the middle of a network; 2 x 2 means of equal parts where the image is too small for its pooling."""

    def __init__(self, channels: int, classes: int, stride: int, last_norm: bool) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, stride, count_include_pad=False)
        self.small = nn.AdaptiveAvgPool2d(2)
        self.smallest = 5 + stride  # side from which on the pooling gives 2 x 2
        wide = nn.Conv2d(128, 768, 2, bias=False, device="meta")
        wide.weight = nn.Parameter(torch.empty(wide.weight.shape))
        self.features = nn.Sequential(
            convolution(channels, 128, 1),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            wide,
            *([nn.BatchNorm2d(768)] if last_norm else []),
            nn.ReLU(),
        )
        self.classifier = linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Turns the output of a cell, (B, channels, H, W), into logits (B, classes)."""
        pool = self.pool if min(x.shape[2:]) >= self.smallest else self.small
        logits: Tensor = self.classifier(self.features(pool(torch.relu(x)))[:, :, 0, 0])
        return logits


def _head(stride: int, last_norm: bool = True) -> Callable[[int, int], nn.Module]:
    return lambda channels, classes: AuxiliaryHead(channels, classes, stride, last_norm)


def _thirds(channels: int, cells: int) -> list[tuple[int, bool]]:
    """Channels of every cell, and whether it is a reduction: those at one and two thirds are."""
    if cells < 3:
        raise SettingsError(
            f"network: {cells} cells leave no place for two reductions; set evaluator.network.cells to 3 or more"
        )
    places = (cells // 3, 2 * cells // 3)
    return [(channels * 2 ** sum(place >= p for p in places), place in places) for place in range(cells)]


def _cells(cell: Architecture | Cells) -> Cells:
    if not isinstance(cell, Architecture):
        return cell
    if cell.operations[0] != "older-input":
        raise InvalidArchitectureError(
            f"architecture `{cell.text}` is not a cell of a space nasnet; choose the network that belongs to its space "
            "with evaluator.network.kind"
        )
    cells = read_cells(cell.text)
    return cells[0], cells[-1]


def _separable(channels: int, kernel: int, stride: int, dilation: int = 1) -> Sequence[nn.Module]:
    return (
        nn.ReLU(),
        convolution(channels, channels, kernel, stride, dilation, groups=channels),
        convolution(channels, channels, 1),
        nn.BatchNorm2d(channels),
    )


def _plain(channels: int, shapes: Sequence[tuple[int, int]], stride: int) -> Sequence[nn.Module]:
    """ReLU, convolutions of these shapes, batch norm; each halves the axis along which it is long."""
    layers = []
    for high, wide in shapes:
        strides = (stride if high > 1 or len(shapes) == 1 else 1, stride if wide > 1 or len(shapes) == 1 else 1)
        layers.append(convolution(channels, channels, (high, wide), strides))
    return nn.ReLU(), *layers, nn.BatchNorm2d(channels)


def _narrow(channels: int, shapes: Sequence[tuple[int, int]], stride: int) -> Sequence[nn.Module]:
    """A convolution of a quarter of the channels between two of 1x1, as in the released AmoebaNet."""
    inner = channels // _BOTTLENECK
    if inner < 1:
        return _plain(channels, shapes, stride)
    layers: list[nn.Module] = [*relu_conv_norm(channels, inner, 1)]
    for high, wide in shapes:
        strides = (stride if high > 1 else 1, stride if wide > 1 else 1)
        layers += relu_conv_norm(inner, inner, (high, wide), strides)
    return *layers, *relu_conv_norm(inner, channels, 1)


class _Pool2x2(nn.Sequential):
    """Windows that begin at a pixel and reach right and down.

    Repeating the last row and column, they leave the largest and the mean of what is really there as they are.
    """

    def __init__(self, pool: type[nn.MaxPool2d] | type[nn.AvgPool2d], stride: int) -> None:
        super().__init__(nn.ReplicationPad2d((0, 1, 0, 1)), pool(2, stride))


_OPERATIONS: dict[str, Callable[[int, int], nn.Module]] = {
    # of the space
    "max_pool_3x3": lambda C, stride: nn.MaxPool2d(3, stride, padding=1),
    "avg_pool_3x3": lambda C, stride: nn.AvgPool2d(3, stride, padding=1, count_include_pad=False),
    "skip_connect": lambda C, stride: nn.Identity() if stride == 1 else FactorisedReduction(C, C),
    "sep_conv_3x3": lambda C, stride: nn.Sequential(*_separable(C, 3, stride), *_separable(C, 3, 1)),
    "sep_conv_5x5": lambda C, stride: nn.Sequential(*_separable(C, 5, stride), *_separable(C, 5, 1)),
    "dil_conv_3x3": lambda C, stride: nn.Sequential(*_separable(C, 3, stride, 2)),
    "dil_conv_5x5": lambda C, stride: nn.Sequential(*_separable(C, 5, stride, 2)),
    # of published cells
    "sep_conv_7x7": lambda C, stride: nn.Sequential(*_separable(C, 7, stride), *_separable(C, 7, 1)),
    "dil_sep_conv_5x5": lambda C, stride: nn.Sequential(*_separable(C, 5, stride, 2), *_separable(C, 5, 1, 2)),
    "conv_1x1": lambda C, stride: nn.Sequential(*relu_conv_norm(C, C, 1, stride)),
    "conv_3x3": lambda C, stride: nn.Sequential(*_plain(C, [(3, 3)], stride)),
    "conv_1x3_3x1": lambda C, stride: nn.Sequential(*_plain(C, [(1, 3), (3, 1)], stride)),
    "conv_1x7_7x1": lambda C, stride: nn.Sequential(*_plain(C, [(1, 7), (7, 1)], stride)),
    "narrow_conv_3x3": lambda C, stride: nn.Sequential(*_narrow(C, [(3, 3)], stride)),
    "narrow_conv_1x7_7x1": lambda C, stride: nn.Sequential(*_narrow(C, [(1, 7), (7, 1)], stride)),
    "max_pool_2x2": lambda C, stride: _Pool2x2(nn.MaxPool2d, stride),
    "avg_pool_2x2": lambda C, stride: _Pool2x2(nn.AvgPool2d, stride),
    "avg_pool_5x5": lambda C, stride: nn.AvgPool2d(5, stride, padding=2, count_include_pad=False),
}


def _operation(name: str, channels: int, stride: int) -> nn.Module:
    if name not in _OPERATIONS:
        raise InvalidArchitectureError(f"`{name}` is no operation of a network; use one of {', '.join(_OPERATIONS)}")
    return _OPERATIONS[name](channels, stride)
