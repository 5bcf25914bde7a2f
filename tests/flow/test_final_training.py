"""Final trainings as a person runs them: chosen from a search, killed, gone on with, registered, carried over."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from bonas_core.errors import ModelError
from bonas_core.image_training.datasets import load
from bonas_core.settings import parse_settings
from bonas_core.trials.history import TrialHistory
from flows.command.app import exit_code

pytestmark = pytest.mark.flow

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
SEARCH: dict[str, Any] = {
    "evaluator": {"kind": "training", "epochs": 1, "network": {"channels": 2}},
    "method": {"name": "random"},
    "budget": {"trials": 4},
}
FINAL: dict[str, Any] = {
    "evaluator": {"kind": "training", "validation_images": 0, "epochs": 2, "network": {"channels": 2}},
}
COMPARED = {"evaluator": {"kind": "training", "epochs": 1, "network": {"channels": 2}}}

Command = Callable[..., Any]


@pytest.fixture
def bonas(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command that must succeed, and returns what it printed as JSON."""

    def run(*arguments: object) -> Any:
        code = exit_code([*map(str, arguments), "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert "warning" not in captured.err
        return json.loads(captured.out)

    return run


def written(folder: Path, name: str, settings: dict[str, Any]) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.fixture
def searched(store: Path) -> list[Any]:
    """A finished search `found`; its trials from the best to the worst."""
    from flows.search import search

    search(parse_settings({**SEARCH, "store": str(store)}, "test"), search_id="found")
    trials = TrialHistory(store / "found" / "trials").trials()
    return sorted(trials, key=lambda trial: -(trial.objective or 0))


def test_the_best_cells_of_a_search_are_trained_registered_and_carried_over(
    bonas: Command, searched: list[Any], store: Path, tmp_path: Path
) -> None:
    from tasks.mlflow_store.client import connect
    from tasks.mlflow_store.networks import load_network

    final = written(tmp_path, "final", FINAL)
    command = ["train", final, "--from", "found", "--top", "2", "--store", store]
    shown = bonas(*command)
    assert (shown["id"], shown["state"]) == ("final-found-top2-s0", "finished")
    assert [cell["cell"] for cell in shown["cells"]] == [trial.architecture for trial in searched[:2]]
    assert f"trial {searched[0].trial} of search found" in shown["cells"][0]["origin"]
    assert [cell["validation"] for cell in shown["cells"]] == [None, None]
    folder = store / shown["id"] / "cells" / "1"
    assert {path.name for path in folder.iterdir()} == {
        "network.safetensors", "card.md", "cell.png", "curve.png", "curve.json", "result.json",
    }  # fmt: skip

    # what is registered is what was trained: it finds the accuracy that was printed
    first = shown["cells"][0]
    network = load_network(first["model"])
    images, labels = load("digits").test
    with torch.inference_mode():
        right = (network.classifier()(images).argmax(dim=1) == labels).double().mean()
    assert 100 * float(right) == pytest.approx(first["test"])
    assert network.figures == {"test": first["test"]}
    client = connect(None)
    name, alias = first["model"].removeprefix("models:/").split("@")
    version = client.get_model_version_by_alias(name, alias)
    run = client.get_run(version.run_id)
    assert run.data.metrics["params"] == first["params"]
    assert run.data.metrics["test"] == first["test"]
    assert [point.step for point in client.get_metric_history(version.run_id, "train_loss")] == [1, 2]
    assert {item.path for item in client.list_artifacts(version.run_id, "card")} == {
        "card/card.md", "card/cell.png", "card/curve.png",
    }  # fmt: skip
    assert first["cell"] in run.data.tags["mlflow.note.content"]

    # again: nothing is trained, nothing is registered twice, a lost MLflow store is filled again
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*.safetensors")}
    assert bonas(*command) == shown
    assert {path: path.stat().st_mtime_ns for path in store.rglob("*.safetensors")} == before
    assert len(client.search_model_versions(f"name = '{name}'")) == 2
    client.delete_registered_model(name)
    client.delete_run(version.run_id)
    bonas(*command)
    assert load_network(first["model"]).cell == first["cell"]

    # the next training takes the best of this one: without images held out, the order of the search
    carried = bonas("train", final, "--from", shown["id"], "--set", "seed=1", "--store", store)
    assert carried["cells"][0]["cell"] == searched[0].architecture
    assert bonas("show", carried["id"], "--store", store) == carried
    # with images held out, the accuracy on these decides
    compared = written(tmp_path, "compared", COMPARED)
    both = bonas("train", compared, "--from", "found", "--top", "2", "--store", store)
    best = max(both["cells"], key=lambda cell: cell["validation"])
    assert bonas("train", final, "--from", both["id"], "--store", store)["cells"][0]["cell"] == best["cell"]


def test_a_version_with_a_pickle_is_refused(tmp_path: Path) -> None:
    from tasks.mlflow_store.client import connect, experiment
    from tasks.mlflow_store.networks import load_network

    client = connect(None)
    run = client.create_run(experiment(client, "bonas-traps"))
    trap = tmp_path / "trap"
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(print))
    (tmp_path / "network.safetensors").write_bytes(pickle.dumps(trap))
    client.create_registered_model("bonas-traps")
    for number, names in enumerate((["model.pkl"], ["network.safetensors"], []), start=1):
        for name in names:
            client.log_artifact(run.info.run_id, str(tmp_path / name), f"v{number}")
        client.create_model_version("bonas-traps", f"{run.info.artifact_uri}/v{number}", run.info.run_id)
    for version, message in ((1, "holds `model.pkl`"), (2, "is not a trained network"), (3, "cannot be had|not exist")):
        with pytest.raises(ModelError, match=message) as caught:
            load_network(f"models:/bonas-traps/{version}")
        assert "\n" not in str(caught.value)


def test_a_training_killed_in_the_middle_goes_on_and_ends_as_if_it_had_run_through(
    bonas: Command, store: Path, tmp_path: Path
) -> None:
    settings = {"evaluator": {**FINAL["evaluator"], "epochs": 25, "network": {"channels": 2}}}
    command = ["train", written(tmp_path, "long", settings), "--cell", CELL, "--store", store]
    folder = store / "killed" / "cells" / "1"
    process = begun([*command, "--id", "killed"], folder)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the training ended before it could be killed"
    shown = bonas("show", "killed", "--store", store)
    assert shown["state"] == "interrupted"
    assert 1 <= shown["cells"][0]["epochs"] < 25
    (folder / "curve.json").write_text("{}")  # as if it had been killed between the checkpoint and the curve
    killed, whole = (bonas(*command, "--id", name) for name in ("killed", "whole"))
    assert killed["cells"][0]["test"] == whole["cells"][0]["test"]
    curves = [json.loads((store / name / "cells/1/curve.json").read_text()) for name in ("killed", "whole")]
    assert all(figures["train_loss"] == curves[1][epoch]["train_loss"] for epoch, figures in curves[0].items())
    first = next(iter(curves[0].values()))
    assert first["cost_s"] == 0.0  # as the checkpoint had it: the epochs up to it were not run again
    weights = [_weights(store / name / "cells/1/network.safetensors") for name in ("killed", "whole")]
    assert all(np.array_equal(weights[0][name], weights[1][name]) for name in weights[1])
    assert not (folder / "checkpoints").exists()


@pytest.mark.slow  # three trainings in processes of their own; in one process it is the test above
def test_a_training_in_several_processes_goes_on_when_one_of_them_or_all_are_killed(
    bonas: Command, store: Path, tmp_path: Path
) -> None:
    from tasks.mlflow_store.networks import load_network

    settings = {"evaluator": {**FINAL["evaluator"], "epochs": 12, "processes": 2}}
    command = ["train", written(tmp_path, "team", settings), "--cell", CELL, "--store", store]
    all_killed = begun([*command, "--id", "killed"], store / "killed" / "cells" / "1")
    members = members_of(all_killed)
    all_killed.send_signal(signal.SIGKILL)
    assert all_killed.wait() == -signal.SIGKILL, "the training ended before it could be killed"
    assert len(members) == 2
    while any(is_alive(member) for member in members):  # they notice that their parent is gone
        pass
    one_killed = begun([*command, "--id", "one"], store / "one" / "cells" / "1")
    os.kill(members_of(one_killed)[-1], signal.SIGKILL)
    assert one_killed.wait() == 0
    killed, one, whole = (bonas(*command, "--id", name)["cells"][0] for name in ("killed", "one", "whole"))
    assert killed["test"] == one["test"] == whole["test"]
    weights = _weights(store / "whole/cells/1/network.safetensors")
    for cell in (killed, one):
        registered = load_network(cell["model"]).weights
        assert all(np.array_equal(registered[name], weights[name]) for name in weights)


def begun(command: list[Any], cell: Path) -> subprocess.Popen[bytes]:
    """A process that runs a command, and has trained a cell for an epoch."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.command", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (cell / "curve.json").exists():  # it appears, or the process ends, which the test then notices
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=0.02)
            break
    return process


def members_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes of its team, by their ids."""
    found = subprocess.run(
        ["pgrep", "-P", str(process.pid), "-f", "multiprocessing.spawn"], capture_output=True, text=True, check=True
    )
    return [int(line) for line in found.stdout.split()]


def is_alive(process: int) -> bool:
    """Whether a process has not ended; one that nobody has asked about since has."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return found.stdout.strip()[:1] not in ("", "Z")


def _weights(path: Path) -> dict[str, Any]:
    from bonas_core.image_training.trained import read_trained

    return dict(read_trained(path).weights)


@pytest.mark.slow  # a search and two trainings; each is in a test of its own
def test_search_final_training_and_transfer_are_one_flow_that_goes_on_where_it_was(store: Path, tmp_path: Path) -> None:
    from flows.open_domain import open_domain

    steps = {
        "search": str(written(tmp_path, "search", SEARCH)),
        "final": str(written(tmp_path, "final", FINAL)),
        "transfer": str(written(tmp_path, "transfer", COMPARED)),
    }
    found = open_domain("mine", **steps, top=2, store=str(store))
    assert [step["state"] for step in found.values()] == ["finished"] * 3
    best = found["search"]["best"]["architecture"]
    assert found["final"]["cells"][0]["cell"] == found["transfer"]["cells"][0]["cell"] == best
    assert {path.name for path in store.iterdir()} == {"mine-search", "mine-final", "mine-transfer"}
    (store / "mine-transfer" / "cells" / "1" / "result.json").unlink()  # as if it had been killed at the very end
    assert open_domain("mine", **steps, top=2, store=str(store))["final"] == found["final"]
