"""Final trainings in a store: listed and checked beside the searches, without Prefect and MLflow."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from test_store import bonas, started

from bonas_core.evaluators.base import EvaluationContext
from bonas_core.image_training.evaluator import CHECKPOINT, TrainingEvaluator
from bonas_core.image_training.trained import FILE_NAME, trained_network
from bonas_core.networks.published import architecture_of
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.storage import make_folder, read_whole, write_whole
from tasks.home.training_folder import Chosen, Plan, Result, TrainingFolder, training_folder

CELL = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"
SETTINGS = {"space": "nasbench201", "evaluator": {"kind": "training", "epochs": 1, "network": {"channels": 2}}}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def trained(store: str, tmp_path: Path, name: str = "final") -> TrainingFolder:
    """Of two cells, the first is trained, the second has a checkpoint: what `bonas train` leaves when it is killed."""
    folder = training_folder(name, store)
    make_folder(folder.path)
    chosen = [Chosen(CELL, "given by its text"), Chosen(CELL.replace("avg_pool_3x3", "none"), "given by its text")]
    folder.write(Plan("uid", "the best 2 of found", SETTINGS, "fingerprint", chosen, {}, "2026-01-01T00:00:00+00:00"))
    folder.write_state("running")
    evaluator = TrainingEvaluator(NASBench201(), epochs=1, network={"channels": 2})
    architecture = architecture_of(evaluator.space, CELL)
    ended = evaluator.train(architecture, EvaluationContext(0, checkpoints=tmp_path))
    kept = trained_network(
        ended.network,
        architecture,
        space="nasbench201",
        kind="nasbench201",
        settings=dict(evaluator.network[1]),
        data=evaluator.data,
        figures={"test": ended.outcome.metrics["test"]},
    )
    first, second = folder.cell(1), folder.cell(2)
    for own in (first, second):
        make_folder(own.path)
        own.write_curve({1: {"train_loss": 1.0, "cost_s": 1.0}})
    kept.write(first.path / FILE_NAME)
    first.write_result(Result(50.0, {"test": 51.25}, 1, 10, 100, 1.0, "cpu", "bonas-digits-nasbench201"))
    make_folder(second.checkpoints)
    write_whole(second.checkpoints / CHECKPOINT, (tmp_path / CHECKPOINT).read_bytes())
    return folder


def test_trainings_are_listed_and_checked_beside_searches(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(store, tmp_path)
    alone = "id     state        trained  test %  what\nfinal  interrupted  1/2      51.25   the best 2 of found\n"
    assert bonas(capsys, "list", "--store", store) == (0, alone)
    table = "id     cells  trained  faults\nfinal  2      1        0\n"
    assert bonas(capsys, "store", "check", "--store", store) == (0, table)
    started(store, "mine")
    code, printed = bonas(capsys, "list", "--store", store)
    assert (code, [line.split()[:1] for line in printed.splitlines()]) == (0, [["id"], ["mine"], [], ["id"], ["final"]])
    listed = json.loads(bonas(capsys, "list", "--store", store, "--json")[1])
    assert [[row["id"] for row in listed[kind]] for kind in ("searches", "trainings")] == [["mine"], ["final"]]
    assert listed["trainings"][0]["cells"][0]["test"] == 51.25
    found = json.loads(bonas(capsys, "store", "check", "final", "mine", "--store", store, "--json")[1])
    assert found["trainings"] == [{"id": "final", "running": False, "cells": 2, "trained": 1, "faults": []}]
    assert [search["id"] for search in found["searches"]] == ["mine"]
    found = json.loads(bonas(capsys, "store", "check", "final", "--store", store, "--json")[1])
    assert (len(found["trainings"]), found["searches"]) == (1, [])


def _cut(name: str) -> Callable[[TrainingFolder], None]:
    def damage(folder: TrainingFolder) -> None:
        path = folder.path / name
        write_whole(path, read_whole(path, 1 << 24)[:50])

    return damage


def _changed(name: str, old: str, new: str) -> Callable[[TrainingFolder], None]:
    def damage(folder: TrainingFolder) -> None:
        text = read_whole(folder.path / name, 1 << 24).decode()
        assert old in text
        write_whole(folder.path / name, text.replace(old, new, 1).encode())

    return damage


def _added(name: str) -> Callable[[TrainingFolder], None]:
    def damage(folder: TrainingFolder) -> None:
        make_folder((folder.path / name).parent)
        write_whole(folder.path / name, b"x")

    return damage


FAULTS = {
    "training.json` is damaged (": _cut("training.json"),
    "training.json` is damaged (chosen.0.cell: Field required)": _changed("training.json", '"cell"', '"sell"'),
    "settings `of training final`: `evaluator.epochs`": _changed("training.json", '"epochs": 1', '"epochs": 0'),
    "training `final` has schema 9": _changed("training.json", '"schema": 1', '"schema": 9'),
    "1/result.json` is damaged (": _cut("cells/1/result.json"),
    "1/result.json` is damaged (no accuracy on test images)": _changed("cells/1/result.json", '"test"', '"best"'),
    "2/curve.json` is damaged (": _changed("cells/2/curve.json", "1.0", '"x"'),
    f"{FILE_NAME}` is not a trained network": _cut(f"cells/1/{FILE_NAME}"),
    "the network of cell 1 has another cell than its plan": _changed("training.json", "avg_pool_3x3", "skip_connect"),
    f"{CHECKPOINT}` is damaged; restore it": _cut(f"cells/2/checkpoints/{CHECKPOINT}"),
    "checkpoints/model.pkl` is no checkpoint": _added("cells/2/checkpoints/model.pkl"),
    "cells/3` is of no cell that it trains": _added("cells/3/curve.json"),
}


def test_every_kind_of_fault_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = trained(str(tmp_path / "whole"), tmp_path)
    for number, (said, damage) in enumerate(FAULTS.items()):
        damaged = tmp_path / str(number) / "final"
        shutil.copytree(str(whole.path), damaged)
        damage(TrainingFolder(damaged))
        code, printed = bonas(capsys, "store", "check", "--store", damaged.parent)
        faults = [line for line in printed.splitlines() if line.startswith("fault: ")]
        assert (code, len(faults)) == (1, 1), printed
        assert said in faults[0]
        assert len(printed.splitlines()) == 3


@pytest.mark.parametrize("name", ["training.json", "cells/1/result.json"])
def test_a_damaged_file_is_one_line_wherever_it_is_read(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    _cut(name)(trained(str(store), tmp_path))
    started(str(store), "mine")
    code, printed = bonas(capsys, "list", "--store", store)
    assert (code, len(printed.splitlines())) == (0, 3)  # the search, and a warning
    assert f"{name}` is damaged" in printed
    train = ("train", "digits-final", "--from", "found", "--top", "2", "--id", "final")
    for command in (("show", "final"), train):
        code, printed = bonas(capsys, *command, "--store", store)
        assert (code, len(printed.splitlines())) == (2, 1), printed
        assert f"{name}` is damaged" in printed
