"""Real training: an architecture becomes a network, is trained from scratch, and is scored on validation images.

A training is a function of architecture, recipe, seed, device and number of threads: initial weights come from
the seed, the order of the images and everything random about them from the seed and the epoch. So the weights, the
momenta and the number of epochs done are all that a checkpoint needs for the training to go on as if nothing had
happened.

A training in several processes (`parallel`) is the same but for the order in which sums are added: every process draws
what is random for whole batches and uses what belongs to its rows.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_tensors
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bonas_core.architecture import Architecture
from bonas_core.errors import SettingsError, TrainingDivergedError
from bonas_core.evaluators.augmentation import Augmentation
from bonas_core.evaluators.base import EvaluationContext, Outcome, no_progress
from bonas_core.evaluators.batches import Source
from bonas_core.evaluators.datasets import Splits, load
from bonas_core.evaluators.parallel import Team, Tell, run
from bonas_core.networks.size import parameters
from bonas_core.registry import resolve
from bonas_core.spaces.base import SearchSpace
from bonas_core.storage import write_whole
from bonas_core.threads import torch_threads

CHECKPOINT = "training.safetensors"
"""Name of the file in the folder for checkpoints."""

_RECIPE = 1  # raised whenever the code below would train differently with the same settings
_SCORED_AT_ONCE = 1024  # images
_DRAWS = 1  # tells the stream of augmentation and network from that of the order of images
_FIGURES = ("objective", "train_loss", "validation_loss")  # what progress and a checkpoint hold of an epoch
_UNVALIDATED = ("train_loss",)  # the same, where no images are held out
_TOP5 = "validation_top5"  # held beside them where there are many classes; checkpoints of before lack it
_MANY_CLASSES = 100  # from so many on the top-5 accuracy is found, too


Fitted = tuple[nn.Module, dict[str, float], float | None]
"""A network after the last epoch; figures of that epoch and of the test images; training images a second, scoring not
counted, of the epochs that were not in the checkpoint."""


class NetworkFactory(Protocol):
    """What `network.kind` names: a function or class that makes the network of an architecture.

    The network is made on the CPU, and all its weights are drawn from `generator`, a CPU generator. `settings` are
    those of `network` without `kind`: `channels`, `cells`, and whatever else was given. A network that draws random
    numbers while it trains should be `EpochAware`: if it draws them elsewhere, as dropout does, it works, but its
    trainings cannot be repeated bit for bit. In training it may return two outputs, its logits and those of an
    auxiliary head; parameters named `auxiliary.*` are not counted.
    """

    def __call__(
        self, architecture: Architecture, *, generator: torch.Generator, in_channels: int, classes: int, **settings: Any
    ) -> nn.Module: ...


@runtime_checkable
class EpochAware(Protocol):
    """What a network offers if it changes in the course of its training or draws random numbers in it."""

    def begin_epoch(self, progress: float, generator: torch.Generator) -> None:
        """Called before every epoch.

        Args:
            progress: share of the epochs that are done.
            generator: where this epoch's random numbers are to be drawn from, on the device of the network.
        """


@runtime_checkable
class BatchAware(Protocol):
    """What a network offers that draws random numbers for every image: for a training in several processes, it has to
    draw for those of all of them."""

    def begin_batch(self, size: int, rows: slice) -> None:
        """Called before every batch of `size` images, of which the network is then given `rows`."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A training that has ended."""

    network: nn.Module
    """With the weights of the last epoch, on the device that it was trained on."""
    outcome: Outcome


@dataclass(frozen=True)
class Estimate:
    """What a training would cost, from a few of its steps."""

    step_s: float
    """Seconds of a step."""
    images_per_second: float
    """In training, of all processes together."""
    training_s: float
    """Seconds of a training, scoring counted; without what several processes have to tell each other."""
    memory: int | None
    """Largest number of bytes that tensors took on a GPU; None on a CPU."""


@dataclass(frozen=True)
class _Scores:
    """Of a network on some images."""

    loss: float
    """Mean of the images'."""
    top1: float
    """Accuracy in percent."""
    top5: float | None = None
    """The same with five guesses; None where there are few classes."""


class TrainingEvaluator:
    """Trains every architecture with SGD on images and finds the validation accuracy after the last epoch.

    Where no images are held out to validate, as in final trainings, the objective is the accuracy on the test images,
    which is found once, after the last epoch: no search may be given such an evaluator.

    Cross-entropy, momentum, a learning rate that changes step by step, weight decay on all parameters. By default the
    recipe of NAS-Bench-201 in small, without augmentation; the settings of DARTS are the preset `cifar10-bonas`. A
    training that is repeated, or killed and taken up from its checkpoint, gives the same outcome bit for bit on the
    same machine and number of threads.

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
        epochs: passes over the training images.
        batch_size: largest number of images in a step; the batches of an epoch differ in size by at most one.
        learning_rate: of the first step after the warm-up.
        schedule: `cosine` falls to 0, `step` is multiplied by `decay` every `decay_epochs`.
        decay: see `schedule`.
        decay_epochs: see `schedule`.
        warmup_epochs: in which the learning rate rises linearly to its full value; the schedule runs from the start.
        momentum: of SGD; 0 for none.
        nesterov: whether the momentum is Nesterov's.
        weight_decay: of SGD.
        gradient_clip: largest norm of the gradient of all parameters; None for any.
        label_smoothing: of the cross-entropy in training.
        auxiliary_weight: of the loss of a second output, which a network may return in training.
        precision: `float32`, or `bfloat16` for mixed precision.
        threads: of the CPU, part of the recipe, since they decide in which order sums are added.
        processes: in which a network is trained.
        compile: whether `torch.compile` makes code of every network for its training, which takes it half a minute and
            more, and pays on GPUs only.
        network: settings of the network: `channels` of the first stage (4), `cells` (1), and `kind`: by default the one
            registered under the space's name, or `module:object` for a `NetworkFactory` of your own, which the
            fingerprint knows by name and settings only: rename it when its code changes.

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
        epochs: int = 10,
        batch_size: int = 128,
        learning_rate: float = 0.05,
        schedule: str = "cosine",
        decay: float = 0.97,
        decay_epochs: int = 1,
        warmup_epochs: int = 0,
        momentum: float = 0.9,
        nesterov: bool = True,
        weight_decay: float = 5e-4,
        gradient_clip: float | None = None,
        label_smoothing: float = 0.0,
        auxiliary_weight: float = 0.4,
        precision: str = "float32",
        threads: int = 1,
        processes: int = 1,
        compile: bool = False,
        network: Mapping[str, Any] | None = None,
    ) -> None:
        settings = {name: value for name, value in locals().items() if name not in ("self", "space")}
        self._made_of = (space, settings)
        self.space = space
        self._data = load(data, validation_images, train_images) if isinstance(data, str) else data
        self._augmentation = Augmentation(**(augmentation or {}))
        if self._augmentation.colours and not (self._data.mean and self._data.train[0].shape[1] == 3):
            raise SettingsError(
                f"data `{self._data.name}`: its images are not pixels in red, green and blue; leave out brightness, "
                "contrast, saturation and hue under evaluator.augmentation"
            )
        self._epochs = epochs
        self._batch_size = batch_size
        self._learning_rate = learning_rate
        self._schedule = schedule
        self._decay = decay
        self._decay_epochs = decay_epochs
        self._warmup_epochs = warmup_epochs
        self._momentum = momentum
        self._nesterov = nesterov and momentum > 0
        self._weight_decay = weight_decay
        self._gradient_clip = gradient_clip
        self._label_smoothing = label_smoothing
        self._auxiliary_weight = auxiliary_weight
        self._precision = precision
        self._threads = threads
        self._processes = processes
        self._compile = compile
        smallest = len(self._data.train[1]) // self._steps
        if smallest < processes:
            raise SettingsError(
                f"evaluator.processes: {processes} cannot share batches of {smallest} images; use {smallest} or fewer"
            )
        self._network_settings = {"channels": 4, "cells": 1, **(network or {})}
        kind: str = self._network_settings.pop("kind", None) or space.name
        self._network_kind = kind
        self._make_network = _network_factory(kind, self._network_settings)
        duration = "1 epoch" if epochs == 1 else f"{epochs} epochs"
        is_validated = len(self._data.validation[1]) > 0
        if not is_validated and validation_images != 0:
            raise SettingsError(
                f"data `{self._data.name}`: no images are held out to validate; hold some out, or say so with "
                "evaluator.validation_images=0"
            )
        self._figures = _FIGURES if is_validated else _UNVALIDATED
        part = "validation" if is_validated else "test"
        self.objective = f"{self._data.name} {part} accuracy after {duration}, one run"
        recipe = {
            "version": _RECIPE,
            "data": self._data.fingerprint,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "threads": threads,
            "network": {"kind": kind, **self._network_settings},
        }
        # what was added later counts where it is used, so that searches of before can go on
        later: dict[str, tuple[object, object]] = {
            "augmentation": (self._augmentation.recipe, Augmentation().recipe),
            "schedule": ([schedule, decay, decay_epochs] if schedule == "step" else schedule, "cosine"),
            "warmup_epochs": (warmup_epochs, 0),
            "nesterov": (nesterov, True),
            "gradient_clip": (gradient_clip, None),
            "label_smoothing": (label_smoothing, 0.0),
            "auxiliary_weight": (auxiliary_weight, 0.4),
            "precision": (precision, "float32"),
            "processes": (processes, 1),
            "compile": (compile, False),
        }
        recipe |= {name: value for name, (value, usual) in later.items() if value != usual}
        self.fingerprint = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()

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
        with torch_threads(self._threads):
            if self._processes == 1:
                network, figures, speed = self._fit(architecture, context, Team())
            else:
                network, figures, speed = self._fit_in_team(architecture, context)
        metrics = {name: figure for name, figure in figures.items() if name != "objective"}
        objective = figures.get("objective", figures["test"])
        return Trained(network, Outcome(objective, metrics, self._epochs, parameters(network), speed))

    def estimate(self, architecture: Architecture, device: str = "cpu", steps: int = 3) -> Estimate:
        """Times the first steps of a training, after one to warm up, and the scoring of a batch; keeps nothing of them.

        Args:
            architecture: of the network.
            device: a torch device; where a training has several processes, one of them is timed.
            steps: to be timed.
        """
        with torch_threads(self._threads):
            return self._estimate(architecture, torch.device(device), steps)

    def _estimate(self, architecture: Architecture, device: torch.device, steps: int) -> Estimate:
        share, alone = Team(0, self._processes), Team()
        network, optimiser = self._start(architecture, 0, device)
        called = self._called(network, device, alone)
        train = Source(self._data.train, device)
        held_out = self._data.validation if len(self._data.validation[1]) else self._data.test
        few = min(self._batch_size, len(held_out[1]), _SCORED_AT_ONCE)
        scored = Source((held_out[0][:few], held_out[1][:few]), device)

        def seconds(steps: int) -> float:
            """Of so many steps."""
            _synchronise(device)
            begin = time.perf_counter()
            self._train(network, called, optimiser, train, 1, 0, share, steps)
            _synchronise(device)
            return time.perf_counter() - begin

        seconds(1)
        steps = min(steps, self._steps)
        step_s = seconds(steps) / steps
        self._score(network, scored, alone)
        begin = time.perf_counter()
        self._score(network, scored, alone)
        image_s = (time.perf_counter() - begin) / few / self._processes
        trained_on, validated, tested = (
            len(pair[1]) for pair in (self._data.train, self._data.validation, self._data.test)
        )
        return Estimate(
            step_s,
            trained_on / self._steps / step_s,
            self._epochs * (self._steps * step_s + validated * image_s) + tested * image_s,
            torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
        )

    def _fit_in_team(self, architecture: Architecture, context: EvaluationContext) -> Fitted:
        """As `_fit`, in processes of their own."""
        task = (self, architecture, replace(context, progress=no_progress))
        weights, figures, speed = run(
            self._processes, context.device, _fit_as_member, task, lambda told: context.progress(*told)
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

    @property
    def _steps(self) -> int:
        """Of an epoch."""
        return math.ceil(self.images / self._batch_size)

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
        network, optimiser = self._start(architecture, context.seed, device)
        identity = {"recipe": self.fingerprint, "architecture": architecture.key, "seed": str(context.seed)}
        path = None if context.checkpoints is None else context.checkpoints / CHECKPOINT
        speed: float | None = None
        done, figures = (
            (0, {}) if path is None else _restore(path, identity, self._epochs, network, optimiser, self._figures)
        )
        train, validation, test = (
            Source(pair, device) for pair in (self._data.train, self._data.validation, self._data.test)
        )
        called = self._called(network, device, team)
        seconds = 0.0
        for epoch in range(done + 1, self._epochs + 1):
            begin = time.perf_counter()
            train_loss = self._train(network, called, optimiser, train, epoch, context.seed, team)
            seconds += time.perf_counter() - begin
            speed = (epoch - done) * len(train) / seconds
            validated = self._score(network, validation, team) if len(validation) else _Scores(0.0, 0.0)
            for name, loss in (("training", train_loss), ("validation", validated.loss)):
                if not math.isfinite(loss):
                    raise TrainingDivergedError(
                        f"architecture `{architecture.text}`: the {name} loss is {loss} in epoch {epoch} of "
                        f"{self._epochs}; lower evaluator.learning_rate ({self._learning_rate})"
                    )
            found = dict(zip(_FIGURES, (validated.top1, train_loss, validated.loss), strict=True))
            figures = {name: found[name] for name in self._figures}
            if validated.top5 is not None:
                figures[_TOP5] = validated.top5
            if team.rank == 0:
                if path is not None:
                    _save(path, {**identity, "epoch": epoch, **figures}, network, optimiser)
                context.progress(epoch, {**figures, "images_per_second": speed})
        tested = self._score(network, test, team)
        figures = {**figures, "test": tested.top1}
        return network, figures if tested.top5 is None else {**figures, "test_top5": tested.top5}, speed

    def _start(self, architecture: Architecture, seed: int, device: torch.device) -> tuple[nn.Module, torch.optim.SGD]:
        """Network and optimiser of a training that begins."""
        network = self._network(architecture, seed).to(device)
        if device.type == "cuda":
            torch.backends.cudnn.deterministic = True  # left on: other trainings of this process need it just as much
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network, torch.optim.SGD(
            network.parameters(),
            lr=self._learning_rate,
            momentum=self._momentum,
            nesterov=self._nesterov,
            weight_decay=self._weight_decay,
        )

    def _called(self, network: nn.Module, device: torch.device, team: Team) -> nn.Module:
        """The network as it is called in training; its weights are those of the network itself."""
        called = team.joined(network, torch.zeros(2, *self._data.train[0].shape[1:], device=device))
        if not self._compile:
            return called
        torch._dynamo.reset()  # what it made of other networks counts against a limit
        # code for every size of batch: code for any size would be used or not depending on what was compiled before
        return cast(nn.Module, torch.compile(called, dynamic=False))

    def _train(
        self,
        network: nn.Module,
        called: nn.Module,
        optimiser: torch.optim.SGD,
        source: Source,
        epoch: int,
        seed: int,
        team: Team,
        steps: int | None = None,
    ) -> float:
        """Runs one epoch, the first being 1, and returns the mean of the images' losses.

        `called` is the network as it is called in training; with `steps`, the epoch ends after so many.
        """
        order = torch.from_numpy(np.random.default_rng([seed, epoch]).permutation(len(source)))
        batches = order.tensor_split(self._steps)[:steps]
        # random numbers of an epoch follow from seed and epoch: a checkpoint needs no state of generators
        image_draws, network_draws = (
            torch.Generator(source.device).manual_seed(int(state))
            for state in np.random.SeedSequence([seed, epoch, _DRAWS]).generate_state(2, np.uint64) >> np.uint64(1)
        )
        if isinstance(network, EpochAware):
            network.begin_epoch((epoch - 1) / self._epochs, network_draws)
        total = torch.zeros((), device=source.device)
        network.train()
        own = source.batches([batch[team.rows(len(batch))] for batch in batches])
        for step, (batch, (images, labels)) in enumerate(zip(batches, own, strict=True)):
            size, rows = len(batch), team.rows(len(batch))
            for group in optimiser.param_groups:
                group["lr"] = self._rate((epoch - 1) * self._steps + step)
            moved = self._augmentation.moved(images, image_draws, size, rows)
            inputs = self._augmentation.cut_out(self._data.normalised(moved), image_draws, size, rows)
            if isinstance(network, BatchAware):
                network.begin_batch(size, rows)
            if source.device.type == "cuda":  # which has fast convolutions for this order of values
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            optimiser.zero_grad()
            with self._mixed(source.device):
                outputs = called(inputs)
                loss = self._loss(outputs, labels)
            total += loss.detach() * len(labels)
            if team.size > 1:  # whose gradients are averaged: those of the mean over the whole batch
                loss = loss * (len(labels) * team.size / size)
            torch.autograd.backward(loss)
            if self._gradient_clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), self._gradient_clip)
            optimiser.step()
        return team.total(total).item() / len(source)

    def _loss(self, outputs: Tensor | tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
        """Of logits, or of logits and those of an auxiliary head."""
        logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
        loss = cross_entropy(logits, labels, label_smoothing=self._label_smoothing)
        if auxiliary is None:
            return loss
        return loss + self._auxiliary_weight * cross_entropy(auxiliary, labels, label_smoothing=self._label_smoothing)

    def _rate(self, step: int) -> float:
        """Learning rate of a step, counted from the first of the training."""
        steps = self._steps
        if self._schedule == "cosine":
            rate = self._learning_rate * (1 + math.cos(math.pi * step / (steps * self._epochs))) / 2
        else:
            rate = self._learning_rate * self._decay ** (step // (steps * self._decay_epochs))
        warmup = steps * self._warmup_epochs
        return rate * (step + 1) / warmup if step < warmup else rate

    def _mixed(self, device: torch.device) -> AbstractContextManager[None]:
        return torch.autocast(device.type, torch.bfloat16, enabled=self._precision == "bfloat16")

    def _score(self, network: nn.Module, source: Source, team: Team) -> _Scores:
        own = torch.arange(len(source))[team.rows(len(source))]
        parts = own.tensor_split(math.ceil(len(own) / _SCORED_AT_ONCE)) if len(own) else ()
        loss, correct, among5 = torch.zeros(3, dtype=torch.float64, device=source.device)
        has_top5 = self._data.classes >= _MANY_CLASSES
        network.eval()
        with torch.inference_mode(), self._mixed(source.device):
            for images, labels in source.batches(parts):
                logits = network(self._data.normalised(images))
                loss += cross_entropy(logits, labels, reduction="sum")
                correct += (logits.argmax(dim=1) == labels).sum()
                if has_top5:
                    among5 += (logits.topk(5, dim=1).indices == labels[:, None]).sum()
        lost, right, right5 = team.total(torch.stack([loss, correct, among5])).tolist()
        count = len(source)
        return _Scores(lost / count, 100 * right / count, 100 * right5 / count if has_top5 else None)


def _synchronise(device: torch.device) -> None:
    """Waits until all work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _fit_as_member(
    team: Team, task: tuple[TrainingEvaluator, Architecture, EvaluationContext], tell: Tell
) -> tuple[bytes, dict[str, float], float | None]:
    """The work of each of the processes that train a network: `Fitted`, of which the weights only."""
    evaluator, architecture, context = task
    told = replace(context, progress=lambda epoch, figures: tell((epoch, figures)))
    with torch_threads(evaluator._threads):
        network, figures, speed = evaluator._fit(architecture, told, team)
    return save(_copies(network.state_dict())), figures, speed


def _network_factory(kind: str, settings: Mapping[str, Any]) -> NetworkFactory:
    factory: NetworkFactory = resolve("network", kind)
    try:
        inspect.signature(factory).bind(None, generator=None, in_channels=None, classes=None, **settings)
    except TypeError as error:
        raise SettingsError(f"network `{kind}`: {error}; check the settings under evaluator.network") from None
    return factory


def _save(path: Path, metadata: Mapping[str, object], network: nn.Module, optimiser: torch.optim.SGD) -> None:
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        momentum = optimiser.state[parameter].get("momentum_buffer")
        if momentum is not None:  # a parameter that nothing depends on has none
            tensors[f"momentum.{name}"] = momentum
    write_whole(path, save(_copies(tensors), {name: str(value) for name, value in metadata.items()}))


def _copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as the format of checkpoints takes them: it refuses those that share memory, as weights may."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def last_epoch(checkpoint: Path) -> tuple[int, dict[str, float]]:
    """Epochs done of a checkpoint, and the figures of the last; (0, {}) where there is none that can be read."""
    try:
        with safe_open(checkpoint, framework="np") as file:
            metadata = file.metadata() or {}
        return int(metadata["epoch"]), {name: float(metadata[name]) for name in (*_FIGURES, _TOP5) if name in metadata}
    except (OSError, SafetensorError, KeyError, ValueError):
        return 0, {}


def _restore(
    path: Path,
    identity: Mapping[str, str],
    epochs: int,
    network: nn.Module,
    optimiser: torch.optim.SGD,
    names: Sequence[str] = _FIGURES,
) -> tuple[int, dict[str, float]]:
    """Takes up a checkpoint of the same training: epochs done and figures of the last.

    Without one, or if it is damaged or of another training: (0, {}), and nothing is changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        epoch = int(metadata["epoch"])
        figures = {name: float(metadata[name]) for name in (*names, *({_TOP5} & metadata.keys()))}
    except (OSError, SafetensorError, KeyError, ValueError):
        return 0, {}
    required = _forms({f"network.{name}": tensor for name, tensor in network.state_dict().items()})
    allowed = required | _forms({f"momentum.{name}": parameter for name, parameter in network.named_parameters()})
    if not (
        identity.items() <= metadata.items()
        and 1 <= epoch <= epochs
        and all(map(math.isfinite, figures.values()))
        and required.items() <= _forms(tensors).items() <= allowed.items()
    ):
        return 0, {}
    network.load_state_dict({name.removeprefix("network."): tensors[name] for name in required})
    for name, parameter in network.named_parameters():
        momentum = tensors.get(f"momentum.{name}")
        if momentum is not None:
            optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(momentum)
    return epoch, figures


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
