import os
import shutil
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from bonas_core.errors import SettingsError, TrainingDivergedError
from bonas_core.evaluators.base import EvaluationContext, Evaluator, Outcome
from bonas_core.image_training.batches import Source
from bonas_core.image_training.checkpoint import CHECKPOINT
from bonas_core.image_training.checkpoint import restore as _restore
from bonas_core.image_training.datasets import digits
from bonas_core.image_training.evaluator import TrainingEvaluator
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.nasbench101 import NASBench101
from bonas_core.spaces.nasbench201 import NASBench201

Parts = tuple[dict[str, Tensor], dict[str, str]]

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


@cache
def uninterrupted() -> tuple[list[int], Outcome]:
    return epochs_run(evaluator(), None)


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
    speeds = [figures.pop("images_per_second") for _, figures in seen]
    assert speeds[-1] == outcome.images_per_second
    assert min(speeds) > 0
    assert seen[-1][1] == {
        "objective": outcome.objective,
        "train_loss": outcome.metrics["train_loss"],
        "validation_loss": outcome.metrics["validation_loss"],
    }
    assert set(outcome.metrics) == {"test", "train_loss", "validation_loss"}
    right = outcome.objective / 100 * len(FEW.validation[1])
    assert right == pytest.approx(round(right), abs=1e-9)


def test_of_many_classes_the_top_5_accuracy_is_found_too(tmp_path: Path) -> None:
    many = replace(FEW, classes=100)
    seen: list[dict[str, float]] = []
    trainer = evaluator(data=many, epochs=2, batch_size=4)
    trained = trainer.train(CELL, EvaluationContext(7, progress=lambda _, figures: seen.append(dict(figures))))
    metrics = trained.outcome.metrics
    for part, (images, labels) in {"validation": many.validation, "test": many.test}.items():
        with torch.inference_mode():
            ranked = trained.network(many.normalised(images)).argsort(dim=1, descending=True)
        right = [(ranked[:, :first] == labels[:, None]).any(dim=1).double().mean().item() for first in (1, 5)]
        assert right[0] < right[1]
        assert metrics[f"{part}_top5"] == pytest.approx(100 * right[1])
        assert {"validation": trained.outcome.objective, **metrics}[part] == pytest.approx(100 * right[0])
    assert [set(figures) - {"images_per_second"} for figures in seen] == [
        {"objective", "train_loss", "validation_loss", "validation_top5"}
    ] * 2
    assert seen[-1]["validation_top5"] == metrics["validation_top5"]
    # gone on with from a checkpoint, also the very last, or one of before, which had no such figure
    for epoch in (1, 2):
        folder = tmp_path / str(epoch)
        folder.mkdir()
        killed(trainer, folder, epoch)
        assert epochs_run(trainer, folder)[1] == trained.outcome
    killed(trainer, tmp_path, 1)
    with safe_open(tmp_path / CHECKPOINT, framework="pt") as file:
        metadata = {name: text for name, text in file.metadata().items() if name != "validation_top5"}
    save_file(load_file(tmp_path / CHECKPOINT), tmp_path / CHECKPOINT, metadata)
    epochs, outcome = epochs_run(trainer, tmp_path)
    assert (epochs, outcome) == ([2], trained.outcome)
    ninety_nine = evaluator(data=replace(FEW, classes=99), epochs=1).evaluate(CELL, EvaluationContext(7))
    assert "test_top5" not in ninety_nine.metrics


def test_parameters_are_those_of_the_network_that_was_trained() -> None:
    # halves of the channels twice over: 2, 4, 8; per 3x3 convolution 9 C^2 + 2 C, per 1x1 convolution C^2 + 2 C
    stem, reductions, head = 18 + 4, (72 + 8 + 144 + 8 + 8) + (288 + 16 + 576 + 16 + 32), 16 + 90
    convolutions = 2 * (9 * 84 + 28) + (84 + 28)
    outcome = evaluator(epochs=1).evaluate(CELL, EvaluationContext(seed=0))
    assert outcome.params == stem + reductions + head + convolutions


def test_the_test_images_decide_nothing_but_the_metric_test() -> None:
    one_image_with_every_label = (FEW.test[0][:1].expand(10, -1, -1, -1), torch.arange(10))
    honest = evaluator().evaluate(CELL, EvaluationContext(seed=3))
    other = evaluator(data=replace(FEW, test=one_image_with_every_label)).evaluate(CELL, EvaluationContext(seed=3))
    assert other == replace(honest, metrics={**honest.metrics, "test": 10.0})


def test_the_learning_rate_falls_to_zero_as_a_cosine_over_all_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            rates.append(self.param_groups[0]["lr"])
            return super().step(closure)

    monkeypatch.setattr(torch.optim, "SGD", Spy)
    evaluator(batch_size=45, learning_rate=0.3).evaluate(CELL, EvaluationContext(seed=3))
    steps = 3 * 3  # epochs times batches of the 135 images
    assert rates == pytest.approx([0.15 * (1 + np.cos(np.pi * step / steps)) for step in range(steps)])


def test_an_image_is_scored_without_regard_to_those_beside_it() -> None:
    images, labels = FEW.validation
    half = len(labels) // 2

    def loss(rows: slice) -> float:
        data = replace(FEW, validation=(images[rows], labels[rows]))
        outcome = evaluator(data=data, epochs=2).evaluate(CELL, EvaluationContext(seed=4))
        return outcome.metrics["validation_loss"] * len(labels[rows]) / len(labels)

    assert loss(slice(None, half)) + loss(slice(half, None)) == pytest.approx(loss(slice(None)), rel=1e-5)


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

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda context: trainer.evaluate(CELL, context), contexts)) == alone


def test_a_training_uses_the_recipes_threads_and_gives_back_the_callers() -> None:
    counts: list[int] = []
    context = EvaluationContext(5, progress=lambda *_: counts.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    evaluator(epochs=1, threads=before + 1).evaluate(CELL, context)
    assert counts == [before + 1]
    assert torch.get_num_threads() == before


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
    assert epochs_run(evaluator(), tmp_path) == ([], uninterrupted()[1])


def test_checkpoints_are_one_file_and_do_not_change_the_outcome(tmp_path: Path) -> None:
    assert epochs_run(evaluator(), tmp_path) == uninterrupted()
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
    assert epochs_run(evaluator(), tmp_path) == uninterrupted()


@pytest.mark.parametrize("kept", [0, 4, 8, 500, -1])
def test_a_truncated_checkpoint_is_ignored(tmp_path: Path, kept: int) -> None:
    killed(evaluator(), tmp_path, 2)
    (tmp_path / CHECKPOINT).write_bytes((tmp_path / CHECKPOINT).read_bytes()[:kept])
    assert epochs_run(evaluator(), tmp_path) == uninterrupted()
    assert epochs_run(evaluator(), tmp_path)[0] == []  # a whole one has taken its place


@pytest.mark.parametrize("content", [b"not a checkpoint", b"\xff" * 4096, b"\x80\x04pickle"])
def test_a_file_that_is_no_checkpoint_is_ignored(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CHECKPOINT).write_bytes(content)
    assert epochs_run(evaluator(), tmp_path)[0] == [1, 2, 3]


def damaged(tensors: dict[str, Tensor], metadata: dict[str, str] | None, folder: Path) -> None:
    save_file(tensors, folder / CHECKPOINT, metadata)
    assert epochs_run(evaluator(), folder) == uninterrupted()


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Parts:
    """Tensors and metadata of a checkpoint after two epochs."""
    folder = tmp_path_factory.mktemp("checkpoints")
    killed(evaluator(), folder, 2)
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        return load_file(folder / CHECKPOINT), file.metadata()


def test_a_checkpoint_written_back_unchanged_is_taken_up(tmp_path: Path, parts: Parts) -> None:
    tensors, metadata = parts
    save_file(tensors, tmp_path / CHECKPOINT, metadata)
    assert epochs_run(evaluator(), tmp_path) == ([3], uninterrupted()[1])


@pytest.mark.parametrize(
    "name", ["recipe", "architecture", "seed", "epoch", "objective", "train_loss", "validation_loss", None]
)
def test_a_checkpoint_with_missing_metadata_is_ignored(tmp_path: Path, parts: Parts, name: str | None) -> None:
    tensors, metadata = parts
    damaged(tensors, None if name is None else {k: v for k, v in metadata.items() if k != name}, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("epoch", value) for value in ("", "two", "2.0", "0", "-1", "4", "9" * 5000)),
        *(("objective", value) for value in ("", "good", "nan", "inf", "{}")),
    ],
    ids=lambda value: value[:6] or "empty",
)
def test_a_checkpoint_with_wrong_metadata_is_ignored(tmp_path: Path, parts: Parts, name: str, value: str) -> None:
    tensors, metadata = parts
    damaged(tensors, {**metadata, name: value}, tmp_path)


@pytest.mark.parametrize("name", ["network.norm.weight", "momentum.norm.weight"])
@pytest.mark.parametrize(
    "tensor", [torch.ones(3), torch.ones(()), torch.ones(8, dtype=torch.float64)], ids=["shape", "scalar", "type"]
)
def test_a_checkpoint_whose_tensors_do_not_fit_the_network_is_ignored(
    tmp_path: Path, parts: Parts, name: str, tensor: Tensor
) -> None:
    tensors, metadata = parts
    assert tensors[name].shape == (8,)
    damaged({**tensors, name: tensor}, metadata, tmp_path)


def test_a_checkpoint_with_a_tensor_too_few_or_too_many_is_ignored(tmp_path: Path, parts: Parts) -> None:
    tensors, metadata = parts
    damaged({**tensors, "momentum.stranger": torch.ones(1)}, metadata, tmp_path)
    damaged({k: v for k, v in tensors.items() if k != "network.norm.bias"}, metadata, tmp_path)


def test_a_folder_in_the_place_of_the_checkpoint_counts_as_none(tmp_path: Path) -> None:
    network = nn.Linear(1, 1)
    (tmp_path / CHECKPOINT).mkdir()
    optimiser = torch.optim.SGD(network.parameters())
    assert _restore(tmp_path / CHECKPOINT, {}, 3, network, optimiser) == (0, {})


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
        {"threads": 2},
        {"compile": True},
        {"network": {"channels": 3}},
        {"network": {"channels": 2, "cells": 2}},
        {"network": {"channels": 2, "kind": "bonas_core.networks.nasbench201:NASBench201Network"}},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_data_and_recipe(change: dict[str, Any]) -> None:
    assert evaluator().fingerprint == evaluator(network={"channels": 2, "cells": 1, "kind": None}).fingerprint
    assert evaluator(**change).fingerprint != evaluator().fingerprint


class OwnNetwork(nn.Module):
    """Logits from the mean pixel through one weight that is used twice, under two names."""

    def __init__(
        self,
        architecture: Architecture,
        *,
        generator: torch.Generator,
        in_channels: int,
        classes: int,
        channels: int,
        cells: int,
        scale: float = 1.0,
    ) -> None:
        super().__init__()
        self.first = nn.Parameter(scale * torch.rand(classes, generator=generator))
        self.second = self.first

    def forward(self, images: Tensor) -> Tensor:
        return images.mean(dim=(1, 2, 3))[:, None] * self.first + self.second


def test_a_network_of_ones_own_is_named_as_module_and_object(tmp_path: Path) -> None:
    own = evaluator(network={"kind": f"{__name__}:OwnNetwork", "scale": 0.5})
    _, outcome = epochs_run(own, None)
    assert outcome.params == 10
    killed(own, tmp_path, 2)
    assert epochs_run(own, tmp_path) == ([3], outcome)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"kind": "resnet"}, r"network `resnet` is unknown; use one of nasbench201, nasnet, .* or module:object"),
        ({"kind": "no_such_module:Network"}, r"network `no_such_module:Network` cannot be loaded"),
        ({"kind": "torch.nn:NoSuchNetwork"}, r"`torch.nn:NoSuchNetwork` cannot be loaded .*NoSuchNetwork"),
        ({"width": 3}, r"network `nasbench201`: .*'width'; check the settings under evaluator\.network"),
    ],
)
def test_networks_that_cannot_be_made_are_refused_before_any_training(network: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        evaluator(network=network)


def test_a_space_without_a_network_asks_for_one() -> None:
    with pytest.raises(
        SettingsError, match=r"network `nasbench101` is unknown; use one of nasbench201, nasnet, .* or module:object"
    ):
        TrainingEvaluator(NASBench101(), data=FEW)


def test_a_training_hands_over_the_network_that_its_outcome_is_of() -> None:
    trained = evaluator().train(CELL, EvaluationContext(seed=7))
    assert trained.outcome == uninterrupted()[1]
    images, labels = FEW.test
    with torch.inference_mode():
        right = (trained.network(images).argmax(dim=1) == labels).sum().item()
    assert not trained.network.training
    assert 100 * right / len(labels) == trained.outcome.metrics["test"]


def test_images_that_are_too_many_for_the_device_train_as_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: set[int] = set()
    gather = Source._gather

    def spy(source: Source, rows: Tensor) -> Any:
        threads.add(threading.get_ident())
        return gather(source, rows)

    monkeypatch.setattr(Source, "_gather", spy)
    assert uninterrupted()[1] == evaluator().evaluate(CELL, EvaluationContext(seed=7))
    assert not threads
    monkeypatch.setattr("bonas_core.image_training.batches.RESIDENT", 0)
    assert uninterrupted()[1] == evaluator().evaluate(CELL, EvaluationContext(seed=7))
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="torch.compile needs a C++ compiler")
def test_compiled_code_trains_as_the_network_does_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    few = {"epochs": 2, "batch_size": 45, "network": {"kind": f"{__name__}:OwnNetwork"}}
    plain = evaluator(**few).evaluate(CELL, EvaluationContext(7))
    compiled = evaluator(compile=True, **few)
    whole = compiled.evaluate(CELL, EvaluationContext(7))
    assert whole.metrics["train_loss"] == pytest.approx(plain.metrics["train_loss"], rel=1e-3)
    killed(compiled, tmp_path, 1)
    assert "network.first" in load_file(tmp_path / CHECKPOINT)
    assert compiled.evaluate(CELL, EvaluationContext(7, checkpoints=tmp_path)) == whole


def test_colours_are_for_pixels_only() -> None:
    with pytest.raises(SettingsError, match="`few`: its images are not pixels in red, green and blue"):
        evaluator(augmentation={"hue": 0.1})


def test_without_images_to_validate_all_are_trained_on_and_the_test_images_are_scored_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no images are held out to validate"):
        evaluator(data=FEW.joined())
    final = evaluator(data=FEW.joined(), validation_images=0)
    seen: list[dict[str, float]] = []
    context = EvaluationContext(1, checkpoints=tmp_path, progress=lambda _, figures: seen.append(dict(figures)))
    trained = final.train(CELL, context)
    assert [set(figures) for figures in seen] == [{"train_loss", "images_per_second"}] * 3
    assert set(trained.outcome.metrics) == {"train_loss", "test"}
    assert trained.outcome.objective == trained.outcome.metrics["test"]
    assert final.objective == "few test accuracy after 3 epochs, one run"
    assert final.fingerprint != evaluator().fingerprint
    assert final.train(CELL, context).outcome == trained.outcome  # from its checkpoint
    assert len(seen) == 3
