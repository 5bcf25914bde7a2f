"""The training loop: an epoch of steps, and the scoring of a network.

Everything random in an epoch follows from the training's seed and the epoch. Where several processes train a network,
each draws what is random for whole batches and uses what belongs to its rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bonas_core.image_training.batches import Source
from bonas_core.image_training.parallel import Team
from bonas_core.image_training.recipe import Recipe
from bonas_core.image_training.splits import Splits
from bonas_core.networks.base import BatchAware, EpochAware

SCORED_AT_ONCE = 1024
"""Images."""
_MANY_CLASSES = 100  # from so many on the top-5 accuracy is found, too
_DRAWS = 1  # tells the stream of augmentation and network from that of the order of images


@dataclass(frozen=True)
class Scores:
    """Of a network on some images."""

    loss: float
    """Mean of the images'."""
    top1: float
    """Accuracy in percent."""
    top5: float | None = None
    """The same with five guesses; None where there are few classes."""


@dataclass(frozen=True, eq=False)
class TrainingLoop:
    """Trains networks on images by a recipe, epoch by epoch."""

    data: Splits
    recipe: Recipe

    @property
    def steps(self) -> int:
        """Of an epoch."""
        return self.recipe.steps(len(self.data.train[1]))

    def start(self, network: nn.Module, device: torch.device) -> tuple[nn.Module, torch.optim.SGD]:
        """Network and optimiser of a training that begins."""
        network = network.to(device)
        if device.type == "cuda":
            torch.backends.cudnn.deterministic = True  # left on: other trainings of this process need it just as much
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return network, self.recipe.optimiser(network)

    def called(self, network: nn.Module, device: torch.device, team: Team) -> nn.Module:
        """The network as it is called in training; its weights are those of the network itself."""
        called = team.joined(network, torch.zeros(2, *self.data.train[0].shape[1:], device=device))
        if not self.recipe.compile:
            return called
        torch._dynamo.reset()  # what it made of other networks counts against a limit
        # code for every size of batch: code for any size would be used or not depending on what was compiled before
        return cast(nn.Module, torch.compile(called, dynamic=False))

    def train_epoch(
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
        batches = order.tensor_split(self.steps)[:steps]
        # random numbers of an epoch follow from seed and epoch: a checkpoint needs no state of generators
        image_draws, network_draws = (
            torch.Generator(source.device).manual_seed(int(state))
            for state in np.random.SeedSequence([seed, epoch, _DRAWS]).generate_state(2, np.uint64) >> np.uint64(1)
        )
        if isinstance(network, EpochAware):
            network.begin_epoch((epoch - 1) / self.recipe.epochs, network_draws)
        total = torch.zeros((), device=source.device)
        network.train()
        own = source.batches([batch[team.rows(len(batch))] for batch in batches])
        for step, (batch, (images, labels)) in enumerate(zip(batches, own, strict=True)):
            size, rows = len(batch), team.rows(len(batch))
            for group in optimiser.param_groups:
                group["lr"] = self.recipe.rate((epoch - 1) * self.steps + step, self.steps)
            moved = self.recipe.augmentation.moved(images, image_draws, size, rows)
            inputs = self.recipe.augmentation.cut_out(self.data.normalised(moved), image_draws, size, rows)
            if isinstance(network, BatchAware):
                network.begin_batch(size, rows)
            if source.device.type == "cuda":  # which has fast convolutions for this order of values
                inputs = inputs.contiguous(memory_format=torch.channels_last)
            optimiser.zero_grad()
            with self.recipe.mixed(source.device):
                outputs = called(inputs)
                loss = self.recipe.loss(outputs, labels)
            total += loss.detach() * len(labels)
            if team.size > 1:  # whose gradients are averaged: those of the mean over the whole batch
                loss = loss * (len(labels) * team.size / size)
            torch.autograd.backward(loss)
            if self.recipe.gradient_clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), self.recipe.gradient_clip)
            optimiser.step()
        return team.total(total).item() / len(source)

    def score(self, network: nn.Module, source: Source, team: Team) -> Scores:
        """Scores a network on all images of a source."""
        own = torch.arange(len(source))[team.rows(len(source))]
        parts = own.tensor_split(math.ceil(len(own) / SCORED_AT_ONCE)) if len(own) else ()
        loss, correct, among5 = torch.zeros(3, dtype=torch.float64, device=source.device)
        has_top5 = self.data.classes >= _MANY_CLASSES
        network.eval()
        with torch.inference_mode(), self.recipe.mixed(source.device):
            for images, labels in source.batches(parts):
                logits = network(self.data.normalised(images))
                loss += cross_entropy(logits, labels, reduction="sum")
                correct += (logits.argmax(dim=1) == labels).sum()
                if has_top5:
                    among5 += (logits.topk(5, dim=1).indices == labels[:, None]).sum()
        lost, right, right5 = team.total(torch.stack([loss, correct, among5])).tolist()
        count = len(source)
        return Scores(lost / count, 100 * right / count, 100 * right5 / count if has_top5 else None)
