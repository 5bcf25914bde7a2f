"""The images of a data set in the parts that a training, a search and a report see: tensors, known by a fingerprint."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bonas_core.errors import SettingsError


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
