"""Image data sets by name: the digits that ship with scikit-learn, prepared files, and whatever is registered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bonas_core.errors import SettingsError
from bonas_core.image_training.images import load_images
from bonas_core.image_training.splits import Splits
from bonas_core.registry import resolve
from bonas_core.storage.tensors import SUFFIX

_TENTHS = {"train": 6, "validation": 2, "test": 2}
"""Share of every class that each split of `digits` gets."""


def load(name: str, validation: int | None = None, train: int | None = None) -> Splits:
    """Loads a data set by name.

    Args:
        name: `digits`, a prepared file of images, an entry point of the group `bonas.data`, or `module:function`; what
            a name or `module:function` stands for takes no arguments and returns `Splits`.
        validation: images of the training set that a prepared file holds out, by default a tenth; 0 trains on what is
            held out as well, of any data set.
        train: images of it to train on; by default all others.

    Raises:
        SettingsError: there is no such data set, the function returns something else, or a data set that is split
            already is to be split otherwise.
        TableError: the file cannot be read.
    """
    if name.endswith(SUFFIX):
        return load_images(Path(name), validation, train)
    splits = resolve("data", name)()
    if not isinstance(splits, Splits):
        raise SettingsError(
            f"data `{name}` returns {type(splits).__name__}; return bonas_core.image_training.splits.Splits"
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
