"""Image data sets that real trainings use: split once, kept in memory as tensors, known by a fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from bonas_core.errors import SettingsError
from bonas_core.registry import resolve

_TENTHS = {"train": 6, "validation": 2, "test": 2}
"""Share of every class that each split of `digits` gets."""


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set in three parts that share no image.

    A training sees `train`, a search is told the accuracy on `validation`, and `test` is only reported.

    Raises:
        SettingsError: a part does not hold images and labels as described below.
    """

    name: str
    """Names the data in the objective."""
    classes: int
    train: tuple[Tensor, Tensor]
    """Images, float32 (n, channels, height, width), normalised; labels, int64 (n,), from 0 to `classes` - 1."""
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            images, labels = getattr(self, part)
            if images.dtype != torch.float32 or images.ndim != 4 or not len(images):
                raise SettingsError(
                    f"data `{self.name}`: {part} images are {images.dtype} {tuple(images.shape)}; make them float32 "
                    "(n, channels, height, width) with n > 0"
                )
            if images.shape[1:] != self.train[0].shape[1:]:
                raise SettingsError(
                    f"data `{self.name}`: {part} images are {tuple(images.shape[1:])}, train images "
                    f"{tuple(self.train[0].shape[1:])}; give all the same shape"
                )
            in_range = labels.dtype == torch.int64 and bool(((labels >= 0) & (labels < self.classes)).all())
            if not in_range or labels.shape != images.shape[:1]:
                raise SettingsError(
                    f"data `{self.name}`: {part} labels must be int64, one per image, from 0 to {self.classes - 1}; "
                    f"they are {labels.dtype} {tuple(labels.shape)}"
                )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the number of classes and the shapes and bytes of all arrays, in the order of the splits."""
        digest = hashlib.sha256(str(self.classes).encode())
        for tensor in (*self.train, *self.validation, *self.test):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def load(name: str) -> Splits:
    """A data set by name: `digits`, an entry point of the group `bonas.data`, or `module:function`.

    What it names takes no arguments and returns `Splits`.

    Raises:
        SettingsError: there is no such data set, or the function returns something else.
    """
    splits = resolve("data", name)()
    if not isinstance(splits, Splits):
        raise SettingsError(
            f"data `{name}` returns {type(splits).__name__}; return bonas_core.evaluators.datasets.Splits"
        )
    return splits


def digits() -> Splits:
    """The 1,797 handwritten digits that ship inside scikit-learn: 1x8x8 pixels, 10 classes.

    Every class is shuffled and dealt out 60/20/20. Pixels, counts from 0 to 16, are scaled to [0, 1] and then
    standardised by mean and standard deviation over all training pixels. Source and licence: data/digits/README.md.
    """
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    rng = np.random.RandomState(0)  # unlike default_rng, its streams never change between numpy versions
    rows: dict[str, list[int]] = {part: [] for part in _TENTHS}
    for label in range(10):
        members = rng.permutation(np.flatnonzero(labels == label))
        ends = np.cumsum(list(_TENTHS.values())) * len(members) // 10
        for part, chosen in zip(rows, np.split(members, ends[:-1]), strict=True):
            rows[part] += chosen.tolist()
    scaled = pixels / 16  # sixteenths: every sum below is exact, so that all machines get the same fingerprint
    seen = scaled[rows["train"]]
    mean = seen.sum() / seen.size
    std = np.sqrt((seen**2).sum() / seen.size - mean**2)
    standardised = ((scaled - mean) / std).astype(np.float32).reshape(-1, 1, 8, 8)

    def pair(part: str) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(standardised[rows[part]]), torch.from_numpy(labels[rows[part]].astype(np.int64))

    return Splits("digits", 10, pair("train"), pair("validation"), pair("test"))
