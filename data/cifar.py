"""Turns CIFAR-10 or CIFAR-100 into one file of raw pixels that trainings map into memory.

The source is the official binary archive, the folder it unpacks to, or Parquet with encoded images: a folder with
`NAME_train*.parquet` and `NAME_test*.parquet`, or one file with a column `split`. The official Python archive is
pickled and therefore refused: nothing is ever unpickled.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bonas_core.errors import TableError, first_line
from bonas_core.image_training.images import ImageSet, read_images, write_images
from bonas_core.storage import make_folder

_SHAPE = (3, 32, 32)
_PIXELS = int(np.prod(_SHAPE))
_ENCODED = ("png", "jpeg", "image")
"""Names of columns that may hold encoded images."""
_EXACT = ("official", "png")
"""Kinds of source whose pixels are the published ones; the others are named in results."""

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Images (n, 3, 32, 32) and labels (n,)."""


@dataclass(frozen=True)
class Cifar:
    """Description of one of the two data sets, and of how its official files are laid out."""

    title: str
    name: str
    classes: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    archive: str
    """Name of the official binary archive."""
    md5: str
    """MD5 of the archive, as its page gives it."""
    train_files: Mapping[str, int]
    """Numbers of images in the files of the training set, by name."""
    test_files: Mapping[str, int]
    label_bytes: int
    """Bytes before the pixels of an image; the last is its label."""

    @property
    def files(self) -> dict[str, int]:
        """Numbers of images in all official files, by name."""
        return {**self.train_files, **self.test_files}


def prepare(cifar: Cifar, source: Path, target: Path) -> str:
    """Reads a source, checks it and writes it with its digest.

    Args:
        cifar: the data set.
        source: see `SOURCE` of the data sets.
        target: path of the file; its folder is made.

    Raises:
        TableError: the source cannot be used; nothing is written then.
    """
    if not source.exists():
        raise TableError(
            f"{cifar.title} `{source}` does not exist; give --source PATH: {source_of(cifar.title, cifar.name)}"
        )
    if source.suffix == ".parquet" or (source.is_dir() and any(source.glob(f"{cifar.name}_train*.parquet"))):
        kind, train, test = _from_parquet(cifar, source)
    else:
        kind, train, test = _from_official(cifar, source)
    name = cifar.name if kind in _EXACT else f"{kind}-{cifar.name}"
    if len(train[0]) != sum(cifar.train_files.values()):
        name += f" ({len(train[0])} images)"
    for part, (pixels, labels) in {"training": train, "test": test}.items():
        if not len(labels) or labels.max() >= cifar.classes or len(np.unique(labels)) != cifar.classes:
            raise TableError(
                f"{cifar.title} `{source}`: the {part} set has {len(pixels)} images of "
                f"{len(np.unique(labels))} labels; it needs every label from 0 to {cifar.classes - 1}; give "
                "the whole data set"
            )
    make_folder(target.parent)
    prepared = ImageSet(name, cifar.classes, cifar.mean, cifar.std, *train, *test)
    write_images(target, prepared, {"source": source.name, "pixels": kind})
    return f"{target}\n{_summary(prepared, {'source': source.name, 'pixels': kind, 'digest': prepared.digest})}"


def source_of(title: str, name: str) -> str:
    """Describes what the source of a data set may be, for messages."""
    return (
        f"the official binary archive of {title}, its folder, or Parquet of encoded images; see data/{name}/README.md"
    )


def check(target: Path) -> str:
    """Checks a prepared file against its digest.

    Raises:
        TableError: it is missing or not what was written.
    """
    prepared, described = read_images(target, check=True)
    return f"{target}: as prepared\n{_summary(prepared, described)}"


def _summary(prepared: ImageSet, described: dict[str, str]) -> str:
    counts = np.bincount(prepared.train_labels, minlength=prepared.classes)
    lossy = "" if described["pixels"] in _EXACT else "; lossy pixels: no result compares with published ones"
    return (
        f"{prepared.name}: {len(prepared.train_images)} training images ({counts.min()} to {counts.max()} a class), "
        f"{len(prepared.test_images)} test images, from {described['source']} ({described['pixels']}{lossy})\n"
        f"sha256 of pixels and labels {described['digest']}"
    )


def _from_official(cifar: Cifar, source: Path) -> tuple[str, Part, Part]:
    """Reads the official binary files, of the archive or a folder."""
    found = _unpacked(cifar, source)
    missing = ", ".join(name for name in cifar.files if name not in found)
    if missing:
        raise TableError(
            f"{cifar.title} `{source}`: it lacks {missing}; give the whole official archive, {cifar.archive}, or its "
            "folder"
        )
    train, test = (
        [_official_file(cifar, source, name, found[name]) for name in names]
        for names in (cifar.train_files, cifar.test_files)
    )
    return "official", _joined(train), _joined(test)


def _unpacked(cifar: Cifar, source: Path) -> dict[str, bytes]:
    """Reads the official files that there are in an archive or a folder, by name."""
    pickled = {name.removesuffix(".bin") for name in cifar.files}
    if source.is_dir():
        paths = {path.name: path for path in sorted(source.rglob("*")) if path.is_file()}
        found = {name: paths[name].read_bytes() for name in cifar.files if name in paths}
        if not found and pickled & set(paths):
            raise _pickled(cifar, source)
        return found
    if source.name in pickled or source.name == cifar.archive.replace("binary", "python"):
        raise _pickled(cifar, source)
    digest = hashlib.md5(source.read_bytes(), usedforsecurity=False).hexdigest()
    if digest != cifar.md5:
        raise TableError(
            f"{cifar.title} `{source}`: its MD5 is {digest}, that of {cifar.archive} is {cifar.md5}; it is damaged or "
            "another file: download it again, or give the folder it unpacks to"
        )
    try:
        with tarfile.open(source) as archive:
            return {
                name: file.read()
                for member in archive
                if (name := Path(member.name).name) in cifar.files and (file := archive.extractfile(member))
            }
    except (tarfile.TarError, OSError, EOFError) as error:
        raise TableError(f"{cifar.title} `{source}` cannot be unpacked ({error}); download it again") from None


def _pickled(cifar: Cifar, source: Path) -> TableError:
    return TableError(
        f"{cifar.title} `{source}`: it is of the Python version, which is pickled, and nothing is ever unpickled; "
        f"download the binary version, {cifar.archive}"
    )


def _official_file(cifar: Cifar, source: Path, name: str, content: bytes) -> Part:
    """Reads an official binary file: of every image its labels, then its pixels, channel by channel."""
    count, size = cifar.files[name], cifar.label_bytes + _PIXELS
    if len(content) != count * size:
        raise TableError(
            f"{cifar.title} `{source}`: file {name}: it has {len(content)} bytes instead of {count * size}; "
            "download it again"
        )
    rows = np.frombuffer(content, dtype=np.uint8).reshape(count, size)
    return rows[:, cifar.label_bytes :].reshape(-1, *_SHAPE), rows[:, cifar.label_bytes - 1]


def _joined(parts: Sequence[Part]) -> Part:
    pixels, labels = zip(*parts, strict=True)
    return np.concatenate(pixels), np.concatenate(labels)


def _from_parquet(cifar: Cifar, source: Path) -> tuple[str, Part, Part]:
    if source.is_dir():
        tables = []
        for part in ("train", "test"):
            found = sorted(source.glob(f"{cifar.name}_{part}*.parquet"))
            if len(found) != 1:
                raise TableError(
                    f"{cifar.title} `{source}`: {len(found)} files {cifar.name}_{part}*.parquet, one is needed; "
                    "name the folder of one data set"
                )
            tables.append((found[0], _read(cifar, found[0])))
    else:
        whole = _read(cifar, source)
        if "split" not in whole.column_names:
            raise TableError(
                f"{cifar.title} `{source}`: it has no column `split`; give the folder of "
                f"{cifar.name}_train*.parquet and {cifar.name}_test*.parquet"
            )
        tables = [(source, whole.filter(pc.equal(whole["split"], part))) for part in ("train", "test")]
    (kind, train), (_, test) = (_decoded(cifar, path, table) for path, table in tables)
    return kind, train, test


def _read(cifar: Cifar, path: Path) -> pa.Table:
    try:
        return pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise TableError(f"{cifar.title} `{path}` cannot be read ({first_line(error)}); copy it again") from None


def _decoded(cifar: Cifar, path: Path, table: pa.Table) -> tuple[str, Part]:
    """Decodes the images of a table: the kind of images, and pixels and labels."""
    from PIL import Image, UnidentifiedImageError

    kind = next((name for name in _ENCODED if name in table.column_names), None)
    if kind is None or "label" not in table.column_names:
        raise TableError(
            f"{cifar.title} `{path}`: columns are {', '.join(table.column_names)}; it needs `label` and one of "
            f"{', '.join(_ENCODED)}"
        )
    pixels = np.empty((len(table), *_SHAPE), dtype=np.uint8)
    for row, encoded in enumerate(table[kind].to_pylist()):
        try:
            image = np.asarray(Image.open(io.BytesIO(encoded), formats=("PNG", "JPEG")).convert("RGB"))
        except (UnidentifiedImageError, OSError, TypeError, ValueError) as error:
            reason = first_line(error)
            raise TableError(
                f"{cifar.title} `{path}`: image in row {row} cannot be read ({reason}); copy it again"
            ) from None
        if image.shape != (32, 32, 3):
            raise TableError(
                f"{cifar.title} `{path}`: image in row {row} is {image.shape[1]}x{image.shape[0]}, not 32x32"
            )
        pixels[row] = image.transpose(2, 0, 1)
    labels = table["label"].to_numpy()
    if table["label"].null_count or ((labels < 0) | (labels >= cifar.classes)).any():
        raise TableError(
            f"{cifar.title} `{path}`: a label is not a number from 0 to {cifar.classes - 1}; copy the file again"
        )
    return kind, (pixels, labels.astype(np.uint8))
