from dataclasses import replace

import numpy as np
import pytest

from bonas_core.errors import ModelError
from bonas_core.methods.bonas.predictors.mlp import MLP
from bonas_core.spaces.encoding import PADDING, GraphBatch

SMALL = MLP(widths=(6, 5), epochs=3)
EDGES = np.triu(np.ones((1, 3, 3), dtype=bool), 1)
GRAPHS = GraphBatch(np.array([[0, 1, 2], [0, 0, 2], [0, 2, PADDING]], dtype=np.int8), EDGES, ("a", "b", "c"))
TARGETS, ONES = np.array([1.0, 0.0, -1.0]), np.ones(3)


def test_it_sees_the_adjacency_row_by_row_and_then_a_code_per_vertex():
    assert SMALL._inputs(GRAPHS).int().tolist() == [
        [0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 2, 3],
        [0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 1, 3],
        [0, 1, 1, 0, 0, 1, 0, 0, 0, 1, 3, 0],
    ]


def test_the_layers_of_the_original_are_the_default():
    assert {n: t.shape for n, t in replace(MLP(), epochs=0).fit(GRAPHS, TARGETS, ONES, 0).tensors.items()} == {
        "weight.0": (1, 12, 512),
        "weight.1": (1, 512, 2048),
        "weight.2": (1, 2048, 2048),
        "weight.3": (1, 2048, 512),
        "bias.0": (1, 1, 512),
        "bias.1": (1, 1, 2048),
        "bias.2": (1, 1, 2048),
        "bias.3": (1, 1, 512),
        "head": (1, 512, 1),
        "head_bias": (1, 1),
    }


def test_embedding_and_prediction_are_those_of_the_formulas_written_out():
    mlp = replace(SMALL, epochs=20, learning_rate=1e-2)
    weights = mlp.fit(GRAPHS, TARGETS, ONES, 0)
    h = SMALL._inputs(GRAPHS).numpy()
    for layer in range(2):
        h = np.maximum(h @ weights.tensors[f"weight.{layer}"][0] + weights.tensors[f"bias.{layer}"][0], 0)
    np.testing.assert_allclose(mlp.embed(weights, GRAPHS), h, atol=1e-5)
    predicted = h @ weights.tensors["head"][0, :, 0] + weights.tensors["head_bias"][0]
    np.testing.assert_allclose(mlp.predict(weights, GRAPHS), predicted, atol=1e-5)


def test_smaller_graphs_are_embedded_like_padded_ones():
    weights = SMALL.fit(GRAPHS, TARGETS, ONES, 0)
    small = GraphBatch(GRAPHS.labels[2:, :2], EDGES[:, :2, :2], GRAPHS.vocabulary)
    np.testing.assert_array_equal(SMALL.embed(weights, small), SMALL.embed(weights, small.padded_to(3)))


def test_larger_graphs_than_those_of_the_training_are_refused():
    weights = SMALL.fit(GRAPHS, TARGETS, ONES, 0)
    large = GraphBatch(np.array([[0, 1, 1, 2]], dtype=np.int8), np.zeros((1, 4, 4), dtype=bool), GRAPHS.vocabulary)
    message = "mlp: its weights are of graphs of at most 3 vertices, this one has 4; train it anew, or use gcn or lstm"
    with pytest.raises(ModelError, match=message):
        SMALL.embed(weights, large)
    with pytest.raises(ModelError, match=message):
        SMALL.fit(large, np.ones(1), np.ones(1), 0, start=weights)


def test_initial_weights_have_the_spread_of_the_original():
    weights = replace(MLP(), epochs=0).fit(GRAPHS, TARGETS, ONES, 0).tensors
    for name in ("weight.0", "weight.1", "weight.2", "head"):
        assert 0.045 < np.abs(weights[name]).max() <= 0.05
    assert np.abs(weights["weight.3"]).max() == pytest.approx(np.sqrt(6 / (2048 + 512)), rel=1e-2)
