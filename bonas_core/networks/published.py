"""Cells that others found and published, as facts: what Tables 3 and 4 of the paper compare BONAS with.

Sources count 0 for the output of the cell before the previous one, 1 for that of the previous one, 2 and on for the
blocks. Where a paper's own code concatenates an input it is concatenated here too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import MappingProxyType

import torch

from bonas_core.errors import InputError, InvalidArchitectureError
from bonas_core.networks.nasnet import CellNetwork, Cells, cifar_network, imagenet_network, nasnet_mobile_network
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import SearchSpace
from bonas_core.spaces.nasnet import Cell, NASNet, cell_graph, format_cells

IMAGES = MappingProxyType({"cifar10": (3, 32, 32), "imagenet": (3, 224, 224)})
"""Channels, height and width."""
WIDTHS = MappingProxyType({"cifar10": (36, 20), "imagenet": (48, 14)})
"""Channels and cells of the networks of DARTS, in which the paper's own cell is compared."""


@dataclass(frozen=True)
class Layout:
    """The network in which a cell's authors published its size."""

    channels: int
    cells: int | tuple[int, int, int]
    """Cells in all, as in the networks of DARTS; or the normal cells of each stage of `nasnet_mobile_network`."""


@dataclass(frozen=True)
class Published:
    """One published pair of cells."""

    normal: Cell
    reduction: Cell
    source: str
    """Where it stands."""
    layouts: Mapping[str, Layout] = field(default_factory=dict)
    """The authors' own network by data set, where it is known."""
    params: Mapping[str, float] = field(default_factory=dict)
    """Millions of parameters by data set, as the paper's Tables 3 and 4 print them."""
    mult_adds: Mapping[str, float] = field(default_factory=dict)
    """Millions of multiply-adds by data set, likewise."""
    remark: str = ""
    """Why sizes differ from the tables, where they do."""

    @property
    def cells(self) -> Cells:
        """Normal and reduction cell."""
        return self.normal, self.reduction


def published(name: str) -> Published:
    """A published cell by name.

    Raises:
        InputError: there is none of this name.
    """
    if name not in PUBLISHED:
        raise InputError(f"cell `{name}` is unknown; use one of {', '.join(PUBLISHED)}")
    return PUBLISHED[name]


def architecture_of(space: SearchSpace, text: str) -> Architecture:
    """A cell by its text in a space, or a published one by its name or as `format_cells` prints it.

    A published cell is of the space where it fits in there, and a graph of its own where it does not.

    Raises:
        InputError: it is neither.
    """
    for name, cell in PUBLISHED.items():
        cells = (cell.normal,) if cell.normal == cell.reduction else cell.cells
        if text in (name, format_cells(cells)):
            with suppress(InvalidArchitectureError):
                if isinstance(space, NASNet):
                    return space.architecture(space.from_cells(cell.cells if space.cells == 2 else cells))
            return cell_graph(cells)
    if re.fullmatch(r"[A-Za-z][\w-]*", text):
        published(text)
    return space.architecture(space.parse([text])[0])


def published_network(name: str, dataset: str, *, generator: torch.Generator, own: bool = False) -> CellNetwork:
    """The network of a published cell: that of DARTS for the data set, or the authors' own.

    Args:
        name: of the cell.
        dataset: `cifar10` or `imagenet`.
        generator: a CPU generator from which all weights are drawn.
        own: whether to build the network of the cell's authors.

    Raises:
        InputError: there is no such cell or data set, or the authors' network is not known.
    """
    cell = published(name)
    if dataset not in IMAGES:
        raise InputError(f"cell `{name}`: data set `{dataset}` is unknown; use one of {', '.join(IMAGES)}")
    layout = cell.layouts.get(dataset) if own else Layout(*WIDTHS[dataset])
    if layout is None:
        raise InputError(f"cell `{name}`: its authors' network for {dataset} is not known; build that of DARTS")
    if isinstance(layout.cells, tuple):
        return nasnet_mobile_network(cell.cells, generator=generator, channels=layout.channels, stages=layout.cells)
    make = cifar_network if dataset == "cifar10" else imagenet_network
    return make(cell.cells, generator=generator, channels=layout.channels, cells=layout.cells)


_SHORT = {
    "s3": "sep_conv_3x3", "s5": "sep_conv_5x5", "s7": "sep_conv_7x7", "d3": "dil_conv_3x3", "d5": "dil_conv_5x5",
    "ds5": "dil_sep_conv_5x5", "mp": "max_pool_3x3", "ap": "avg_pool_3x3", "mp2": "max_pool_2x2",
    "ap2": "avg_pool_2x2", "ap5": "avg_pool_5x5", "id": "skip_connect", "c1": "conv_1x1", "c3": "conv_3x3",
    "c13": "conv_1x3_3x1", "c17": "conv_1x7_7x1", "n3": "narrow_conv_3x3", "n17": "narrow_conv_1x7_7x1",
}  # fmt: skip


def _cell(text: str, concat: str) -> Cell:
    """A cell from `s5(1)+s3(0); ...`, a block between semicolons, and the sources of its output."""
    blocks = []
    for block in text.split(";"):
        terms = [term.strip().rstrip(")").split("(") for term in block.split("+")]
        blocks.append(tuple((_SHORT[name], int(source)) for name, source in terms))
    return Cell(tuple(blocks), tuple(map(int, concat.split())))


_DARTS_LAYOUTS = {dataset: Layout(*width) for dataset, width in WIDTHS.items()}
_PNASNET = _cell("s5(0)+mp(0); s7(1)+mp(1); s5(1)+s3(1); s3(4)+mp(1); s3(0)+id(1)", "2 3 4 5 6")
_LANET = _cell("id(0)+id(1); s3(1)+id(1); mp(2)+id(1); s3(1)+id(0); id(3)+s5(4); id(3)+mp(0); id(3)+s3(1)", "5 6 7 8")
_BONAS = _cell("s3(0)+s3(0); id(0)+mp(0); s3(0)+s3(2); id(1)+s3(2)", "2 3 4 5")

PUBLISHED: Mapping[str, Published] = MappingProxyType(
    {
        "NASNet-A": Published(
            _cell("s5(1)+s3(0); s5(0)+s3(0); ap(1)+id(0); ap(0)+ap(0); s3(1)+id(1)", "0 2 3 4 5 6"),
            _cell("s5(1)+s7(0); mp(1)+s7(0); ap(1)+s5(0); id(3)+ap(2); s3(2)+mp(1)", "3 4 5 6"),
            "Zoph et al. 2018; tensorflow/models, slim/nets/nasnet",
            {"cifar10": Layout(32, 20), "imagenet": Layout(44, (4, 4, 4))},
            {"cifar10": 3.3, "imagenet": 5.3},
            {"imagenet": 564},
        ),
        "AmoebaNet-A": Published(
            _cell("ap(1)+mp(1); s3(0)+id(0); id(1)+ap(0); s3(1)+s5(2); ap(5)+s3(1)", "0 3 4 6"),
            _cell("s3(0)+ap(1); mp(1)+s7(2); mp(0)+mp(1); s3(4)+n17(1); ap(0)+s7(1)", "2 3 4 5 6"),
            "Real et al. 2019; tensorflow/tpu, amoeba_net/model_specs.py",
            {"imagenet": Layout(50, (4, 4, 4))},
            {"imagenet": 5.1},
            {"imagenet": 555},
        ),
        "AmoebaNet-B": Published(
            _cell("c1(0)+mp(0); id(0)+s3(1); c1(0)+s3(1); c1(2)+id(2); ap(0)+c1(5)", "1 3 4 6"),
            _cell("mp2(1)+mp(1); id(2)+n3(0); ds5(2)+mp(2); id(3)+s3(0); ap(4)+c1(3)", "5 6"),
            "Real et al. 2019; tensorflow/tpu, amoeba_net/model_specs.py",
            {"cifar10": Layout(36, 20), "imagenet": Layout(62, (3, 3, 3))},
            {"cifar10": 2.8, "imagenet": 5.3},
            {"imagenet": 555},
        ),
        "AmoebaNet-C": Published(
            _cell("ap(1)+s3(1); id(1)+s3(1); ap(2)+s3(0); id(1)+s3(0); ap(3)+s3(1)", "0 2 4 5 6"),
            _cell("mp(1)+mp(1); s7(2)+s3(1); s7(1)+mp(0); s5(4)+s5(4); mp(0)+s3(0)", "1 2 3 4 5 6"),
            "Real et al. 2019; tensorflow/tpu, amoeba_net/model_specs.py",
            {"imagenet": Layout(50, (4, 4, 4))},
            {"imagenet": 6.4},
            {"imagenet": 570},
            "the released cells have the printed parameters and 19 % more multiply-adds than printed; counted in the "
            "same way, those of A and B agree",
        ),
        "PNASNet-5": Published(
            _PNASNET,
            _PNASNET,
            "Liu et al. 2018; tensorflow/models, slim/nets/nasnet/pnasnet.py",
            {"cifar10": Layout(48, 9), "imagenet": Layout(54, (3, 2, 2))},
            {"cifar10": 3.2, "imagenet": 5.1},
            {"imagenet": 588},
        ),
        "DARTS-V1": Published(
            _cell("s3(1)+s3(0); id(0)+s3(1); id(0)+s3(1); s3(0)+id(2)", "2 3 4 5"),
            _cell("mp(0)+mp(1); id(2)+mp(0); mp(0)+id(2); id(2)+ap(0)", "2 3 4 5"),
            "Liu et al. 2019; quark0/darts, genotypes.py",
            _DARTS_LAYOUTS,
        ),
        "DARTS-V2": Published(
            _cell("s3(0)+s3(1); s3(0)+s3(1); s3(1)+id(0); id(0)+d3(2)", "2 3 4 5"),
            _cell("mp(0)+mp(1); id(2)+mp(1); mp(0)+id(2); id(2)+mp(1)", "2 3 4 5"),
            "Liu et al. 2019; quark0/darts, genotypes.py",
            _DARTS_LAYOUTS,
            {"cifar10": 3.3, "imagenet": 4.7},
            {"imagenet": 574},
            "others count 523 to 545 M multiply-adds for this genotype too (quark0/darts, issue 46); how its authors "
            "counted is not known",
        ),
        "ENAS": Published(
            _cell("ap(0)+s3(0); id(0)+s5(0); id(0)+s5(1); s3(1)+s5(0); ap(0)+s5(1)", "2 3 4 5 6"),
            _cell("s3(1)+s3(1); mp(0)+ap(0); s5(1)+s5(3); s3(1)+id(0); mp(0)+s5(1)", "2 4 5 6"),
            "Pham et al. 2018; melodyguan/enas, cifar10_micro_final.sh",
            {"cifar10": Layout(36, 17)},
            {"cifar10": 4.6},
            remark="36 channels and 15 + 2 cells are those of the authors' script; what else their 4.6 M count is not "
            "known (the auxiliary head would add 0.5 M)",
        ),
        "NAONet": Published(
            _cell("c3(0)+ap5(1); c13(2)+c3(1); c1(0)+c3(1); c13(0)+c3(4); id(1)+c3(0)", "3 5 6"),
            _cell("c3(0)+ap2(1); c1(0)+ap(0); c17(0)+mp2(1); ap(0)+c1(2); mp(1)+c3(0)", "3 4 5 6"),
            "Luo et al. 2018; NAONet-A of the authors' code",
            {"cifar10": Layout(36, 20)},
            {"cifar10": 10.6},
            remark="36 channels and 6 normal cells a stage are its paper's; how its code builds plain convolutions is "
            "not known",
        ),
        "LaNet": Published(
            _LANET,
            _LANET,
            "Wang et al. 2019; released cell of facebookresearch/LaMCTS",
            {},
            {"cifar10": 3.2, "imagenet": 5.1},
            {"imagenet": 570},
            "the released cell may be another than that of 803 samples; 36 channels give its size on CIFAR-10, the "
            "width on ImageNet is not known",
        ),
        "BayesNAS": Published(
            _cell("s5(1)+s5(0)+mp(0)+ap(0)+id(0); mp(1)+id(1); id(1)+mp(0); ap(2)", "2 3 4 5"),
            _cell("id(1)+s3(0)+ap(0)+mp(0)+s5(0); mp(0)+ap(0); s3(0)+ap(0); s5(2)", "2 3 4 5"),
            "Zhou et al. 2019; the authors' code, lambda 0.01",
            {"cifar10": Layout(36, 20)},
            {"cifar10": 3.4, "imagenet": 3.9},
            remark="36 channels and 20 cells are those of the authors' released network; its details differ, which "
            "does not explain the printed 3.4 M; the width on ImageNet is not known",
        ),
        "BONAS": Published(
            _BONAS,
            _BONAS,
            "genotype of the authors' code; the paper's Figure 8 may show another",
            _DARTS_LAYOUTS,
            {"cifar10": 3.5, "imagenet": 5.1},
            {"imagenet": 561},
        ),
    }
)
