"""Turns CIFAR-10 into one file of raw pixels that trainings map into memory.

The source is an official archive (binary or python version), the folder it unpacks to, or Parquet with encoded images:
a folder with `cifar10_train*.parquet` and `cifar10_test*.parquet`, or one file with a column `split`.
"""

from __future__ import annotations

import hashlib
import io
import re
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bonas_core.errors import TableError
from bonas_core.evaluators import images
from bonas_core.evaluators.images import ImageSet, read_images, write_images
from bonas_core.storage import make_folder
from data.cifar10 import pickles

SOURCE = "an official archive of CIFAR-10, its folder, or Parquet of encoded images; see data/cifar10/README.md"
SUFFIX = images.SUFFIX
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.49139968, 0.48215827, 0.44653124)
STD = (0.24703233, 0.24348505, 0.26158768)
ARCHIVES = {
    "cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530",
    "cifar-10-python.tar.gz": "c58f30108f718f92721af3b95e74349a",
}
"""MD5 of the official archives, as their page gives it."""

_SHAPE = (3, 32, 32)
_PIXELS = int(np.prod(_SHAPE))
_BATCH = 10_000  # images of an official file
_TRAIN, _TEST = 50_000, 10_000
_ENCODED = ("png", "jpeg", "image")
"""Columns that may hold encoded images."""
_EXACT = ("official", "png")
"""Kinds of source whose pixels are the published ones; the others are named in results."""

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images (n, 3, 32, 32) and labels (n,)."""


def prepare(source: Path, target: Path) -> str:
    """Reads a source, checks it and writes it with its digest.

    Raises:
        TableError: the source cannot be used; nothing is written then.
    """
    if not source.exists():
        raise TableError(f"CIFAR-10 `{source}` does not exist; give --source PATH: {SOURCE}")
    if source.suffix == ".parquet" or (source.is_dir() and any(source.glob("cifar10_train*.parquet"))):
        kind, train, test = _from_parquet(source)
    else:
        kind, train, test = _from_official(source)
    name = "cifar10" if kind in _EXACT else f"{kind}-cifar10"
    if len(train[0]) != _TRAIN:
        name += f" ({len(train[0])} images)"
    for part, (pixels, labels) in {"training": train, "test": test}.items():
        if not len(labels) or labels.max() >= len(LABELS) or len(np.unique(labels)) != len(LABELS):
            raise TableError(
                f"CIFAR-10 `{source}`: the {part} set has {len(pixels)} images of labels {np.unique(labels).tolist()}; "
                "it needs every label from 0 to 9; give the whole data set"
            )
    make_folder(target.parent)
    prepared = ImageSet(name, len(LABELS), MEAN, STD, *train, *test)
    write_images(target, prepared, {"source": source.name, "pixels": kind})
    return f"{target}\n{_summary(prepared, {'source': source.name, 'pixels': kind, 'digest': prepared.digest})}"


def check(target: Path) -> str:
    """Checks a prepared file against its digest.

    Raises:
        TableError: it is missing or not what was written.
    """
    prepared, described = read_images(target, check=True)
    return f"{target}: as prepared\n{_summary(prepared, described)}"


def _summary(prepared: ImageSet, described: dict[str, str]) -> str:
    counts = np.bincount(prepared.train_labels, minlength=len(LABELS))
    lossy = "" if described["pixels"] in _EXACT else "; lossy pixels: no result compares with published ones"
    return (
        f"{prepared.name}: {len(prepared.train_images)} training images ({counts.min()} to {counts.max()} a class), "
        f"{len(prepared.test_images)} test images, from {described['source']} ({described['pixels']}{lossy})\n"
        f"sha256 of pixels and labels {described['digest']}"
    )


def _from_official(source: Path) -> tuple[str, Part, Part]:
    """The official batches, of an archive or a folder."""
    files = dict(_members(source))
    for read, ending in ((_binary_batch, ".bin"), (_python_batch, "")):
        names = [*(f"data_batch_{number}{ending}" for number in range(1, 6)), f"test_batch{ending}"]
        if set(names) <= set(files):
            batches = [_checked(name, source, read, files[name]()) for name in names]
            train = tuple(np.concatenate(arrays) for arrays in zip(*batches[:5], strict=True))
            return "official", (train[0], train[1]), batches[5]
    raise TableError(
        f"CIFAR-10 `{source}`: it has neither data_batch_1.bin to data_batch_5.bin and test_batch.bin nor those "
        "without .bin; give the whole official archive or its folder"
    )


def _members(source: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Names of the files of an archive or a folder, and how to read them."""
    if source.is_dir():
        for path in sorted(source.rglob("*_batch*")):
            if path.is_file():
                yield path.name, path.read_bytes
        return
    expected = ARCHIVES.get(source.name)
    digest = hashlib.md5(source.read_bytes(), usedforsecurity=False).hexdigest()
    if digest not in ARCHIVES.values():
        named = f"it should be {expected}" if expected else f"official are {', '.join(ARCHIVES.values())}"
        raise TableError(
            f"CIFAR-10 `{source}`: its MD5 is {digest}, {named}; it is damaged or another file: download it again, or "
            "give the folder it unpacks to"
        )
    try:
        with tarfile.open(source) as archive:
            contents = {
                Path(member.name).name: file.read()
                for member in archive
                if member.isfile() and re.search("_batch", member.name) and (file := archive.extractfile(member))
            }
    except (tarfile.TarError, OSError, EOFError) as error:
        raise TableError(f"CIFAR-10 `{source}` cannot be unpacked ({error}); download it again") from None
    for name, content in contents.items():
        yield name, lambda content=content: content


def _checked(name: str, source: Path, read: Callable[[bytes], Part], content: bytes) -> Part:
    try:
        return read(content)
    except ValueError as error:
        raise TableError(f"CIFAR-10 `{source}`: file {name}: {error}; download it again") from None


def _binary_batch(content: bytes) -> Part:
    """A batch of the binary version: of every image its label, then its pixels, channel by channel."""
    if len(content) != _BATCH * (1 + _PIXELS):
        raise ValueError(f"it has {len(content)} bytes instead of {_BATCH * (1 + _PIXELS)}")
    rows = np.frombuffer(content, dtype=np.uint8).reshape(_BATCH, 1 + _PIXELS)
    return np.ascontiguousarray(rows[:, 1:]).reshape(-1, *_SHAPE), np.ascontiguousarray(rows[:, 0])


def _python_batch(content: bytes) -> Part:
    """A batch of the python version: a pickled dictionary, read without unpickling."""
    batch = pickles.read(content)
    pixels, labels = batch.get(b"data"), batch.get(b"labels")
    if not isinstance(pixels, np.ndarray) or pixels.shape != (_BATCH, _PIXELS):
        raise ValueError(f"its `data` are not {_BATCH} images of {_PIXELS} bytes")
    if not isinstance(labels, list) or len(labels) != _BATCH or not all(label in range(256) for label in labels):
        raise ValueError(f"its `labels` are not {_BATCH} numbers")
    return pixels.reshape(-1, *_SHAPE), np.array(labels, dtype=np.uint8)


def _from_parquet(source: Path) -> tuple[str, Part, Part]:
    if source.is_dir():
        tables = []
        for part in ("train", "test"):
            found = sorted(source.glob(f"cifar10_{part}*.parquet"))
            if len(found) != 1:
                raise TableError(
                    f"CIFAR-10 `{source}`: {len(found)} files cifar10_{part}*.parquet, one is needed; name the folder "
                    "of one data set"
                )
            tables.append((found[0], _read(found[0])))
    else:
        whole = _read(source)
        if "split" not in whole.column_names:
            raise TableError(
                f"CIFAR-10 `{source}`: it has no column `split`; give the folder of cifar10_train*.parquet and "
                "cifar10_test*.parquet"
            )
        tables = [(source, whole.filter(pc.equal(whole["split"], part))) for part in ("train", "test")]
    (kind, train), (_, test) = (_decoded(path, table) for path, table in tables)
    return kind, train, test


def _read(path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"CIFAR-10 `{path}` cannot be read ({str(error).splitlines()[0]}); copy it again") from None


def _decoded(path: Path, table: pa.Table) -> tuple[str, Part]:
    """What kind of images a table holds, and its pixels and labels."""
    from PIL import Image, UnidentifiedImageError

    kind = next((name for name in _ENCODED if name in table.column_names), None)
    if kind is None or "label" not in table.column_names:
        raise TableError(
            f"CIFAR-10 `{path}`: columns are {', '.join(table.column_names)}; it needs `label` and one of "
            f"{', '.join(_ENCODED)}"
        )
    pixels = np.empty((len(table), *_SHAPE), dtype=np.uint8)
    for row, encoded in enumerate(table[kind].to_pylist()):
        try:
            image = np.asarray(Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")).convert("RGB"))
        except (UnidentifiedImageError, OSError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TableError(
                f"CIFAR-10 `{path}`: image in row {row} cannot be read ({reason}); copy it again"
            ) from None
        if image.shape != (32, 32, 3):
            raise TableError(f"CIFAR-10 `{path}`: image in row {row} is {image.shape[1]}x{image.shape[0]}, not 32x32")
        pixels[row] = image.transpose(2, 0, 1)
    labels = table["label"].to_numpy()
    if table["label"].null_count or ((labels < 0) | (labels >= len(LABELS))).any():
        raise TableError(f"CIFAR-10 `{path}`: a label is not a number from 0 to 9; copy the file again")
    return kind, (pixels, labels.astype(np.uint8))
