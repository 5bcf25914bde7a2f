"""The presets of final trainings build the networks whose sizes the paper prints, and are the recipes of DARTS."""

from __future__ import annotations

from pathlib import Path

import pytest

import data
from bonas_core.image_training.trained import unfilled_network
from bonas_core.networks.published import IMAGES, PUBLISHED, architecture_of
from bonas_core.networks.size import network_size
from bonas_core.settings import Settings, TrainingSettings, parse_settings, parse_yaml
from bonas_core.spaces.nasnet import NASNet

FOLDER = Path(str(data.__file__)).parent


def preset(dataset: str, name: str) -> TrainingSettings:
    path = FOLDER / dataset / "presets" / f"{name}.yaml"
    settings: Settings = parse_settings(parse_yaml(path.read_text(), name), name)
    assert isinstance(settings.evaluator, TrainingSettings)
    return settings.evaluator


@pytest.mark.parametrize(
    ("dataset", "name", "classes", "auxiliary"),
    [("cifar10", "cifar10-final", 10, True), ("imagenet", "imagenet-mobile", 1000, True)],
)
def test_the_cell_of_the_paper_has_the_size_that_the_paper_prints(
    dataset: str, name: str, classes: int, auxiliary: bool
) -> None:
    options = preset(dataset, name).network.model_dump()
    kind = options.pop("kind") or "nasnet"
    network = unfilled_network(kind, architecture_of(NASNet(), "BONAS"), 3, classes, options)
    assert (network.auxiliary is not None) == auxiliary
    size, cell = network_size(network, IMAGES[dataset]), PUBLISHED["BONAS"]
    assert size.params == pytest.approx(1e6 * cell.params[dataset], rel=0.02)
    if dataset in cell.mult_adds:
        assert size.mult_adds == pytest.approx(1e6 * cell.mult_adds[dataset], rel=0.02)


def test_recipes_are_those_of_darts() -> None:
    cifar, imagenet = preset("cifar10", "cifar10-final"), preset("imagenet", "imagenet-mobile")
    assert (cifar.epochs, cifar.batch_size, cifar.learning_rate, cifar.schedule) == (600, 96, 0.025, "cosine")
    assert (cifar.weight_decay, cifar.augmentation.cutout, cifar.auxiliary_weight) == (3e-4, 16, 0.4)
    assert (imagenet.epochs, imagenet.batch_size, imagenet.learning_rate) == (250, 128, 0.1)
    assert (imagenet.schedule, imagenet.decay, imagenet.decay_epochs) == ("step", 0.97, 1)
    assert (imagenet.weight_decay, imagenet.label_smoothing, imagenet.auxiliary_weight) == (3e-5, 0.1, 0.4)
    for recipe in (cifar, imagenet):
        assert (recipe.momentum, recipe.nesterov, recipe.gradient_clip, recipe.validation_images) == (0.9, False, 5, 0)
