import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sklearn.datasets import load_digits
from torch import Tensor

from bonas_core.architecture import Architecture
from bonas_core.errors import SettingsError, TrainingDivergedError
from bonas_core.evaluators.base import EvaluationContext, Evaluator, Outcome
from bonas_core.evaluators.datasets import Splits, digits, load
from bonas_core.evaluators.training import CHECKPOINT, TrainingEvaluator
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.spaces.nasbench201 import NASBench201

SPACE = NASBench201()
DIGITS = digits()
FEW = replace(
    DIGITS,
    name="few",
    train=(DIGITS.train[0][::8], DIGITS.train[1][::8]),
    validation=(DIGITS.validation[0][::4], DIGITS.validation[1][::4]),
    test=(DIGITS.test[0][::4], DIGITS.test[1][::4]),
)
CELL = SPACE.architecture(np.array([3, 1, 2, 4, 0, 3], np.int8))
DEAD_END = SPACE.architecture(np.array([3, 0, 0, 1, 0, 0], np.int8))  # the convolution leads nowhere
OTHER = SPACE.architecture(np.array([3, 1, 2, 4, 0, 2], np.int8))


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def evaluator(**settings: Any) -> TrainingEvaluator:
    settings = {"data": FEW, "epochs": 3, "batch_size": 32, "network": {"channels": 2}, **settings}
    return TrainingEvaluator(SPACE, **settings)


class KilledError(Exception):
    """Stands for the end of the process."""


def kill_after(last: int) -> Callable[[int, Mapping[str, float]], None]:
    def progress(epoch: int, figures: Mapping[str, float]) -> None:
        if epoch == last:
            raise KilledError

    return progress


def killed(trainer: TrainingEvaluator, folder: Path, epoch: int, cell: Architecture = CELL, seed: int = 7) -> None:
    with pytest.raises(KilledError):
        trainer.evaluate(cell, EvaluationContext(seed, checkpoints=folder, progress=kill_after(epoch)))


def epochs_run(trainer: TrainingEvaluator, folder: Path | None, seed: int = 7) -> tuple[list[int], Outcome]:
    epochs: list[int] = []
    context = EvaluationContext(seed, checkpoints=folder, progress=lambda epoch, _: epochs.append(epoch))
    return epochs, trainer.evaluate(CELL, context)


def test_it_is_an_evaluator_that_says_what_it_measures() -> None:
    trainer = TrainingEvaluator(SPACE)
    assert isinstance(trainer, Evaluator)
    assert trainer.objective == "digits validation accuracy after 10 epochs, one run"
    assert evaluator(epochs=1).objective == "few validation accuracy after 1 epoch, one run"
    assert (trainer.unit, trainer.direction, trainer.space) == ("percent", "maximise", SPACE)


def test_a_training_learns_the_digits() -> None:
    outcome = TrainingEvaluator(SPACE, epochs=3, batch_size=32).evaluate(DEAD_END, EvaluationContext(seed=0))
    assert 85 < outcome.objective <= 100
    assert 85 < outcome.metrics["test"] <= 100
    assert 0 < outcome.metrics["train_loss"] < 1
    assert 0 < outcome.metrics["validation_loss"] < 1
    assert outcome.epochs == 3


def test_every_epoch_reports_its_figures_and_the_last_are_the_outcome() -> None:
    seen: list[tuple[int, dict[str, float]]] = []
    context = EvaluationContext(1, progress=lambda epoch, figures: seen.append((epoch, dict(figures))))
    outcome = evaluator().evaluate(CELL, context)
    assert [epoch for epoch, _ in seen] == [1, 2, 3]
    assert seen[-1][1] == {
        "objective": outcome.objective,
        "train_loss": outcome.metrics["train_loss"],
        "validation_loss": outcome.metrics["validation_loss"],
    }
    assert set(outcome.metrics) == {"test", "train_loss", "validation_loss"}
    right = outcome.objective / 100 * len(FEW.validation[1])
    assert right == pytest.approx(round(right), abs=1e-9)


def test_parameters_are_those_of_the_network_that_was_trained() -> None:
    # halves of the channels twice over: 2, 4, 8; per 3x3 convolution 9 C^2 + 2 C, per 1x1 convolution C^2 + 2 C
    stem, reductions, head = 18 + 4, (72 + 8 + 144 + 8 + 8) + (288 + 16 + 576 + 16 + 32), 16 + 90
    convolutions = 2 * (9 * 84 + 28) + (84 + 28)
    outcome = evaluator(epochs=1).evaluate(CELL, EvaluationContext(seed=0))
    assert outcome.params == stem + reductions + head + convolutions


def test_the_test_images_decide_nothing_but_the_metric_test() -> None:
    images, labels = FEW.test
    swapped = replace(FEW, test=(images, (labels + 1) % 10))
    honest = evaluator().evaluate(CELL, EvaluationContext(seed=3))
    other = evaluator(data=swapped).evaluate(CELL, EvaluationContext(seed=3))
    assert other.metrics["test"] != honest.metrics["test"]
    assert replace(other, metrics={**other.metrics, "test": honest.metrics["test"]}) == honest


def test_the_same_seed_gives_the_same_outcome_whatever_the_global_generators_hold() -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = evaluator().evaluate(CELL, EvaluationContext(seed=5))
    torch.manual_seed(2)
    np.random.seed(2)
    before = torch.get_rng_state()
    assert evaluator().evaluate(CELL, EvaluationContext(seed=5)) == first
    assert torch.equal(torch.get_rng_state(), before)
    assert evaluator().evaluate(CELL, EvaluationContext(seed=6)) != first


def test_trainings_in_threads_do_not_disturb_each_other() -> None:
    trainer = evaluator(epochs=2)
    contexts = [EvaluationContext(seed) for seed in range(4)]
    alone = [trainer.evaluate(CELL, context) for context in contexts]

    def evaluate(context: EvaluationContext) -> Outcome:
        torch.set_num_threads(1)  # the fixture speaks for its own thread only
        return trainer.evaluate(CELL, context)

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(evaluate, contexts)) == alone


@pytest.mark.parametrize("momentum", [0.9, 0.0])
@pytest.mark.parametrize("cell", [CELL, DEAD_END], ids=["cell", "dead end"])
@pytest.mark.parametrize("last", [1, 2, 3])
def test_a_training_killed_after_any_epoch_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, last: int, cell: Architecture, momentum: float
) -> None:
    trainer = evaluator(momentum=momentum)
    uninterrupted = trainer.evaluate(cell, EvaluationContext(7))
    killed(trainer, tmp_path, last, cell)
    resumed: list[int] = []
    context = EvaluationContext(7, checkpoints=tmp_path, progress=lambda epoch, _: resumed.append(epoch))
    assert evaluator(momentum=momentum).evaluate(cell, context) == uninterrupted
    assert resumed == list(range(last + 1, 4))


def test_a_training_killed_after_every_epoch_still_ends_as_an_uninterrupted_one(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        killed(evaluator(), tmp_path, epoch)
    assert epochs_run(evaluator(), tmp_path) == ([], epochs_run(evaluator(), None)[1])


def test_checkpoints_are_one_file_and_do_not_change_the_outcome(tmp_path: Path) -> None:
    assert epochs_run(evaluator(), tmp_path) == epochs_run(evaluator(), None)
    assert os.listdir(tmp_path) == [CHECKPOINT]


@pytest.mark.parametrize(
    ("settings", "cell", "seed"),
    [
        ({}, OTHER, 7),
        ({}, CELL, 8),
        ({"epochs": 4}, CELL, 7),
        ({"learning_rate": 0.2}, CELL, 7),
        ({"data": "digits"}, CELL, 7),
        ({"network": {"channels": 3}}, CELL, 7),
    ],
    ids=["architecture", "seed", "epochs", "learning rate", "data", "network"],
)
def test_the_checkpoint_of_another_training_is_ignored(
    tmp_path: Path, settings: dict[str, Any], cell: Architecture, seed: int
) -> None:
    killed(evaluator(**settings), tmp_path, 2, cell, seed)
    assert epochs_run(evaluator(), tmp_path) == epochs_run(evaluator(), None)


@pytest.mark.parametrize("kept", [0, 4, 8, 500, -1])
def test_a_truncated_checkpoint_is_ignored(tmp_path: Path, kept: int) -> None:
    killed(evaluator(), tmp_path, 2)
    whole = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(whole[:kept])
    assert epochs_run(evaluator(), tmp_path)[0] == [1, 2, 3]
    assert (tmp_path / CHECKPOINT).stat().st_size == len(whole)


@pytest.mark.parametrize("content", [b"not a checkpoint", b"\xff" * 4096, b"\x80\x04pickle"])
def test_a_file_that_is_no_checkpoint_is_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    assert epochs_run(evaluator(), tmp_path)[0] == [1, 2, 3]


def test_tensors_that_do_not_fit_the_network_are_ignored(tmp_path: Path) -> None:
    trainer = evaluator()
    for metadata in (None, {"recipe": trainer.fingerprint, "architecture": CELL.key, "seed": "7", "epoch": "2"}):
        save_file({"network.norm.weight": torch.ones(3)}, tmp_path / CHECKPOINT, metadata)
        assert epochs_run(trainer, tmp_path)[0] == [1, 2, 3]


def test_a_training_that_leaves_the_range_of_numbers_has_diverged(tmp_path: Path) -> None:
    trainer = evaluator(learning_rate=1e30)
    with pytest.raises(
        TrainingDivergedError, match=r"loss is (nan|inf) in epoch 1 of 3; lower .*learning_rate \(1e\+30\)"
    ):
        trainer.evaluate(CELL, EvaluationContext(seed=0, checkpoints=tmp_path))
    assert os.listdir(tmp_path) == []


def test_data_that_are_not_numbers_diverge() -> None:
    images, labels = FEW.validation
    broken = replace(FEW, validation=(images * float("nan"), labels))
    with pytest.raises(TrainingDivergedError, match="the validation loss is nan in epoch 1"):
        evaluator(data=broken).evaluate(CELL, EvaluationContext(seed=0))


@pytest.mark.parametrize(
    "change",
    [
        {"data": "digits"},
        {"epochs": 4},
        {"batch_size": 31},
        {"learning_rate": 0.2},
        {"momentum": 0.8},
        {"weight_decay": 0.0},
        {"network": {"channels": 3}},
        {"network": {"channels": 2, "cells": 2}},
        {"network": {"channels": 2, "kind": "bonas_core.networks.nasbench201:NASBench201Network"}},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_data_and_recipe(change: dict[str, Any]) -> None:
    assert evaluator().fingerprint == evaluator(network={"channels": 2, "cells": 1, "kind": None}).fingerprint
    assert evaluator(**change).fingerprint != evaluator().fingerprint


def test_a_network_of_ones_own_is_named_as_module_and_object() -> None:
    own = evaluator(network={"channels": 2, "kind": "bonas_core.networks.nasbench201:NASBench201Network"})
    assert own.evaluate(CELL, EvaluationContext(seed=2)) == evaluator().evaluate(CELL, EvaluationContext(seed=2))


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"kind": "resnet"}, r"network\.kind `resnet` is unknown; use one of nasbench201, or module:object"),
        ({"kind": "no_such_module:Network"}, r"network\.kind `no_such_module:Network` cannot be loaded"),
        ({"kind": "torch.nn:NoSuchNetwork"}, r"`torch.nn:NoSuchNetwork` cannot be loaded .*NoSuchNetwork"),
        ({"width": 3}, r"network `nasbench201`: .*'width'; check the settings under evaluator\.network"),
    ],
)
def test_networks_that_cannot_be_made_are_refused_before_any_training(network: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        evaluator(network=network)


def test_a_space_without_a_network_asks_for_one() -> None:
    with pytest.raises(SettingsError, match=r"network\.kind `nasbench101` is unknown"):
        TrainingEvaluator(NASBench101(), data=FEW)


def test_the_splits_of_the_digits_hold_every_image_once() -> None:
    pixels, labels = load_digits(return_X_y=True)
    parts = (DIGITS.train, DIGITS.validation, DIGITS.test)
    images = torch.cat([part[0] for part in parts]).numpy().reshape(-1, 64)
    scale = (pixels.max() - pixels.min()) / (images.max() - images.min())
    raw = np.rint((images - images.min()) * scale).astype(int)
    found = np.column_stack([raw, torch.cat([part[1] for part in parts]).numpy()])
    assert sorted(map(tuple, found)) == sorted(map(tuple, np.column_stack([pixels.astype(int), labels])))


@pytest.mark.parametrize(("part", "share"), [("train", 0.6), ("validation", 0.2), ("test", 0.2)])
def test_every_class_is_split_by_the_same_shares(part: str, share: float) -> None:
    images, labels = getattr(DIGITS, part)
    everything = np.bincount(load_digits().target)
    assert np.abs(torch.bincount(labels).numpy() - share * everything).max() < 1
    assert images.shape == (len(labels), 1, 8, 8)


def test_pixels_are_standardised_by_the_training_images() -> None:
    images = DIGITS.train[0].double()
    assert images.mean().item() == pytest.approx(0, abs=1e-6)
    assert images.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert DIGITS.validation[0].min() == DIGITS.train[0].min()


def test_the_fingerprint_of_the_digits_is_the_documented_one() -> None:
    documented = (Path(__file__).parents[3] / "data/digits/README.md").read_text()
    assert f"`{load('digits').fingerprint}`" in documented


def test_the_fingerprint_of_data_changes_with_any_array() -> None:
    images, labels = FEW.test
    assert replace(FEW, test=(images, labels.flip(0))).fingerprint != FEW.fingerprint
    assert replace(FEW, classes=11).fingerprint != FEW.fingerprint


def test_data_of_ones_own_are_named_as_module_and_function() -> None:
    assert load("bonas_core.evaluators.datasets:digits").fingerprint == DIGITS.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", "data `cifar10` is unknown; use one of digits, or module:object"),
        ("no_such_module:f", "data `no_such_module:f` cannot be loaded .*check module and object"),
        ("builtins:dict", r"data `builtins:dict` returns dict; return bonas_core\.evaluators\.datasets\.Splits"),
    ],
)
def test_data_that_cannot_be_found_are_refused_with_the_remedy(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(name)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 1, 8, 8, dtype=torch.float64), torch.zeros(4, dtype=torch.int64), "make them float32"),
        (torch.zeros(4, 64), torch.zeros(4, dtype=torch.int64), "make them float32"),
        (torch.zeros(0, 1, 8, 8), torch.zeros(0, dtype=torch.int64), "with n > 0"),
        (torch.zeros(4, 1, 9, 9), torch.zeros(4, dtype=torch.int64), "give all the same shape"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(3, dtype=torch.int64), "one per image"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(4), "must be int64"),
        (torch.zeros(4, 1, 8, 8), torch.full((4,), 10), "from 0 to 9"),
    ],
)
def test_splits_of_the_wrong_form_are_refused(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Splits("mine", 10, FEW.train, (images, labels), FEW.test)
