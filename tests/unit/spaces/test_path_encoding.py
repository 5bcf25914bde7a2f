import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonas_core.spaces.encoding import GraphBatch
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.path_encoding import path_encoding

NB101, NB201 = NASBench101(sampling="authors"), NASBench201()
CONV3, CONV1, POOL = 0, 1, 2


def place(*operations: int, k: int = 3) -> int:
    """Column of a sequence where the empty one is column 0."""
    shorter = sum(k**length for length in range(len(operations)))
    return shorter + sum(op * k ** (len(operations) - 1 - i) for i, op in enumerate(operations))


def paths(graphs: GraphBatch, row: int, longest: int) -> list[tuple[int, ...]]:
    """Sequences of operations on all paths of one graph, found one by one."""
    labels, adjacency = graphs.labels[row].tolist(), graphs.adjacency[row % len(graphs.adjacency)]
    ends = [code for code, label in enumerate(graphs.vocabulary) if label in ("input", "output")]
    found = []

    def walk(vertex: int, spelt: tuple[int, ...]) -> None:
        spelt = spelt if labels[vertex] in ends else (*spelt, labels[vertex])
        following = np.flatnonzero(adjacency[vertex])
        if not len(following):
            found.append(spelt)
        for other in following:
            walk(int(other), spelt)

    walk(0, ())
    return [path for path in found if len(path) <= longest]


def test_a_cell_of_nasbench101_has_a_bit_for_each_of_its_paths():
    cell = NB101.parse(["input;conv3x3;maxpool3x3;conv1x1;output|0-1,0-4,1-2,1-3,2-4,3-4"])
    encoding = path_encoding(NB101.encode(cell), longest=5)
    assert encoding.shape == (1, 364)
    expected = [place(), place(CONV3, POOL), place(CONV3, CONV1)]
    assert np.flatnonzero(encoding[0]).tolist() == sorted(expected)


def test_three_operations_make_forty_columns_on_nasbench101():
    cells = NB101.sample(30, np.random.default_rng(0))
    short, whole = (path_encoding(NB101.encode(cells), longest=longest) for longest in (3, 5))
    assert short.shape == (30, 40)
    np.testing.assert_array_equal(short, whole[:, :40])


def test_a_cell_of_nasbench201_has_four_paths_on_which_none_is_an_operation():
    cell = NB201.parse(["|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"])
    encoding = path_encoding(NB201.encode(cell), longest=3, shortest=1)
    assert encoding.shape == (1, 155)
    paths = [(2,), (3, 4), (0, 3), (3, 1, 3)]
    assert np.flatnonzero(encoding[0]).tolist() == sorted(place(*path, k=5) - 1 for path in paths)


def test_counts_tell_how_many_paths_spell_a_sequence():
    cell = NB101.parse(["input;conv3x3;conv3x3;output|0-1,0-2,1-3,2-3"])
    graphs = NB101.encode(cell)
    assert path_encoding(graphs, longest=2, counts=True)[0, place(CONV3)] == 2
    assert path_encoding(graphs, longest=2)[0, place(CONV3)] == 1


def test_paths_may_begin_and_end_with_operations():
    edges = np.zeros((1, 3, 3), dtype=bool)
    edges[0, 0, 1] = True  # a -> b, and c alone
    graphs = GraphBatch(np.array([[0, 1, 2]], dtype=np.int8), edges, ("a", "b", "c"))
    assert np.flatnonzero(path_encoding(graphs, longest=2)[0]).tolist() == sorted([place(2), place(0, 1)])


@pytest.mark.parametrize("space", [NB101, NB201])
@given(seed=st.integers(0, 10_000))
def test_columns_count_the_paths_that_a_walk_through_the_graph_finds(space, seed: int):
    cells = space.sample(4, np.random.default_rng(seed))
    graphs = space.encode(cells)
    k = len(space.vocabulary) - 2
    encoding = path_encoding(graphs, longest=3, counts=True)
    for row in range(4):
        expected = np.zeros(encoding.shape[1])
        for path in paths(graphs, row, 3):
            expected[place(*path, k=k)] += 1
        np.testing.assert_array_equal(encoding[row], expected)
