"""What all predictors owe to the loop that trains them."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bonas_core.errors import ModelError
from bonas_core.methods.bonas.predictors.base import Predictor, PredictorWeights
from bonas_core.methods.bonas.predictors.fitting import NetworkPredictor
from bonas_core.methods.bonas.predictors.gcn import GCN
from bonas_core.methods.bonas.predictors.lstm import LSTM
from bonas_core.methods.bonas.predictors.mlp import MLP
from bonas_core.methods.bonas.predictors.pyg import PyG
from bonas_core.spaces.encoding import PADDING, GraphBatch
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
PREDICTORS = [
    GCN(layers=2, width=8, epochs=4, initialisation="he"),
    MLP(widths=(128, 64), epochs=4),
    LSTM(width=8, epochs=4),
    PyG(model="GIN", layers=2, width=8, epochs=4, options={"norm": "batch_norm"}),
]
every_predictor = pytest.mark.parametrize("predictor", PREDICTORS, ids=lambda p: type(p).__name__)


def cells(count: int, seed: int = 0) -> GraphBatch:
    return SPACE.encode(SPACE.sample(count, np.random.default_rng(seed)))


def toy_targets(graphs: GraphBatch) -> np.ndarray:
    counts = (graphs.labels == 3).sum(axis=1) + 0.3 * (graphs.labels == 2).sum(axis=1)
    return (counts - counts.mean()) / counts.std()


def fit(predictor: NetworkPredictor, graphs: GraphBatch, seed: int = 0, **more) -> PredictorWeights:
    return predictor.fit(graphs, toy_targets(graphs), np.ones(len(graphs)), seed, **more)


def member(weights: PredictorWeights, number: int) -> PredictorWeights:
    """Weights of one member of an ensemble, as those of an ensemble of one."""
    tensors = {}
    for name, tensor in weights.tensors.items():
        if not name.startswith("members."):
            tensors[name] = tensor[number : number + 1]
        elif name.startswith(f"members.{number}."):
            tensors[name.replace(str(number), "0", 1)] = tensor
    return PredictorWeights(tensors)


@every_predictor
def test_it_is_a_predictor(predictor: NetworkPredictor):
    assert isinstance(predictor, Predictor)


@every_predictor
@pytest.mark.parametrize("batch_size", [128, 7])
def test_equal_seeds_give_equal_weights(predictor: NetworkPredictor, batch_size: int):
    predictor = replace(predictor, batch_size=batch_size)
    a, b, other = (fit(predictor, cells(20), seed) for seed in (1, 1, 2))
    for name, tensor in a.tensors.items():
        np.testing.assert_array_equal(tensor, b.tensors[name])
    assert a.losses == b.losses
    assert a.losses != other.losses


@every_predictor
def test_training_leaves_the_global_random_state_and_the_number_of_threads_alone(predictor: NetworkPredictor):
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    fit(predictor, cells(20))
    assert torch.equal(before, torch.get_rng_state())
    assert torch.get_num_threads() == threads


@every_predictor
def test_training_reduces_the_loss(predictor: NetworkPredictor):
    losses = fit(replace(predictor, epochs=150, learning_rate=5e-3, batch_size=16), cells(40)).losses
    assert len(losses) == 150
    assert np.mean(losses[-5:]) < 0.4 * losses[0]


@every_predictor
@pytest.mark.parametrize("ensemble", [1, 3])
def test_the_loop_is_that_of_adam_on_weighted_squares(predictor: NetworkPredictor, ensemble: int):
    predictor = replace(predictor, ensemble=ensemble, epochs=3, batch_size=8, learning_rate=1e-2)
    graphs, u = cells(20), torch.linspace(0, 1, 20)
    targets = torch.from_numpy(toy_targets(graphs).astype(np.float32))
    generator = torch.Generator().manual_seed(5)
    network = predictor._network(predictor._inputs(graphs), generator)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(3):
        for rows in torch.randperm(20, generator=generator).split(8):
            optimiser.zero_grad()
            predicted = network(predictor._inputs(graphs[rows.numpy()]))  # encoded anew, batch by batch
            sum(torch.mean(u[rows] * (member - targets[rows]) ** 2) for member in predicted).backward()
            optimiser.step()
    fitted = predictor.fit(graphs, toy_targets(graphs), u.numpy().astype(float), 5)
    for name, parameter in network.named_parameters():
        np.testing.assert_allclose(fitted.tensors[name], parameter.detach().numpy(), atol=1e-5)


@every_predictor
def test_members_of_an_ensemble_are_as_if_trained_alone(predictor: NetworkPredictor):
    together, graphs = replace(predictor, ensemble=3), cells(20)
    initial = fit(replace(together, epochs=0), graphs)
    all_at_once = fit(together, graphs, start=initial)
    embeddings = np.split(together.embed(all_at_once, graphs), 3, axis=1)
    for number in range(3):
        alone = fit(predictor, graphs, start=member(initial, number))
        part = member(all_at_once, number)
        assert part.tensors.keys() == alone.tensors.keys()
        for name, tensor in alone.tensors.items():
            np.testing.assert_allclose(part.tensors[name], tensor, atol=2e-5)
        np.testing.assert_allclose(embeddings[number], predictor.embed(alone, graphs), atol=1e-4)


@every_predictor
def test_predictions_are_the_mean_of_the_members(predictor: NetworkPredictor):
    together, graphs = replace(predictor, ensemble=3), cells(20)
    weights = fit(together, graphs)
    mean = np.mean([predictor.predict(member(weights, number), graphs) for number in range(3)], axis=0)
    predicted = together.predict(weights, graphs)
    assert predicted.shape == (20,)
    np.testing.assert_allclose(predicted, mean, atol=1e-5)


@every_predictor
def test_predictions_approach_the_targets(predictor: NetworkPredictor):
    graphs = cells(60)
    weights = fit(replace(predictor, epochs=200, learning_rate=5e-3), graphs)
    assert np.corrcoef(predictor.predict(weights, graphs), toy_targets(graphs))[0, 1] > 0.9


@every_predictor
def test_many_graphs_are_predicted_in_pieces_as_they_are_at_once(predictor: NetworkPredictor, monkeypatch):
    graphs = cells(50)
    weights = fit(predictor, graphs)
    at_once = predictor.embed(weights, graphs), predictor.predict(weights, graphs)
    monkeypatch.setattr("bonas_core.methods.bonas.predictors.fitting._CHUNK", 7)
    np.testing.assert_allclose(predictor.embed(weights, graphs), at_once[0], atol=1e-5)
    np.testing.assert_allclose(predictor.predict(weights, graphs), at_once[1], atol=1e-5)


@every_predictor
def test_a_warm_start_goes_on_from_the_weights_but_not_from_the_optimiser(predictor: NetworkPredictor):
    graphs = cells(40)
    first = fit(replace(predictor, epochs=40, learning_rate=1e-2), graphs)
    untouched = fit(replace(predictor, epochs=0), graphs, seed=9, start=first)
    for name, tensor in first.tensors.items():
        np.testing.assert_allclose(untouched.tensors[name], tensor, atol=1e-6)
    more = fit(replace(predictor, epochs=1), graphs, seed=9, start=first)
    assert more.losses[0] < 0.5 * first.losses[0]
    # the first step of a new Adam is one learning rate, whatever the size of the gradient
    moved = more.tensors["head_bias"] - first.tensors["head_bias"]
    assert np.abs(moved) == pytest.approx(predictor.learning_rate, rel=1e-2)


@every_predictor
def test_a_warm_start_leaves_the_weights_that_it_was_given_alone(predictor: NetworkPredictor):
    first = fit(predictor, cells(20))
    before = {name: tensor.copy() for name, tensor in first.tensors.items()}
    fit(predictor, cells(20), start=first)
    for name, tensor in before.items():
        np.testing.assert_array_equal(first.tensors[name], tensor)


@pytest.mark.parametrize("predictor", [p for p in PREDICTORS if not isinstance(p, MLP)], ids=lambda p: type(p).__name__)
def test_networks_trained_on_small_graphs_go_on_with_larger_ones(predictor: NetworkPredictor):
    space = NASBench101()
    drawn = space.sample(400, np.random.default_rng(0))
    sizes = space.vertices(drawn)
    small, large = (space.encode(drawn[sizes == size])[:30] for size in (6, 7))
    small = GraphBatch(small.labels[:, :6], small.adjacency[:, :6, :6], small.vocabulary)  # 6 vertices and no padding
    first = fit(predictor, small)
    more = fit(replace(predictor, epochs=0), large, start=first)
    for name, parameter in first.tensors.items():
        if "mean" not in name and "var" not in name:  # those are of the graphs that were seen last
            np.testing.assert_array_equal(more.tensors[name], parameter)
    assert np.isfinite(predictor.embed(fit(predictor, large, start=first), large)).all()


@every_predictor
@pytest.mark.parametrize("fault", ["wider", "absent", "foreign"])
def test_weights_of_another_shape_are_refused(predictor: NetworkPredictor, fault: str):
    graphs = cells(20)
    tensors = dict(fit(predictor, graphs).tensors)
    match fault:
        case "wider":
            tensors["head"] = np.zeros((1, 9, 1), dtype=np.float32)
        case "absent":
            del tensors["head"]
        case "foreign":
            tensors["tail"] = tensors["head"]
    weights = PredictorWeights(tensors)
    name = "tail" if fault == "foreign" else "head"
    with pytest.raises(ModelError, match=f"warm start: tensor `{name}` has .*, this predictor needs .*; use weights"):
        fit(predictor, graphs, start=weights)
    for use in (predictor.embed, predictor.predict):
        with pytest.raises(ModelError, match=f"predictor weights: tensor `{name}`") as caught:
            use(weights, graphs)
        assert "\n" not in str(caught.value)


@every_predictor
def test_a_watcher_sees_the_weights_of_every_epoch_and_may_end_the_training(predictor: NetworkPredictor):
    graphs, seen = cells(20), []

    def watch(epoch, current):
        seen.append((epoch, current()))
        return epoch == 3

    stopped = fit(replace(predictor, epochs=10), graphs, watch=watch)
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert len(stopped.losses) == 3
    for epoch, weights in seen:  # to look does not change the training
        alone = fit(replace(predictor, epochs=epoch), graphs)
        for name, tensor in alone.tensors.items():
            np.testing.assert_array_equal(weights.tensors[name], tensor)
        assert weights.losses == alone.losses


@every_predictor
def test_padding_never_matters(predictor: NetworkPredictor):
    rng = np.random.default_rng(3)
    exists = np.arange(7) < rng.integers(3, 8, size=24)[:, None]
    labels = np.where(exists, rng.integers(0, 4, size=(24, 7)), PADDING).astype(np.int8)
    adjacency = np.triu(rng.random((24, 7, 7)) < 0.5, 1) & exists[:, :, None] & exists[:, None, :]
    graphs = GraphBatch(labels, adjacency, ("a", "b", "c", "d"))
    weights = predictor.fit(graphs, rng.normal(size=24), np.ones(24), 0)
    np.testing.assert_allclose(
        predictor.embed(weights, graphs.padded_to(12)), predictor.embed(weights, graphs), atol=1e-5
    )
    alone = np.concatenate([predictor.predict(weights, graphs[i : i + 1]) for i in range(24)])
    np.testing.assert_allclose(alone, predictor.predict(weights, graphs), atol=1e-5)
