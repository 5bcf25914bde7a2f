"""Cost of the trainings of a preset on this machine, from a few steps of some of its networks.

A preset that holds no images out to validate is one of final trainings, as in `bonas train`: of these it is one that is
priced, of a search all of its budget.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bonas_core.errors import SettingsError, first_line
from bonas_core.image_training.estimate import Estimate
from bonas_core.image_training.evaluator import TrainingEvaluator
from bonas_core.image_training.splits import Splits
from bonas_core.problem import build_evaluator, build_space
from bonas_core.search import is_out_of_memory
from bonas_core.settings import Settings, TrainingSettings
from bonas_core.spaces.base import SearchSpace
from bonas_core.storage.tensors import SUFFIX
from flows.running.presets import load_settings
from tasks.dispatch.slots import threads_of

_DAY_S = 86_400
_SHAPES = {  # channels, side, classes, training images, test images
    "cifar10": (3, 32, 10, 50_000, 10_000),
    "cifar100": (3, 32, 100, 50_000, 10_000),
    "imagenet": (3, 224, 1000, 1_281_167, 50_000),
}


@dataclass(frozen=True)
class Cost:
    """Measurements, and what follows from them for the budget of the search, or for one final training."""

    settings: Settings
    name: str
    data: str
    device: str
    """Name of the device as people call it."""
    is_gpu: bool
    images: int
    """Number of images that every training trains on."""
    steps: int
    estimates: tuple[Estimate, ...]
    """Estimates, one for each network."""

    @property
    def is_final(self) -> bool:
        """Tells whether the settings are of final trainings, which no search is given."""
        return self._evaluator.validation_images == 0

    @property
    def trainings(self) -> int:
        """Number of trainings that are priced."""
        return 1 if self.is_final else self.settings.budget.trials

    @property
    def training_s(self) -> float:
        """Seconds of a training, the mean over the networks."""
        return statistics.fmean(estimate.training_s for estimate in self.estimates)

    @property
    def days(self) -> float:
        """Days of one GPU, or of one training's share of a CPU, for all trainings that are priced."""
        processes = self._evaluator.processes if self.is_gpu else 1
        return self.training_s * self.trainings * processes / _DAY_S

    @property
    def _evaluator(self) -> TrainingSettings:
        assert isinstance(self.settings.evaluator, TrainingSettings)
        return self.settings.evaluator

    @property
    def _share(self) -> str:
        processes, threads = self._evaluator.processes, threads_of(self.settings)
        if self.is_gpu:
            return f"{processes} GPUs" if processes > 1 else "1 GPU"
        own = f"{threads} threads" if threads > 1 else "1 thread"
        return f"{processes} processes of {own}" if processes > 1 else own

    def lines(self) -> list[str]:
        """Says what was measured, and where."""
        kind, count = ("training", "1 training") if self.is_final else ("search", f"{self.trainings} trainings")
        return [
            f"{kind:<9} {self.name}: {count} of {self._evaluator.epochs} epochs, {self.images:,} images an epoch",
            f"data      {self.data}",
            f"device    {self.device}, {self._share} a training; steps timed of each network: {self.steps}",
        ]

    header = ("cell", "s/step", "images/s", "h/training", "GPU memory")

    def rows(self) -> list[list[str]]:
        """Lists a line for each network."""
        return [
            [
                str(number),
                f"{estimate.step_s:.4g}",
                f"{estimate.images_per_second:.4g}",
                f"{estimate.training_s / 3600:.3g}",
                "-" if estimate.memory is None else f"{estimate.memory / 2**30:.2f} GiB",
            ]
            for number, estimate in enumerate(self.estimates)
        ]

    def conclusion(self) -> list[str]:
        """Says what all of it would cost; choosing cells is not counted."""
        unit = "GPU days" if self.is_gpu else f"days of {self._share} of this CPU"
        mean = f"{self.training_s / 3600:.3g} h in the mean"
        if self.is_final:
            return [f"a training      {mean}, {self.days:.3g} {unit}; `bonas train --top N` makes N of them"]
        slots = self.settings.dispatch.slots
        total = self.training_s * self.trainings
        lines = [f"a training      {mean}", f"the search      {self.days:.3g} {unit}"]
        if slots > 1:
            lines.append(f"in {slots} slots      {total / slots / _DAY_S:.3g} days, if each is as fast as one alone")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Gives the same to programs."""
        return {
            **({"training": self.name} if self.is_final else {"search": self.name, "trials": self.trainings}),
            "data": self.data,
            "device": self.device,
            "cells": [asdict(estimate) for estimate in self.estimates],
            "training_s": self.training_s,
            "gpu_days" if self.is_gpu else "cpu_days": self.days,
        }


def cost(source: str, device: str | None, steps: int, cells: int, overrides: Sequence[str]) -> Cost:
    """Times networks of random cells.

    Args:
        source: preset or settings file; where its images are not prepared, made-up ones of their shape are trained on.
        device: a torch device; by default what a search would use.
        steps: to be timed of each network.
        cells: networks.
        overrides: settings as `name=value`.

    Raises:
        SettingsError: the settings train nothing, there is no such device, or memory does not suffice for a network.
    """
    settings, name = load_settings(source, overrides=overrides, need_images=False)
    if not isinstance(settings.evaluator, TrainingSettings):
        raise SettingsError(
            f"cost: `{source}` trains no networks (evaluator.kind: {settings.evaluator.kind}); name settings with "
            "evaluator.kind: training"
        )
    place = _device(device or {"auto": None}.get(settings.dispatch.device, settings.dispatch.device))
    space = build_space(settings.space)
    splits = _made_up(settings.evaluator)
    evaluator = build_evaluator(settings, space) if splits is None else _on(splits, settings.evaluator, space)
    assert isinstance(evaluator, TrainingEvaluator)
    genotypes = space.sample(cells, np.random.default_rng(settings.seed))
    estimates = []
    for number, genotype in enumerate(genotypes):
        try:
            estimates.append(evaluator.estimate(space.architecture(genotype), str(place), steps))
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise SettingsError(
                f"cost: network {number} of {source} does not fit into the memory of {place} "
                f"({first_line(error)[:200]}); lower evaluator.batch_size or evaluator.network.channels"
            ) from None
    images = (
        f"made-up images of the shape of {settings.evaluator.data}, which is not prepared; nothing is read from disk"
    )
    return Cost(
        settings,
        name,
        settings.evaluator.data if splits is None else images,
        torch.cuda.get_device_name(place) if place.type == "cuda" else "CPU",
        place.type == "cuda",
        evaluator.images,
        steps,
        tuple(estimates),
    )


def _device(name: str | None) -> torch.device:
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"device `{name}` is unknown; use cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise SettingsError(f"device `{name}` is none that trainings run on; use cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SettingsError(f"device `{name}`: torch sees {torch.cuda.device_count()} GPUs here; use --device cpu")
    return device


def _made_up(evaluator: TrainingSettings) -> Splits | None:
    """Makes up images in the place of a data set that is known and not prepared."""
    if evaluator.data not in _SHAPES or Path(evaluator.data).suffix == SUFFIX:
        return None
    channels, side, classes, trained, tested = _SHAPES[evaluator.data]
    held_out = trained // 10 if evaluator.validation_images is None else evaluator.validation_images
    kept = evaluator.train_images or trained - held_out
    image = torch.randint(256, (1, channels, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

    def pair(count: int) -> tuple[torch.Tensor, torch.Tensor]:
        return image.expand(count, -1, -1, -1), torch.arange(count) % classes  # one image, which takes no memory

    return _MadeUp("made up", classes, pair(kept), pair(held_out), pair(tested), (0.5,) * channels, (0.25,) * channels)


class _MadeUp(Splits):
    fingerprint = "made up"  # of images that nobody compares results of


def _on(splits: Splits, evaluator: TrainingSettings, space: SearchSpace) -> TrainingEvaluator:
    return TrainingEvaluator(space, **{**evaluator.model_dump(exclude={"kind"}), "data": splits})
