"""Reader of the official NAS-Bench-101 files, `nasbench_full.tfrecord` and `nasbench_only108.tfrecord`.

A file is a sequence of frames: length of the data (8 bytes), masked CRC-32C of the length (4), data, masked CRC-32C of
the data (4), all little-endian. The data of a frame is one training run, as JSON: graph hash, epochs, adjacency
matrix, operations, and a `ModelMetrics` protocol buffer (`model_metrics.proto` of nasbench) in Base64. No TensorFlow is
needed, and nothing in the file is executed.
"""

from __future__ import annotations

import base64
import binascii
import json
import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import google_crc32c

from bonas_core.errors import TableError

_HEADER, _FOOTER = struct.Struct("<QI"), struct.Struct("<I")
_LENGTH_BYTES = 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# fields of ModelMetrics and of EvaluationData
_EVALUATION_DATA, _PARAMETERS = 1, 2
_TRAINING_TIME, _VALIDATION, _TEST = 2, 4, 5


class Run(NamedTuple):
    """Figures of one training run."""

    hash: str
    """Graph hash of the cell."""
    epochs: int
    adjacency: str
    """Adjacency matrix row by row, n * n times 0 or 1."""
    operations: str
    """Labels of the n vertices, with commas between them."""
    validation: float
    """Validation accuracy at the end of training, as a fraction."""
    test: float
    seconds: float
    """Training time in seconds."""
    parameters: int


def runs(path: Path) -> Iterator[Run]:
    """Reads all training runs in a file, in its order.

    Raises:
        TableError: the file is missing, damaged, cut off, or not of this format; the message names the first record at
            fault.
    """
    for number, record in enumerate(_records(path)):
        try:
            yield _run(record)
        except ValueError as error:
            raise TableError(
                f"tfrecord `{path}`, record {number}: {error}; bring the official NAS-Bench-101 file"
            ) from None


def _records(path: Path) -> Iterator[bytes]:
    """Yields the data of all frames, each once its checksums are checked."""
    if not path.is_file():
        raise TableError(f"tfrecord `{path}` does not exist; give the official file with --source PATH")
    if not path.stat().st_size:
        raise TableError(f"tfrecord `{path}` is empty; download it again")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            number = offset = 0
            while offset < len(content):
                try:
                    record, offset = _frame(content, offset)
                except ValueError as error:
                    raise TableError(f"tfrecord `{path}`, record {number}: {error}") from None
                yield record
                number += 1
    except OSError as error:
        raise TableError(f"tfrecord `{path}` cannot be read ({error.strerror}); check its permissions") from None


def _frame(content: mmap.mmap, offset: int) -> tuple[bytes, int]:
    """Reads the frame at an offset: its data, and the offset behind the frame.

    Raises:
        ValueError: the frame is damaged or cut off; the message says what to do.
    """
    start = offset + _HEADER.size
    if start > len(content):
        raise ValueError("the file ends within it; download it again")
    length, length_checksum = _HEADER.unpack_from(content, offset)
    if _masked_crc32c(content[offset : offset + _LENGTH_BYTES]) != length_checksum:
        raise ValueError("its checksum is wrong; download the file again")
    end = start + length
    if end + _FOOTER.size > len(content):
        raise ValueError("the file ends within it; download it again")
    data = content[start:end]
    if _masked_crc32c(data) != _FOOTER.unpack_from(content, end)[0]:
        raise ValueError("its checksum is wrong; download the file again")
    return data, end + _FOOTER.size


def _masked_crc32c(data: bytes) -> int:
    crc: int = google_crc32c.value(data)
    # the mask keeps a checksum of data that holds checksums from being trivial
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _run(record: bytes) -> Run:
    """Reads one record.

    Raises:
        ValueError: it is not one; the message says why.
    """
    try:
        fields = json.loads(record)
    except ValueError:
        raise ValueError("it is not JSON") from None
    if (
        not isinstance(fields, list) or list(map(type, fields)) != [str, int, str, str, str]  # bool is no int here
    ):
        raise ValueError("it is not [hash, epochs, adjacency, operations, metrics]")
    name, epochs, adjacency, operations, metrics = fields
    try:
        message = base64.b64decode(metrics, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("its metrics are not Base64") from None
    parameters, final = 0, None
    for number, value in _message(message):
        if number == _EVALUATION_DATA:
            final = value
        elif number == _PARAMETERS and isinstance(value, int):
            parameters = value
    if not isinstance(final, bytes):
        raise ValueError("its metrics hold no evaluation")
    values = dict(_message(final))
    validation, test, seconds = (values.get(field) for field in (_VALIDATION, _TEST, _TRAINING_TIME))
    if not (isinstance(validation, float) and isinstance(test, float) and isinstance(seconds, float)):
        raise ValueError("its last evaluation lacks an accuracy or the training time")
    return Run(name, epochs, adjacency, operations, validation, test, seconds, parameters)


def _message(data: bytes) -> Iterator[tuple[int, int | float | bytes]]:
    """Yields numbers and values of a protocol buffer's fields, in their order: varints as int, 8 bytes as float.

    Raises:
        ValueError: it is cut off, or holds what no protocol buffer does.
    """
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        value: int | float | bytes
        if kind == _VARINT:
            value, place = _varint(data, place)
        elif kind == _BYTES:
            length, place = _varint(data, place)
            value, place = data[place : place + length], place + length
        elif kind in (_FIXED64, _FIXED32):
            width, form = (8, "<d") if kind == _FIXED64 else (4, "<f")
            if place + width > len(data):
                raise ValueError("its metrics are cut off")
            (value,), place = struct.unpack_from(form, data, place), place + width
        else:
            raise ValueError(f"its metrics are no protocol buffer (wire type {kind})")
        if place > len(data):
            raise ValueError("its metrics are cut off")
        yield tag >> 3, value


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Reads an integer of seven bits a byte, the lowest first, and the place behind it."""
    value = shift = 0
    while True:
        if place >= len(data) or shift > 63:
            raise ValueError("its metrics are cut off")
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
