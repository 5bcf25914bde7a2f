"""Where a training stands, in one safetensors file: weights and momenta, epochs done, figures of the last."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bonas_core.storage import write_whole
from bonas_core.storage.tensors import SUFFIX

CHECKPOINT = f"training{SUFFIX}"
"""Name of the file in the folder for checkpoints."""
FIGURES = ("objective", "train_loss", "validation_loss")
"""What progress and a checkpoint hold of an epoch."""
UNVALIDATED = ("train_loss",)
"""The same, where no images are held out."""
TOP5 = "validation_top5"
"""Held beside them where there are many classes; checkpoints of before lack it."""


def save_checkpoint(path: Path, metadata: Mapping[str, object], network: nn.Module, optimiser: torch.optim.SGD) -> None:
    """Writes weights and momenta, whole or not at all.

    Args:
        path: of the file.
        metadata: what the training is, as in `restore`; `epoch`, the epochs done; figures of the last.
        network: whose weights are written.
        optimiser: whose momenta are.

    Raises:
        StoreError: it cannot be written.
    """
    tensors = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        momentum = optimiser.state[parameter].get("momentum_buffer")
        if momentum is not None:  # a parameter that nothing depends on has none
            tensors[f"momentum.{name}"] = momentum
    write_whole(path, save(copies(tensors), {name: str(value) for name, value in metadata.items()}))


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as the format of checkpoints takes them: it refuses those that share memory, as weights may."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()}


def last_epoch(checkpoint: Path) -> tuple[int, dict[str, float]]:
    """Epochs done of a checkpoint, and the figures of the last; (0, {}) where there is none that can be read."""
    try:
        with safe_open(checkpoint, framework="np") as file:
            metadata = file.metadata() or {}
        return int(metadata["epoch"]), {name: float(metadata[name]) for name in (*FIGURES, TOP5) if name in metadata}
    except (OSError, SafetensorError, KeyError, ValueError):
        return 0, {}


def restore(
    path: Path,
    identity: Mapping[str, str],
    epochs: int,
    network: nn.Module,
    optimiser: torch.optim.SGD,
    names: Sequence[str] = FIGURES,
) -> tuple[int, dict[str, float]]:
    """Takes up a checkpoint of the same training: epochs done and figures of the last.

    Without one, or if it is damaged or of another training: (0, {}), and nothing is changed.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        epoch = int(metadata["epoch"])
        figures = {name: float(metadata[name]) for name in (*names, *({TOP5} & metadata.keys()))}
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
