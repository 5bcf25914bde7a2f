import numpy as np
import pytest
import torch

from bonas_core.spaces.encoding import GLOBAL, PADDING, GraphBatch, with_global_vertex
from bonas_core.spaces.nasbench201 import NASBench201


def two_graphs() -> GraphBatch:
    """A chain of three vertices, and two vertices with an edge, padded to three."""
    adjacency = np.zeros((2, 3, 3), dtype=bool)
    adjacency[0, 0, 1] = adjacency[0, 1, 2] = adjacency[1, 0, 1] = True
    labels = np.array([[0, 1, 2], [0, 2, PADDING]], dtype=np.int8)
    return GraphBatch(labels, adjacency, ("in", "conv", "out"))


def test_global_vertex_is_fed_by_all_existing_vertices_and_feeds_none():
    graphs = with_global_vertex(two_graphs())
    assert graphs.adjacency[:, :, 0].tolist() == [[False, True, True, True], [False, True, True, False]]
    assert not graphs.adjacency[:, 0, :].any()


def test_global_vertex_stands_first_with_a_label_of_its_own():
    graphs = with_global_vertex(two_graphs())
    assert graphs.labels.tolist() == [[3, 0, 1, 2], [3, 0, 2, PADDING]]
    assert graphs.vocabulary == ("in", "conv", "out", GLOBAL)


def test_other_edges_stay_as_they_were():
    graphs = two_graphs()
    np.testing.assert_array_equal(with_global_vertex(graphs).adjacency[:, 1:, 1:], graphs.adjacency)


def test_shared_edges_stay_shared():
    space = NASBench201()
    graphs = with_global_vertex(space.encode(space.enumerate()[:5]))
    assert graphs.adjacency.shape == (1, 9, 9)
    assert graphs.adjacency[0, 1:, 0].all()
    assert not graphs.adjacency[0, 0].any()


def test_shared_edges_are_told_apart_where_padding_differs():
    labels = np.array([[0, 1], [0, PADDING]], dtype=np.int8)
    graphs = with_global_vertex(GraphBatch(labels, np.zeros((1, 2, 2), dtype=bool), ("a", "b")))
    assert graphs.adjacency[:, :, 0].tolist() == [[False, True, True], [False, True, False]]


def test_padding_adds_vertices_that_do_not_exist():
    graphs, padded = two_graphs(), two_graphs().padded_to(5)
    assert padded.labels.shape == (2, 5)
    assert padded.mask.tolist() == [[True, True, True, False, False], [True, True, False, False, False]]
    np.testing.assert_array_equal(padded.adjacency[:, :3, :3], graphs.adjacency)
    assert padded.adjacency.sum() == graphs.adjacency.sum()


def test_padding_to_less_changes_nothing():
    graphs = two_graphs()
    assert graphs.padded_to(2) is graphs


def test_padding_and_adding_the_global_vertex_commute():
    a, b = with_global_vertex(two_graphs().padded_to(5)), with_global_vertex(two_graphs()).padded_to(6)
    np.testing.assert_array_equal(a.labels, b.labels)
    np.testing.assert_array_equal(a.adjacency, b.adjacency)


@pytest.mark.parametrize("rows", [slice(1, 2), np.array([1])])
def test_indexing_takes_graphs_with_their_edges(rows: slice | np.ndarray):
    chosen = two_graphs()[rows]
    assert len(chosen) == 1
    assert chosen.labels.tolist() == [[0, 2, PADDING]]
    np.testing.assert_array_equal(chosen.adjacency[0], two_graphs().adjacency[1])


def test_indexing_keeps_shared_edges():
    space = NASBench201()
    graphs = space.encode(space.enumerate()[:5])
    chosen = graphs[np.array([3, 0])]
    np.testing.assert_array_equal(chosen.labels, graphs.labels[[3, 0]])
    np.testing.assert_array_equal(chosen.adjacency, graphs.adjacency)


def test_pyg_batch_drops_padding_and_numbers_vertices_through():
    batch = two_graphs().padded_to(6).to_pyg()
    assert batch.x.tolist() == [0, 1, 2, 0, 2]
    assert batch.edge_index.tolist() == [[0, 1, 3], [1, 2, 4]]
    assert batch.batch.tolist() == [0, 0, 0, 1, 1]
    assert batch.ptr.tolist() == [0, 3, 5]
    assert batch.num_graphs == 2
    assert batch.x.dtype == torch.int64


def test_pyg_batch_repeats_shared_edges_for_every_graph():
    space = NASBench201()
    batch = space.encode(space.enumerate()[:3]).to_pyg()
    single = space.encode(space.enumerate()[:1]).to_pyg().edge_index
    np.testing.assert_array_equal(batch.edge_index, torch.cat([single, single + 8, single + 16], dim=1))


def test_adjacency_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"adjacency has shape \(3, 3\); labels of shape \(2, 3\) need \(2, 3, 3\)"):
        GraphBatch(np.zeros((2, 3), dtype=np.int8), np.zeros((3, 3), dtype=bool), ("a",))
