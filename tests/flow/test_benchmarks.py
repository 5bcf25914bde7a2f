"""The benchmarks that go through files and registries, on small made-up tables."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from matplotlib.image import imread

from bonas_core.errors import SettingsError
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.trials.history import TrialHistory
from flows.benchmarks.catalogue import run_benchmark
from flows.benchmarks.plan import Plan
from flows.command.app import exit_code

pytestmark = pytest.mark.flow

QUICK = ("predictor.epochs=3", "predictor.ensemble=1", "method.pool=40")


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    """Cells of 6 and of 7 vertices with made-up accuracies: many 3x3 convolutions are good."""
    space = NASBench101()
    drawn = space.sample(400, np.random.default_rng(0))
    _, first = np.unique(space.keys(drawn), return_index=True)
    graphs = space.encode(drawn[np.sort(first)])
    rows = []
    for labels, adjacency in zip(graphs.labels, graphs.adjacency, strict=True):
        there = labels >= 0
        names = [graphs.vocabulary[label] for label in labels[there]]
        if len(names) >= 6:
            accuracy = 0.8 + 0.02 * names.count("conv3x3-bn-relu") + 0.001 * adjacency.sum() + 1e-6 * len(rows)
            bits = adjacency[np.triu_indices(len(names), 1)].astype(int)
            rows.append({"adjacency": "".join(map(str, bits)), "ops": names, "val_acc_108": accuracy})
    path = tmp_path / "cells.parquet"
    pd.DataFrame(rows).to_parquet(path)
    return path


def test_transfer_searches_from_a_registered_predictor_of_the_smaller_cells(cells: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = (f"evaluator.table={cells}", *QUICK)
    printed = run_benchmark("transfer", Plan(out, "nasbench101", range(2), overrides=settings))
    runs = pd.read_parquet(out / "runs.parquet")
    assert sorted(zip(runs["method"], runs["seed"], strict=True)) == [
        (method, seed) for method in ("from-scratch", "pre-trained") for seed in (0, 1)
    ]
    assert runs["found"].all()
    sizes = [set(pd.read_parquet(out / f"cells-of-{vertices}-vertices.parquet")["ops"].map(len)) for vertices in (6, 7)]
    assert sizes == [{6}, {7}]
    assert "`models:/bonas-nasbench101" in printed
    assert "paper needs 2.7 times fewer" in printed
    # the initial trials are the same, what is learnt from them is not
    courses = [[list(row) for row in rows["improved_to"]] for _, rows in runs.groupby("method")]
    assert courses[0] != courses[1]


def test_a_benchmark_reports_usage_to_nobody(tmp_path: Path) -> None:
    names = ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR")
    code = f"""
import os, sys
from flows.command import app
from flows.benchmarks import catalogue

catalogue.run_benchmark = lambda *_: " ".join(os.environ.get(name, "unset") for name in {names})
sys.argv = ["bonas", "benchmark", "transfer"]
app.main()
"""
    environment = {name: value for name, value in os.environ.items() if name not in names}
    environment |= {"BONAS_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.stderr, done.returncode) == ("true 1 false\n", "", 0)


def test_methods_are_compared_by_samples_to_the_optimum_and_to_the_top(cells: Path, tmp_path: Path) -> None:
    settings = (f"evaluator.table={cells}", "budget.trials=12", *QUICK)
    methods = ("paper-mse", "paper-exp")
    printed = run_benchmark("figure5", Plan(tmp_path, "nasbench101", range(3), methods, overrides=settings))
    lines = [line.strip("| ").split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    table = pd.DataFrame(lines[2:], columns=lines[0]).set_index("method")
    runs = pd.read_parquet(tmp_path / "runs.parquet")
    runs["top_at"] = runs["top_at"].fillna(runs["evaluations"])  # as the cap, where it was not found
    means = runs.groupby("method")[["evaluations", "top_at"]].mean()
    ratios = means / means.loc["paper-mse"]
    for method in methods:
        assert table.loc[method, "ratio to paper-mse"].startswith(f"{ratios.loc[method, 'evaluations']:.2f} (")
        assert table.loc[method, "ratio, to the top 0.1 %"].startswith(f"{ratios.loc[method, 'top_at']:.2f} (")


@pytest.mark.parametrize("figure", ["figure4", "figure5"])
def test_figures_have_a_curve_a_method(figure: str, cells: Path, tmp_path: Path) -> None:
    methods = {"figure4": ("bonas-rs", "random"), "figure5": ("paper-mse", "paper-exp")}[figure]
    settings = (f"evaluator.table={cells}", *QUICK)
    printed = run_benchmark(figure, Plan(tmp_path, "nasbench101", range(2), methods, overrides=settings))
    picture = imread(tmp_path / f"{figure}.png")
    assert picture.shape[0] > 300
    assert len(np.unique(picture.reshape(-1, picture.shape[2]), axis=0)) > 20  # colours, bands and text
    for method in methods:
        assert f"| {method} |" in printed


def test_a_search_starts_from_a_registered_predictor_and_keeps_a_copy(cells: Path, tmp_path: Path) -> None:
    settings, store = tmp_path / "mine.yaml", tmp_path / "store"
    tree = {
        "space": "nasbench101",
        "evaluator": {
            "kind": "table", "table": str(cells), "objective": "val_acc_108", "test": None, "unit": "fraction"
        },
        "predictor": {"epochs": 3, "ensemble": 1},
        "method": {"sampler": "random", "pool": 30},
        "budget": {"trials": 12},
    }  # fmt: skip
    settings.write_text(yaml.safe_dump(tree))

    def searched(name: str, *overrides: str) -> list[str]:
        arguments = ["search", str(settings), "--store", str(store), "--id", name]
        assert exit_code([*arguments, *(part for override in overrides for part in ("--set", override))]) == 0
        return list(TrialHistory(store / name / "trials").to_pandas()["architecture"])

    cold = searched("cold")
    model = sorted((store / "cold" / "predictors").rglob("*.safetensors"))[-1]
    warm = searched("warm", f"predictor.warm_start={model}")
    assert warm[:5] == cold[:5]
    assert warm != cold
    assert (store / "warm" / "warm_start.safetensors").read_bytes() == model.read_bytes()
    model.unlink()  # the copy is enough to go on
    assert exit_code(["resume", "warm", "--trials", "14", "--store", str(store)]) == 0
    assert searched("registered", "predictor.warm_start=models:/bonas-nasbench101@champion")[:5] == cold[:5]


def test_trainings_compares_searches_that_really_train_and_goes_on_from_their_histories(tmp_path: Path) -> None:
    settings = ("budget.trials=4", "evaluator.epochs=1", "method.initial=3", *QUICK)
    out = tmp_path / "out"
    plan = Plan(out, "quickstart", range(2), overrides=settings)
    printed = run_benchmark("trainings", plan)
    runs = pd.read_parquet(out / "runs.parquet")
    assert sorted(zip(runs["method"], runs["seed"], strict=True)) == [
        (method, seed) for method in ("bonas", "random") for seed in (0, 1)
    ]
    assert (runs["evaluations"] == 4).all()
    assert [max(curve) for curve in runs["curve"]] == list(runs["best"])
    for method, rows in runs.groupby("method"):
        assert f"| {method} | 4 | 4.0 | {rows['best'].mean():.2f} ± " in printed
    assert imread(out / "trainings.png").size
    # killed after the trainings and before the table: nothing is trained again
    parts = {part: part.stat().st_mtime_ns for part in out.glob("searches/*/trials/*.parquet")}
    (out / "runs.parquet").unlink()
    assert run_benchmark("trainings", plan) == printed
    assert {part: part.stat().st_mtime_ns for part in out.glob("searches/*/trials/*.parquet")} == parts


@pytest.mark.parametrize(
    ("space", "methods", "said"),
    [
        ("nasbench201", None, "trains nothing"),
        ("quickstart", ("best",), "`best` is unknown here; use some of bonas, random"),
    ],
)
def test_trainings_refuses_what_it_cannot_run(
    space: str, methods: tuple[str, ...] | None, said: str, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match=said):
        run_benchmark("trainings", Plan(tmp_path / "out", space, range(1), methods))
    assert not (tmp_path / "out").exists()
