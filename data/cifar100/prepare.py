"""Prepares CIFAR-100, with its 100 fine labels; see `data/cifar.py`."""

from __future__ import annotations

from pathlib import Path

from bonas_core.storage.tensors import SUFFIX
from data import cifar
from data.cifar import Cifar, check

__all__ = ["SOURCE", "SUFFIX", "check", "prepare"]

CIFAR100 = Cifar(
    title="CIFAR-100",
    name="cifar100",
    classes=100,
    mean=(0.50707516, 0.48654887, 0.44091784),
    std=(0.26733429, 0.25643846, 0.27615047),
    archive="cifar-100-binary.tar.gz",
    md5="03b5dce01913d631647c71ecec9e9cb8",
    train_files={"train.bin": 50_000},
    test_files={"test.bin": 10_000},
    label_bytes=2,
)
SOURCE = cifar.source_of(CIFAR100.title, CIFAR100.name)


def prepare(source: Path, target: Path) -> str:
    """Reads a source, checks it and writes it with its digest.

    Raises:
        TableError: the source cannot be used; nothing is written then.
    """
    return cifar.prepare(CIFAR100, source, target)
