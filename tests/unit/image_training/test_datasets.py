from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from bonas_core.errors import SettingsError
from bonas_core.image_training.datasets import digits, load
from bonas_core.image_training.splits import Splits

DIGITS = digits()


def test_the_splits_of_the_digits_hold_every_image_once() -> None:
    pixels, labels = load_digits(return_X_y=True)
    parts = (DIGITS.train, DIGITS.validation, DIGITS.test)
    images = torch.cat([part[0] for part in parts]).numpy().reshape(-1, 64)
    scale = (pixels.max() - pixels.min()) / (images.max() - images.min())
    raw = np.rint((images - images.min()) * scale).astype(int)
    found = np.column_stack([raw, torch.cat([part[1] for part in parts]).numpy()])
    assert sorted(map(tuple, found)) == sorted(map(tuple, np.column_stack([pixels.astype(int), labels])))


@pytest.mark.parametrize(("part", "share"), [("train", 0.6), ("validation", 0.2), ("test", 0.2)])
def test_every_class_is_split_by_the_same_shares(part: str, share: float) -> None:
    images, labels = getattr(DIGITS, part)
    everything = np.bincount(load_digits().target)
    assert np.abs(torch.bincount(labels).numpy() - share * everything).max() < 1
    assert images.shape == (len(labels), 1, 8, 8)


def test_pixels_are_standardised_by_the_training_images() -> None:
    images = DIGITS.train[0].double()
    assert images.mean().item() == pytest.approx(0, abs=1e-6)
    assert images.std(correction=0).item() == pytest.approx(1, abs=1e-6)
    assert DIGITS.validation[0].min() == DIGITS.train[0].min()


def test_the_fingerprint_of_the_digits_never_changes_and_is_the_documented_one() -> None:
    pinned = "34db50a5e68d71ab6604b35f30613420d967e5c77e63420923df2f1823f72e6e"
    assert load("digits").fingerprint == pinned
    assert f"`{pinned}`" in (Path(__file__).parents[3] / "data/digits/README.md").read_text()


def test_the_fingerprint_of_data_changes_with_any_array() -> None:
    images, labels = DIGITS.test
    assert replace(DIGITS, test=(images, labels.flip(0))).fingerprint != DIGITS.fingerprint
    assert replace(DIGITS, classes=11).fingerprint != DIGITS.fingerprint


def test_data_of_ones_own_are_named_as_module_and_function() -> None:
    assert load("bonas_core.image_training.datasets:digits").fingerprint == DIGITS.fingerprint


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cifar10", "data `cifar10` is unknown; use one of digits, or module:object"),
        ("no_such_module:f", "data `no_such_module:f` cannot be loaded .*check module and object"),
        ("builtins:dict", r"data `builtins:dict` returns dict; return bonas_core\.image_training\.splits\.Splits"),
    ],
)
def test_data_that_cannot_be_found_are_refused_with_the_remedy(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load(name)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (torch.zeros(4, 1, 8, 8, dtype=torch.float64), torch.zeros(4, dtype=torch.int64), "make them float32"),
        (torch.zeros(4, 64), torch.zeros(4, dtype=torch.int64), "make them float32"),
        (torch.zeros(4, 1, 9, 9), torch.zeros(4, dtype=torch.int64), "give all the same shape"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(3, dtype=torch.int64), "one per image"),
        (torch.zeros(4, 1, 8, 8), torch.zeros(4), "must be int64"),
        (torch.zeros(4, 1, 8, 8), torch.full((4,), 10), "from 0 to 9"),
    ],
)
def test_splits_of_the_wrong_form_are_refused(images: Tensor, labels: Tensor, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Splits("mine", 10, DIGITS.train, (images, labels), DIGITS.test)


def test_there_are_images_to_train_on_and_to_test_with() -> None:
    nothing = DIGITS.train[0][:0], DIGITS.train[1][:0]
    for train, test in ((nothing, DIGITS.test), (DIGITS.train, nothing)):
        with pytest.raises(SettingsError, match="with n > 0"):
            Splits("mine", 10, train, DIGITS.validation, test)


def test_what_is_held_out_can_be_trained_on_as_well_of_any_data() -> None:
    parts, joined = load("digits"), load("digits", 0)
    assert torch.equal(joined.train[0], torch.cat([parts.train[0], parts.validation[0]]))
    assert torch.equal(joined.train[1], torch.cat([parts.train[1], parts.validation[1]]))
    assert joined.validation[0].shape == (0, 1, 8, 8)
    assert torch.equal(joined.test[0], parts.test[0])
    assert joined.fingerprint != parts.fingerprint
