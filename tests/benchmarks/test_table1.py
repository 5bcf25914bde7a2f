"""Table 1 and Figure 3 on a made-up table."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from scipy.stats import pearsonr, spearmanr

from bonas_core.errors import SettingsError, TableError
from bonas_core.spaces.encoding import PADDING, GraphBatch
from bonas_core.spaces.nasbench201 import NASBench201
from flows.benchmarks import predictors as module
from flows.benchmarks.figure3 import density, figure3
from flows.benchmarks.plan import Plan
from flows.benchmarks.predictors import ENTRIES, correlation, graph_counts, run_predictors, split_rows
from flows.benchmarks.runs import run_all
from flows.benchmarks.table1 import table1

SPACE = NASBench201()
ALL = tuple(ENTRIES)
SMALL = {
    "mlp": {"predictor.widths": [16, 8]},
    "lstm": {"predictor.width": 8},
    "gcn": {"predictor.width": 8, "predictor.layers": 2},
    "gcn-best": {"predictor.width": 8, "predictor.layers": 2},
    "trees": {},
}


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """200 cells whose accuracy is a sum over their operations."""
    genotypes = SPACE.enumerate()[::78][:200]
    accuracy = 50 + (genotypes * [1, 2, 1, 3, 1, 2]).sum(axis=1)
    path = tmp_path / "made-up.csv"
    columns = {"arch_str": SPACE.format(genotypes), "acc_val_200": accuracy, "acc_test_200": accuracy + 1}
    pd.DataFrame({**columns, "acc_test_200_oneseed": accuracy + genotypes[:, 0] + 1}).to_csv(path, index=False)
    return path


@pytest.fixture
def small(cells: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """One split of small and short trainings, all in this process."""
    monkeypatch.setattr(module, "_TREES", 20)
    for name, entry in ENTRIES.items():
        monkeypatch.setitem(ENTRIES, name, replace(entry, overrides={**entry.overrides, **SMALL[name]}))
    monkeypatch.setattr(module, "run_all", here)
    settings = (
        f"evaluator.table={cells}",
        "evaluator.objective=acc_val_200",
        "evaluator.test=acc_test_200",
        "predictor.epochs=4",
    )
    return Plan(tmp_path / "out", seeds=range(1), overrides=settings)


def here(jobs, path: Path, processes: int) -> pd.DataFrame:
    module._cells.cache_clear()
    return pd.DataFrame([{**job.execute(), "digest": digest} for digest, job in jobs.items()])


@given(count=st.integers(40, 3000), split=st.integers(0, 50))
def test_a_split_puts_every_row_in_one_part(count: int, split: int):
    parts = split_rows(count, split)
    assert sorted(np.concatenate(parts).tolist()) == list(range(count))
    for part, share in zip(parts, (0.85, 0.10, 0.05), strict=True):
        assert abs(len(part) - share * count) <= 1
    for part, again, other in zip(parts, split_rows(count, split), split_rows(count, split + 1), strict=True):
        assert part.tolist() == again.tolist()
        assert part.tolist() != other.tolist()


def test_the_table_has_a_row_per_predictor_with_the_figure_of_the_paper(small: Plan):
    text = table1(replace(small, seeds=range(2)))
    lines = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in text.splitlines()}
    assert [lines[name][4] for name in ALL] == ["86.5", "79.5", "97.3", "-", "-"]
    assert all("±" in lines[name][2] and "±" in lines[name][3] for name in ALL)
    assert "200 cells, 2 random splits" in text
    assert "one training of each cell correlates with the mean of its trainings (itself included) in `acc_test" in text
    assert (small.folder / "table1.md").read_text() == text


def test_correlations_are_those_of_the_predictions_that_are_kept(small: Plan, cells: Path):
    frame = run_predictors(replace(small, seeds=range(2), methods=("trees", "gcn"))).frame
    table = pd.read_csv(cells)
    assert sorted(zip(frame["method"], frame["split"], strict=True)) == [
        ("gcn", 0),
        ("gcn", 1),
        ("trees", 0),
        ("trees", 1),
    ]
    for row in frame.itertuples():
        assert len(row.predicted) == len(row.actual) == 10
        assert set(np.round(row.actual, 6)) <= set(table["acc_val_200"])  # raw accuracies, in the table's own unit
        assert row.pearson == pytest.approx(pearsonr(row.predicted, row.actual).statistic)
        assert row.spearman == pytest.approx(spearmanr(row.predicted, row.actual).statistic)
        assert row.cells == 170
    assert frame.loc[frame["method"] == "trees", "pearson"].min() > 0.8


def test_equal_jobs_have_equal_digests_and_rows(small: Plan):
    def run(split_count: int, *more: str) -> pd.DataFrame:
        overrides = (*small.overrides, *more)
        return run_predictors(replace(small, seeds=range(split_count), methods=("lstm",), overrides=overrides)).frame

    first, again, other = run(2), run(2), run(1, "predictor.learning_rate=0.1")
    assert first["digest"].tolist() == again["digest"].tolist()
    assert first["predicted"].tolist() == again["predicted"].tolist()
    assert not set(other["digest"]) & set(first["digest"])
    # what has no part in it does not make a job another
    assert run(2, "budget.trials=7")["digest"].tolist() == first["digest"].tolist()


def test_a_training_ends_when_nothing_gets_better_and_the_best_epoch_counts(
    small: Plan, monkeypatch: pytest.MonkeyPatch
):
    def run(epochs: int) -> pd.Series:
        far_too_large = "predictor.learning_rate=0.2"
        settings = (*small.overrides[:-1], f"predictor.epochs={epochs}", far_too_large)
        return run_predictors(replace(small, methods=("mlp",), overrides=settings)).frame.iloc[0]

    monkeypatch.setattr(module, "_CHECKS", 1000)  # after every epoch
    row = run(200)
    assert row["epochs"] - row["epoch"] == 100
    assert row["epochs"] < 200
    monkeypatch.setattr(module, "_PATIENCE", 10)
    again = run(row["epoch"])
    assert again["epoch"] == again["epochs"] == row["epoch"]
    assert again["predicted"] == row["predicted"]


def test_the_figure_is_an_image_with_its_points_beside(small: Plan):
    text, out = figure3(replace(small, methods=("gcn", "trees"))), small.folder
    points = pd.read_parquet(out / "figure3.parquet")
    assert points.groupby("method").size().to_dict() == {"gcn": 10, "trees": 10}
    assert points.dtypes[["predicted", "actual"]].tolist() == [float, float]
    image = imread(io.BytesIO((out / "figure3.png").read_bytes()))
    assert image.shape[1] > image.shape[0] > 300
    assert len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 20
    assert "| gcn |" in text


def test_a_benchmark_that_is_done_is_not_run_again(small: Plan, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "run_all", run_all)  # in processes of their own
    plan = replace(small, seeds=range(2), methods=("trees",))
    first, again = (run_predictors(plan).frame for _ in range(2))
    assert again["cpu_s"].tolist() == first["cpu_s"].tolist()
    assert len(pd.read_parquet(plan.rows)) == 2


def test_density_is_largest_where_points_are_closest():
    x = np.array([0.0, 0.1, 0.05, 0.02, 5.0, 9.0])
    found = density(x, x + np.array([0.1, 0, 0.05, 0, 0.3, 0]))
    assert found.max() == 1
    assert found[:4].min() > found[4:].max()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_points_on_a_line_have_one_density(count: int):
    assert density(np.arange(count) * 1.0, np.zeros(count)).tolist() == [1.0] * count


def test_the_correlation_of_what_does_not_vary_is_none():
    varying, constant = np.arange(5.0), np.ones(5)
    assert correlation(pearsonr, varying, constant) == correlation(spearmanr, constant, varying) == 0
    assert correlation(pearsonr, varying, -varying) == pytest.approx(-1)


def test_counts_are_of_labels_edges_and_paths():
    edges = np.zeros((2, 4, 4), dtype=bool)
    edges[0, [0, 1, 0, 2], [1, 3, 2, 3]] = True  # input - a - output, input - b - output
    edges[1, [0, 1], [1, 2]] = True  # input - a - output
    labels = np.array([[2, 0, 1, 3], [2, 0, 3, PADDING]], dtype=np.int8)
    features = graph_counts(GraphBatch(labels, edges, ("a", "b", "input", "output")), positional=False)
    # what both have alike is left out: the first has one b, an edge to and from it, and a path through it more
    assert features.shape[1] == 4
    assert (features[0] - features[1]).tolist() == [1, 1, 1, 1]


@given(seed=st.integers(0, 1000))
def test_counts_do_not_depend_on_the_order_of_vertices(seed: int):
    rng = np.random.default_rng(seed)
    graphs = SPACE.encode(SPACE.sample(8, rng))
    order = rng.permutation(8)
    adjacency = np.broadcast_to(graphs.adjacency, (8, 8, 8))[:, order][:, :, order]
    moved = GraphBatch(graphs.labels[:, order], adjacency, graphs.vocabulary)
    np.testing.assert_array_equal(graph_counts(graphs, positional=False), graph_counts(moved, positional=False))


@pytest.mark.parametrize(
    ("benchmark", "changes", "error", "message"),
    [
        (table1, {"methods": ("oracle",)}, SettingsError, "`oracle` is unknown here; use"),
        (table1, {"overrides": ("evaluator.objective=acc_val_200",)}, TableError, "evaluator.table=PATH"),
        (figure3, {"space": "mars"}, SettingsError, "space `mars` has no preset"),
        (
            table1,
            {"methods": ("gcn",), "overrides": ("evaluator={kind: training}", "budget.stop_at=null")},
            SettingsError,
            "predictors learn from a table; set evaluator.kind=table",
        ),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    benchmark: Callable[[Plan], str], changes: dict[str, Any], error: type[Exception], message: str, small: Plan
):
    with pytest.raises(error, match=message) as caught:
        benchmark(replace(small, **changes))
    assert "\n" not in str(caught.value)


def test_a_table_too_small_to_be_split_is_refused(small: Plan, cells: Path):
    pd.read_csv(cells).head(30).to_csv(cells, index=False)
    with pytest.raises(TableError, match="the table has 30 cells, a split needs 40; use a larger one"):
        table1(small)
