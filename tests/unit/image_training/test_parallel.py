"""Trainings in several processes, on CPUs."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bonas_core.errors import SettingsError, TrainingDivergedError, TrainingProcessError
from bonas_core.evaluators.base import EvaluationContext
from bonas_core.image_training.evaluator import Trained, TrainingEvaluator
from bonas_core.image_training.parallel import Team, Tell, run
from bonas_core.image_training.splits import Splits
from bonas_core.networks.nasbench201 import NASBench201Network
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import SearchSpace
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.nasnet import NASNet

RNG = np.random.default_rng(0)
NASNET = NASNet(1)
CELL = NASNET.architecture(NASNET.parse(["|sep_conv_3x3~0|max_pool_3x3~1|"])[0])
RECIPE: dict[str, Any] = {
    "epochs": 2,
    "batch_size": 8,
    "gradient_clip": 5.0,
    "label_smoothing": 0.1,
    "augmentation": {"crop": 1, "flip": True, "cutout": 3},
    "network": {"kind": "nasnet", "channels": 4, "cells": 3, "auxiliary": True, "drop_path": 0.4},
}


def pixels(count: int) -> tuple[Tensor, Tensor]:
    labels = torch.from_numpy(np.arange(count) % 4)
    images = RNG.integers(0, 100, size=(count, 3, 8, 8)) + 50 * labels.numpy()[:, None, None, None]
    return torch.from_numpy(images.astype(np.uint8)), labels


# 23 images: batches of 8, 8 and 7, of which two processes get 3 and 4
DATA = Splits("dots", 4, pixels(23), pixels(11), pixels(8), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))


def trained(
    space: SearchSpace, cell: Architecture, processes: int, **settings: Any
) -> tuple[list[dict[str, float]], Trained]:
    """Figures of every epoch, and what came of it."""
    curve: list[dict[str, float]] = []
    evaluator = TrainingEvaluator(space, processes=processes, **{"data": DATA, **RECIPE, **settings})
    context = EvaluationContext(7, progress=lambda epoch, figures: curve.append({"epoch": epoch, **figures}))
    return curve, evaluator.train(cell, context)


def largest_difference(one: list[dict[str, float]], other: list[dict[str, float]]) -> float:
    """Of any loss in two curves, relative to it; accuracies have to be equal."""
    assert [(row["epoch"], row["objective"]) for row in one] == [(row["epoch"], row["objective"]) for row in other]
    losses = ("train_loss", "validation_loss")
    return max(abs(a[name] / b[name] - 1) for a, b in zip(one, other, strict=True) for name in losses)


def test_two_processes_train_as_one_does_but_for_rounding(record_property: Any) -> None:
    alone, network = trained(NASNET, CELL, 1)
    together, shared = trained(NASNET, CELL, 2)
    difference = largest_difference(together, alone)
    record_property("largest relative difference of a loss", difference)
    print(f"largest relative difference of a loss: {difference:.1e}")
    assert difference < 1e-5
    assert shared.outcome.params == network.outcome.params
    assert not shared.network.training
    state, expected = shared.network.state_dict(), network.network.state_dict()
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(state[name], tensor, rtol=1e-3, atol=1e-4, msg=name)
    assert not multiprocessing.active_children()


class Doubled(NASBench201Network):
    """Computes in double precision: in single precision, rounding grows a thousandfold in two epochs, as any change
    of its size does."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.double()

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.double())


@pytest.mark.slow
@pytest.mark.parametrize("processes", [2, 3])
def test_in_double_precision_rounding_is_all_that_differs_even_where_a_part_of_a_cell_leads_nowhere(
    processes: int,
) -> None:
    space = NASBench201()
    cell = space.architecture(np.array([3, 1, 0, 2, 0, 3], np.int8))
    network = {"channels": 4, "kind": f"{__name__}:Doubled"}
    settings = {"data": "digits", "augmentation": None, "batch_size": 50, "network": network}
    losses = [
        [row["validation_loss"] for row in trained(space, cell, count, **settings)[0]] for count in (processes, 1)
    ]
    difference = max(abs(one / other - 1) for one, other in zip(*losses, strict=True))
    print(f"largest relative difference of a loss in {processes} processes: {difference:.1e}")
    assert difference < 1e-12


def test_processes_change_the_last_digits_and_so_the_fingerprint() -> None:
    one, two = (TrainingEvaluator(NASNET, data=DATA, processes=processes, **RECIPE) for processes in (1, 2))
    assert one.fingerprint != two.fingerprint
    assert pickle.loads(pickle.dumps(two)).fingerprint == two.fingerprint


def test_batches_that_are_too_small_to_be_shared_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"processes: 8 cannot share batches of 7 images; use 7 or fewer"):
        TrainingEvaluator(NASNET, data=DATA, processes=8, **RECIPE)


def work(team: Team, argument: bytes, tell: Tell) -> Any:
    """What members do in the tests below."""
    what = argument.decode()
    total = team.total(torch.ones(1)).item()  # all are there
    if team.rank == 1 and what == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if team.rank == 1 and what == "raises":
        raise TrainingDivergedError("this was member 1")
    if what in ("dies", "raises"):
        team.total(torch.ones(1))  # waits for the other
    if team.rank == 0:
        tell(what)
    if what.startswith("/"):
        with open(what, "w") as file:
            print(os.getpid(), file=file, flush=True)
            team.total(torch.ones(1))
            signal.pause()
    return f"{what} {total:.0f}"


def test_what_members_do_and_how_they_end_is_known() -> None:
    told: list[str] = []
    assert run(2, "cpu", work, b"well", told.append) == "well 2"
    assert told == ["well"]
    with pytest.raises(TrainingDivergedError, match=r"^this was member 1$"):
        run(2, "cpu", work, b"raises", told.append)
    with pytest.raises(TrainingProcessError, match=r"^process 1 of 2 of a training died \(signal SIGKILL\)"):
        run(2, "cpu", work, b"dies", told.append)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_a_caller_that_gives_up_or_is_killed_leaves_no_process_behind(tmp_path: Path) -> None:
    def give_up(what: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(2, "cpu", work, b"well", give_up)
    assert not multiprocessing.active_children()

    os.mkfifo(tmp_path / "members")
    argument = os.fsencode(tmp_path / "members")
    code = f"import test_parallel as t; t.run(2, 'cpu', t.work, {argument!r}, lambda what: None)"
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[3])])
    caller = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": paths})
    with open(tmp_path / "members") as members:
        assert len({members.readline(), members.readline()}) == 2
        caller.kill()
        caller.wait()
        assert members.read() == ""  # the end comes when both have closed it


KILLED = """
import os, signal
import torch
from bonas_core.networks.nasnet import CellNetwork, cifar_network

class Killed(CellNetwork):
    steps = 0
    def begin_batch(self, size, rows):
        Killed.steps += 1
        if Killed.steps == 5 and rows.start > 0 and not os.path.exists("FLAG"):
            open("FLAG", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        super().begin_batch(size, rows)

def network(*arguments, **settings):
    made = cifar_network(*arguments, **settings)
    made.__class__ = Killed
    return made
"""


@pytest.mark.slow
def test_a_training_whose_member_is_killed_goes_on_from_its_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "killed_network.py").write_text(KILLED.replace("FLAG", str(tmp_path / "flag")))
    monkeypatch.syspath_prepend(tmp_path)
    settings = {**RECIPE, "network": {**RECIPE["network"], "kind": "killed_network:network"}}
    evaluator = TrainingEvaluator(NASNET, data=DATA, processes=2, **settings)
    seen: list[int] = []
    context = EvaluationContext(7, checkpoints=tmp_path, progress=lambda epoch, figures: seen.append(epoch))
    with pytest.raises(TrainingProcessError, match="process 1 of 2"):
        evaluator.evaluate(CELL, context)
    assert seen == [1]
    outcome = evaluator.evaluate(CELL, context)
    assert seen == [1, 2]
    assert outcome == evaluator.evaluate(CELL, replace(context, checkpoints=None))  # all at once, the flag is up
