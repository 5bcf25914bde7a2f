from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bonas_core.errors import InputError, TableError
from bonas_core.image_training.datasets import load
from bonas_core.image_training.images import new_images, read_images, write_images
from data.imagenet import prepare as imagenet
from data.imagenet.prepare import check, prepare
from flows.command.datasets import prepare as prepare_by_name

COLOURS = {"n01": (200, 30, 30), "n02": (30, 200, 30), "n03": (30, 30, 200)}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three classes of images of one colour, 4 to train and 2 to test with each; their corners are white."""
    for part, count in (("train", 4), ("val", 2)):
        for name, colour in COLOURS.items():
            folder = tmp_path / "images" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                image = Image.new("RGB", (40 + number, 30), (255, 255, 255))
                image.paste(colour, (6, 1, 34 + number, 29))
                image.save(folder / f"{name}_{number}.{'JPEG' if number else 'png'}")
    return tmp_path / "images"


def test_folders_become_one_file_of_square_images(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "made" / "imagenet.safetensors"
    said = prepare(source, target, size=16)
    assert "3 classes, 12 training images (4 to 4 a class), 6 test images (2 to 2 a class)" in said
    assert check(target).splitlines()[1:] == said.splitlines()[1:]
    images, _ = read_images(target, check=True)
    assert images.name == "imagenet (12 images, 3 classes, 16x16)"
    assert images.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert images.train_images.shape == (12, 3, 16, 16)
    for pixels, label in zip(images.test_images, images.test_labels, strict=True):
        middle = pixels[:, 2:14, 2:14].reshape(3, -1)
        assert abs(middle.mean(axis=1) - list(COLOURS.values())[label]).max() < 8
    assert [path.name for path in target.parent.iterdir()] == [target.name]
    # nothing is held out: the file is trained on as it lies there, and known by its digest
    splits = load(str(target), 0)
    assert splits.train[0].shape == (12, 3, 16, 16)
    assert np.array_equal(splits.train[0].numpy(), images.train_images)
    assert (len(splits.validation[1]), splits.digest) == (0, images.digest)
    assert splits.fingerprint != load(str(target), 3).fingerprint


def test_many_images_are_decoded_by_processes_to_the_same_pixels(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(source, tmp_path / "one.safetensors", size=8)
    monkeypatch.setattr(imagenet, "_IN_PROCESS", 6)
    prepare(source, tmp_path / "two.safetensors", size=8)
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "two.safetensors").read_bytes()


def test_what_is_filled_in_place_is_the_file_that_is_written_at_once(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    described = {"source": "made up"}
    many = 300  # classes: their labels do not fit into a byte
    with new_images(
        tmp_path / "a.safetensors", "many", many, (0.5,), (0.2,), (many, 5), (1, 2, 2), described
    ) as filled:
        filled.train_images[:] = rng.integers(256, size=(many, 1, 2, 2))
        filled.train_labels[:] = np.arange(many)
    found, _ = read_images(tmp_path / "a.safetensors", check=True)
    assert found.train_labels.tolist() == list(range(many))
    write_images(tmp_path / "b.safetensors", found, described)
    assert read_images(tmp_path / "b.safetensors", check=True)[0].digest == found.digest


def test_a_corrupt_image_is_named_and_nothing_is_written(tmp_path: Path, source: Path) -> None:
    path = source / "val" / "n02" / "n02_1.JPEG"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(TableError, match=r"n02_1\.JPEG` cannot be read \(.*\); replace or remove it") as caught:
        prepare(source, tmp_path / "made" / "imagenet.safetensors", size=8)
    assert "\n" not in str(caught.value)
    assert not list((tmp_path / "made").iterdir())


def test_folders_of_another_form_are_refused(tmp_path: Path, source: Path) -> None:
    target = tmp_path / "made" / "imagenet.safetensors"
    with pytest.raises(TableError, match="it has no folder `train`"):
        prepare(tmp_path / "nothing", target)
    (source / "train" / "n04").mkdir()
    with pytest.raises(TableError, match="class `n04` is in one of train and val only"):
        prepare(source, target)
    (source / "val" / "n04").mkdir()
    with pytest.raises(TableError, match=r"n04`: it has no \.jpeg"):
        prepare(source, target)
    assert not target.parent.exists()


def test_a_size_is_only_for_images_that_can_have_several(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its images have one size; leave out --size"):
        prepare_by_name("cifar10", tmp_path, 16)
