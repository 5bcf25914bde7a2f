"""Images per second of the training engine, and of a bare torch loop on the same network and batch.

.venv/bin/python benchmarks/training.py [--device cuda] [--preset cifar10-bonas] [--rounds 21] [--steps 8] [--compile]

Both train one random cell of the preset, in turns, in one process. The engine crops, flips, cuts out and normalises
bytes, clips gradients and changes the learning rate at every step; the bare loop is given one batch of numbers that is
there already, again and again, and does nothing but forward, backward, clip and step.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from bonas_core.determinism.threads import torch_threads
from bonas_core.image_training.evaluator import TrainingEvaluator
from bonas_core.image_training.splits import Splits
from bonas_core.networks.nasnet import cifar_network
from bonas_core.problem import build_space
from bonas_core.settings import TrainingSettings
from bonas_core.spaces.architecture import Architecture
from flows.running.presets import load_settings

CLASSES = 10


def pixels(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(count) % CLASSES


def bare(settings: TrainingSettings, cell: Architecture, device: torch.device, steps: int) -> float:
    """Images per second."""
    network: nn.Module = cifar_network(
        cell,
        generator=torch.Generator().manual_seed(0),
        classes=CLASSES,
        **settings.network.model_dump(exclude={"kind"}),
    ).to(device)
    images, labels = (tensor.to(device) for tensor in pixels(settings.batch_size))
    # what the engine's batches are like in memory, which is what convolutions are fastest with
    x = (images.float() / 128 - 1).contiguous(memory_format=torch.channels_last)
    if device.type == "cuda":
        torch.backends.cudnn.deterministic = True  # as in the engine
        network = network.to(memory_format=torch.channels_last)
    called = torch.compile(network) if settings.compile else network
    optimiser = torch.optim.SGD(
        network.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    network.train()

    def run(count: int) -> None:
        for _ in range(count):
            optimiser.zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                outputs = called(x)
                logits, auxiliary = outputs if isinstance(outputs, tuple) else (outputs, None)
                loss = cross_entropy(logits, labels)
                if auxiliary is not None:
                    loss = loss + settings.auxiliary_weight * cross_entropy(auxiliary, labels)
            loss.backward()
            if settings.gradient_clip is not None:
                nn.utils.clip_grad_norm_(network.parameters(), settings.gradient_clip)
            optimiser.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    with torch_threads(settings.threads):
        run(1)
        begin = time.perf_counter()
        run(steps)
    return steps * settings.batch_size / (time.perf_counter() - begin)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--preset", default="cifar10-small")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    settings, _ = load_settings(
        arguments.preset, overrides=[f"evaluator.compile={arguments.compile}".lower()], need_images=False
    )
    training = settings.evaluator
    assert isinstance(training, TrainingSettings)
    space = build_space(settings.space)
    cell = space.architecture(space.sample(1, np.random.default_rng(0))[0])
    count = training.batch_size * (arguments.steps + 1)  # all batches are full
    data = Splits("made up", CLASSES, pixels(count), pixels(32), pixels(32), (0.5,) * 3, (0.25,) * 3)
    engine = TrainingEvaluator(space, **{**training.model_dump(exclude={"kind"}), "data": data})
    device = torch.device(arguments.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, threads: {training.threads}"
    print(f"{arguments.preset} on {name}; batches of {training.batch_size}, {training.precision}")
    engines, bares = [], []
    for _ in range(arguments.rounds):
        engines.append(engine.estimate(cell, arguments.device, arguments.steps).images_per_second)
        bares.append(bare(training, cell, device, arguments.steps))
        print(f"engine {engines[-1]:8.1f} images/s   bare loop {bares[-1]:8.1f}   {engines[-1] / bares[-1]:.1%}")
    ratio = statistics.median(own / other for own, other in zip(engines, bares, strict=True))
    print(f"median: engine {statistics.median(engines):.1f} images/s, bare loop {statistics.median(bares):.1f}")
    print(f"engine / bare loop, median of {arguments.rounds} rounds: {ratio:.1%}")


if __name__ == "__main__":
    main()
