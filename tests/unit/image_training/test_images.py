from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from bonas_core.errors import SettingsError, TableError
from bonas_core.image_training.datasets import load
from bonas_core.image_training.images import ImageSet, load_images, read_images, split, write_images
from bonas_core.image_training.splits import Splits

RNG = np.random.default_rng(0)
LABELS = np.repeat(np.arange(4, dtype=np.uint8), 30)
IMAGES = ImageSet(
    "small",
    4,
    (0.5, 0.4, 0.3),
    (0.2, 0.3, 0.25),
    RNG.integers(256, size=(120, 3, 5, 5), dtype=np.uint8),
    RNG.permutation(LABELS),
    RNG.integers(256, size=(8, 3, 5, 5), dtype=np.uint8),
    LABELS[::15],
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_images(tmp_path / "small.safetensors", IMAGES, {"source": "made up"})
    return tmp_path / "small.safetensors"


def test_what_is_written_is_read_back(path: Path) -> None:
    images, described = read_images(path, check=True)
    assert images.digest == IMAGES.digest
    assert (images.name, images.classes, images.mean, images.std) == ("small", 4, IMAGES.mean, IMAGES.std)
    assert described["source"] == "made up"


def test_a_byte_changed_is_found_by_a_check(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    read_images(path)
    with pytest.raises(TableError, match="have changed since they were prepared; prepare them again"):
        read_images(path, check=True)


@pytest.mark.parametrize("kept", [0, 7, 100, -1])
def test_damaged_files_are_refused_in_one_line(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(TableError, match=r"cannot be read .*; write them again with `bonas data prepare`") as caught:
        read_images(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(TableError, match="do not exist"):
        read_images(path.with_name("other.safetensors"))


def rows_of(part: tuple[torch.Tensor, torch.Tensor]) -> list[int]:
    """Which training images a part holds."""
    known = {image.tobytes(): row for row, image in enumerate(IMAGES.train_images)}
    rows = [known[image.numpy().tobytes()] for image in part[0]]
    assert part[1].tolist() == IMAGES.train_labels[rows].tolist()
    return rows


@pytest.mark.parametrize(("validation", "train"), [(None, None), (40, None), (12, 80), (119, 1), (0, None)])
def test_the_training_set_is_split_by_class_and_the_test_set_is_kept(validation: int | None, train: int | None) -> None:
    splits = split(IMAGES, validation, train)
    held_out, trained = rows_of(splits.validation), rows_of(splits.train)
    assert len(held_out) == (12 if validation is None else validation)
    assert len(trained) == (120 - len(held_out) if train is None else train)
    assert not set(held_out) & set(trained)
    for part in (splits.validation, splits.train):
        counts = torch.bincount(part[1], minlength=4)
        assert counts.max() - counts.min() <= 1
    assert np.array_equal(splits.test[0].numpy(), IMAGES.test_images)


def test_smaller_parts_are_parts_of_larger_ones() -> None:
    few, more = split(IMAGES, 20, 30), split(IMAGES, 20, 60)
    assert rows_of(few.validation) == rows_of(more.validation)
    assert rows_of(few.train) == rows_of(more.train)[:30]


@pytest.mark.parametrize(("validation", "train"), [(120, None), (-1, None), (60, 61), (10, 0)])
def test_parts_that_do_not_fit_are_refused(validation: int, train: int | None) -> None:
    with pytest.raises(SettingsError, match=r"change evaluator\.validation_images or evaluator\.train_images"):
        split(IMAGES, validation, train)


def test_pixels_become_numbers_by_mean_and_deviation() -> None:
    splits = split(IMAGES)
    images = splits.test[0]
    numbers = splits.normalised(images)
    expected = (images[:, 1].double() / 255 - 0.4) / 0.3
    assert numbers.dtype == torch.float32
    assert torch.allclose(numbers[:, 1].double(), expected, atol=1e-6)


def test_a_prepared_file_is_data_by_its_path_and_the_name_says_how_much_is_used(path: Path) -> None:
    assert load(str(path)).name == "small"
    part = load(str(path), 20, 40)
    assert part.name == "small (40 images)"
    write_images(path, replace(IMAGES, name="small (120 images)"), {})
    assert load(str(path), 20, 40).name == "small (40 images)"
    assert (len(part.validation[1]), len(part.train[1])) == (20, 40)
    assert load_images(path, 20).fingerprint != load_images(path, 24).fingerprint
    assert load_images(path).fingerprint == split(IMAGES).fingerprint
    assert replace(load_images(path), mean=(0.1, 0.4, 0.3)).fingerprint != load_images(path).fingerprint


def test_data_that_are_split_already_are_not_split_again() -> None:
    with pytest.raises(SettingsError, match="data `digits` is split already; leave out evaluator"):
        load("digits", 100)


def test_pixels_need_a_mean_and_a_deviation_per_channel() -> None:
    splits = split(IMAGES)
    with pytest.raises(SettingsError, match="make them float32"):
        replace(splits, mean=(), std=())
    for std in ((0.2,), (0.2, 0.3, 0.0)):
        with pytest.raises(SettingsError, match="give one of each per channel"):
            replace(splits, std=std)
    floats = (torch.zeros(4, 3, 5, 5), torch.zeros(4, dtype=torch.int64))
    with pytest.raises(SettingsError, match="make them uint8"):
        Splits("mine", 4, floats, floats, floats, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
