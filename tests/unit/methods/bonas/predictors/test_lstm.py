import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bonas_core.methods.bonas.predictors.lstm import LSTM, _sequences
from bonas_core.spaces.encoding import PADDING, GraphBatch
from bonas_core.spaces.nasbench201 import NASBench201

SMALL = LSTM(width=5, epochs=3)


def graphs_of_many_sizes(count: int, seed: int = 0) -> GraphBatch:
    rng = np.random.default_rng(seed)
    exists = np.arange(5) < rng.integers(2, 6, size=count)[:, None]
    labels = np.where(exists, rng.integers(0, 3, size=(count, 5)), PADDING).astype(np.int8)
    adjacency = np.triu(rng.random((count, 5, 5)) < 0.5, 1) & exists[:, :, None] & exists[:, None, :]
    return GraphBatch(labels, adjacency, ("a", "b", "c"))


def test_a_graph_is_read_bit_by_bit_and_then_label_by_label():
    edges = np.array([[[0, 1, 0], [0, 0, 0], [0, 0, 0]], [[0, 0, 1], [0, 0, 1], [0, 0, 0]]], dtype=bool)
    graphs = GraphBatch(np.array([[2, 0, PADDING], [1, 1, 0]], dtype=np.int8), edges, ("a", "b", "c"))
    tokens, lengths = _sequences(graphs)
    assert lengths.tolist() == [6, 12]
    assert tokens.tolist() == [[0, 1, 0, 0, 4, 2, 0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 1, 0, 0, 0, 3, 3, 2]]


@given(count=st.integers(1, 6), seed=st.integers(0, 1000), more=st.integers(0, 4))
def test_the_words_of_a_graph_depend_neither_on_padding_nor_on_its_company(count: int, seed: int, more: int):
    graphs = graphs_of_many_sizes(count, seed)
    tokens, lengths = _sequences(graphs.padded_to(5 + more))
    for b in range(count):
        alone, length = _sequences(graphs[b : b + 1])
        assert length.tolist() == [lengths[b]] == [alone.shape[1]]
        assert alone[0].tolist() == tokens[b, : lengths[b]].tolist()


def by_torch(tensors: dict[str, np.ndarray], graphs: GraphBatch) -> np.ndarray:
    """Last hidden states, graph by graph, by torch's own LSTM."""
    H = tensors["from_hidden"].shape[1]
    lstm = torch.nn.LSTM(H, H, batch_first=True)
    with torch.no_grad():
        lstm.weight_ih_l0.copy_(torch.from_numpy(tensors["from_word"][0].T))
        lstm.weight_hh_l0.copy_(torch.from_numpy(tensors["from_hidden"][0].T))
        lstm.bias_ih_l0.copy_(torch.from_numpy(tensors["bias"][0, 0]))
        lstm.bias_hh_l0.zero_()
        tokens, lengths = _sequences(graphs)
        words = torch.from_numpy(tensors["word"][0])
        return np.stack(
            [lstm(words[row[:length]][None])[1][0][0, 0].numpy() for row, length in zip(tokens, lengths, strict=True)]
        )


@pytest.mark.parametrize(
    "graphs",
    [graphs_of_many_sizes(12), NASBench201().encode(NASBench201().enumerate()[:9]), graphs_of_many_sizes(1)],
    ids=["many sizes", "shared edges", "one"],
)
def test_the_embedding_is_the_last_hidden_state_of_an_lstm(graphs: GraphBatch):
    weights = SMALL.fit(graphs, np.linspace(-1, 1, len(graphs)), np.ones(len(graphs)), 0)
    np.testing.assert_allclose(SMALL.embed(weights, graphs), by_torch(weights.tensors, graphs), atol=1e-5)


def test_what_all_graphs_begin_with_is_read_once():
    space = NASBench201()
    assert SMALL._inputs(space.encode(space.enumerate())).prefix == 64 + 1  # the edges and the input
    assert SMALL._inputs(graphs_of_many_sizes(30)).prefix == 1  # no vertex feeds itself
