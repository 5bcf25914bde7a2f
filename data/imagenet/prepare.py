"""Turns ImageNet, or any images in folders named by class, into one file of pixels that trainings map into memory.

The source has `train/<class>/*` and `val/<class>/*`, as torchvision and DARTS expect them. The official test images
have no labels: the validation images are the test set here, as in the paper, and are never chosen by.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bonas_core.errors import TableError
from bonas_core.image_training.images import ImageSet, new_images, read_images
from bonas_core.storage import make_folder
from bonas_core.storage.tensors import SUFFIX
from data.imagenet.decode import decoded

__all__ = ["SOURCE", "SUFFIX", "check", "prepare"]

SOURCE = "a folder with train/<class>/*.JPEG and val/<class>/*.JPEG; see data/imagenet/README.md"
SIZE = 224
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_OFFICIAL = (1000, 1_281_167, 50_000)  # classes, images to train and to test with
_KINDS = (".jpeg", ".jpg", ".png")
_MARGIN = 256 / 224  # shorter side of test images before the middle is cut out, as a share of what is cut out
_MOST_CLASSES = 32_767
_IN_PROCESS = 64  # images that are not worth processes of their own
_AT_ONCE = 32  # images that a process is given
_AHEAD = 4096  # images that may be decoded before they are written

File = tuple[Path, int]
"""Path of an image file, and the number of its class."""


def prepare(source: Path, target: Path, size: int = SIZE) -> str:
    """Decodes a source and writes it with its digest.

    Args:
        source: see `SOURCE`.
        target: path of the file; its folder is made.
        size: side of the images that are written.

    Raises:
        TableError: the source cannot be used; nothing is written then.
    """
    classes = _classes(source)
    train, test = (_files(source / part, classes) for part in ("train", "val"))
    counts = (len(classes), len(train), len(test))
    whole = counts == _OFFICIAL and size == SIZE
    name = "imagenet" if whole else f"imagenet ({len(train)} images, {len(classes)} classes, {size}x{size})"
    make_folder(target.parent)
    described = {"source": source.name, "pixels": f"{size}x{size}"}
    with new_images(
        target, name, len(classes), MEAN, STD, (len(train), len(test)), (3, size, size), described
    ) as prepared:
        for files, pixels, labels, short_side in (
            (train, prepared.train_images, prepared.train_labels, size),
            (test, prepared.test_images, prepared.test_labels, round(size * _MARGIN)),
        ):
            labels[:] = [label for _, label in files]
            try:
                for row, image in enumerate(_decoded([path for path, _ in files], size, short_side)):
                    pixels[row] = image
            except ValueError as error:
                raise TableError(f"ImageNet `{source}`: {error}; replace or remove it") from None
    return f"{target}\n{_summary(*read_images(target))}"


def check(target: Path) -> str:
    """Checks a prepared file against its digest.

    Raises:
        TableError: it is missing or not what was written.
    """
    return f"{target}: as prepared\n{_summary(*read_images(target, check=True))}"


def _summary(prepared: ImageSet, described: dict[str, str]) -> str:
    train, test = (np.bincount(labels, minlength=prepared.classes) for labels in _labels(prepared))
    return (
        f"{prepared.name}: {prepared.classes} classes, {train.sum()} training images ({train.min()} to {train.max()} a "
        f"class), {test.sum()} test images ({test.min()} to {test.max()} a class), from {described['source']}, "
        f"{described['pixels']}\nsha256 of pixels and labels {described['digest']}"
    )


def _labels(prepared: ImageSet) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return prepared.train_labels.astype(np.int64), prepared.test_labels.astype(np.int64)


def _classes(source: Path) -> list[str]:
    """Lists the classes in order: those of `train`, which `val` has to have as well."""
    named = []
    for part in ("train", "val"):
        folder = source / part
        if not folder.is_dir():
            raise TableError(f"ImageNet `{source}`: it has no folder `{part}`; give --source PATH: {SOURCE}")
        named.append({path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")})
    other = sorted(named[0] ^ named[1])
    if other:
        raise TableError(
            f"ImageNet `{source}`: class `{other[0]}` is in one of train and val only ({len(other)} such classes); "
            "both need a folder for every class"
        )
    if not 2 <= len(named[0]) <= _MOST_CLASSES:
        raise TableError(f"ImageNet `{source}`: it has {len(named[0])} classes; 2 to {_MOST_CLASSES} are possible")
    return sorted(named[0])


def _files(folder: Path, classes: Sequence[str]) -> list[File]:
    """Lists the images of all classes, in the order of classes and names."""
    found: list[File] = []
    for label, name in enumerate(classes):
        paths = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in _KINDS)
        if not paths:
            raise TableError(f"ImageNet `{folder / name}`: it has no {', '.join(_KINDS)}; every class needs images")
        found += [(path, label) for path in paths]
    return found


def _decoded(paths: Sequence[Path], size: int, short_side: int) -> Iterator[NDArray[np.uint8]]:
    """Decodes image files, in their order."""
    decode = partial(decoded, side=size, short_side=short_side)
    if len(paths) <= _IN_PROCESS:
        yield from map(decode, paths)
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        try:
            for start in range(0, len(paths), _AHEAD):
                yield from pool.map(decode, paths[start : start + _AHEAD], chunksize=_AT_ONCE)
        finally:
            pool.shutdown(cancel_futures=True)
