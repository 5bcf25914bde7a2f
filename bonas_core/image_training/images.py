"""Image data sets on disk: one file of raw pixels, memory-mapped, with a digest of its content.

`bonas data prepare` writes such files. A training reads the whole of one as bytes and makes numbers of them batch by
batch, on its own device.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from bonas_core.errors import SettingsError, StoreError, TableError, first_line
from bonas_core.image_training.splits import Splits
from bonas_core.storage import appearing, write_whole

_ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A data set as it was published: a training set, of which a search holds out a part, and a test set.

    Images are uint8 (n, channels, height, width), labels uint8 (n,), or int16 where there are more than 256 classes.
    """

    name: str
    """Names the data in objectives; says so where the pixels are not the published ones."""
    classes: int
    mean: tuple[float, ...]
    """Of every channel over the training set, as fractions of the largest value."""
    std: tuple[float, ...]
    train_images: NDArray[np.uint8]
    train_labels: NDArray[np.integer[Any]]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.integer[Any]]

    @property
    def digest(self) -> str:
        """SHA-256 of shapes and bytes of all arrays."""
        found = hashlib.sha256()
        for name in _ARRAYS:
            array = getattr(self, name)
            found.update(f"{name} {array.shape}\n".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def write_images(path: Path, images: ImageSet, described: Mapping[str, str]) -> None:
    """Writes a data set, whole or not at all.

    Args:
        path: of the file; its folder is there.
        images: what to write.
        described: where it comes from; `read_images` gives it back.
    """
    metadata = _metadata(images, described, images.digest)
    write_whole(path, save({name: np.ascontiguousarray(getattr(images, name)) for name in _ARRAYS}, metadata))


@contextmanager
def new_images(
    path: Path,
    name: str,
    classes: int,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    counts: tuple[int, int],
    image: tuple[int, int, int],
    described: Mapping[str, str],
) -> Iterator[ImageSet]:
    """Writes a data set that need not fit into memory.

    Its arrays are filled in place, in a file that appears whole when the block ends and not at all if it raises.

    Args:
        path: of the file; its folder is there.
        name: of the data set.
        classes: their number.
        mean: of every channel.
        std: of every channel.
        counts: images to train and to test with.
        image: channels, height and width.
        described: where it comes from; `read_images` gives it back.

    Raises:
        StoreError: the file cannot be written.
    """
    label = np.dtype(np.uint8 if classes <= 256 else np.int16)
    shapes = [(counts[0], *image), (counts[0],), (counts[1], *image), (counts[1],)]
    kinds = [np.dtype(np.uint8), label] * 2
    ends = np.cumsum([int(np.prod(shape)) * kind.itemsize for shape, kind in zip(shapes, kinds, strict=True)]).tolist()
    places = {
        array: {"dtype": _KINDS[kind], "shape": list(shape), "data_offsets": [begin, end]}
        for array, kind, shape, begin, end in zip(_ARRAYS, kinds, shapes, [0, *ends], ends, strict=False)
    }
    empty = ImageSet(name, classes, mean, std, *(np.empty(0, dtype=kind) for kind in kinds))
    size = len(_header(empty, described, "0" * 64, places))
    try:
        with appearing(path) as temporary:
            with temporary.open("wb") as file:
                file.truncate(size + ends[-1])
            arrays = [
                np.memmap(temporary, dtype=kind, mode="r+", offset=size + begin, shape=shape)
                for kind, shape, begin in zip(kinds, shapes, [0, *ends], strict=False)
            ]
            filled = ImageSet(name, classes, mean, std, *arrays)
            yield filled
            for array in arrays:
                array.flush()
            with temporary.open("r+b") as file:
                file.write(_header(empty, described, filled.digest, places))
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        raise StoreError(f"`{path}` cannot be written: {error.strerror}; free space or choose another home") from None


_KINDS = {np.dtype(np.uint8): "U8", np.dtype(np.int16): "I16"}
"""What safetensors calls them."""


def _header(images: ImageSet, described: Mapping[str, str], digest: str, places: Mapping[str, object]) -> bytes:
    """The start of a safetensors file, padded as the format wants it."""
    text = json.dumps({"__metadata__": _metadata(images, described, digest), **places}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _metadata(images: ImageSet, described: Mapping[str, str], digest: str) -> dict[str, str]:
    return {
        **described,
        "name": images.name,
        "classes": str(images.classes),
        "mean": " ".join(map(repr, images.mean)),
        "std": " ".join(map(repr, images.std)),
        "digest": digest,
    }


def read_images(path: Path, check: bool = False) -> tuple[ImageSet, dict[str, str]]:
    """A data set that `write_images` wrote, memory-mapped, and where it comes from.

    Args:
        path: of the file.
        check: whether to compare its content with its digest, which reads all of it.

    Raises:
        TableError: it is missing, damaged, or something else.
    """
    if not path.is_file():
        raise TableError(f"images `{path}` do not exist; write them with `bonas data prepare`")
    try:
        with safe_open(path, framework="pt") as file:
            metadata: dict[str, str] = file.metadata() or {}
            arrays = {name: file.get_tensor(name).numpy() for name in _ARRAYS}
        mean, std = (tuple(map(float, metadata[name].split())) for name in ("mean", "std"))
        images = ImageSet(metadata["name"], int(metadata["classes"]), mean, std, **arrays)
        written = metadata["digest"]
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        reason = first_line(error)
        raise TableError(
            f"images `{path}` cannot be read ({reason}); write them again with `bonas data prepare`"
        ) from None
    if check and images.digest != written:
        raise TableError(f"images `{path}` have changed since they were prepared; prepare them again")
    return images, metadata


def split(
    images: ImageSet, validation: int | None = None, train: int | None = None, digest: str | None = None
) -> Splits:
    """Holds out a part of the training set for the search; the test set is left to reports.

    The training images are shuffled within their classes (NumPy's `RandomState(0)`) and dealt out class by class: the
    first are held out, those that follow are trained on. Every part has all classes in equal shares, and a smaller
    `train` is a part of a larger one.

    Args:
        images: the data set.
        validation: images held out; by default a tenth. None for final trainings: 0.
        train: images to train on; by default all others.
        digest: of the images where it is known, which saves reading them all.

    Raises:
        SettingsError: there are not so many.
    """
    count = len(images.train_labels)
    held_out = count // 10 if validation is None else validation
    kept = count - held_out if train is None else train
    if held_out < 0 or kept < 1 or held_out + kept > count:
        raise SettingsError(
            f"data `{images.name}`: {held_out} images to validate and {kept} to train on are not parts of its "
            f"{count}; change evaluator.validation_images or evaluator.train_images"
        )
    test = _pair(images.test_images, images.test_labels)
    if kept == count:  # nothing is picked, and nothing copied: the images may be more than memory holds
        whole = _pair(images.train_images, images.train_labels)
        nothing = (whole[0][:0], whole[1][:0])
        return Splits(images.name, images.classes, whole, nothing, test, images.mean, images.std, digest)
    rng = np.random.RandomState(0)  # unlike default_rng, its streams never change between numpy versions
    turn = np.empty(count, dtype=np.int64)  # of every image among those of its class
    for label in range(images.classes):
        members = np.flatnonzero(images.train_labels == label)
        turn[rng.permutation(members)] = np.arange(len(members))
    order = np.lexsort((images.train_labels, turn))

    parts = [order[:held_out], order[held_out : held_out + kept]]
    validated, trained = (_pair(images.train_images[rows], images.train_labels[rows]) for rows in parts)
    return Splits(
        images.name,
        images.classes,
        trained,
        validated,
        test,
        images.mean,
        images.std,
    )


def _pair(pixels: NDArray[np.uint8], labels: NDArray[np.integer[Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(pixels), torch.from_numpy(labels.astype(np.int64))


def load_images(path: Path, validation: int | None = None, train: int | None = None) -> Splits:
    """The splits of a prepared file; see `split`."""
    images, described = read_images(path)
    splits = split(images, validation, train, described["digest"])
    if train is None:
        return splits
    return replace(splits, name=f"{splits.name.partition(' (')[0]} ({train} images)")
