from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d

from bonas_core.errors import InvalidArchitectureError
from bonas_core.networks.nasbench201 import NASBench201Network
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.nasbench201 import CELL_EDGES, OPERATIONS, NASBench201

SPACE = NASBench201()
NONE, SKIP, CONV1, CONV3, POOL = range(len(OPERATIONS))
IMAGES = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))


def cell(*genes: int) -> Architecture:
    return SPACE.architecture(SPACE.enumerate()[int("".join(map(str, genes)), 5)])


def network(architecture: Architecture, seed: int = 0, **settings: Any) -> NASBench201Network:
    settings = {"channels": 2, "cells": 1, "in_channels": 1, **settings}
    return NASBench201Network(architecture, generator=torch.Generator().manual_seed(seed), **settings)


def through_cell(architecture: Architecture, x: Tensor = IMAGES) -> Tensor:
    """What the first cell of a fresh network with two channels makes of x, with the batch norms idle."""
    with torch.inference_mode():
        return network(architecture).eval().stages[0](x)


def weights(module: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


@given(
    genes=st.tuples(*[st.integers(0, 4)] * len(CELL_EDGES)),
    base=st.sampled_from([(10, 73306), (100, 79156), (120, 80456)]),
)
@settings(max_examples=15, deadline=None)
def test_parameter_counts_are_those_of_the_benchmark(genes: tuple[int, ...], base: tuple[int, int]) -> None:
    classes, expected = base
    expected += 5 * genes.count(CONV3) * (2336 + 9280 + 36992) + 5 * genes.count(CONV1) * (288 + 1088 + 4224)
    whole = network(cell(*genes), channels=16, cells=5, in_channels=3, classes=classes)
    assert sum(parameter.numel() for parameter in whole.parameters() if parameter.requires_grad) == expected


@pytest.mark.parametrize(("genes", "millions"), [((CONV3,) * 6, 1.531546), ((NONE,) * 6, 0.073306)])
def test_parameter_counts_of_the_largest_and_smallest_cell(genes: tuple[int, ...], millions: float) -> None:
    whole = network(cell(*genes), channels=16, cells=5, in_channels=3)
    assert sum(parameter.numel() for parameter in whole.parameters()) == round(millions * 1e6)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (7, 9), (1, 1)])
def test_images_of_any_size_become_one_logit_per_class(size: tuple[int, int]) -> None:
    images = torch.ones(4, 3, *size)
    assert network(cell(3, 1, 2, 4, 3, 1), in_channels=3, classes=7).eval()(images).shape == (4, 7)


def test_stages_double_the_channels_and_halve_the_side() -> None:
    whole = network(cell(*[SKIP] * 6), cells=2)
    x = whole.stem(torch.zeros(2, 1, 8, 8))
    shapes = [tuple((x := stage(x)).shape[1:]) for stage in whole.stages]
    assert shapes == [(2, 8, 8)] * 2 + [(4, 4, 4)] * 3 + [(8, 2, 2)] * 3


def test_a_cell_of_skips_adds_its_inputs() -> None:
    # node 1 = x, node 2 = x + node 1 = 2 x, node 3 = x + node 1 + node 2 = 4 x
    assert torch.equal(through_cell(cell(*[SKIP] * 6)), 4 * IMAGES)


PATHS = [{(0, 3)}, {(0, 1), (1, 3)}, {(0, 2), (2, 3)}, {(0, 1), (1, 2), (2, 3)}]


@pytest.mark.parametrize("path", PATHS)
def test_operations_lie_on_the_edges_in_the_order_of_the_official_string(path: set[tuple[int, int]]) -> None:
    assert torch.equal(through_cell(cell(*(SKIP if edge in path else NONE for edge in CELL_EDGES))), IMAGES)
    for missing in path:
        broken = cell(*(SKIP if edge in path - {missing} else NONE for edge in CELL_EDGES))
        assert torch.equal(through_cell(broken), torch.zeros_like(IMAGES))


def test_average_pooling_does_not_count_padding() -> None:
    assert torch.allclose(through_cell(cell(0, 0, 0, POOL, 0, 0), torch.ones(1, 2, 4, 4)), torch.ones(1, 2, 4, 4))
    inner = through_cell(cell(0, 0, 0, POOL, 0, 0))[:, :, 1:-1, 1:-1]
    assert torch.allclose(inner, avg_pool2d(IMAGES, 3, stride=1))


@pytest.mark.parametrize(("operation", "padding"), [(CONV1, 0), (CONV3, 1)])
def test_convolutions_rectify_first_and_normalise_last(operation: int, padding: int) -> None:
    whole = network(cell(0, 0, 0, operation, 0, 0)).eval()
    (kernel,) = [weight for weight in whole.stages[0].parameters() if weight.ndim == 4]
    expected = conv2d(torch.relu(IMAGES), kernel, padding=padding) / (1 + 1e-5) ** 0.5
    assert torch.allclose(whole.stages[0](IMAGES), expected, atol=1e-6)


def test_a_cell_of_nones_is_blind_but_trains() -> None:
    whole = network(cell(*[NONE] * 6))
    logits = whole(torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(1)))
    logits.square().sum().backward()
    assert torch.equal(logits, logits[:1].expand(4, -1))
    assert whole.classifier.bias.grad.abs().min() > 0


def test_weights_follow_from_the_generator_alone() -> None:
    architecture = cell(3, 2, 1, 4, 3, 2)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = weights(network(architecture, seed=5))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert torch.equal(weights(network(architecture, seed=5)), first)
    assert not torch.equal(weights(network(architecture, seed=6)), first)


def test_weights_are_uniform_up_to_the_root_of_the_fan_in() -> None:
    classifier = network(cell(*[NONE] * 6), channels=64).classifier
    bound = 1 / 16  # of 4 x 64 inputs
    assert 0.99 * bound < classifier.weight.abs().max() <= bound
    assert classifier.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)


def test_cells_of_another_space_are_refused_with_the_remedy() -> None:
    stranger = Architecture(("input", "conv", "output"), ((0, 1), (1, 2)), "conv", "conv")
    with pytest.raises(
        InvalidArchitectureError, match=r"`conv` is not a cell of nasbench201.*evaluator\.network\.kind"
    ):
        network(stranger)
