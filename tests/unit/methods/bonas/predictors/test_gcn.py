from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch_geometric.nn import GCNConv, GINConv, SimpleConv
from torch_geometric.utils import add_self_loops, to_undirected

from bonas_core.methods.bonas.predictors import fitting as training
from bonas_core.methods.bonas.predictors import gcn as module
from bonas_core.methods.bonas.predictors.base import PredictorWeights
from bonas_core.methods.bonas.predictors.gcn import GCN, NORMALISATIONS
from bonas_core.spaces.encoding import PADDING, GraphBatch, with_global_vertex
from bonas_core.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
SMALL = GCN(layers=3, width=8, epochs=5, learning_rate=1e-2, initialisation="he")


def cells(count: int, seed: int = 0) -> GraphBatch:
    return SPACE.encode(SPACE.sample(count, np.random.default_rng(seed)))


def graphs_of_many_sizes(count: int = 24, seed: int = 0) -> GraphBatch:
    """Random graphs of 3 to 7 vertices whose edges differ, padded to 7."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(3, 8, size=count)
    exists = np.arange(7) < sizes[:, None]
    labels = np.where(exists, rng.integers(0, 4, size=(count, 7)), PADDING).astype(np.int8)
    adjacency = np.triu(rng.random((count, 7, 7)) < 0.5, 1) & exists[:, :, None] & exists[:, None, :]
    return GraphBatch(labels, adjacency, ("a", "b", "c", "d"))


def toy_targets(graphs: GraphBatch) -> np.ndarray:
    """Standardised number of vertices of the last but one operation."""
    counts = (graphs.labels == 3).sum(axis=1) + 0.3 * (graphs.labels == 2).sum(axis=1)
    return (counts - counts.mean()) / counts.std()


def fit(gcn: GCN, graphs: GraphBatch, seed: int = 0):
    return gcn.fit(graphs, toy_targets(graphs), np.ones(len(graphs)), seed)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_embedding_does_not_change_with_more_padding(normalisation: str):
    gcn = replace(SMALL, normalisation=normalisation)
    graphs = graphs_of_many_sizes()
    weights = fit(gcn, graphs)
    np.testing.assert_allclose(gcn.embed(weights, graphs.padded_to(12)), gcn.embed(weights, graphs), atol=1e-5)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_training_does_not_change_with_more_padding(normalisation: str):
    gcn = replace(SMALL, normalisation=normalisation)
    graphs = graphs_of_many_sizes()
    a, b = fit(gcn, graphs), fit(gcn, graphs.padded_to(12))
    np.testing.assert_allclose(a.losses, b.losses, rtol=1e-3)
    np.testing.assert_allclose(gcn.embed(a, graphs), gcn.embed(b, graphs), atol=2e-2)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_embedding_of_one_graph_does_not_depend_on_its_company(normalisation: str):
    gcn = replace(SMALL, normalisation=normalisation)
    graphs = graphs_of_many_sizes()
    weights = fit(gcn, graphs)
    alone = np.concatenate([gcn.embed(weights, graphs[i : i + 1]) for i in range(len(graphs))])
    np.testing.assert_allclose(alone, gcn.embed(weights, graphs), atol=1e-5)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_embedding_does_not_change_when_vertices_change_places(normalisation: str):
    gcn = replace(SMALL, normalisation=normalisation)
    graphs = graphs_of_many_sizes()
    weights = fit(gcn, graphs)
    rng = np.random.default_rng(1)
    labels, adjacency = graphs.labels.copy(), graphs.adjacency.copy()
    for b in range(len(graphs)):
        order = rng.permutation(7)
        labels[b], adjacency[b] = labels[b][order], adjacency[b][order][:, order]
    moved = GraphBatch(labels, adjacency, graphs.vocabulary)
    np.testing.assert_allclose(gcn.embed(weights, moved), gcn.embed(weights, graphs), atol=1e-5)


def test_vertex_readout_tells_places_apart():
    gcn = replace(SMALL, readout="vertices")
    graphs = cells(20)
    weights = fit(gcn, graphs)
    a, b = (SPACE.encode(SPACE.parse([t]))
            for t in ("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|none~1|none~2|",
                      "|none~0|+|nor_conv_3x3~0|none~1|+|none~0|none~1|none~2|"))  # fmt: skip
    assert not np.allclose(gcn.embed(weights, a), gcn.embed(weights, b), atol=1e-3)


@pytest.mark.parametrize(("readout", "features"), [("global", 8), ("vertices", 64)])
@pytest.mark.parametrize("ensemble", [1, 3])
def test_embedding_has_a_width_per_read_vertex_and_member(readout: str, features: int, ensemble: int):
    gcn = replace(SMALL, readout=readout, ensemble=ensemble)
    graphs = cells(20)
    embedding = gcn.embed(fit(gcn, graphs), graphs)
    assert embedding.shape == (20, features * ensemble)
    assert (embedding >= 0).all()


@pytest.mark.parametrize("graphs", [cells(5), graphs_of_many_sizes(5)], ids=["shared edges", "own edges"])
@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_aggregation_is_that_of_the_layers_of_torch_geometric(normalisation: str, graphs: GraphBatch):
    seen = with_global_vertex(graphs)
    batch, real = seen.to_pyg(), torch.from_numpy(seen.mask).flatten()
    x = torch.zeros(2, len(real), 5)
    x[:, real] = torch.randn(2, len(batch.x), 5, generator=torch.Generator().manual_seed(0))
    convolution = GCNConv(5, 4, bias=False)
    matrix = convolution.lin.weight.T
    loops, _ = add_self_loops(batch.edge_index, num_nodes=len(batch.x))

    def by_torch_geometric(h: torch.Tensor) -> torch.Tensor:
        match normalisation:
            case "symmetric":
                return convolution(h, to_undirected(batch.edge_index, num_nodes=len(h)))
            case "row":
                return SimpleConv(aggr="mean")(h, loops) @ matrix
            case _:
                return GINConv(torch.nn.Identity())(h, batch.edge_index) @ matrix

    ours = (replace(SMALL, normalisation=normalisation)._inputs(graphs).aggregate(x) @ matrix)[:, real]
    torch.testing.assert_close(ours, torch.stack([by_torch_geometric(member) for member in x[:, real]]))


def written_out(gcn: GCN, tensors: dict[str, np.ndarray], known: GraphBatch) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the training set and its predictions, graph by graph, as in Eq. 3 and without padding."""
    graphs, matrices = with_global_vertex(known), []
    for labels, edges in zip(graphs.labels, graphs.adjacency, strict=True):
        V = int((labels != PADDING).sum())
        A = edges[:V, :V].astype(float)
        if gcn.normalisation == "symmetric":
            A = np.maximum(A, A.T) + np.eye(V)
            P = A / np.sqrt(np.outer(A.sum(axis=0), A.sum(axis=1)))
        else:
            P = A.T + np.eye(V)
            P = P / P.sum(axis=1, keepdims=True) if gcn.normalisation == "row" else P
        matrices.append(P)
    hidden = [np.eye(len(graphs.vocabulary))[row[row != PADDING]] for row in graphs.labels]
    for layer in range(gcn.layers):
        z = [P @ h @ tensors[f"weight.{layer}"][0] for P, h in zip(matrices, hidden, strict=True)]
        vertices = np.concatenate(z)
        mean, std = vertices.mean(axis=0), np.sqrt(vertices.var(axis=0) + 1e-5)
        gain, shift = tensors[f"gain.{layer}"][0], tensors[f"shift.{layer}"][0]
        hidden = [np.maximum((rows - mean) / std * gain + shift, 0) for rows in z]
    embedding = np.array([h[0] for h in hidden])
    return embedding, (embedding @ tensors["head"][0])[:, 0] + tensors["head_bias"][0]


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
def test_embeddings_of_the_training_set_are_those_of_the_formulas_written_out(normalisation: str):
    gcn = replace(SMALL, normalisation=normalisation, epochs=0)
    graphs = graphs_of_many_sizes()
    rng = np.random.default_rng(2)
    # weights as far from their initial values as no short training would bring them, gains and shifts included
    anywhere = {n: t + rng.normal(0, 0.3, t.shape).astype(np.float32) for n, t in fit(gcn, graphs).tensors.items()}
    weights = gcn.fit(graphs, toy_targets(graphs), np.ones(24), 0, start=PredictorWeights(anywhere))
    embedding, predicted = written_out(gcn, weights.tensors, graphs)
    np.testing.assert_allclose(gcn.embed(weights, graphs), embedding, atol=1e-4)
    # the first loss of a training that goes on is that of the weights that it began with
    u = np.linspace(0.2, 1.0, len(graphs))
    later = replace(gcn, epochs=1).fit(graphs, toy_targets(graphs), u, 0, start=weights)
    assert later.losses[0] == pytest.approx(np.mean(u * (predicted - toy_targets(graphs)) ** 2), rel=1e-4)


def test_sums_are_over_predecessors_and_the_vertex_itself():
    adjacency = torch.tensor([[[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
    assert module._propagation(adjacency, "none")[0].tolist() == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


def test_rows_are_means_over_predecessors_and_the_vertex_itself():
    adjacency = torch.tensor([[[0.0, 1.0, 1.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]])
    torch.testing.assert_close(
        module._propagation(adjacency, "row")[0],
        torch.tensor([[1, 0, 0], [1 / 2, 1 / 2, 0], [1 / 3, 1 / 3, 1 / 3]]),
    )


@pytest.mark.parametrize("batch_size", [128, 7])
def test_equal_seeds_give_equal_weights(batch_size: int):
    gcn = replace(SMALL, batch_size=batch_size)
    graphs = cells(20)
    a, b, other = fit(gcn, graphs, seed=1), fit(gcn, graphs, seed=1), fit(gcn, graphs, seed=2)
    for name, tensor in a.tensors.items():
        np.testing.assert_array_equal(tensor, b.tensors[name])
    assert a.losses == b.losses
    assert a.losses != other.losses


def test_training_leaves_the_global_random_state_alone():
    before = torch.get_rng_state()
    fit(SMALL, cells(20))
    assert torch.equal(before, torch.get_rng_state())


def test_members_of_an_ensemble_differ():
    gcn = replace(SMALL, ensemble=2)
    graphs = cells(20)
    embedding = gcn.embed(fit(gcn, graphs), graphs)
    assert not np.allclose(embedding[:, :8], embedding[:, 8:], atol=1e-3)


@pytest.mark.parametrize("batch_size", [128, 16])
def test_training_reduces_the_loss(batch_size: int):
    gcn = replace(SMALL, epochs=60, batch_size=batch_size)
    losses = fit(gcn, cells(60)).losses
    assert len(losses) == 60
    assert np.mean(losses[-5:]) < 0.3 * losses[0]


@pytest.mark.parametrize("readout", ["global", "vertices"])
def test_a_toy_function_is_learnt_well_enough_to_rank_unseen_cells(readout: str):
    gcn = GCN(layers=2, width=16, readout=readout, epochs=80, learning_rate=1e-2, initialisation="he")
    known, unseen = cells(100), cells(200, seed=1)
    weights = fit(gcn, known)
    phi = np.column_stack([gcn.embed(weights, known), np.ones(100)])
    solution = np.linalg.solve(phi.T @ phi + 0.1 * np.eye(phi.shape[1]), phi.T @ toy_targets(known))
    predicted = np.column_stack([gcn.embed(weights, unseen), np.ones(200)]) @ solution
    assert spearmanr(predicted, toy_targets(unseen)).statistic > 0.9


def test_targets_of_samples_with_loss_weight_zero_do_not_matter():
    graphs = cells(20)
    targets, weights = toy_targets(graphs), np.ones(20)
    weights[[2, 5, 11]] = 0
    elsewhere = targets.copy()
    elsewhere[[2, 5, 11]] = 50.0
    a, b = (SMALL.fit(graphs, t, weights, 0) for t in (targets, elsewhere))
    for name, tensor in a.tensors.items():
        np.testing.assert_array_equal(tensor, b.tensors[name])
    c = SMALL.fit(graphs, elsewhere, np.ones(20), 0)
    assert any((tensor != c.tensors[name]).any() for name, tensor in a.tensors.items())


def test_a_warm_start_goes_on_from_the_weights_given():
    graphs = cells(40)
    first = fit(replace(SMALL, epochs=40), graphs)
    none = replace(SMALL, epochs=0).fit(graphs, toy_targets(graphs), np.ones(40), 9, start=first)
    np.testing.assert_array_equal(none.tensors["weight.0"], first.tensors["weight.0"])
    more = SMALL.fit(graphs, toy_targets(graphs), np.ones(40), 9, start=first)
    assert more.losses[0] < first.losses[0]


def test_many_graphs_are_embedded_in_pieces_as_they_are_at_once(monkeypatch):
    graphs = graphs_of_many_sizes(50)
    weights = fit(SMALL, graphs)
    at_once = SMALL.embed(weights, graphs)
    monkeypatch.setattr(training, "_CHUNK", 7)
    np.testing.assert_allclose(SMALL.embed(weights, graphs), at_once, atol=1e-5)


def test_initial_weights_have_the_spread_that_is_asked_for():
    graphs = cells(10)
    uniform = fit(replace(SMALL, width=64, epochs=0, initialisation="uniform"), graphs).tensors
    assert all(np.abs(uniform[f"weight.{layer}"]).max() <= 0.05 for layer in range(3))
    assert uniform["weight.1"].std() == pytest.approx(0.05 / np.sqrt(3), rel=0.05)
    he = fit(replace(SMALL, width=64, epochs=0), graphs).tensors
    assert he["weight.0"].std() == pytest.approx(1, rel=0.15)
    assert he["weight.1"].std() == pytest.approx(np.sqrt(2 / 64), rel=0.1)
