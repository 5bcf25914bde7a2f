import hashlib
import io
import pickle
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
from data import cifar
from data.cifar10 import prepare as cifar10
from data.cifar10.prepare import check, prepare

BATCH = 20  # images of a batch in these tests
NAMES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
RNG = np.random.default_rng(0)
CIFAR10 = cifar10.CIFAR10  # as it is, whatever tests put in its place
PIXELS = {name: RNG.integers(256, size=(BATCH, 3072), dtype=np.uint8) for name in NAMES}
LABELS = {name: [label % 10 for label in range(BATCH)] for name in NAMES}


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(
        cifar10.CIFAR10, train_files=dict.fromkeys(NAMES[:5], BATCH), test_files=dict.fromkeys(NAMES[5:], BATCH)
    )
    monkeypatch.setattr(cifar10, "CIFAR10", small)


BATCHES = {name: np.hstack([np.array(LABELS[name], dtype=np.uint8)[:, None], PIXELS[name]]).tobytes() for name in NAMES}


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
    assert np.array_equal(images.test_images.reshape(-1, 3072), PIXELS["test_batch.bin"])


def test_a_folder_of_official_batches_is_read(tmp_path: Path) -> None:
    target = tmp_path / "made" / "cifar10.safetensors"
    said = prepare(folder(tmp_path / "source", BATCHES), target)
    assert "100 training images (10 to 10 a class), 20 test images" in said
    assert_whole(target)
    assert check(target).splitlines()[1:] == said.splitlines()[1:]


def official(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    """Makes an archive the official one."""
    md5 = hashlib.md5(source.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar10, "CIFAR10", replace(cifar10.CIFAR10, md5=md5))


def test_an_archive_is_read_if_its_checksum_is_official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = archive(tmp_path / "any.tar.gz", BATCHES), tmp_path / "cifar10.safetensors"
    with pytest.raises(
        TableError, match=r"its MD5 is \w{32}, that of cifar-10-binary.tar.gz is c32a\w{28}; it is damaged"
    ):
        prepare(source, target)
    assert not target.exists()
    official(monkeypatch, source)
    prepare(source, target)
    assert_whole(target)


def test_a_truncated_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = archive(tmp_path / "cifar-10-binary.tar.gz", BATCHES)
    source.write_bytes(source.read_bytes()[:3000])
    official(monkeypatch, source)
    with pytest.raises(TableError, match=r"cannot be unpacked .*; download it again") as caught:
        prepare(source, tmp_path / "cifar10.safetensors")
    assert "\n" not in str(caught.value)


def test_missing_batches_are_refused_by_name(tmp_path: Path) -> None:
    files = {name: content for name, content in BATCHES.items() if name != "data_batch_3.bin"}
    with pytest.raises(
        TableError, match=r"it lacks data_batch_3.bin; give the whole official archive, cifar-10-binary"
    ):
        prepare(folder(tmp_path / "source", files), tmp_path / "cifar10.safetensors")
    with pytest.raises(TableError, match="does not exist; give --source"):
        prepare(tmp_path / "nothing", tmp_path / "cifar10.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [(BATCHES["test_batch.bin"][:-1], r"has 61459 bytes instead of 61460"), (b"", "has 0 bytes")],
)
def test_damaged_batches_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(TableError, match=f"file test_batch.bin: it {message}"):
        prepare(folder(tmp_path / "source", {**BATCHES, "test_batch.bin": content}), tmp_path / "made")
    assert not (tmp_path / "made").exists()


class Harmful:
    """Writes a file when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str, str]]:
        return (open, (self.path, "w"))


@pytest.mark.parametrize("given", ["", "data_batch_1", "cifar-10-python.tar.gz"])
def test_the_python_version_is_refused_unopened_and_the_binary_one_named(tmp_path: Path, given: str) -> None:
    trap, pickled = tmp_path / "trap", tmp_path / "cifar-10-batches-py"
    batches = {name.removesuffix(".bin"): pickle.dumps(Harmful(str(trap))) for name in NAMES}
    folder(pickled, {**batches, "batches.meta": b""})
    archive(pickled / "cifar-10-python.tar.gz", batches)
    with pytest.raises(TableError, match=r"pickled.*; download the binary version, cifar-10-binary.tar.gz$") as caught:
        prepare(pickled / given, tmp_path / "made")
    assert "\n" not in str(caught.value)
    assert not trap.exists()
    assert not (tmp_path / "made").exists()


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
