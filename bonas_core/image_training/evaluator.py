"""Real training: an architecture becomes a network, is trained from scratch, and is scored on validation images.

A training is a function of architecture, recipe, seed, device and number of threads: initial weights come from
the seed, the order of the images and everything random about them from the seed and the epoch. So the weights, the
momenta and the number of epochs done are all that a checkpoint needs for the training to go on as if nothing had
happened.

A training in several processes (`parallel`) is the same but for the order in which sums are added: every process draws
what is random for whole batches and uses what belongs to its rows.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import nn

from bonas_core.determinism.threads import torch_threads
from bonas_core.errors import SettingsError, TrainingDivergedError
from bonas_core.evaluators.base import EvaluationContext, Outcome, no_progress
from bonas_core.image_training.augmentation import Augmentation
from bonas_core.image_training.batches import Source
from bonas_core.image_training.checkpoint import (
    CHECKPOINT,
    FIGURES,
    TOP5,
    UNVALIDATED,
    copies,
    restore,
    save_checkpoint,
)
from bonas_core.image_training.datasets import load
from bonas_core.image_training.estimate import Estimate, estimate
from bonas_core.image_training.loop import Scores, TrainingLoop
from bonas_core.image_training.parallel import Team, Tell, run
from bonas_core.image_training.recipe import Recipe
from bonas_core.image_training.splits import Splits
from bonas_core.networks.base import network_factory
from bonas_core.networks.size import parameters
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import SearchSpace

Fitted = tuple[nn.Module, dict[str, float], float | None]
"""A network after the last epoch; figures of that epoch and of the test images; training images a second, scoring not
counted, of the epochs that were not in the checkpoint."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A training that has ended."""

    network: nn.Module
    """With the weights of the last epoch, on the device that it was trained on."""
    outcome: Outcome


class TrainingEvaluator:
    """Trains every architecture with SGD on images and finds the validation accuracy after the last epoch.

    Where no images are held out to validate, as in final trainings, the objective is the accuracy on the test images,
    which is found once, after the last epoch: no search may be given such an evaluator.

    By default the recipe is that of NAS-Bench-201 in small, without augmentation; the settings of DARTS are the preset
    `cifar10-bonas`. A training that is repeated, or killed and taken up from its checkpoint, gives the same outcome bit
    for bit on the same machine and number of threads.

    With `processes`, as many share every batch: its loss and the statistics of batch norms are those of all of its
    images. On GPUs every process has one of its own. Results differ in the last digits from those of one process, and
    from those of code that is compiled.

    The defaults suit the digits: about two seconds per training on one core; good cells reach 98 to 99 %, most of the
    poorer ones 95 to 97 %, and cells that join nothing to the output 10 %. Seeds move a cell by about as much as
    random cells differ.

    Args:
        space: the space of the architectures.
        data: name of a data set or path of prepared images (see `datasets.load`), or the data.
        validation_images: see `datasets.load`.
        train_images: see `datasets.load`.
        augmentation: of the training images (see `Augmentation`).
        network: settings of the network: `channels` of the first stage (4), `cells` (1), and `kind`: by default the one
            registered under the space's name, or `module:object` for a `NetworkFactory` of your own, which the
            fingerprint knows by name and settings only: rename it when its code changes.
        recipe: see `Recipe`.

    Raises:
        SettingsError: the data or the network cannot be found, the network does not take these settings, or batches are
            too small for the processes.
    """

    unit = "percent"
    direction = "maximise"

    def __init__(
        self,
        space: SearchSpace,
        *,
        data: str | Splits = "digits",
        validation_images: int | None = None,
        train_images: int | None = None,
        augmentation: Mapping[str, Any] | None = None,
        network: Mapping[str, Any] | None = None,
        **recipe: Any,
    ) -> None:
        sources = {"data": data, "validation_images": validation_images, "train_images": train_images}
        self._made_of = space, {**sources, "augmentation": augmentation, "network": network, **recipe}
        self.space = space
        self._data = load(data, validation_images, train_images) if isinstance(data, str) else data
        self._recipe = Recipe(Augmentation(**(augmentation or {})), **recipe)
        self._loop = TrainingLoop(self._data, self._recipe)
        if self._recipe.augmentation.colours and not (self._data.mean and self._data.train[0].shape[1] == 3):
            raise SettingsError(
                f"data `{self._data.name}`: its images are not pixels in red, green and blue; leave out brightness, "
                "contrast, saturation and hue under evaluator.augmentation"
            )
        smallest = self.images // self._loop.steps
        if smallest < self._recipe.processes:
            raise SettingsError(
                f"evaluator.processes: {self._recipe.processes} cannot share batches of {smallest} images; "
                f"use {smallest} or fewer"
            )
        self._network_settings = {"channels": 4, "cells": 1, **(network or {})}
        kind: str = self._network_settings.pop("kind", None) or space.name
        self._network_kind = kind
        self._make_network = network_factory(kind, self._network_settings)
        epochs = self._recipe.epochs
        duration = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        is_validated = len(self._data.validation[1]) > 0
        if not is_validated and validation_images != 0:
            raise SettingsError(
                f"data `{self._data.name}`: no images are held out to validate; hold some out, or say so with "
                "evaluator.validation_images=0"
            )
        self._figures = FIGURES if is_validated else UNVALIDATED
        part = "validation" if is_validated else "test"
        self.objective = f"{self._data.name} {part} accuracy after {duration}, one run"
        self.fingerprint = self._recipe.fingerprint(self._data.fingerprint, {"kind": kind, **self._network_settings})

    @property
    def network(self) -> tuple[str, Mapping[str, Any]]:
        """Name of the networks' factory, and their settings."""
        return self._network_kind, self._network_settings

    @property
    def data(self) -> Splits:
        """What it trains on, and is scored on."""
        return self._data

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        """Trains one architecture; see `train`."""
        return self.train(architecture, context).outcome

    def train(self, architecture: Architecture, context: EvaluationContext) -> Trained:
        """Trains one architecture with the recipe's number of threads, and keeps its network.

        Progress and metrics hold `train_loss` (mean over the last epoch, while it ran) and `validation_loss`;
        progress holds the accuracy so far as `objective` and the speed as `images_per_second`, metrics the accuracy on
        the test images as `test`. Without images to validate there is neither `validation_loss` nor an accuracy so far.
        From 100 classes on, `validation_top5` and `test_top5` are the shares of images, in percent, whose class is
        among the five of the largest logits; they decide nothing.

        Raises:
            TrainingDivergedError: a loss is infinite or not a number.
            TrainingProcessError: one of several processes died.
            SettingsError: the network cannot be compiled.
            StoreError: a checkpoint cannot be written.
        """
        with torch_threads(self._recipe.threads):
            if self._recipe.processes == 1:
                network, figures, speed = self._fit(architecture, context, Team())
            else:
                network, figures, speed = self._fit_in_team(architecture, context)
        metrics = {name: figure for name, figure in figures.items() if name != "objective"}
        objective = figures.get("objective", figures["test"])
        return Trained(network, Outcome(objective, metrics, self._recipe.epochs, parameters(network), speed))

    def estimate(self, architecture: Architecture, device: str = "cpu", steps: int = 3) -> Estimate:
        """Times the first steps of a training, after one to warm up, and the scoring of a batch; keeps nothing of them.

        Args:
            architecture: of the network.
            device: a torch device; where a training has several processes, one of them is timed.
            steps: to be timed.
        """
        with torch_threads(self._recipe.threads):
            return estimate(self._loop, self._network(architecture, 0), torch.device(device), steps)

    def _fit_in_team(self, architecture: Architecture, context: EvaluationContext) -> Fitted:
        """As `_fit`, in processes of their own."""
        task = (self, architecture, replace(context, progress=no_progress))
        weights, figures, speed = run(
            self._recipe.processes, context.device, _fit_as_member, task, lambda told: context.progress(*told)
        )
        network = self._network(architecture, context.seed)
        network.load_state_dict(load_tensors(weights))
        return network.eval().to(context.device), figures, speed

    def __reduce__(self) -> tuple[Any, ...]:
        space, settings = self._made_of  # another process makes it anew: data that have a name are read there, not sent
        return partial(type(self), **settings), (space,)

    @property
    def images(self) -> int:
        """That a network is trained on in an epoch."""
        return len(self._data.train[1])

    def _network(self, architecture: Architecture, seed: int) -> nn.Module:
        return self._make_network(
            architecture,
            generator=torch.Generator().manual_seed(seed),
            in_channels=self._data.train[0].shape[1],
            classes=self._data.classes,
            **self._network_settings,
        )

    def _fit(self, architecture: Architecture, context: EvaluationContext, team: Team) -> Fitted:
        device = team.device(context.device)
        network, optimiser = self._loop.start(self._network(architecture, context.seed), device)
        identity = {"recipe": self.fingerprint, "architecture": architecture.key, "seed": str(context.seed)}
        path = None if context.checkpoints is None else context.checkpoints / CHECKPOINT
        speed: float | None = None
        done, figures = (
            (0, {}) if path is None else restore(path, identity, self._recipe.epochs, network, optimiser, self._figures)
        )
        train, validation, test = (
            Source(pair, device) for pair in (self._data.train, self._data.validation, self._data.test)
        )
        called = self._loop.called(network, device, team)
        seconds = 0.0
        for epoch in range(done + 1, self._recipe.epochs + 1):
            begin = time.perf_counter()
            train_loss = self._loop.train_epoch(network, called, optimiser, train, epoch, context.seed, team)
            seconds += time.perf_counter() - begin
            speed = (epoch - done) * len(train) / seconds
            validated = self._loop.score(network, validation, team) if len(validation) else Scores(0.0, 0.0)
            for name, loss in (("training", train_loss), ("validation", validated.loss)):
                if not math.isfinite(loss):
                    raise TrainingDivergedError(
                        f"architecture `{architecture.text}`: the {name} loss is {loss} in epoch {epoch} of "
                        f"{self._recipe.epochs}; lower evaluator.learning_rate ({self._recipe.learning_rate})"
                    )
            found = dict(zip(FIGURES, (validated.top1, train_loss, validated.loss), strict=True))
            figures = {name: found[name] for name in self._figures}
            if validated.top5 is not None:
                figures[TOP5] = validated.top5
            if team.rank == 0:
                if path is not None:
                    save_checkpoint(path, {**identity, "epoch": epoch, **figures}, network, optimiser)
                context.progress(epoch, {**figures, "images_per_second": speed})
        tested = self._loop.score(network, test, team)
        figures = {**figures, "test": tested.top1}
        return network, figures if tested.top5 is None else {**figures, "test_top5": tested.top5}, speed


def _fit_as_member(
    team: Team, task: tuple[TrainingEvaluator, Architecture, EvaluationContext], tell: Tell
) -> tuple[bytes, dict[str, float], float | None]:
    """The work of each of the processes that train a network: `Fitted`, of which the weights only."""
    evaluator, architecture, context = task
    told = replace(context, progress=lambda epoch, figures: tell((epoch, figures)))
    with torch_threads(evaluator._recipe.threads):
        network, figures, speed = evaluator._fit(architecture, told, team)
    return save(copies(network.state_dict())), figures, speed
