"""Image data sets that real trainings use: split once, kept in memory as tensors, known by a fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bonas_core.errors import SettingsError
from bonas_core.registry import resolve
from bonas_core.storage.tensors import SUFFIX

_TENTHS = {"train": 6, "validation": 2, "test": 2}
"""Share of every class that each split of `digits` gets."""


@dataclass(frozen=True, eq=False)
class Splits:
    """A data set in three parts that share no image.

    A training sees `train`, a search is told the accuracy on `validation`, and `test` is only reported. For final
    trainings `validation` may be empty.

    Raises:
        SettingsError: a part does not hold images and labels as described below.
    """

    name: str
    """Names the data in the objective."""
    classes: int
    train: tuple[Tensor, Tensor]
    """Images (n, channels, height, width): float32, normalised, or uint8 pixels, if `mean` and `std` are given; labels,
    int64 (n,), from 0 to `classes` - 1."""
    validation: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    mean: tuple[float, ...] = ()
    """Of every channel, as a fraction of 255."""
    std: tuple[float, ...] = ()
    digest: str | None = None
    """Of the whole data set, where that is known and nothing of it is left out: then it need not be read for the
    fingerprint."""

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            images, labels = getattr(self, part)
            if images.dtype != self._dtype or images.ndim != 4 or not (len(images) or part == "validation"):
                raise SettingsError(
                    f"data `{self.name}`: {part} images are {images.dtype} {tuple(images.shape)}; make them "
                    f"{str(self._dtype).removeprefix('torch.')} (n, channels, height, width) with n > 0"
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

        channels = self.train[0].shape[1]
        if self.mean and not (len(self.mean) == len(self.std) == channels and min(self.std) > 0):
            raise SettingsError(
                f"data `{self.name}`: mean {self.mean} and std {self.std} are not {channels} numbers, std above 0; "
                "give one of each per channel"
            )

    @property
    def _dtype(self) -> torch.dtype:
        return torch.uint8 if self.mean else torch.float32

    def normalised(self, images: Tensor) -> Tensor:
        """Images of this data set, on any device, as float32 that a network takes."""
        if not self.mean:
            return images
        mean, std = (torch.tensor(one, device=images.device).reshape(-1, 1, 1) for one in (self.mean, self.std))
        return (images / 255).sub_(mean).div_(std)

    def joined(self) -> Splits:
        """The same data with the images to validate among those to train on."""
        train = tuple(torch.cat(pair) for pair in zip(self.train, self.validation, strict=True))
        nothing = tuple(tensor[:0] for tensor in self.validation)
        return replace(self, train=(train[0], train[1]), validation=(nothing[0], nothing[1]), digest=None)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the number of classes and the shapes and bytes of all arrays, in the order of the splits."""
        digest = hashlib.sha256(str(self.classes).encode())
        if self.mean:
            digest.update(f"{self.mean} {self.std}".encode())
        if self.digest is not None:
            return hashlib.sha256(f"{digest.hexdigest()} {self.digest}".encode()).hexdigest()
        for tensor in (*self.train, *self.validation, *self.test):
            digest.update(str(tuple(tensor.shape)).encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def load(name: str, validation: int | None = None, train: int | None = None) -> Splits:
    """A data set by name: `digits`, a prepared file of images, an entry point of the group `bonas.data`, or
    `module:function`.

    Args:
        name: what a name or `module:function` stands for takes no arguments and returns `Splits`.
        validation: images of the training set that a prepared file holds out, by default a tenth; 0 trains on what is
            held out as well, of any data set.
        train: images of it to train on; by default all others.

    Raises:
        SettingsError: there is no such data set, the function returns something else, or a data set that is split
            already is to be split otherwise.
        TableError: the file cannot be read.
    """
    if name.endswith(SUFFIX):
        from bonas_core.image_training.images import load_images

        return load_images(Path(name), validation, train)
    splits = resolve("data", name)()
    if not isinstance(splits, Splits):
        raise SettingsError(
            f"data `{name}` returns {type(splits).__name__}; return bonas_core.image_training.datasets.Splits"
        )
    if validation == 0 and train is None:
        return splits.joined()
    if validation is not None or train is not None:
        raise SettingsError(
            f"data `{name}` is split already; leave out evaluator.validation_images and evaluator.train_images"
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
