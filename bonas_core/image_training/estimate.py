"""What a training would cost, from a few of its steps."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import nn

from bonas_core.image_training.batches import Source
from bonas_core.image_training.loop import SCORED_AT_ONCE, TrainingLoop
from bonas_core.image_training.parallel import Team


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


def estimate(loop: TrainingLoop, network: nn.Module, device: torch.device, steps: int) -> Estimate:
    """Times the first steps of a training, after one to warm up, and the scoring of a batch.

    Args:
        loop: of the training; where it has several processes, one of them is timed.
        network: is changed by it.
        device: to train on.
        steps: to be timed.
    """
    share, alone = Team(0, loop.recipe.processes), Team()
    network, optimiser = loop.start(network, device)
    called = loop.called(network, device, alone)
    train = Source(loop.data.train, device)
    held_out = loop.data.validation if len(loop.data.validation[1]) else loop.data.test
    few = min(loop.recipe.batch_size, len(held_out[1]), SCORED_AT_ONCE)
    scored = Source((held_out[0][:few], held_out[1][:few]), device)

    def seconds(steps: int) -> float:
        """Of so many steps."""
        _synchronise(device)
        begin = time.perf_counter()
        loop.train_epoch(network, called, optimiser, train, 1, 0, share, steps)
        _synchronise(device)
        return time.perf_counter() - begin

    seconds(1)
    steps = min(steps, loop.steps)
    step_s = seconds(steps) / steps
    loop.score(network, scored, alone)
    begin = time.perf_counter()
    loop.score(network, scored, alone)
    image_s = (time.perf_counter() - begin) / few / loop.recipe.processes
    trained_on, validated, tested = (len(pair[1]) for pair in (loop.data.train, loop.data.validation, loop.data.test))
    return Estimate(
        step_s,
        trained_on / loop.steps / step_s,
        loop.recipe.epochs * (loop.steps * step_s + validated * image_s) + tested * image_s,
        torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )


def _synchronise(device: torch.device) -> None:
    """Waits until all work on the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
