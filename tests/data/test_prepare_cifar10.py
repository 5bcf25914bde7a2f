import hashlib
import io
import pickle
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bonas_core.errors import TableError
from bonas_core.image_training.images import read_images
from data import cifar, pickles
from data.cifar10 import prepare as cifar10
from data.cifar10.prepare import check, prepare

BATCH = 20  # images of a batch in these tests
NAMES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
RNG = np.random.default_rng(0)
CIFAR10 = cifar10.CIFAR10  # as it is, whatever tests put in its place
ARCHIVES = CIFAR10.archives
PIXELS = {name: RNG.integers(256, size=(BATCH, 3072), dtype=np.uint8) for name in NAMES}
LABELS = {name: [label % 10 for label in range(BATCH)] for name in NAMES}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(
        cifar10.CIFAR10, train_files=dict.fromkeys(NAMES[:5], BATCH), test_files=dict.fromkeys(NAMES[5:], BATCH)
    )
    monkeypatch.setattr(cifar10, "CIFAR10", small)


def python2_pickle(pixels: np.ndarray, labels: list[int], dtype: bytes = b"u1") -> bytes:
    """A batch as the official archive has it: what Python 2 pickled with protocol 2."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    rows, columns = pixels.shape
    data = pixels.tobytes()
    return b"".join(
        [
            b"\x80\x02}q\x01(", short(b"batch_label"), b"q\x02", short(b"training batch 1 of 5"), b"q\x03",
            short(b"labels"), b"q\x04]q\x05(", *(b"K" + bytes([label]) for label in labels), b"e",
            short(b"data"), b"q\x06cnumpy.core.multiarray\n_reconstruct\nq\x07cnumpy\nndarray\nq\x08K\x00\x85q\t",
            b"U\x01b\x87q\nRq\x0b(K\x01K", bytes([rows]), b"M", struct.pack("<H", columns), b"\x86cnumpy\ndtype\nq\x0c",
            short(dtype), b"K\x00K\x01\x87q\rRq\x0e(K\x03", short(b"|"),
            b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T",
            struct.pack("<i", len(data)), data, b"tb", short(b"filenames"), b"]", short(b"a.png"), b"au.",
        ]
    )  # fmt: skip


def binary(name: str) -> bytes:
    return np.hstack([np.array(LABELS[name], dtype=np.uint8)[:, None], PIXELS[name]]).tobytes()


def batches(form: str) -> dict[str, bytes]:
    if form == "binary":
        return {f"{name}.bin": binary(name) for name in NAMES}
    return {name: python2_pickle(PIXELS[name], LABELS[name]) for name in NAMES}


def folder(path: Path, files: dict[str, bytes]) -> Path:
    path.mkdir()
    for name, content in files.items():
        (path / name).write_bytes(content)
    return path


def archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name, content in {"cifar-10-batches/readme.html": b"", **files}.items():
            member = tarfile.TarInfo(f"cifar-10-batches/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def assert_whole(target: Path, name: str = "cifar10") -> None:
    images, _ = read_images(target, check=True)
    assert images.name == name
    assert np.array_equal(images.train_images.reshape(-1, 3072), np.concatenate([PIXELS[n] for n in NAMES[:5]]))
    assert images.train_labels.tolist() == [label for n in NAMES[:5] for label in LABELS[n]]
    assert np.array_equal(images.test_images.reshape(-1, 3072), PIXELS["test_batch"])


@pytest.mark.parametrize("form", ["binary", "python"])
def test_folders_of_official_batches_are_read(tmp_path: Path, form: str) -> None:
    target = tmp_path / "made" / "cifar10.safetensors"
    said = prepare(folder(tmp_path / "source", batches(form)), target)
    assert "100 training images (10 to 10 a class), 20 test images" in said
    assert_whole(target)
    assert check(target).splitlines()[1:] == said.splitlines()[1:]


@pytest.mark.parametrize(("form", "name"), [("binary", "cifar-10-binary.tar.gz"), ("python", "cifar-10-python.tar.gz")])
def test_archives_are_read_if_their_checksum_is_official(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str, name: str
) -> None:
    source, target = archive(tmp_path / name, batches(form)), tmp_path / "cifar10.safetensors"
    with pytest.raises(TableError, match=r"its MD5 is \w{32}, it should be c\w{31}; it is damaged or another file"):
        prepare(source, target)
    assert not target.exists()
    monkeypatch.setitem(ARCHIVES, name, hashlib.md5(source.read_bytes()).hexdigest())
    prepare(source, target)
    assert_whole(target)


def test_a_truncated_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = archive(tmp_path / "cifar-10-binary.tar.gz", batches("binary"))
    source.write_bytes(source.read_bytes()[:3000])
    monkeypatch.setitem(ARCHIVES, source.name, hashlib.md5(source.read_bytes()).hexdigest())
    with pytest.raises(TableError, match=r"cannot be unpacked .*; download it again") as caught:
        prepare(source, tmp_path / "cifar10.safetensors")
    assert "\n" not in str(caught.value)


def test_missing_batches_are_refused(tmp_path: Path) -> None:
    files = batches("binary")
    del files["data_batch_3.bin"]
    with pytest.raises(TableError, match="give the whole official archive or its folder"):
        prepare(folder(tmp_path / "source", files), tmp_path / "cifar10.safetensors")
    with pytest.raises(TableError, match="does not exist; give --source"):
        prepare(tmp_path / "nothing", tmp_path / "cifar10.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (binary("test_batch")[:-1], r"has 61459 bytes instead of 61460"),
        (b"", "has 0 bytes"),
    ],
)
def test_damaged_binary_batches_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(TableError, match=f"file test_batch.bin: it {message}"):
        prepare(folder(tmp_path / "source", {**batches("binary"), "test_batch.bin": content}), tmp_path / "made")
    assert not (tmp_path / "made").exists()


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (self.path, "w"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (python2_pickle(PIXELS["test_batch"], LABELS["test_batch"])[:-40], "damaged|no end|exhausted|pickle"),
        (python2_pickle(PIXELS["test_batch"], LABELS["test_batch"], b"f4"), "array of something else than bytes"),
        (python2_pickle(PIXELS["test_batch"][:5], LABELS["test_batch"]), "`data` are not 20 images"),
        (python2_pickle(PIXELS["test_batch"], [1, 2]), "`labels` are not 20 numbers"),
        (pickle.dumps([1, 2], 2), "holds no dictionary"),
        (b"\x80\x02}.", "`data` are not"),
        (b"", "damaged|exhausted"),
        (b"GARBAGE", "damaged|opcode|at position"),
    ],
)
def test_damaged_pickles_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    source = folder(tmp_path / "source", {**batches("python"), "test_batch": content})
    with pytest.raises(TableError, match=message) as caught:
        prepare(source, tmp_path / "made")
    assert "file test_batch" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("protocol", range(5))
def test_a_pickle_that_would_call_something_is_refused_and_nothing_is_called(tmp_path: Path, protocol: int) -> None:
    trap = tmp_path / "trap"
    content = pickle.dumps({b"data": Harmful(str(trap))}, protocol)
    with pytest.raises(ValueError, match=r"would call|instruction"):
        pickles.read(content)
    assert not trap.exists()


def test_what_is_read_is_what_pickle_would_read() -> None:
    content = python2_pickle(PIXELS["test_batch"], LABELS["test_batch"])
    ours, theirs = pickles.read(content), pickle.loads(content, encoding="bytes")
    assert set(ours) == set(theirs)
    assert np.array_equal(ours.pop(b"data"), theirs.pop(b"data"))
    assert ours == theirs


def encoded(form: str, rows: int = 40, side: int = 32) -> list[bytes]:
    made = []
    for _ in range(rows):
        buffer = io.BytesIO()
        Image.fromarray(RNG.integers(256, size=(side, side, 3), dtype=np.uint8)).save(buffer, form)
        made.append(buffer.getvalue())
    return made


def labels(rows: int = 40) -> list[int]:
    return [row % 10 for row in range(rows)]


@pytest.mark.parametrize(("form", "name"), [("png", "cifar10 (40 images)"), ("jpeg", "jpeg-cifar10 (40 images)")])
def test_parquet_of_encoded_images_is_read_and_lossy_pixels_are_named(tmp_path: Path, form: str, name: str) -> None:
    train, test = encoded(form), encoded(form, 10)
    source = tmp_path / "source"
    source.mkdir()
    pq.write_table(pa.table({"label": labels(), form: train}), source / "cifar10_train_x.parquet")
    pq.write_table(pa.table({"label": labels(10), form: test}), source / "cifar10_test_x.parquet")
    said = prepare(source, tmp_path / "cifar10.safetensors")
    assert ("no result compares with published ones" in said) == (form == "jpeg")
    images, _ = read_images(tmp_path / "cifar10.safetensors", check=True)
    assert images.name == name
    assert np.array_equal(images.train_images[3].transpose(1, 2, 0), np.asarray(Image.open(io.BytesIO(train[3]))))
    assert images.train_labels.tolist() == labels()

    whole = pa.table({"split": ["train"] * 40 + ["test"] * 10, "label": labels() + labels(10), form: train + test})
    pq.write_table(whole, tmp_path / "whole.parquet")
    prepare(tmp_path / "whole.parquet", tmp_path / "other.safetensors")
    assert read_images(tmp_path / "other.safetensors")[0].digest == images.digest


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": labels(), "png": encoded("png")}, "has no column `split`"),
        ({"split": ["train"] * 40, "label": labels(), "png": encoded("png")}, "the test set has 0 images"),
        ({"split": ["train"] * 40, "label": labels()}, "needs `label` and one of png, jpeg, image"),
        ({"split": ["train"] * 40, "label": [10] * 40, "png": encoded("png")}, "not a number from 0 to 9"),
        ({"split": ["train"] * 40, "label": [None] * 40, "png": encoded("png")}, "not a number from 0 to 9"),
        ({"split": ["train"] * 40, "label": labels(), "png": [b"no image"] * 40}, "row 0 cannot be read"),
        ({"split": ["train"] * 40, "label": labels(), "png": encoded("png", side=16)}, "is 16x16, not 32x32"),
        ({"split": ["train", "test"] * 20, "label": [3] * 40, "png": encoded("png")}, "needs every label from 0 to 9"),
    ],
)
def test_parquet_with_faults_is_refused_and_nothing_is_written(
    tmp_path: Path, columns: dict[str, list[object]], message: str
) -> None:
    pq.write_table(pa.table(columns), tmp_path / "whole.parquet")
    with pytest.raises(TableError, match=message) as caught:
        prepare(tmp_path / "whole.parquet", tmp_path / "made" / "cifar10.safetensors")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "made").exists()


@pytest.mark.slow
def test_the_real_jpeg_images_are_read(tmp_path: Path, shared_data: Path) -> None:
    cifar.prepare(CIFAR10, shared_data, tmp_path / "cifar10.safetensors")
    images, _ = read_images(tmp_path / "cifar10.safetensors", check=True)
    assert images.name == "jpeg-cifar10"
    assert images.train_labels[:10].tolist() == [6, 9, 9, 4, 1, 1, 2, 7, 8, 3]  # the official ones
    assert np.bincount(images.train_labels).tolist() == [5000] * 10
    means = images.train_images.mean(axis=(0, 2, 3)) / 255
    assert means == pytest.approx(CIFAR10.mean, abs=1e-3)
