"""The commands on a store in S3, a real server of its protocol, under real Prefect and MLflow."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from bonas_core.methods.bonas.model import FILE_NAME
from bonas_core.problem import build
from bonas_core.search import run
from bonas_core.settings import parse_settings
from bonas_core.storage import read_whole, single_writer, store_folder
from bonas_core.testing import timeless
from bonas_core.trials.history import TrialHistory
from flows.command.app import exit_code

pytestmark = pytest.mark.flow

SETTINGS = {
    "evaluator": {"kind": "bonas_core.testing:ToyEvaluator"},
    "method": {
        "initial": 4,
        "retrain_every": 3,
        "sampler": "reinforce",
        "pool": 30,
        "controller": {"units": 8, "samples": 20},
    },
    "predictor": {"epochs": 4, "width": 8, "layers": 2},
    "budget": {"trials": 7},
    "tracking": {"experiment": "on-s3"},
}


@pytest.mark.slow  # the same through the plain driver is in the unit tests
def test_a_search_lives_in_a_bucket(s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tasks.mlflow_store.client import connect

    uri = s3.format("searches")
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(SETTINGS))

    def bonas(*arguments: str | Path) -> str:
        code = exit_code([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        return captured.out

    bonas("search", tmp_path / "mine.yaml", "--store", uri, "--id", "kept")
    shown = json.loads(bonas("resume", "kept", "--trials", "10", "--store", uri, "--json"))
    plain = run(build(parse_settings({**SETTINGS, "budget": {"trials": 10}}, "plain")))
    assert timeless(TrialHistory(shown["history"]).trials()) == timeless(plain.rows)
    assert (shown["state"], shown["trials"]["done"]) == ("finished", 10)
    assert [found["id"] for found in json.loads(bonas("list", "--store", uri, "--json"))["searches"]] == ["kept"]
    report = store_folder(bonas("report", "kept", "--store", uri).strip())
    assert b"kept" in read_whole(report, 1 << 24)
    folder = store_folder(uri) / "kept"
    assert len(list((folder / "predictors").glob(f"*/{FILE_NAME}"))) == 2
    assert [path.name[:6] for path in (folder / "samplers").glob("*.safetensors")] == ["000008", "000009"]
    assert not list((folder / "checkpoints").glob("*/*"))
    client = connect(None)
    experiment = client.get_experiment_by_name("on-s3")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 3  # the search and its predictors
    with single_writer(folder):
        assert exit_code(["resume", "kept", "--trials", "12", "--store", uri]) == 2
    refused = capsys.readouterr().err
    assert "is being written by process" in refused
    assert len(refused.strip().splitlines()) == 1
