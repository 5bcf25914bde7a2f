"""The settings of DARTS's recipe, on networks of NASNet cells and tiny images."""

import hashlib
import os
import signal
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from bonas_core.errors import SettingsError
from bonas_core.evaluators.base import EvaluationContext, Outcome
from bonas_core.image_training.checkpoint import CHECKPOINT
from bonas_core.image_training.datasets import digits
from bonas_core.image_training.evaluator import TrainingEvaluator
from bonas_core.image_training.splits import Splits
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.spaces.nasnet import NASNet
from flows.running.presets import load_settings, prepared_table

SPACE = NASNet(1)  # one block: enough for every part of a network, and quick
CELL = SPACE.architecture(SPACE.parse(["|sep_conv_3x3~0|max_pool_3x3~1|"])[0])
RNG = np.random.default_rng(0)


def pixels(count: int) -> tuple[Tensor, Tensor]:
    labels = torch.from_numpy(np.arange(count) % 4)
    images = RNG.integers(0, 100, size=(count, 3, 8, 8)) + 50 * labels.numpy()[:, None, None, None]
    return torch.from_numpy(images.astype(np.uint8)), labels


DATA = Splits("dots", 4, pixels(24), pixels(12), pixels(8), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
RECIPE: dict[str, Any] = {
    "data": DATA,
    "epochs": 3,
    "batch_size": 8,
    "learning_rate": 0.05,
    "nesterov": False,
    "gradient_clip": 5.0,
    "label_smoothing": 0.1,
    "warmup_epochs": 1,
    "augmentation": {"crop": 1, "flip": True, "cutout": 3},
    "network": {"kind": "nasnet", "channels": 4, "cells": 3, "auxiliary": True, "drop_path": 0.4},
}


def evaluator(**settings: Any) -> TrainingEvaluator:
    return TrainingEvaluator(SPACE, **{**RECIPE, **settings})


def final_weights(folder: Path) -> str:
    """SHA-256 of all weights and momenta after the last epoch."""
    digest = hashlib.sha256()
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        assert file.metadata()["epoch"] == "3"
        for name in sorted(file.keys()):
            digest.update(name.encode())
            digest.update(file.get_tensor(name).numpy().tobytes())
    return digest.hexdigest()


def trained(folder: Path, trainer: TrainingEvaluator, seed: int = 7) -> Outcome:
    folder.mkdir(exist_ok=True)
    return trainer.evaluate(CELL, EvaluationContext(seed, checkpoints=folder))


class KilledError(Exception):
    """Stands for the end of the process."""


def kill_at_step(monkeypatch: pytest.MonkeyPatch, last: int) -> None:
    steps = 0

    class Killed(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            nonlocal steps
            steps += 1
            if steps == last:
                raise KilledError
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Killed)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, str]:
    """Outcome and final weights of an uninterrupted training."""
    folder = tmp_path_factory.mktemp("whole")
    return trained(folder, evaluator()), final_weights(folder)


@pytest.mark.parametrize("step", [2, 5, 9])  # of 3 an epoch: within the first, the second and the last
def test_a_training_killed_within_an_epoch_ends_with_the_same_weights_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: tuple[Outcome, str], step: int
) -> None:
    with monkeypatch.context() as patched:
        kill_at_step(patched, step)
        with pytest.raises(KilledError):
            trained(tmp_path / "killed", evaluator())
    torch.manual_seed(step)
    outcome = trained(tmp_path / "killed", evaluator())
    assert (outcome, final_weights(tmp_path / "killed")) == whole


def test_everything_random_follows_from_the_seed(tmp_path: Path, whole: tuple[Outcome, str]) -> None:
    before = torch.get_rng_state()
    assert trained(tmp_path / "other", evaluator(), seed=8) != whole[0]
    assert final_weights(tmp_path / "other") != whole[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_bytes_train_as_the_numbers_that_they_stand_for() -> None:
    parts = (DATA.train, DATA.validation, DATA.test)
    floats = Splits("dots", 4, *((DATA.normalised(images), labels) for images, labels in parts))
    plain: dict[str, Any] = {"augmentation": None, "epochs": 1}
    assert evaluator(data=floats, **plain).evaluate(CELL, EvaluationContext(1)) == evaluator(**plain).evaluate(
        CELL, EvaluationContext(1)
    )


@pytest.mark.parametrize(
    "change",
    [
        {"augmentation": {"crop": 1, "flip": True}},
        {"schedule": "step"},
        {"warmup_epochs": 0},
        {"nesterov": True},
        {"gradient_clip": 0.01},
        {"label_smoothing": 0.0},
        {"auxiliary_weight": 0.2},
        {"precision": "bfloat16"},
        {"network": {**RECIPE["network"], "drop_path": 0.0}},
        {"network": {**RECIPE["network"], "auxiliary": False}},
    ],
    ids=str,
)
def test_every_setting_changes_the_training_and_the_fingerprint(change: dict[str, Any]) -> None:
    changed = evaluator(**{"epochs": 2, **change})
    assert changed.fingerprint != evaluator(epochs=2).fingerprint
    loss = changed.evaluate(CELL, EvaluationContext(2)).metrics["validation_loss"]
    assert np.isfinite(loss)
    assert loss != usual_loss()


@cache
def usual_loss() -> float:
    return evaluator(epochs=2).evaluate(CELL, EvaluationContext(2)).metrics["validation_loss"]


def test_settings_that_came_later_do_not_change_the_fingerprint_of_searches_of_before() -> None:
    pinned = "300068591e5995934e7d8bb4fed07085285630684d9cb33fb8f7819c31b30d6d"
    assert TrainingEvaluator(NASBench201()).fingerprint == pinned


def rates(monkeypatch: pytest.MonkeyPatch, **settings: Any) -> list[float]:
    seen: list[float] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            seen.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Spy)
    evaluator(**settings).evaluate(CELL, EvaluationContext(0))
    return seen


def test_a_step_schedule_falls_every_so_many_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = rates(monkeypatch, schedule="step", decay=0.5, decay_epochs=2, warmup_epochs=0, learning_rate=0.8, epochs=5)
    assert seen == pytest.approx([0.8] * 6 + [0.4] * 6 + [0.2] * 3)


def test_the_learning_rate_rises_linearly_in_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = rates(monkeypatch, schedule="step", decay=1.0, warmup_epochs=2, learning_rate=0.6)
    assert seen == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6])


def test_gradients_are_clipped_to_their_largest_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    norms: list[float] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Spy)
    evaluator(gradient_clip=0.5).evaluate(CELL, EvaluationContext(0))
    assert norms == pytest.approx([0.5] * 9, rel=1e-3)


class TwoOutputs(nn.Module):
    """Logits that do not depend on the image, from the classifier and from an auxiliary head."""

    calls: ClassVar[list[tuple[float, int]]] = []

    def __init__(
        self, architecture: Architecture, *, generator: torch.Generator, in_channels: int, classes: int,
        channels: int, cells: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.main = nn.Parameter(torch.zeros(classes))
        self.auxiliary = nn.ParameterList([nn.Parameter(torch.arange(float(classes)))])

    def begin_epoch(self, progress: float, generator: torch.Generator) -> None:
        self.calls.append((progress, generator.initial_seed()))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits = self.main.expand(len(images), -1)
        return (logits, self.auxiliary[0].expand(len(images), -1)) if self.training else logits


def test_the_loss_of_an_auxiliary_head_is_added_by_its_weight() -> None:
    settings: dict[str, Any] = {
        "network": {"kind": f"{__name__}:TwoOutputs"}, "learning_rate": 1e-9, "epochs": 1, "label_smoothing": 0.0,
        "augmentation": None, "warmup_epochs": 0,
    }  # fmt: skip
    main = np.log(4)
    auxiliary = np.mean([np.log(np.exp(np.arange(4)).sum()) - label for label in range(4)])
    outcome = evaluator(auxiliary_weight=0.4, **settings).evaluate(CELL, EvaluationContext(0))
    assert outcome.metrics["train_loss"] == pytest.approx(main + 0.4 * auxiliary, rel=1e-5)
    assert outcome.metrics["validation_loss"] == pytest.approx(main, rel=1e-5)
    assert outcome.params == 4


def test_a_network_is_told_how_far_it_is_and_given_a_stream_an_epoch() -> None:
    TwoOutputs.calls.clear()
    for seed in (1, 1, 2):
        evaluator(network={"kind": f"{__name__}:TwoOutputs"}).evaluate(CELL, EvaluationContext(seed))
    assert [progress for progress, _ in TwoOutputs.calls] == [0, 1 / 3, 2 / 3] * 3
    streams = [stream for _, stream in TwoOutputs.calls]
    assert streams[:3] == streams[3:6]
    assert len(set(streams)) == 6


def test_digits_train_in_networks_of_nasnet_cells() -> None:
    data = digits()
    few = replace(data, train=(data.train[0][::2], data.train[1][::2]))
    network = {"kind": "nasnet", "channels": 4, "cells": 3}
    trainer = TrainingEvaluator(SPACE, data=few, epochs=4, batch_size=32, network=network)
    assert trainer.evaluate(CELL, EvaluationContext(0)).objective > 60


def test_presets_need_their_images_and_find_them_by_themselves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BONAS_HOME", str(tmp_path))
    with pytest.raises(
        SettingsError, match=r"data `cifar10` is not prepared; run `bonas data prepare cifar10 --source"
    ):
        load_settings("cifar10-small")
    path = prepared_table("cifar10").with_suffix(".safetensors")
    path.parent.mkdir()
    path.touch()
    for name in ("cifar10-small", "cifar10-bonas"):
        settings, _ = load_settings(name)
        assert settings.evaluator.data == str(path)
    assert settings.budget.trials == 186
    assert settings.evaluator.epochs == 120
    assert load_settings("quickstart")[0].evaluator.data == "digits"


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from bonas_core.evaluators.base import EvaluationContext
from bonas_core.image_training.evaluator import TrainingEvaluator
from bonas_core.spaces.nasnet import NASNet
import numpy as np, torch

class Killed(torch.optim.SGD):
    steps = 0
    def step(self, closure=None):
        Killed.steps += 1
        if Killed.steps == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(closure)

torch.optim.SGD = Killed
space = NASNet()
cell = space.architecture(space.sample(1, np.random.default_rng(3))[0])
trainer = TrainingEvaluator(
    space, data=sys.argv[1], train_images=320, validation_images=100, epochs=3, batch_size=32, gradient_clip=5,
    augmentation={"crop": 4, "flip": True, "cutout": 16},
    network={"channels": 4, "cells": 3, "auxiliary": True, "drop_path": 0.2, "stem_stride": 2},
)
outcome = trainer.evaluate(cell, EvaluationContext(1, checkpoints=Path(sys.argv[2])))
print(replace(outcome, images_per_second=None))
"""


@pytest.mark.slow
def test_a_process_killed_within_an_epoch_on_real_images_ends_with_the_same_weights(
    tmp_path: Path, shared_data: Path
) -> None:
    from data.cifar10.prepare import prepare

    images = tmp_path / "cifar10.safetensors"
    prepare(shared_data / "cifar10_lossless_5k.parquet", images)
    ends = {}
    for name, steps in {"whole": [0], "killed": [14, 8, 0]}.items():  # of 10 an epoch
        (tmp_path / name).mkdir()
        for step in steps:
            done = subprocess.run(
                [sys.executable, "-c", KILLED, str(images), str(tmp_path / name), str(step)],
                capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            )  # fmt: skip
            assert done.returncode == (-signal.SIGKILL if step else 0), done.stderr
            ends[name] = done.stdout
    assert ends["killed"] == ends["whole"]
    assert final_weights(tmp_path / "killed") == final_weights(tmp_path / "whole")
