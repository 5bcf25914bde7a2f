"""The reader of the official files, on files that these tests write in their format."""

import base64
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bonas_core.errors import TableError
from data.nasbench101 import tfrecord
from data.nasbench101.tfrecord import Run, runs

RUN = Run("043721b9c7fe8c5fad811d47d83132ec", 108, "0100", "input,output", 0.875, 0.8125, 1234.5, 227_274)


def crc32c(data: bytes) -> int:
    """Bit by bit, as the definition says."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def frame(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def varint(value: int) -> bytes:
    found = b""
    while value > 127:
        found, value = found + bytes([value & 127 | 128]), value >> 7
    return found + bytes([value])


def field(number: int, value: object) -> bytes:
    if isinstance(value, float):
        return varint(number << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    assert isinstance(value, bytes)
    return varint(number << 3 | 2) + varint(len(value)) + value


def evaluation(epoch: float, seconds: float, validation: float, test: float) -> bytes:
    values = enumerate((epoch, seconds, 1.0, validation, test), start=1)
    return b"".join(field(number, value) for number, value in values) + field(6, b"/tmp/checkpoint")


def metrics(run: Run) -> bytes:
    evaluations = [
        evaluation(0.0, 0.0, 0.1, 0.1),
        evaluation(run.epochs / 2, run.seconds / 2, run.validation / 2, run.test / 2),
        evaluation(float(run.epochs), run.seconds, run.validation, run.test),
    ]
    return b"".join(field(1, each) for each in evaluations) + field(2, run.parameters) + field(3, 2 * run.seconds)


def record(run: Run) -> bytes:
    text = base64.b64encode(metrics(run)).decode()
    return json.dumps([run.hash, run.epochs, run.adjacency, run.operations, text]).encode()


def written(path: Path, records: Sequence[bytes]) -> Path:
    path.write_bytes(b"".join(map(frame, records)))
    return path


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        (b"123456789", 0xE3069283),  # the check value of the catalogue of CRC algorithms; the others: RFC 3720, B.4
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
    ],
)
def test_checksums_are_the_published_ones(data: bytes, checksum: int):
    assert crc32c(data) == checksum
    assert struct.pack("<I", tfrecord._masked_crc32c(data)) == masked(data)


fractions = st.floats(0, 1, width=32)


@given(
    st.lists(
        st.builds(
            Run,
            hash=st.text("0123456789abcdef", min_size=1, max_size=32),
            epochs=st.sampled_from([4, 12, 36, 108]),
            adjacency=st.text("01", max_size=49),
            operations=st.text("abc,", max_size=20),
            validation=fractions,
            test=fractions,
            seconds=st.floats(0, 1e5),
            parameters=st.integers(0, 2**31),
        ),
        min_size=1,
        max_size=5,
    )
)
def test_runs_are_read_as_they_were_written(tmp_path_factory: pytest.TempPathFactory, given_runs: list[Run]):
    path = written(tmp_path_factory.getbasetemp() / "runs.tfrecord", list(map(record, given_runs)))
    assert list(runs(path)) == given_runs


def test_unknown_fields_of_the_metrics_are_passed_over(tmp_path: Path):
    more = field(9, 300) + varint(10 << 3 | 5) + struct.pack("<f", 1.5) + metrics(RUN) + field(11, b"new")
    text = base64.b64encode(more).decode()
    data = json.dumps([RUN.hash, RUN.epochs, RUN.adjacency, RUN.operations, text]).encode()
    assert list(runs(written(tmp_path / "t.tfrecord", [data]))) == [RUN]


WHOLE = frame(record(RUN)) * 3
LENGTH = len(WHOLE) // 3


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 7))
def test_one_wrong_bit_anywhere_is_found_in_its_record(tmp_path_factory: pytest.TempPathFactory, place: int, bit: int):
    damaged = bytearray(WHOLE)
    damaged[place] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "damaged.tfrecord"
    path.write_bytes(damaged)
    with pytest.raises(TableError, match=f"record {place // LENGTH}: its checksum is wrong; download the file again"):
        list(runs(path))


@given(st.integers(1, len(WHOLE) - 1).filter(lambda size: size % LENGTH))
def test_a_file_that_ends_early_is_refused(tmp_path_factory: pytest.TempPathFactory, size: int):
    path = tmp_path_factory.getbasetemp() / "short.tfrecord"
    path.write_bytes(WHOLE[:size])
    with pytest.raises(TableError, match=f"record {size // LENGTH}: the file ends within it; download it again"):
        list(runs(path))


def spoilt(place: int, value: object) -> bytes:
    fields = json.loads(record(RUN))
    fields[place] = value
    return json.dumps(fields).encode()


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


FAULTS = {
    "no JSON": (b"{", "it is not JSON"),
    "no text": (b"\xff\xfe", "it is not JSON"),
    "no list": (b"{}", "it is not [hash, epochs, adjacency, operations, metrics]"),
    "too short": (b"[1, 2]", "it is not [hash, epochs, adjacency, operations, metrics]"),
    "epochs as text": (spoilt(1, "108"), "it is not [hash, epochs, adjacency, operations, metrics]"),
    "epochs as a truth": (spoilt(1, True), "it is not [hash, epochs, adjacency, operations, metrics]"),
    "no Base64": (spoilt(4, "%%%"), "its metrics are not Base64"),
    "empty metrics": (spoilt(4, ""), "its metrics hold no evaluation"),
    "cut metrics": (spoilt(4, in_base64(metrics(RUN)[:-3])), "its metrics are cut off"),
    "cut varint": (spoilt(4, in_base64(b"\x80")), "its metrics are cut off"),
    "endless varint": (spoilt(4, in_base64(b"\x80" * 20 + b"\x01")), "its metrics are cut off"),
    "other wire type": (spoilt(4, in_base64(b"\x0b")), "its metrics are no protocol buffer (wire type 3)"),
    "no accuracies": (spoilt(4, in_base64(field(1, b""))), "its last evaluation lacks an accuracy or the training"),
    "accuracy as a number": (
        spoilt(4, in_base64(field(1, field(2, 1.0) + field(4, 1) + field(5, 1.0)))),
        "its last evaluation lacks an accuracy or the training time",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_record_that_is_no_run_is_refused_in_one_line(fault: str, tmp_path: Path):
    data, message = FAULTS[fault]
    path = written(tmp_path / "t.tfrecord", [record(RUN), data])
    with pytest.raises(TableError) as caught:
        list(runs(path))
    assert str(caught.value).startswith(f"tfrecord `{path}`, record 1: {message}")
    assert str(caught.value).endswith("bring the official NAS-Bench-101 file")
    assert "\n" not in str(caught.value)


def test_a_missing_or_empty_file_is_refused(tmp_path: Path):
    with pytest.raises(TableError, match="does not exist; give the official file with --source PATH"):
        list(runs(tmp_path / "none.tfrecord"))
    (tmp_path / "empty.tfrecord").touch()
    with pytest.raises(TableError, match="is empty; download it again"):
        list(runs(tmp_path / "empty.tfrecord"))
