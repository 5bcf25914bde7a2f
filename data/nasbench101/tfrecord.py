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

import numpy as np
from numpy.typing import NDArray

from bonas_core.errors import TableError

_BATCH = 20_000
"""Frames whose checksums are computed together."""
_HEADER, _FOOTER = 12, 4
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# fields of ModelMetrics and of EvaluationData
_EVALUATION_DATA, _PARAMETERS = 1, 2
_TRAINING_TIME, _VALIDATION, _TEST = 2, 4, 5


class Run(NamedTuple):
    """One training run."""

    hash: str
    """Graph hash of the cell."""
    epochs: int
    adjacency: str
    """The whole matrix row by row, n * n times 0 or 1."""
    operations: str
    """The n labels, with commas between them."""
    validation: float
    """Accuracy at the end of training, as a fraction."""
    test: float
    seconds: float
    """Training time."""
    parameters: int


def runs(path: Path) -> Iterator[Run]:
    """All training runs in a file, in its order.

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
    """The data of all frames, once their checksums are checked."""
    if not path.is_file():
        raise TableError(f"tfrecord `{path}` does not exist; give the official file with --source PATH")
    if not path.stat().st_size:
        raise TableError(f"tfrecord `{path}` is empty; download it again")
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            number = offset = 0
            while offset < len(content):
                starts, lengths, end = _frames(content, offset)
                _check(path, content, number, starts, lengths, whole=end <= len(content))
                if end > len(content):
                    raise TableError(
                        f"tfrecord `{path}`, record {number + len(starts) - 1}: the file ends within it; "
                        "download it again"
                    )
                for start, length in zip(starts, lengths, strict=True):
                    yield content[start : start + length]
                number, offset = number + len(starts), end
    except OSError as error:
        raise TableError(f"tfrecord `{path}` cannot be read ({error.strerror}); check its permissions") from None


def _frames(content: mmap.mmap, offset: int) -> tuple[list[int], list[int], int]:
    """Where the data of the next frames starts and how long it is, and where the last of them ends."""
    starts: list[int] = []
    lengths: list[int] = []
    while offset < len(content) and len(starts) < _BATCH:
        (length,) = struct.unpack("<Q", content[offset : offset + 8].ljust(8, b"\0"))
        starts.append(offset + _HEADER)
        lengths.append(length)
        offset += _HEADER + length + _FOOTER
    return starts, lengths, offset


def _check(path: Path, content: mmap.mmap, number: int, starts: list[int], lengths: list[int], whole: bool) -> None:
    """Compares the checksums of frames; the last one's data is left out where the file ends within it."""
    first = starts[0] - _HEADER
    headed = len(starts) if starts[-1] <= len(content) else len(starts) - 1
    buffer = np.frombuffer(content[first : starts[headed - 1]] if headed else b"", dtype=np.uint8)
    begin = np.array(starts[:headed], dtype=np.int64) - first
    wrong = _masked_crc32c(buffer, begin - _HEADER, 8) != _uint32(buffer, begin - 4)

    complete = len(starts) if whole else len(starts) - 1
    if wrong.any():  # what follows a wrong length is not a frame
        complete = min(complete, int(np.argmax(wrong)))
    if complete:
        buffer = np.frombuffer(content[first : starts[complete - 1] + lengths[complete - 1] + _FOOTER], dtype=np.uint8)
    size = np.array(lengths[:complete], dtype=np.int64)
    for length in np.unique(size).tolist():
        rows = np.flatnonzero(size == length)
        data = begin[rows]
        wrong[rows] |= _masked_crc32c(buffer, data, length) != _uint32(buffer, data + length)
    if wrong.any():
        at_fault = number + int(np.argmax(wrong))
        raise TableError(f"tfrecord `{path}`, record {at_fault}: its checksum is wrong; download the file again")


def _uint32(buffer: NDArray[np.uint8], places: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Little-endian numbers of 4 bytes."""
    found: NDArray[np.uint32] = np.ascontiguousarray(buffer[places[:, None] + np.arange(4)]).view("<u4")[:, 0]
    return found


def _crc_tables() -> NDArray[np.uint32]:
    """(8, 256) what a byte adds to the CRC-32C of data in which 0 to 7 bytes follow it."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, np.uint32(0x82F63B78) ^ (table >> np.uint32(1)), table >> np.uint32(1))
    tables = [table]
    for _ in range(7):
        tables.append((tables[-1] >> np.uint32(8)) ^ table[tables[-1] & np.uint32(255)])
    return np.stack(tables)


_CRC_TABLES = _crc_tables()


def _masked_crc32c(buffer: NDArray[np.uint8], starts: NDArray[np.int64], length: int) -> NDArray[np.uint32]:
    """(n,) masked CRC-32C of so many bytes from each start on, eight bytes a step ("slicing by 8")."""
    crc = np.full(len(starts), 0xFFFFFFFF, dtype=np.uint32)
    whole = length - length % 8
    for place in range(0, whole, 8):
        block = buffer[starts[:, None] + np.arange(place, place + 8)]
        block[:, :4] ^= crc.astype("<u4").view(np.uint8).reshape(-1, 4)
        crc = _CRC_TABLES[7][block[:, 0]]
        for byte in range(1, 8):
            crc = crc ^ _CRC_TABLES[7 - byte][block[:, byte]]
    for place in range(whole, length):
        crc = (crc >> np.uint32(8)) ^ _CRC_TABLES[0][(crc & np.uint32(255)) ^ buffer[starts + place]]
    crc = ~crc
    # the mask keeps a checksum of data that holds checksums from being trivial
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


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
    """Numbers and values of a protocol buffer's fields, in their order: varints as int, 8 bytes as float.

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
    """An integer of seven bits a byte, the lowest first, and the place behind it."""
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
