"""`benchmarks/results.py`: the commands that it gives must be ones that the benchmarks take."""

from __future__ import annotations

import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flows.benchmarks import catalogue
from flows.benchmarks.plan import Plan
from flows.benchmarks.searches import preset_of, search_settings
from flows.benchmarks.studies import STUDIES
from flows.command.app import app

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "results.py"
RUNS: dict[str, str] = runpy.run_path(str(SCRIPT))["RUNS"]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_names_a_benchmark_and_methods_and_settings_that_exist(name: str, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, Plan]] = []
    monkeypatch.setattr(catalogue, "run_benchmark", lambda name, plan: str(asked.append((name, plan))))
    answer = CliRunner().invoke(app, ["benchmark", *shlex.split(RUNS[name])])
    assert answer.exit_code == 0, answer.output
    ((benchmark, plan),) = asked
    assert benchmark in catalogue.benchmarks()
    preset, overrides = preset_of(plan.space), [*plan.overrides, "evaluator.table=mine.parquet"]
    search_settings(preset, {}, 0, overrides)
    if benchmark in STUDIES:
        study = STUDIES[benchmark]
        for method in plan.choose(study.methods, study.default):
            search_settings(preset, study.methods[method].overrides, 0, overrides)


def test_a_failed_run_is_named_and_the_next_one_tried(tmp_path: Path):
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path / "out"), "--only", "cells-capped", "transfer"]
    done = subprocess.run(command, env={"BONAS_HOME": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("is not prepared") == 2
    assert done.stderr.splitlines()[-1] == "failed: cells-capped, transfer"
    assert "Traceback" not in done.stderr
    assert (tmp_path / "out" / "results.md").read_text().count("failed") == 2
