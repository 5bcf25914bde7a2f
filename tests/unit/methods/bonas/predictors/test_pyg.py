import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch_geometric.nn import global_add_pool, models
from torch_geometric.nn.models.basic_gnn import BasicGNN

from bonas_core.errors import ModelError, SettingsError
from bonas_core.methods.bonas.predictors.base import PredictorWeights
from bonas_core.methods.bonas.predictors.pyg import MODELS, READOUTS, PyG
from bonas_core.spaces.encoding import PADDING, GraphBatch, with_global_vertex
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.storage.tensors import read_tensors, write_tensors

SPACE = NASBench201()
SMALL = PyG(layers=2, width=8, epochs=4, learning_rate=1e-2)
every_model = pytest.mark.parametrize("model", MODELS)


def cells(count: int, seed: int = 0) -> GraphBatch:
    return SPACE.encode(SPACE.sample(count, np.random.default_rng(seed)))


def graphs_of_many_sizes(count: int = 24, seed: int = 0) -> GraphBatch:
    """Random graphs of 3 to 7 vertices whose edges differ, padded to 7."""
    rng = np.random.default_rng(seed)
    exists = np.arange(7) < rng.integers(3, 8, size=count)[:, None]
    labels = np.where(exists, rng.integers(0, 4, size=(count, 7)), PADDING).astype(np.int8)
    adjacency = np.triu(rng.random((count, 7, 7)) < 0.5, 1) & exists[:, :, None] & exists[:, None, :]
    return GraphBatch(labels, adjacency, ("a", "b", "c", "d"))


def convolutions(graphs: GraphBatch) -> np.ndarray:
    """Standardised number of 3 x 3 convolutions."""
    counts = (graphs.labels == graphs.vocabulary.index("nor_conv_3x3")).sum(axis=1)
    return (counts - counts.mean()) / counts.std()


def fit(pyg: PyG, graphs: GraphBatch, seed: int = 0, start: PredictorWeights | None = None) -> PredictorWeights:
    return pyg.fit(graphs, np.linspace(-1, 1, len(graphs)), np.ones(len(graphs)), seed, start)


def assert_equal(a: PredictorWeights, b: PredictorWeights) -> None:
    assert a.tensors.keys() == b.tensors.keys()
    for name, tensor in a.tensors.items():
        np.testing.assert_array_equal(tensor, b.tensors[name])


class Own(nn.Module):
    """A network with all that needs care: lazy layers, dropout, batch normalisation, and a batch that it changes."""

    def __init__(self, in_channels: int, width: int, layers: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.LazyLinear(width) for _ in range(layers))
        self.normalise = nn.BatchNorm1d(width)
        self.dropout = nn.Dropout(dropout)
        self.in_channels = in_channels

    def forward(self, batch):
        assert batch.x.shape == (int(batch.ptr[-1]), self.in_channels)
        for layer in self.layers:
            batch.x = torch.relu(layer(batch.x))
        return self.normalise(self.dropout(global_add_pool(batch.x, batch.batch, size=batch.num_graphs)))


class PerVertex(Own):
    def forward(self, batch):
        return self.layers[0](batch.x)


class Squeezing(Own):
    """A network that forgets a dimension where the batch is one graph."""

    def forward(self, batch):
        return super().forward(batch).squeeze(0)


class Mixing(Own):
    """A network that takes the graphs of a batch for one."""

    def forward(self, batch):
        return super().forward(batch) - batch.x.mean(dim=0)


class Random(Own):
    def forward(self, batch):
        return torch.nn.functional.dropout(super().forward(batch))


class Text(Own):
    def forward(self, batch):
        return "embeddings"


class Broken(Own):
    def forward(self, batch):
        raise RuntimeError("mat1 and mat2 shapes\ncannot be multiplied")


def own(network: type[object], **settings: object) -> PyG:
    return replace(SMALL, model=f"{__name__}:{network.__name__}", **settings)


def test_the_models_are_those_of_torch_geometric_with_one_interface():
    found = [name for name in models.__all__ if isinstance(getattr(models, name), type)]
    assert sorted(name for name in found if issubclass(getattr(models, name), BasicGNN)) == sorted(MODELS)


@pytest.mark.parametrize(
    ("model", "readout"), [*((model, "global") for model in MODELS), ("GIN", "vertices"), ("GIN", "mean")]
)
def test_a_toy_function_is_learnt_well_enough_to_rank_unseen_cells(model: str, readout: str):
    pyg = PyG(model=model, layers=2, readout=readout, epochs=80, learning_rate=1e-2, options={"norm": "batch_norm"})
    known, unseen = cells(100), cells(200, seed=1)
    weights = pyg.fit(known, convolutions(known), np.ones(100), 0)
    assert spearmanr(pyg.predict(weights, unseen), convolutions(unseen)).statistic > 0.85


@every_model
@pytest.mark.parametrize("readout", READOUTS)
def test_embeddings_are_those_of_the_model_of_torch_geometric_graph_by_graph(model: str, readout: str):
    graphs = graphs_of_many_sizes(6)
    pyg = replace(SMALL, model=model, readout=readout, ensemble=2)
    weights = fit(pyg, graphs)
    seen = with_global_vertex(graphs) if readout == "global" else graphs
    F, V = len(seen.vocabulary), seen.labels.shape[1]
    options = {"aggregators": ["mean", "min", "max", "std"],
               "scalers": ["identity", "amplification", "attenuation"],
               "deg": torch.ones(3)} if model == "PNA" else {}  # fmt: skip
    members = []
    for member in range(2):
        network = getattr(models, model)(F, 8, 2, **options)
        prefix = f"members.{member}.model."
        network.load_state_dict(
            {name.removeprefix(prefix): torch.from_numpy(tensor)
             for name, tensor in weights.tensors.items() if name.startswith(prefix)}
        )  # fmt: skip
        rows = []
        for labels, edges in zip(seen.labels, seen.adjacency, strict=True):
            x = torch.eye(F)[labels[labels != PADDING].tolist()]
            h = network(x, torch.from_numpy(np.stack(np.nonzero(edges)))).detach().numpy()
            padded = np.concatenate([h, np.zeros((V - len(h), 8))])
            rows.append({"global": h[0], "mean": h.mean(axis=0), "vertices": padded.ravel()}[readout])
        members.append(rows)
    np.testing.assert_allclose(pyg.embed(weights, graphs), np.concatenate(members, axis=1), atol=1e-5)


@every_model
def test_vertices_aggregate_over_predecessors(model: str):
    chains = GraphBatch(
        np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0]], dtype=np.int8),
        np.array([[[0, 1, 0], [0, 0, 0], [0, 0, 0]]], dtype=bool),
        ("a", "b"),
    )
    pyg = replace(SMALL, model=model, layers=1, readout="vertices")
    same, target, source = pyg.embed(fit(pyg, chains), chains).reshape(3, 3, 8)
    np.testing.assert_allclose(target[0], same[0], atol=1e-6)
    assert not np.allclose(source[1], same[1], atol=1e-4)
    np.testing.assert_allclose(target[2], same[2], atol=1e-6)


@every_model
@pytest.mark.parametrize("readout", ["global", "mean"])
def test_embeddings_do_not_change_when_vertices_change_places(model: str, readout: str):
    pyg = replace(SMALL, model=model, readout=readout)
    graphs = graphs_of_many_sizes()
    weights = fit(pyg, graphs)
    rng = np.random.default_rng(1)
    labels, adjacency = graphs.labels.copy(), graphs.adjacency.copy()
    for b in range(len(graphs)):
        order = rng.permutation(7)
        labels[b], adjacency[b] = labels[b][order], adjacency[b][order][:, order]
    moved = GraphBatch(labels, adjacency, graphs.vocabulary)
    np.testing.assert_allclose(pyg.embed(weights, moved), pyg.embed(weights, graphs), atol=1e-5)


@pytest.mark.parametrize(
    "pyg",
    [
        *(replace(SMALL, model=model, options={"norm": "batch_norm"}) for model in MODELS),
        replace(SMALL, model="GraphSAGE", readout="mean", options={"norm": "GraphNorm"}),
        own(Own, options={"dropout": 0.5}),
    ],
    ids=lambda pyg: pyg.model,
)
def test_an_embedding_depends_neither_on_padding_nor_on_the_other_graphs_of_a_batch(pyg: PyG):
    graphs = graphs_of_many_sizes()
    weights = fit(pyg, graphs)
    embedded = pyg.embed(weights, graphs)
    np.testing.assert_allclose(pyg.embed(weights, graphs.padded_to(12)), embedded, atol=1e-5)
    alone = np.concatenate([pyg.embed(weights, graphs[i : i + 1]) for i in range(len(graphs))])
    np.testing.assert_allclose(alone, embedded, atol=1e-5)
    padded = fit(pyg, graphs.padded_to(12))
    assert_equal(padded, weights)


@pytest.mark.parametrize(
    "pyg",
    [*(replace(SMALL, model=model, options={"dropout": 0.3}) for model in MODELS), own(Own, options={"dropout": 0.3})],
    ids=lambda pyg: pyg.model,
)
def test_equal_seeds_give_equal_weights_whatever_has_been_drawn_before(pyg: PyG):
    pyg, graphs = replace(pyg, batch_size=7, ensemble=2), cells(20)
    a = fit(pyg, graphs, seed=1)
    torch.rand(3)
    before = torch.get_rng_state()
    b, other = fit(pyg, graphs, seed=1), fit(pyg, graphs, seed=2)
    embedded = pyg.embed(a, graphs)
    assert torch.equal(torch.get_rng_state(), before)
    assert_equal(a, b)
    assert a.losses == b.losses
    assert a.losses != other.losses
    np.testing.assert_array_equal(pyg.embed(b, graphs), embedded)
    assert not np.allclose(*np.split(embedded, 2, axis=1), atol=1e-3)  # members differ


def test_dropout_is_of_the_training_only():
    graphs = cells(20)
    plain, dropping = own(Own), own(Own, options={"dropout": 0.5})
    assert fit(dropping, graphs).losses != fit(plain, graphs).losses
    weights = fit(dropping, graphs)
    np.testing.assert_array_equal(dropping.embed(weights, graphs), plain.embed(weights, graphs))


@pytest.mark.parametrize("batch_size", [128, 7])
def test_batch_normalisation_has_the_statistics_of_the_whole_training_set(batch_size: int):
    pyg, graphs = own(Own, batch_size=batch_size, options={"dropout": 0.5}), graphs_of_many_sizes()
    weights = fit(pyg, graphs)
    assert not np.allclose(weights.tensors["members.0.normalise.weight"], 1)
    gain, shift = (weights.tensors[f"members.0.normalise.{name}"] for name in ("weight", "bias"))
    features = (pyg.embed(weights, graphs) - shift) / gain
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-3)
    std = features.std(axis=0, ddof=1)
    np.testing.assert_allclose(std[std > 1e-2], 1, atol=1e-2)  # a unit that is always zero has no spread
    assert (std > 1e-2).any()


@pytest.mark.parametrize("count", [15, 1])
def test_batch_normalisation_of_graphs_bears_a_batch_of_one(count: int):
    pyg, graphs = own(Own, batch_size=7), cells(count)
    weights = fit(pyg, graphs)
    assert np.isfinite(weights.losses).all()
    assert np.isfinite(pyg.embed(weights, graphs)).all()


def test_degrees_of_pna_are_those_of_the_training_set():
    pyg, graphs = replace(SMALL, model="PNA", batch_size=5), graphs_of_many_sizes()
    weights = fit(pyg, graphs)
    seen = with_global_vertex(graphs)
    degrees = seen.adjacency.sum(axis=1)[seen.mask]
    for layer in range(2):
        scaler = f"members.0.model.convs.{layer}.aggr_module.avg_deg"
        assert weights.tensors[f"{scaler}_log"] == pytest.approx(np.log(degrees + 1).mean())
        assert weights.tensors[f"{scaler}_lin"] == pytest.approx(degrees.mean())


def test_options_reach_the_model():
    graphs = cells(10)
    weights = fit(PyG(model="GAT", width=6, epochs=0, options={"heads": 3, "jk": "cat", "v2": True}), graphs)
    assert weights.tensors["members.0.model.convs.0.att"].shape == (1, 3, 2)
    assert weights.tensors["members.0.model.lin.weight"].shape == (6, 4 * 6)
    pna = fit(PyG(model="PNA", width=6, epochs=0, options={"aggregators": ["sum"], "scalers": ["linear"]}), graphs)
    assert pna.tensors["members.0.model.convs.1.post_nns.0.0.weight"].shape == (6, 2 * 6)


@pytest.mark.parametrize("pyg", [replace(SMALL, model="PNA", options={"norm": "batch_norm"}), own(Own)])
def test_a_stored_predictor_predicts_the_same(pyg: PyG, tmp_path: Path):
    graphs, others = graphs_of_many_sizes(), graphs_of_many_sizes(seed=1)
    weights = fit(pyg, graphs)
    assert {tensor.dtype for tensor in weights.tensors.values()} == {np.dtype(np.float32)}
    write_tensors(tmp_path / "weights.safetensors", {}, weights.tensors)
    read = PredictorWeights(read_tensors(tmp_path / "weights.safetensors")[1])
    assert_equal(read, weights)
    np.testing.assert_array_equal(pyg.predict(read, others), pyg.predict(weights, others))
    assert_equal(fit(replace(pyg, epochs=0), graphs, seed=1, start=read), weights)
    assert fit(pyg, graphs, start=read).losses == fit(pyg, graphs, start=weights).losses


@every_model
@pytest.mark.parametrize("other", [{"width": 4}, {"layers": 3}, {"ensemble": 2}, {"readout": "vertices"}], ids=str)
def test_a_warm_start_of_another_shape_is_refused(model: str, other: dict[str, object]):
    pyg, graphs = replace(SMALL, model=model, epochs=1), cells(10)
    weights = fit(replace(pyg, **other), graphs)
    with pytest.raises(ModelError, match=r"warm start: tensor `.*` has .*, this predictor needs") as caught:
        fit(pyg, graphs, start=weights)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused():
    graphs = cells(10)
    with pytest.raises(ModelError, match="predictor weights: tensor"):
        replace(SMALL, model="GAT").embed(fit(SMALL, graphs), graphs)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_network_of_ones_own_is_trained(readout: str):
    pyg = own(Own, readout=readout, ensemble=3, epochs=80, options={"dropout": 0.1})
    known, unseen = cells(100), cells(200, seed=1)
    pyg.check(known)
    weights = pyg.fit(known, convolutions(known), np.ones(100), 0)
    assert len(weights.losses) == 80
    assert pyg.embed(weights, known).shape == (100, 3 * 8)
    assert spearmanr(pyg.predict(weights, unseen), convolutions(unseen)).statistic > 0.9


def refused(pyg: PyG, message: str, graphs: GraphBatch | None = None) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        pyg.check(cells(10) if graphs is None else graphs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (
            PerVertex,
            r"returned a tensor of 18 x 8, torch.float32 for 2 graphs; return a row of numbers for every graph",
        ),
        (
            Text,
            "returned a str for 2 graphs; return a row of numbers for every graph, a floating-point tensor of shape",
        ),
        (Broken, r"with 2 layers of width 8 and options {} \(mat1 and mat2 shapes\); correct the setting"),
        (Squeezing, r"returned a tensor of 8, torch.float32 for 1 graphs; return a row"),
        (
            Mixing,
            "with options {} makes the embedding of a graph depend on the other graphs of its batch, or on chance; ch",
        ),
        (Random, "makes the embedding of a graph depend on .* chance; .* draw nothing in evaluation mode"),
        (SettingsError, "is no subclass of torch.nn.Module; name a class that is built as Class"),
        (cells, "is no subclass of torch.nn.Module"),
    ],
)
def test_what_is_no_network_that_embeds_graphs_is_refused(network: type[object], message: str):
    refused(own(network), f"predictor.model: `{__name__}:{network.__name__}` .*{message}")


@pytest.mark.parametrize("model", ["GIN", "EdgeCNN"])
def test_a_normalisation_that_mixes_the_graphs_of_a_batch_is_refused(model: str):
    # their inner perceptrons do not tell the normalisation which vertex belongs to which graph
    refused(
        replace(SMALL, model=model, options={"norm": "GraphNorm"}), f"`{model}` with options .*GraphNorm.* makes the"
    )


@pytest.mark.parametrize("name", ["nowhere:Network", f"{__name__}:Nothing"])
def test_a_network_that_is_not_there_is_refused(name: str):
    refused(replace(SMALL, model=name), f"predictor `{name}` cannot be loaded .*; check module and object")


@pytest.mark.parametrize("name", ["Gin", "SchNet", "GraphUNet", "Node2Vec", "MLP", ""])
def test_models_that_are_unknown_or_of_another_interface_are_refused(name: str):
    message = f"predictor.model: `{name}` is none of .*; use one of EdgeCNN, GAT, GCN, GIN, GraphSAGE, PNA, or module:C"
    with pytest.raises(SettingsError, match=message) as caught:
        PyG(model=name)
    assert "\n" not in str(caught.value)


def test_an_unknown_readout_is_refused():
    with pytest.raises(SettingsError, match=r"predictor.readout: `sum` is unknown; use one of global, vertices, mean"):
        PyG(readout="sum")


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        ("GIN", {"depth": 3}, "depth"),
        ("GAT", {"heads": 3}, "divisible by the number of heads"),
        ("GCN", {"norm": "nonsense"}, "nonsense"),
        ("GIN", {"in_channels": 3}, "in_channels"),
        ("PNA", {"scalers": ["nonsense"]}, "nonsense"),
    ],
)
def test_options_that_a_model_does_not_take_are_refused(model: str, options: dict[str, object], reason: str):
    refused(
        replace(SMALL, model=model, options=options), rf"predictor.model: `{model}` cannot .* \(.*{reason}.*\); cor"
    )


def test_torch_geometric_is_loaded_only_where_it_is_needed():
    code = f"import sys; from {PyG.__module__} import PyG; PyG(model='GAT'); sys.exit('torch_geometric' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
