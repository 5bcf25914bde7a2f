"""The commands as a person uses them, one after the other."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from bonas_core.spaces.nasbench201 import NASBench201
from flows.command.app import exit_code

pytestmark = pytest.mark.flow

Command = Callable[..., str]


@pytest.fixture
def bonas(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command that must succeed, and returns what it printed."""

    def run(*arguments: str | Path) -> str:
        code = exit_code([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    return run


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """A table of 250 real cells with made-up accuracies in percent, the best of them unique."""
    space = NASBench201()
    cells = space.enumerate()[7::63][:248]
    good = (cells == 3).sum(axis=1) * 5 + (cells == 2).sum(axis=1) * 3
    frame = pd.DataFrame({"arch_str": space.format(cells), "accuracy": 50.0 + good})
    frame["accuracy"] += frame.index * 1e-3
    frame["test"] = frame["accuracy"] - 1
    path = tmp_path / "table.csv"
    frame.to_csv(path, index=False)
    return path


def look_up(table: Path) -> dict[str, Any]:
    return {
        "evaluator": {"kind": "table", "table": str(table), "objective": "accuracy", "test": "test", "unit": "percent"},
        "method": {"initial": 5, "retrain_every": 5},
        "predictor": {"epochs": 10},
        "budget": {"trials": 12},
    }


def test_from_a_search_to_its_report_and_a_ranking(bonas: Command, table: Path, tmp_path: Path) -> None:
    settings, store = tmp_path / "mine.yaml", tmp_path / "store"
    settings.write_text(yaml.safe_dump(look_up(table)))
    printed = bonas("search", settings, "--store", store, "--seed", "5")
    assert "mine-s5 (finished: the budget of 12 trials is spent)" in printed
    assert "the search never saw it" in printed
    again = json.loads(bonas("search", settings, "--store", store, "--seed", "5", "--json"))
    assert again["evaluations"] == again["distinct"] == 12  # the same command finds it finished and adds nothing
    more = json.loads(bonas("resume", "mine-s5", "--trials", "15", "--store", store, "--json"))
    assert more["evaluations"] == 15
    assert {"id", "state", "space", "seed", "settings", "trials", "best", "history", "surrogate_s"} <= more.keys()
    assert more["trials"] == {"done": 15, "failed": 0, "diverged": 0, "running": 0, "proposed": 0}
    assert set(more["best"]) == {"trial", "architecture", "objective", "metrics"}
    listed = json.loads(bonas("list", "--store", store, "--json"))
    assert [found["id"] for found in listed["searches"]] == ["mine-s5"]
    assert "15/15" in bonas("list", "--store", store)
    out = tmp_path / "out"
    page = Path(bonas("report", "mine-s5", "--store", store, "--out", out).strip())
    assert page.parent == out
    assert "mine-s5" in page.read_text()
    best = more["best"]["architecture"]
    ranking = json.loads(
        bonas("rank", "nasbench201", best, NASBench201().format(NASBench201().enumerate()[:1])[0], "--json")
    )
    assert ranking["model"] == "models:/bonas-nasbench201@champion"
    assert [row["rank"] for row in ranking["ranking"]] == [1, 2]
    pool = json.loads(bonas("rank", "nasbench201", "--pool", "30", "--json"))["ranking"]
    assert len(pool) == len({row["architecture"] for row in pool}) == 30
    assert all(a["predicted"] >= b["predicted"] for a, b in pairwise(pool))


def test_ranking_with_the_model_of_another_space_is_refused(
    bonas: Command, table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = tmp_path / "mine.yaml"
    settings.write_text(yaml.safe_dump(look_up(table)))
    bonas("search", settings, "--store", tmp_path / "store", "--id", "for-ranking")
    assert exit_code(["rank", "nasbench101", "--pool", "3", "--model", "models:/bonas-nasbench201@champion"]) == 2
    assert "cannot rank space `nasbench101`" in capsys.readouterr().err
    assert exit_code(["rank", "nasbench101", "--pool", "3"]) == 2
    assert "cannot be had" in capsys.readouterr().err


def test_a_benchmark_is_written_and_goes_on_where_it_stopped(bonas: Command, table: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["benchmark", "table2", "--methods", "bonas-ea,random,re", "--out", out, "--jobs", "1"]
    for setting in (
        f"evaluator.table={table}",
        "evaluator.objective=accuracy",
        "evaluator.test=test",
        "predictor.epochs=5",
    ):
        arguments += ["--set", setting]
    bonas(*arguments, "--seeds", "2")
    first = pd.read_parquet(out / "runs.parquet")
    printed = bonas(*arguments, "--seeds", "3")
    runs = pd.read_parquet(out / "runs.parquet")
    assert {"method", "seed", "space", "objective", "evaluations", "distinct", "found", "surrogate_s"} <= set(
        runs.columns
    )
    assert sorted(zip(runs["method"], runs["seed"], strict=True)) == [
        (method, seed) for method in ("bonas-ea", "random", "re") for seed in range(3)
    ]
    assert runs["found"].all()
    assert (runs["evaluations"] == runs["distinct"]).all()
    kept = runs.merge(first, on=["method", "seed"], suffixes=("", "_before"))
    assert len(kept) == 6
    assert (kept["wall_s"] == kept["wall_s_before"]).all()  # the finished ones were not run again
    assert "Random search takes 124.5 on average" in printed
    assert "| bonas-ea | pool |" in (out / "table2.md").read_text()
    # settings are chosen on other seeds than those that are reported
    assert "2 searches a method, seeds 2 to 3;" in bonas(*arguments, "--seeds", "2", "--first-seed", "2")
    assert set(pd.read_parquet(out / "runs.parquet")["seed"]) == {0, 1, 2, 3}


def test_the_real_table_is_prepared_checked_and_searched(
    bonas: Command, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BONAS_HOME", str(tmp_path / "own-home"))
    assert "cifar10_val_200 (percent)" in bonas(
        "data", "prepare", "nasbench201", "--source", shared_data / "nasbench201.parquet"
    )
    assert "15625 cells, as prepared" in bonas("data", "check", "nasbench201")
    found = json.loads(bonas("search", "nb201-c10-val", "--seed", "0", "--json"))
    assert found["best"]["metrics"]["index"] == 6111
    assert found["best"]["objective"] == pytest.approx(91.6067, abs=1e-4)
    assert found["reason"].startswith("objective 91.6067 reached")


OWN_TRAINING = """
from bonas_core.evaluators.base import Outcome


class MyTraining:
    objective, unit, direction = "my loss", "nats", "minimise"

    def __init__(self, space, width=32):
        self.space, self.width = space, width
        self.fingerprint = f"mine-{width}"

    def evaluate(self, architecture, context):
        return Outcome(self.width - architecture.operations.count("nor_conv_3x3"), metrics={"test": 1.0})
"""


def test_a_training_function_of_ones_own_stands_in_the_working_folder(
    bonas: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(OWN_TRAINING)
    monkeypatch.chdir(tmp_path)
    setting = "evaluator={kind: mine:MyTraining, width: 64}"
    arguments = ["search", "quickstart", "--trials", "14", "--set", setting, "--store", "store", "--id", "mine"]
    found = json.loads(bonas(*arguments, "--json"))
    assert found["objective"] == {"name": "my loss", "unit": "nats", "direction": "minimise"}
    best = found["best"]
    assert best["objective"] == 64 - best["architecture"].count("nor_conv_3x3")
    assert "minimise" in bonas("show", "mine", "--store", "store")


def test_presets_are_listed_with_a_line_each(bonas: Command) -> None:
    printed = bonas("presets")
    for name in ("quickstart", "nb201-c10-val", "nb201-c10-test", "nb201-c100-val", "nb201-c100-test"):
        assert name in printed


def test_help_needs_neither_torch_nor_prefect_nor_mlflow() -> None:
    import subprocess
    import sys

    program = (
        "import sys; sys.argv = ['bonas', '--help']\n"
        "from flows.command.app import exit_code\n"
        "assert exit_code(['--help']) == 0\n"
        "heavy = {'torch', 'prefect', 'mlflow', 'pandas', 'torch_geometric', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
