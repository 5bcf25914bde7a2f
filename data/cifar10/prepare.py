"""Prepares CIFAR-10; see `data/cifar.py`."""

from __future__ import annotations

from pathlib import Path

from bonas_core.storage.tensors import SUFFIX
from data import cifar
from data.cifar import Cifar, check

__all__ = ["SOURCE", "SUFFIX", "check", "prepare"]

CIFAR10 = Cifar(
    title="CIFAR-10",
    name="cifar10",
    classes=10,
    mean=(0.49139968, 0.48215827, 0.44653124),
    std=(0.24703233, 0.24348505, 0.26158768),
    archive="cifar-10-binary.tar.gz",
    md5="c32a1d4ab5d03f1284b67883e8d87530",
    train_files={f"data_batch_{number}.bin": 10_000 for number in range(1, 6)},
    test_files={"test_batch.bin": 10_000},
    label_bytes=1,
)
SOURCE = cifar.source_of(CIFAR10.title, CIFAR10.name)


def prepare(source: Path, target: Path) -> str:
    """Reads a source, checks it and writes it with its digest.

    Raises:
        TableError: the source cannot be used; nothing is written then.
    """
    return cifar.prepare(CIFAR10, source, target)
