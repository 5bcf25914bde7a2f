from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import conv2d

from bonas_core.errors import InputError, InvalidArchitectureError, SettingsError
from bonas_core.networks.nasnet import (
    _OPERATIONS,
    CellNetwork,
    FactorisedReduction,
    _Cell,
    _operation,
    cifar_network,
    imagenet_network,
)
from bonas_core.networks.published import IMAGES, PUBLISHED, Layout, published, published_network
from bonas_core.networks.size import network_size
from bonas_core.registry import names, resolve
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.nasnet import OPERATIONS, Cell, NASNet
from flows.benchmarks import cells
from flows.benchmarks.catalogue import run_benchmark
from flows.benchmarks.cells import sizes, table
from flows.benchmarks.plan import Plan

SPACE = NASNet()
SKIPS = Cell(((("skip_connect", 0), ("skip_connect", 1)),), (2,))
IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator("cpu").manual_seed(seed)


def random_cells(seed: int, count: int = 1, blocks: int = 4) -> list[Architecture]:
    space = NASNet(blocks)
    return [space.architecture(row) for row in space.sample(count, np.random.default_rng(seed))]


def small(cell: Any, seed: int = 0, **settings: Any) -> CellNetwork:
    return cifar_network(cell, generator=seeded(seed), **{"channels": 4, "cells": 3, **settings})


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


KNOWN = [  # networks whose width is known, and that agree; what is wrong with the others stands in the table
    ("PNASNet-5", "imagenet", 5.1, 588),
    ("DARTS-V2", "cifar10", 3.3, None),
    ("BONAS", "imagenet", 5.1, 561),
    *(
        pytest.param(*size, marks=pytest.mark.slow)
        for size in (
            ("NASNet-A", "cifar10", 3.3, None),
            ("NASNet-A", "imagenet", 5.3, 564),
            ("AmoebaNet-A", "imagenet", 5.1, 555),
            ("AmoebaNet-B", "cifar10", 2.8, None),
            ("AmoebaNet-B", "imagenet", 5.3, 555),
            ("AmoebaNet-C", "imagenet", 6.4, None),
            ("PNASNet-5", "cifar10", 3.2, None),
            ("DARTS-V2", "imagenet", 4.7, None),
            ("BONAS", "cifar10", 3.5, None),
        )
    ),
]


@pytest.mark.parametrize(("name", "dataset", "params", "mult_adds"), KNOWN)
def test_sizes_are_within_two_percent_of_the_papers(
    name: str, dataset: str, params: float, mult_adds: float | None
) -> None:
    size = network_size(published_network(name, dataset, generator=seeded(), own=True), IMAGES[dataset])
    assert size.params / 1e6 == pytest.approx(params, rel=0.02)
    assert mult_adds is None or size.mult_adds / 1e6 == pytest.approx(mult_adds, rel=0.02)


def test_the_table_has_what_the_paper_prints_and_says_what_differs() -> None:
    (row,) = sizes(["DARTS-V2"], ["imagenet"])
    assert (row["cell"], row["dataset"], row["network"], row["channels"]) == ("DARTS-V2", "imagenet", "darts", 48)
    assert (row["paper_params"], row["paper_mult_adds"]) == pytest.approx((4.7e6, 574e6))
    text = table([row])
    assert "| DARTS-V2 | imagenet | darts | 48 | 14 | 4.72 M | 4.7 M | +0.4% | 530 M | 574 M | -7.7% | yes |" in text
    assert "* DARTS-V2: others count 523 to 545 M" in text
    unknown = {**row, "cell": "LaNet", "paper_params": None, "paper_mult_adds": None}
    assert "| LaNet | imagenet | darts | 48 | 14 | 4.72 M | - | - | 530 M | - | - | no |" in table([unknown])


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_published_cell_is_one_of_known_operations_and_earlier_sources(name: str) -> None:
    for cell in published(name).cells:
        for number, block in enumerate(cell.blocks):
            assert all(operation in _OPERATIONS and 0 <= source < number + 2 for operation, source in block)
        assert set(cell.concat) <= set(range(len(cell.blocks) + 2))
        used = {source for block in cell.blocks for _, source in block} | set(cell.concat)
        assert used >= set(range(2, len(cell.blocks) + 2))  # no block is for nothing
    logits = small(published(name).cells).eval()(IMAGE)
    assert logits.shape == (2, 10)
    assert logits.isfinite().all()


def test_published_cells_of_the_space_are_cells_of_it() -> None:
    space = NASNet(4, 2)
    for name in ("DARTS-V1", "DARTS-V2", "BONAS"):
        genotype = space.from_cells(published(name).cells)
        assert space.to_cells(genotype) == published(name).cells


def test_unknown_cells_and_networks_are_refused_with_the_remedy() -> None:
    with pytest.raises(InputError, match=r"cell `NASNet-Z` is unknown; use one of NASNet-A, AmoebaNet-A"):
        published("NASNet-Z")
    with pytest.raises(InputError, match="data set `mnist` is unknown; use one of cifar10, imagenet"):
        published_network("BONAS", "mnist", generator=seeded())
    with pytest.raises(InputError, match="its authors' network for imagenet is not known"):
        published_network("LaNet", "imagenet", generator=seeded(), own=True)


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 5, 7]), st.sampled_from([8, 15, 32]))
@hypothesis_settings(max_examples=12)
def test_any_cell_makes_logits_of_images_of_any_size_and_trains(seed: int, blocks: int, side: int) -> None:
    (cell,) = random_cells(seed, blocks=blocks)
    network = small(cell, auxiliary=True, drop_path=0.3, classes=7, in_channels=2)
    network.begin_epoch(0.5, seeded())
    network.begin_batch(3, slice(None))
    images = torch.randn(3, 2, side, side, generator=seeded(1))
    logits, auxiliary = network(images)
    (logits.square().sum() + auxiliary.square().sum()).backward()
    assert logits.shape == auxiliary.shape == (3, 7)
    assert network.stem.parts[0][0].weight.grad.isfinite().all()
    assert network.eval()(images).shape == (3, 7)


def test_reductions_stand_at_one_and_two_thirds_and_double_the_channels() -> None:
    shapes: list[tuple[int, ...]] = []
    network = cifar_network((SKIPS, SKIPS), generator=seeded(), channels=4, cells=20)
    for cell in network.cells:
        cell.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(output.shape[1:])))
    network.eval()(torch.zeros(1, 3, 32, 32))
    assert shapes == [(4, 32, 32)] * 6 + [(8, 16, 16)] * 7 + [(16, 8, 8)] * 7


def test_the_imagenet_stem_leaves_28_by_28() -> None:
    network = imagenet_network((SKIPS, SKIPS), generator=seeded(), channels=8).eval()
    older, newer = network.stem(torch.zeros(1, 3, 224, 224))
    assert (older.shape[1:], newer.shape[1:]) == ((8, 56, 56), (8, 28, 28))
    assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert [cell.stride for cell in network.cells] == [2 if place in (4, 9) else 1 for place in range(14)]


def test_too_few_cells_are_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"2 cells leave no place for two reductions; set evaluator\.network\.cells"
    ):
        small((SKIPS, SKIPS), cells=2)
    with pytest.raises(SettingsError, match="cells of 1 channels cannot be halved"):
        small((SKIPS, SKIPS), channels=1)


def test_the_auxiliary_head_helps_in_training_only_and_is_not_counted() -> None:
    (cell,) = random_cells(1)
    plain, helped = small(cell), small(cell, auxiliary=True)
    image = (3, 32, 32)
    assert isinstance(helped.train()(IMAGE), tuple)
    assert isinstance(helped.eval()(IMAGE), Tensor)
    assert network_size(plain, image) == network_size(helped, image)


def test_the_auxiliary_head_pools_as_darts_does() -> None:
    head = cifar_network((SKIPS, SKIPS), generator=seeded(), channels=4, cells=3, auxiliary=True).auxiliary
    assert head is not None
    x = torch.randn(2, 16, 8, 8, generator=seeded())
    pooled: list[Tensor] = []
    head.features.register_forward_pre_hook(lambda module, inputs: pooled.append(inputs[0]))
    head.eval()(x)
    corners = [torch.relu(x)[:, :, i : i + 5, j : j + 5].mean(dim=(2, 3)) for i in (0, 3) for j in (0, 3)]
    assert torch.allclose(pooled[0].flatten(2), torch.stack(corners, dim=2), atol=1e-6)


OLDER, NEWER = torch.randn(2, 2, 3, 4, 7, 7, generator=torch.Generator().manual_seed(2)).unbind(0)[0]


def cell_of(blocks: tuple[Any, ...], is_reduction: bool = False, concat: tuple[int, ...] | None = None) -> _Cell:
    concat = tuple(range(2, len(blocks) + 2)) if concat is None else concat
    module = _Cell(Cell(blocks, concat), 4, 4, 4, is_reduction, False).eval()
    for parameter in module.parameters():
        nn.init.normal_(parameter, generator=seeded(parameter.numel()))
    return module


def test_blocks_are_sums_of_terms_and_the_output_their_concatenation() -> None:
    module = cell_of(
        ((("skip_connect", 0), ("skip_connect", 1)), (("skip_connect", 2), ("none", 0)), (("none", 0), ("none", 0)))
    )
    a, b = module.older(OLDER), module.newer(NEWER)
    assert torch.allclose(module(OLDER, NEWER, None), torch.cat([a + b, a + b, 0 * a], dim=1))


def test_inputs_may_be_concatenated_and_are_halved_in_a_reduction() -> None:
    block = (("max_pool_3x3", 0), ("none", 0))
    assert torch.equal(cell_of((block,), concat=(0, 2))(OLDER, NEWER, None)[:, :4], cell_of((block,)).older(OLDER))
    assert cell_of((block,), True, (1, 2))(OLDER, NEWER, None).shape == (3, 8, 4, 4)


@given(st.integers(0, 2**32 - 1), st.booleans())
@hypothesis_settings(max_examples=15)
def test_cells_of_equal_key_compute_the_same_with_the_same_weights(seed: int, is_reduction: bool) -> None:
    rng = np.random.default_rng(seed)
    genotype = SPACE.sample(1, rng)[0]
    (cell,) = SPACE.to_cells(genotype)
    for order in rng.permutation(list(permutations(range(4)))):
        new = {0: 0, 1: 1, **{old + 2: place + 2 for place, old in enumerate(order.tolist())}}
        blocks = tuple(
            tuple(
                (operation, new[source] if operation != "none" else 0) for operation, source in cell.blocks[old][::-1]
            )
            for old in order.tolist()
        )
        if all(source < place + 2 for place, block in enumerate(blocks) for _, source in block):
            break
    other = SPACE.from_cells([Cell(blocks, cell.concat)])
    assert SPACE.keys(other[None]) == SPACE.keys(genotype[None])

    first, second = cell_of(cell.blocks, is_reduction), cell_of(blocks, is_reduction)
    second.older.load_state_dict(first.older.state_dict())
    second.newer.load_state_dict(first.newer.state_dict())
    for place, old in enumerate(order.tolist()):
        for mine, theirs in zip(first.blocks[old], second.blocks[place][::-1], strict=True):
            second.operations[theirs[0]].load_state_dict(first.operations[mine[0]].state_dict())
    outputs, others = first(OLDER, NEWER, None).split(4, dim=1), second(OLDER, NEWER, None).split(4, dim=1)
    for place, old in enumerate(order.tolist()):
        assert torch.allclose(others[place], outputs[old], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", list(_OPERATIONS))
@pytest.mark.parametrize("side", [7, 8])
def test_operations_keep_or_halve_the_side(name: str, side: int) -> None:
    x = torch.randn(2, 8, side, side, generator=seeded())
    for stride in (1, 2):
        operation = _operation(name, 8, stride).eval()
        for parameter in operation.parameters():
            nn.init.normal_(parameter, generator=seeded())
        assert operation(x).shape == (2, 8, -(-side // stride), -(-side // stride))


@pytest.mark.parametrize("name", ["skip_connect", "conv_1x1"])
def test_strided_convolutions_of_few_channels_survive_their_backward_pass(name: str) -> None:
    operation = _operation(name, 4, 2)
    for parameter in operation.parameters():
        nn.init.normal_(parameter, generator=seeded())
    for _ in range(4):
        x = torch.randn(3, 4, 16, 16, generator=seeded()).requires_grad_()
        operation(x).square().sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()


def test_every_operation_of_the_space_can_be_built() -> None:
    assert set(OPERATIONS) - {"none"} <= set(_OPERATIONS)


@pytest.mark.parametrize(("name", "pool"), [("avg_pool_3x3", 3), ("avg_pool_5x5", 5), ("avg_pool_2x2", 2)])
def test_averages_do_not_count_padding(name: str, pool: int) -> None:
    assert torch.allclose(_operation(name, 1, 1)(torch.ones(1, 1, 6, 6)), torch.ones(1, 1, 6, 6))
    x = torch.arange(36.0).reshape(1, 1, 6, 6)
    begin = 0 if pool == 2 else 3 - pool // 2
    assert _operation(name, 1, 1)(x)[0, 0, 3 if pool != 2 else 0, 3 if pool != 2 else 0] == pytest.approx(
        x[0, 0, begin : begin + pool, begin : begin + pool].mean().item()
    )


def test_a_separable_convolution_is_two_of_depth_and_points() -> None:
    operation = _operation("sep_conv_5x5", 4, 2).eval()
    for parameter in operation.parameters():
        nn.init.normal_(parameter, generator=seeded(parameter.numel()))
    assert (operation[1].stride, operation[5].stride, operation[1].kernel_size) == ((2, 2), (1, 1), (5, 5))
    x = OLDER
    for depth, points, norm in (operation[1:4], operation[5:8]):
        x = conv2d(torch.relu(x), depth.weight, stride=depth.stride, padding=2, groups=4)
        x = norm(conv2d(x, points.weight))
    assert torch.allclose(operation(OLDER), x, rtol=1e-4, atol=1e-4)


def test_a_dilated_convolution_reaches_twice_as_far() -> None:
    operation = _operation("dil_conv_3x3", 4, 1)
    assert (operation[1].dilation, operation[1].padding) == ((2, 2), (2, 2))
    assert sum(isinstance(module, nn.Conv2d) for module in operation) == 2


def test_a_factorised_reduction_reads_even_pixels_and_their_neighbours() -> None:
    reduction = FactorisedReduction(4, 6).eval()
    for parameter in (reduction.even.weight, reduction.odd.weight):
        nn.init.normal_(parameter, generator=seeded())
    x = torch.randn(2, 4, 8, 8, generator=seeded()).abs()
    even = conv2d(x[:, :, ::2, ::2], reduction.even.weight)
    odd = conv2d(x[:, :, 1::2, 1::2], reduction.odd.weight)
    assert torch.allclose(reduction(x), torch.cat([even, odd], 1) / (1 + 1e-5) ** 0.5, atol=1e-5)


def test_dropped_terms_are_zero_for_whole_images_and_scaled_otherwise_but_identities_stay() -> None:
    network = small((SKIPS, SKIPS), drop_path=0.4)
    network.begin_epoch(1.0, seeded(3))
    network.begin_batch(400, slice(None))
    kept = network._kept[0]
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.6])
    assert (kept == 0).float().mean().item() == pytest.approx(0.4, abs=0.05)
    network.begin_epoch(1.0, seeded(3))
    network.begin_batch(400, slice(100, 200))
    assert torch.equal(network._kept[0], kept[:, 100:200])
    assert network.eval()(IMAGE).isfinite().all()  # as it is for one image

    block = (("skip_connect", 0), ("max_pool_3x3", 1))
    module = cell_of((block,))
    mask = torch.zeros(2, 3, 1, 1, 1)
    assert torch.equal(module(OLDER, NEWER, mask), module.older(OLDER))


def test_drop_path_grows_with_progress_and_draws_from_its_own_generator() -> None:
    network = small(random_cells(3)[0], drop_path=0.4).train()
    before = torch.get_rng_state()

    def logits(progress: float, seed: int) -> Tensor:
        network.begin_epoch(progress, seeded(seed))
        network.begin_batch(len(IMAGE), slice(None))
        return network(IMAGE)

    assert torch.equal(logits(0.0, 1), logits(0.0, 2))
    assert torch.equal(logits(0.9, 1), logits(0.9, 1))
    assert not torch.equal(logits(0.9, 1), logits(0.9, 2))
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_follow_from_the_generator_alone() -> None:
    (cell,) = random_cells(4)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(small(cell, seed=5, auxiliary=True))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(weights(small(cell, seed=5, auxiliary=True)), first)
    assert not torch.equal(weights(small(cell, seed=6, auxiliary=True)), first)


def test_a_pair_of_cells_is_used_at_its_positions() -> None:
    space = NASNet(4, 2)
    genotype = space.sample(1, np.random.default_rng(5))[0]
    normal, reduction = space.to_cells(genotype)
    network = small(space.architecture(genotype))
    assert [cell.terms for cell in network.cells] == [
        sum(operation != "none" for block in cell.blocks for operation, _ in block)
        for cell in (normal, reduction, reduction)
    ]


def test_cells_of_another_space_are_refused_with_the_remedy() -> None:
    stranger = Architecture(("input", "skip_connect", "output"), ((0, 1), (1, 2)), "|skip_connect~0|", "x")
    with pytest.raises(InvalidArchitectureError, match=r"is not a cell of a space nasnet.*evaluator\.network\.kind"):
        small(stranger)
    with pytest.raises(InvalidArchitectureError, match="`conv_9x9` is no operation of a network; use one of"):
        small((Cell(((("conv_9x9", 0),),), (2,)), SKIPS))


def test_every_space_nasnet_has_its_network() -> None:
    for name in names("space"):
        if name.startswith("nasnet"):
            assert resolve("network", name) is cifar_network
    assert resolve("network", "nasnet-imagenet") is imagenet_network


def test_counting_leaves_a_network_as_it_is() -> None:
    network = small(random_cells(6)[0]).train()
    before = weights(network)
    size = network_size(network, (3, 32, 32))
    assert network.training
    assert torch.equal(weights(network), before)
    assert size.params == len(before)
    stem_and_classifier = 3 * 9 * 12 * 32 * 32 + network.classifier.weight.numel()
    assert size.mult_adds > stem_and_classifier


def test_a_layout_names_its_cells() -> None:
    assert published("PNASNet-5").layouts["imagenet"] == Layout(54, (3, 2, 2))
    assert len(published_network("PNASNet-5", "imagenet", generator=seeded(), own=True).cells) == 2 + 3 + 1 + 2 + 1 + 2


def test_the_benchmark_writes_rows_and_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = sizes(["LaNet"], ["cifar10"])
    monkeypatch.setattr(cells, "sizes", lambda: few)
    text = run_benchmark("cells", Plan(tmp_path))
    (row,) = pq.ParquetFile(tmp_path / "cells.parquet").read().to_pylist()
    assert {"cell", "dataset", "channels", "params", "mult_adds", "paper_params", "paper_mult_adds"} <= set(row)
    assert row == few[0]
    assert (tmp_path / "cells.md").read_text() in text
