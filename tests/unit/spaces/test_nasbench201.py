import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chisquare

from bonas_core.errors import InvalidArchitectureError, SettingsError
from bonas_core.spaces.base import ControlledSpace, SearchSpace, distinct
from bonas_core.spaces.nasbench201 import OPERATIONS, NASBench201

SPACE = NASBench201()
INDEX_0 = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"
INDEX_1 = "|nor_conv_3x3~0|+|nor_conv_3x3~0|avg_pool_3x3~1|+|skip_connect~0|nor_conv_3x3~1|skip_connect~2|"
genotypes = st.lists(st.integers(0, 4), min_size=6, max_size=6).map(lambda genes: np.array([genes], dtype=np.int8))


def test_it_is_a_search_space():
    assert isinstance(SPACE, SearchSpace)


@pytest.mark.parametrize(
    ("text", "operations"),
    [
        (INDEX_0, ("avg_pool_3x3", "nor_conv_1x1", "skip_connect", "nor_conv_1x1", "skip_connect", "skip_connect")),
        (INDEX_1, ("nor_conv_3x3", "nor_conv_3x3", "avg_pool_3x3", "skip_connect", "nor_conv_3x3", "skip_connect")),
    ],
)
def test_official_strings_are_read_in_string_order(text: str, operations: tuple[str, ...]):
    architecture = SPACE.architecture(SPACE.parse([text])[0])
    assert architecture.operations == ("input", *operations, "output")
    assert architecture.text == architecture.key == text


def test_anchors_are_the_first_rows_of_the_official_table(nasbench201_table):
    import pyarrow.parquet as pq

    table = pq.read_table(nasbench201_table, columns=["arch_index", "arch_str"]).to_pydict()
    assert dict(zip(table["arch_index"], table["arch_str"], strict=True))[0] == INDEX_0
    assert dict(zip(table["arch_index"], table["arch_str"], strict=True))[1] == INDEX_1
    assert set(table["arch_str"]) == set(SPACE.format(SPACE.enumerate()))


def test_graph_edges_are_the_ten_of_the_cell():
    edges = {(0, 1), (0, 2), (0, 4), (1, 3), (1, 5), (2, 6), (3, 6), (4, 7), (5, 7), (6, 7)}
    cells = SPACE.enumerate()[[0, 77, 15_624]]
    for cell in cells:
        assert set(SPACE.architecture(cell).edges) == edges
    encoded = SPACE.encode(cells)
    assert {(int(i), int(j)) for _, i, j in zip(*np.nonzero(encoded.adjacency), strict=True)} == edges


def test_encoding_labels_vertices_as_the_architecture_does():
    cells = SPACE.sample(20, np.random.default_rng(0))
    graphs = SPACE.encode(cells)
    for cell, labels in zip(cells, graphs.labels, strict=True):
        assert tuple(graphs.vocabulary[label] for label in labels) == SPACE.architecture(cell).operations


def test_enumeration_holds_every_cell_once():
    cells = SPACE.enumerate()
    assert len(cells) == SPACE.size == 15_625
    assert len(np.unique(SPACE.keys(cells))) == 15_625
    assert len(np.unique(cells, axis=0)) == 15_625


@given(genotypes)
def test_what_is_printed_is_read_back(genotype: np.ndarray):
    np.testing.assert_array_equal(SPACE.parse(SPACE.format(genotype)), genotype)


@given(genotypes, genotypes)
def test_keys_are_equal_exactly_for_equal_cells(a: np.ndarray, b: np.ndarray):
    assert (SPACE.keys(a) == SPACE.keys(b))[0] == bool((a == b).all())


@given(genotypes)
def test_a_cell_has_24_neighbours_that_differ_in_one_operation(genotype: np.ndarray):
    neighbours = SPACE.neighbours(genotype[0])
    assert len(np.unique(neighbours, axis=0)) == len(neighbours) == 24
    assert ((neighbours != genotype).sum(axis=1) == 1).all()
    assert ((neighbours >= 0) & (neighbours < 5)).all()


@given(genotypes, st.integers(0, 2**32))
def test_a_mutation_changes_at_most_one_operation(genotype: np.ndarray, seed: int):
    before = genotype.copy()
    child = SPACE.mutate(genotype, np.random.default_rng(seed))
    assert (child != genotype).sum() <= 1
    np.testing.assert_array_equal(genotype, before)


def test_mutations_are_uniform_over_edges_and_operations():
    parent = SPACE.parse([INDEX_0])
    draws = 30_000
    children = SPACE.mutate(np.repeat(parent, draws, axis=0), np.random.default_rng(0))
    keys, counts = np.unique(SPACE.keys(children), return_counts=True)
    assert len(keys) == 25
    # each of 6 edges and 5 operations is drawn with chance 1/30; on every edge one of them is the old operation
    expected = np.where(keys == SPACE.keys(parent)[0], draws * 6 / 30, draws / 30)
    assert chisquare(counts, expected).pvalue > 1e-4


def test_samples_are_uniform_over_operations():
    cells = SPACE.sample(20_000, np.random.default_rng(0))
    for edge in range(6):
        assert chisquare(np.bincount(cells[:, edge], minlength=5)).pvalue > 1e-5


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (INDEX_0.replace("avg_pool_3x3", "max_pool_3x3"), "`max_pool_3x3` is not an operation; use one of none, skip_"),
        (INDEX_0.removesuffix("skip_connect~2|"), "node 3 has 2 inputs, it takes 3; write it as `"),
        (INDEX_0.replace("|skip_connect~1|+", "|+"), "node 2 has 1 inputs, it takes 2; write it as `"),
        (INDEX_0.rpartition("+")[0], "it has 2 node groups joined by `+`, a cell has 3; write it as `"),
        (INDEX_0.replace("skip_connect~2", "skip_connect~1"), "`skip_connect~1` names source `1`, input 2 of node 3"),
        (INDEX_0.replace("avg_pool_3x3~0", "avg_pool_3x3"), "`avg_pool_3x3` is not `operation~source`; write it as"),
        (INDEX_0[1:], "its separators are not those of the official string; write it as `"),
        ("", "it has 1 node groups joined by `+`, a cell has 3"),
    ],
)
def test_a_text_that_is_not_a_cell_is_refused_with_its_fault(text: str, fault: str):
    with pytest.raises(InvalidArchitectureError) as caught:
        SPACE.parse([INDEX_1, text])
    assert str(caught.value).startswith(f"cell `{text}`: {fault}")
    assert "\n" not in str(caught.value)


def test_the_example_in_messages_is_a_cell():
    with pytest.raises(InvalidArchitectureError) as caught:
        SPACE.parse(["nonsense"])
    example = str(caught.value).split("`")[-2]
    assert SPACE.format(SPACE.parse([example])) == [example]


def test_operations_are_those_of_the_benchmark():
    assert OPERATIONS == ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")


def test_distinct_gives_the_first_of_every_new_key_in_order():
    keys = np.array([5, 3, 5, 9, 3, 1], dtype=np.uint64)
    assert distinct(keys, np.array([9], dtype=np.uint64)).tolist() == [0, 1, 5]


@given(genotypes)
def test_a_cell_is_its_own_spelling(cells: np.ndarray):
    assert isinstance(SPACE, ControlledSpace)
    assert SPACE.decisions() == (5,) * 6
    spelt, valid = SPACE.from_decisions(SPACE.to_decisions(cells))
    assert valid.all()
    np.testing.assert_array_equal(SPACE.keys(spelt), SPACE.keys(cells))


def test_it_has_one_rule_of_mutation():
    assert SPACE.with_mutation("redraw") is SPACE
    with pytest.raises(SettingsError, match="mutation `flip` is unknown; use redraw"):
        SPACE.with_mutation("flip")
