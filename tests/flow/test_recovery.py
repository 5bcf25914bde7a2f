"""Real kills of real processes: nothing finished is lost, nothing is done twice, the history comes out the same."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
import yaml

from bonas_core.testing import timeless
from bonas_core.trials.history import TrialHistory

pytestmark = pytest.mark.flow

SETTINGS: dict[str, Any] = {
    "space": "nasbench201",
    "evaluator": {"kind": "training", "data": "digits", "epochs": 4, "network": {"channels": 2, "cells": 1}},
    "method": {"initial": 3, "retrain_every": 2},
    "predictor": {"epochs": 5, "width": 4, "layers": 2},
    "budget": {"trials": 7},
}
WAITS = {**SETTINGS, "evaluator": {"kind": "waiting:Waiting"}}

WAITING = '''
import threading

from bonas_core.evaluators.base import Outcome


class Waiting:
    """Says at the third trial that it is there, and goes on with it for ever."""

    objective, unit, direction = "waiting", "trials", "maximise"

    def __init__(self, space):
        self.space, self.fingerprint, self.done = space, "waiting", 0

    def evaluate(self, architecture, context):
        if self.done == 2:
            print("training", flush=True)
            threading.Event().wait()
        self.done += 1
        return Outcome(float(self.done))
'''


def bonas(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "flows.command", *map(str, arguments)]


def settings_file(folder: Path, settings: dict[str, Any] = SETTINGS) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def rows(location: Path) -> list[dict[str, Any]]:
    return timeless(TrialHistory(location).trials())


def kill_in_training(command: list[str], checkpoints: Path, trial: int) -> None:
    """Runs a search and kills it once the trial has a checkpoint, that is, in the middle of its training."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wanted = checkpoints / str(trial) / "training.safetensors"
    while not wanted.exists():  # it appears, or the process ends and the assertion below says so
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)
            break
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the search ended before it could be killed"


def prefect_runs(search: Path) -> list[str]:
    """Ids of the flow runs that the last process of a search noted."""
    return list(json.loads((search / "prefect.json").read_text())["flow_runs"])


def states(runs: list[str]) -> dict[str, str]:
    """What Prefect believes of flow runs and of their subflows, by id."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId

    with get_client(sync_client=True) as client:
        found = [client.read_flow_run(UUID(run)) for run in runs]
        parents = FlowRunFilterParentFlowRunId(any_=[UUID(run) for run in runs])
        found += client.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parents))
    return {str(run.id): str(run.state_type.value) for run in found if run.state_type}


def test_a_search_killed_in_a_training_ends_as_if_it_had_run_through(tmp_path: Path) -> None:
    path, store = settings_file(tmp_path), tmp_path / "store"
    whole = subprocess.run(bonas("search", path, "--store", store, "--id", "whole"), capture_output=True, text=True)
    assert whole.returncode == 0, whole.stderr
    dead: list[str] = []
    for trial in (1, 5):
        kill_in_training(
            bonas("search", path, "--store", store, "--id", "killed"), store / "killed" / "checkpoints", trial
        )
        dead += prefect_runs(store / "killed")
    assert states(dead)[dead[1]] == "RUNNING"  # nobody has told Prefect yet
    shown = subprocess.run(bonas("show", "killed", "--store", store, "--json"), capture_output=True, text=True)
    assert json.loads(shown.stdout)["state"] == "interrupted"
    (store / "killed" / "trials" / ".trial-000003.parquet.abc.tmp").write_bytes(b"half")
    (store / "killed" / "checkpoints" / "0").mkdir(exist_ok=True)  # as left by a kill right after trial 0 was recorded
    resumed = subprocess.run(bonas("resume", "killed", "--store", store, "--json"), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    shown_after = json.loads(resumed.stdout)
    assert shown_after["state"] == "finished"
    assert shown_after["evaluations"] == shown_after["distinct"] == SETTINGS["budget"]["trials"]
    assert rows(store / "killed" / "trials") == rows(store / "whole" / "trials")
    assert not list((store / "killed" / "checkpoints").iterdir())
    assert not list((store / "killed").rglob("*.tmp"))
    found = states(dead)
    assert {found[run] for run in dead} == {"CRASHED"}
    assert "RUNNING" not in found.values()  # nor are the rounds that were under way


@pytest.mark.slow  # the same kill as above; replays of learning samplers are in the unit tests too
def test_a_search_whose_sampler_learns_ends_as_if_it_had_run_through(tmp_path: Path) -> None:
    path, store = settings_file(tmp_path), tmp_path / "store"
    method = ("method.sampler=reinforce", "method.pool=30", "method.controller.units=8", "method.controller.samples=40")
    chosen = [part for setting in (*method, "budget.trials=6", "evaluator.epochs=2") for part in ("--set", setting)]
    whole = subprocess.run(bonas("search", path, "--store", store, "--id", "whole", *chosen), capture_output=True)
    assert whole.returncode == 0, whole.stderr
    command = bonas("search", path, "--store", store, "--id", "killed", *chosen)
    kill_in_training(command, store / "killed" / "checkpoints", 4)
    stored = sorted(file.name for file in (store / "killed" / "samplers").iterdir())
    assert [name[:6] for name in stored] == ["000003", "000004"]  # there before trial 4 was
    resumed = subprocess.run(bonas("resume", "killed", "--store", store), capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert rows(store / "killed" / "trials") == rows(store / "whole" / "trials")
    both = [sorted(file.name for file in (store / name / "samplers").iterdir()) for name in ("killed", "whole")]
    assert both[0] == both[1]
    assert both[0][0] == stored[1]


def in_third_trial(folder: Path, store: Path, name: str) -> subprocess.Popen[str]:
    """A search that is in its third trial and will not end it."""
    (folder / "waiting.py").write_text(WAITING)
    process = subprocess.Popen(
        bonas("search", settings_file(folder, WAITS), "--store", store, "--id", name),
        cwd=folder,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert "training\n" in process.stdout  # reads on until the line is there, or the process ends
    return process


def test_an_interrupted_search_says_how_to_go_on(tmp_path: Path) -> None:
    store = tmp_path / "store"
    process = in_third_trial(tmp_path, store, "stopped")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130
    assert "go on with: " in errors
    assert f"bonas resume stopped --store {store}" in errors
    assert "Traceback" not in errors
    shown = subprocess.run(bonas("show", "stopped", "--store", store, "--json"), capture_output=True, text=True)
    assert json.loads(shown.stdout)["state"] == "paused"


def test_a_search_that_is_running_cannot_be_started_again(tmp_path: Path) -> None:
    path, store = settings_file(tmp_path, WAITS), tmp_path / "store"
    first = in_third_trial(tmp_path, store, "busy")
    try:
        second = subprocess.run(
            bonas("search", path, "--store", store, "--id", "busy"), cwd=tmp_path, capture_output=True, text=True
        )
        assert second.returncode == 2
        assert f"process {first.pid}" in second.stderr
        assert len(second.stderr.strip().splitlines()) == 1
        shown = subprocess.run(bonas("show", "busy", "--store", store, "--json"), capture_output=True, text=True)
        assert json.loads(shown.stdout)["state"] == "running"
    finally:
        first.kill()
        first.communicate()


def test_the_environment_of_children_is_the_test_server() -> None:
    assert os.environ["PREFECT_API_URL"].startswith("http://127.0.0.1:")
