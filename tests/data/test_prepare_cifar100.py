import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_prepare_cifar10 import archive, folder

from bonas_core.errors import TableError
from bonas_core.image_training.images import read_images
from data.cifar100 import prepare as cifar100
from data.cifar100.prepare import check, prepare

RNG = np.random.default_rng(0)
COUNTS = {"train.bin": 200, "test.bin": 100}
PIXELS = {name: RNG.integers(256, size=(count, 3072), dtype=np.uint8) for name, count in COUNTS.items()}
FINE = {name: [row % 100 for row in range(count)] for name, count in COUNTS.items()}
COARSE = {name: [row % 20 for row in range(count)] for name, count in COUNTS.items()}


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small = replace(cifar100.CIFAR100, train_files={"train.bin": 200}, test_files={"test.bin": 100})
    monkeypatch.setattr(cifar100, "CIFAR100", small)


def file(name: str) -> bytes:
    """The content of an official file: of every image the coarse label stands before the fine one."""
    return np.hstack([np.array([COARSE[name], FINE[name]], dtype=np.uint8).T, PIXELS[name]]).tobytes()


FILES = {name: file(name) for name in COUNTS}


def test_archives_and_folders_are_read_with_their_fine_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = archive(tmp_path / "cifar-100-binary.tar.gz", FILES)
    with pytest.raises(
        TableError, match=r"CIFAR-100 .*: its MD5 is \w{32}, that of cifar-100-binary.tar.gz is 03b5\w{28}"
    ):
        prepare(source, tmp_path / "cifar100.safetensors")
    digest = hashlib.md5(source.read_bytes()).hexdigest()
    monkeypatch.setattr(cifar100, "CIFAR100", replace(cifar100.CIFAR100, md5=digest))
    said = prepare(source, tmp_path / "cifar100.safetensors")
    assert "cifar100: 200 training images (2 to 2 a class), 100 test images" in said
    images, _ = read_images(tmp_path / "cifar100.safetensors", check=True)
    assert images.classes == 100
    assert images.train_labels.tolist() == FINE["train.bin"]
    assert np.array_equal(images.train_images.reshape(-1, 3072), PIXELS["train.bin"])
    assert np.array_equal(images.test_images.reshape(-1, 3072), PIXELS["test.bin"])
    prepare(folder(tmp_path / "unpacked", FILES), tmp_path / "other.safetensors")
    assert read_images(tmp_path / "other.safetensors")[0].digest == images.digest
    assert "as prepared" in check(tmp_path / "other.safetensors")


def test_files_that_are_missing_or_cut_off_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    target = tmp_path / "made" / "cifar100.safetensors"
    for number, (changes, message) in enumerate(
        [
            ({"test.bin": b"1"}, r"file test.bin: it has 1 bytes instead of 307400"),
            ({"test.bin": FILES["train.bin"]}, r"file test.bin: it has 614800 bytes"),
            ({"test.bin": None}, r"it lacks test.bin; give the whole official archive, cifar-100-binary.tar.gz"),
        ]
    ):
        content = {name: data for name, data in {**FILES, **changes}.items() if data is not None}
        with pytest.raises(TableError, match=message) as caught:
            prepare(folder(tmp_path / f"source-{number}", content), target)
        assert "\n" not in str(caught.value)
    assert not target.parent.exists()


def test_the_python_version_is_refused_and_the_binary_one_named(tmp_path: Path) -> None:
    source = folder(tmp_path / "cifar-100-python", {"train": b"", "test": b"", "meta": b""})
    with pytest.raises(TableError, match=r"download the binary version, cifar-100-binary.tar.gz$"):
        prepare(source, tmp_path / "cifar100.safetensors")
