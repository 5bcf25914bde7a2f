import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from bonas_core.errors import InvalidArchitectureError
from bonas_core.spaces.darts import read_configuration, read_genotype, write_configuration, write_genotype
from bonas_core.spaces.nasnet import NASNet

SPACE = NASNet(4, 2)
# as the authors of DARTS print it
DARTS_V2 = """Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), ('sep_conv_3x3', 1),
 ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5],
 reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0),
 ('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"""
PREFIX = "NetworkSelectorDatasetInfo:darts:"


def test_a_genotype_as_darts_prints_it_is_a_cell_of_the_space() -> None:
    (text,) = SPACE.format(SPACE.from_cells(read_genotype(DARTS_V2))[None])
    assert text == (
        "|sep_conv_3x3~0|sep_conv_3x3~1|+|sep_conv_3x3~0|sep_conv_3x3~1|+|sep_conv_3x3~1|skip_connect~0|+"
        "|skip_connect~0|dil_conv_3x3~2|;|max_pool_3x3~0|max_pool_3x3~1|+|skip_connect~2|max_pool_3x3~1|+"
        "|max_pool_3x3~0|skip_connect~2|+|skip_connect~2|max_pool_3x3~1|"
    )


@pytest.mark.parametrize("concat", ["range(2, 6)", "(2, 3, 4, 5)"])
def test_a_concatenation_may_be_spelt_as_a_range(concat: str) -> None:
    assert read_genotype(DARTS_V2.replace("[2, 3, 4, 5]", concat)) == read_genotype(DARTS_V2)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(4, 1), (4, 2), (5, 2), (7, 1)]))
@hypothesis_settings(max_examples=40)
def test_genotypes_are_read_back_as_they_were_written(seed: int, size: tuple[int, int]) -> None:
    space = NASNet(*size)
    for genotype in space.sample(5, np.random.default_rng(seed)):
        cells = space.to_cells(genotype)
        assert read_genotype(write_genotype(cells))[-len(cells) :] == cells


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid syntax"),
        ("__import__('os').system('true')", "its fields are normal, not normal, normal_concat, reduce, reduce_concat"),
        ("Genotype(normal=[])", "its fields are normal, not"),
        ("Genotype([('a', 0)], [2], [], [])", "1 terms, which is not two a block"),
        ("Genotype([('a', 0), ('b', '1')], [2], [], [])", r"\('b', '1'\) is not a pair of operation and source"),
        ("Genotype([], range(2, 10**9), [], [])", "genotype"),
        ("Genotype([], range(2, 1000000000), [], [])", "bounds of a range"),
        ("Genotype([], [2, 'x'], [], [])", "not a list of numbers"),
        ("Genotype(" * 500, "genotype"),
    ],
)
def test_what_is_no_genotype_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(InvalidArchitectureError, match=message) as caught:
        read_genotype(text)
    assert "\n" not in str(caught.value)


def test_a_configuration_numbers_edges_as_nas_bench_301_does() -> None:
    configuration = write_configuration(read_genotype(DARTS_V2))
    normal = {name.removeprefix(PREFIX): value for name, value in configuration.items() if "_normal_" in name}
    assert normal == {
        "edge_normal_0": "sep_conv_3x3",
        "edge_normal_1": "sep_conv_3x3",
        "inputs_node_normal_3": "0_1",
        "edge_normal_2": "sep_conv_3x3",
        "edge_normal_3": "sep_conv_3x3",
        "inputs_node_normal_4": "0_1",
        "edge_normal_5": "skip_connect",
        "edge_normal_6": "sep_conv_3x3",
        "inputs_node_normal_5": "0_2",
        "edge_normal_9": "skip_connect",
        "edge_normal_11": "dil_conv_3x3",
    }
    assert len(configuration) == 22


@given(st.integers(0, 2**32 - 1))
@hypothesis_settings(max_examples=30)
def test_configurations_are_read_back_as_the_same_cells(seed: int) -> None:
    rng = np.random.default_rng(seed)
    terms = np.zeros((2, 4, 2, 2), dtype=np.int8)
    terms[..., 0] = rng.integers(1, 8, size=(2, 4, 2))
    for block in range(4):
        for cell in range(2):
            terms[cell, block, :, 1] = rng.permutation(block + 2)[:2]
    genotype = terms.reshape(-1)
    configuration = {**write_configuration(SPACE.to_cells(genotype)), "OptimizerSelector:optimizer": "sgd"}
    back = SPACE.from_cells(read_configuration(configuration))
    assert np.array_equal(SPACE.keys(back[None]), SPACE.keys(genotype[None]))


def test_cells_that_the_benchmark_does_not_have_are_refused() -> None:
    for text in (DARTS_V2.replace("('skip_connect', 0)", "('none', 0)"), DARTS_V2.replace("_3x3', 0)", "_3x3', 1)")):
        with pytest.raises(InvalidArchitectureError, match="two different sources a block and no none"):
            write_configuration(read_genotype(text))
    space = NASNet(5)
    cells = space.to_cells(space.sample(1, np.random.default_rng(0))[0])
    with pytest.raises(InvalidArchitectureError, match="cells of 4 blocks, this one has 5"):
        write_configuration(cells)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("inputs_node_reduce_4", "3_1", "`.*inputs_node_reduce_4` is `3_1`; give it one of 0_1, 0_2, 0_3, 1_2"),
        ("inputs_node_normal_3", None, "is `None`; give it one of"),
        ("edge_normal_6", None, "edge_normal_6` is missing, block 2 has source 1"),
    ],
)
def test_configurations_with_faults_are_refused(name: str, value: str | None, message: str) -> None:
    configuration = {**write_configuration(read_genotype(DARTS_V2)), PREFIX + name: value}
    with pytest.raises(InvalidArchitectureError, match=message):
        read_configuration(configuration)
