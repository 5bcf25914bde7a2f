"""How networks are trained: SGD with a schedule, its loss and its precision."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from bonas_core.image_training.augmentation import Augmentation

_RECIPE = 1  # raised whenever trainings would differ with the same settings


@dataclass(frozen=True)
class Recipe:
    """Cross-entropy, momentum, a learning rate that changes step by step, weight decay on all parameters."""

    augmentation: Augmentation
    """Of the training images."""
    epochs: int = 10
    """Passes over the training images."""
    batch_size: int = 128
    """Largest number of images in a step; the batches of an epoch differ in size by at most one."""
    learning_rate: float = 0.05
    """Of the first step after the warm-up."""
    schedule: str = "cosine"
    """`cosine` falls to 0, `step` is multiplied by `decay` every `decay_epochs`."""
    decay: float = 0.97
    decay_epochs: int = 1
    warmup_epochs: int = 0
    """In which the learning rate rises linearly to its full value; the schedule runs from the start."""
    momentum: float = 0.9
    """Of SGD; 0 for none."""
    nesterov: bool = True
    """Whether the momentum, if there is any, is Nesterov's."""
    weight_decay: float = 5e-4
    """Of SGD."""
    gradient_clip: float | None = None
    """Largest norm of the gradient of all parameters; None for any."""
    label_smoothing: float = 0.0
    """Of the cross-entropy in training."""
    auxiliary_weight: float = 0.4
    """Of the loss of a second output, which a network may return in training."""
    precision: str = "float32"
    """`float32`, or `bfloat16` for mixed precision."""
    threads: int = 1
    """Of the CPU, a part of the recipe, since they decide in which order sums are added."""
    processes: int = 1
    """In which a network is trained."""
    compile: bool = False
    """Whether `torch.compile` makes code of every network for its training, which takes it half a minute and more, and
    pays on GPUs only."""

    def steps(self, images: int) -> int:
        """Of an epoch over so many images."""
        return math.ceil(images / self.batch_size)

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step, counted from the first of the training; an epoch has `steps`."""
        if self.schedule == "cosine":
            rate = self.learning_rate * (1 + math.cos(math.pi * step / (steps * self.epochs))) / 2
        else:
            rate = self.learning_rate * self.decay ** (step // (steps * self.decay_epochs))
        warmup = steps * self.warmup_epochs
        return rate * (step + 1) / warmup if step < warmup else rate

    def optimiser(self, network: nn.Module) -> torch.optim.SGD:
        """Of a training that begins."""
        return torch.optim.SGD(
            network.parameters(),
            lr=self.learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov and self.momentum > 0,
            weight_decay=self.weight_decay,
        )

    def loss(self, outputs: Tensor | tuple[Tensor, Tensor], labels: Tensor) -> Tensor:
        """In training, of logits, or of logits and those of an auxiliary head."""
        logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
        loss = cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        if auxiliary is None:
            return loss
        return loss + self.auxiliary_weight * cross_entropy(auxiliary, labels, label_smoothing=self.label_smoothing)

    def mixed(self, device: torch.device) -> AbstractContextManager[None]:
        """Within which a network computes in the recipe's precision."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")

    def fingerprint(self, data: str, network: Mapping[str, Any]) -> str:
        """Identity of a training, but for architecture and seed.

        Args:
            data: fingerprint of the images.
            network: `kind` and settings of the networks.
        """
        recipe = {
            "version": _RECIPE,
            "data": data,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "learning_rate": self.learning_rate,
            "momentum": self.momentum,
            "weight_decay": self.weight_decay,
            "threads": self.threads,
            "network": network,
        }
        # what was added later counts where it is used, so that searches of before can go on
        later: dict[str, tuple[object, object]] = {
            "augmentation": (self.augmentation.recipe, Augmentation().recipe),
            "schedule": (
                [self.schedule, self.decay, self.decay_epochs] if self.schedule == "step" else self.schedule,
                "cosine",
            ),
            "warmup_epochs": (self.warmup_epochs, 0),
            "nesterov": (self.nesterov, True),
            "gradient_clip": (self.gradient_clip, None),
            "label_smoothing": (self.label_smoothing, 0.0),
            "auxiliary_weight": (self.auxiliary_weight, 0.4),
            "precision": (self.precision, "float32"),
            "processes": (self.processes, 1),
            "compile": (self.compile, False),
        }
        recipe |= {name: value for name, (value, usual) in later.items() if value != usual}
        return hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
