"""`predictor.kind` in settings, searches and model files."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bonas_core.errors import ModelError, SettingsError
from bonas_core.methods.bonas.model import read_model
from bonas_core.methods.bonas.predictors.lstm import LSTM
from bonas_core.methods.bonas.predictors.mlp import MLP
from bonas_core.methods.bonas.strategy import Bonas
from bonas_core.search import run
from bonas_core.settings import Settings, parse_settings
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.testing import timeless, toy_problem

SPACE = NASBench201()
SMALL: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "widths": [16, 8], "epochs": 5},
    "lstm": {"kind": "lstm", "width": 8, "epochs": 5},
    "pyg": {"kind": "pyg", "model": "GraphSAGE", "width": 8, "epochs": 5, "ensemble": 2},
}


def parse(recipe: str = "best", **predictor: object) -> Settings:
    return parse_settings({"method": {"recipe": recipe}, "predictor": predictor}, "test.yaml")


def built(**predictor: object) -> object:
    return toy_problem(predictor=predictor).strategy.learner.predictor


@pytest.mark.parametrize(("recipe", "loss"), [("best", "mse"), ("paper", "exp")])
def test_predictors_that_the_paper_compares_with_are_of_its_size(recipe: str, loss: str):
    mlp, lstm = parse(recipe, kind="mlp").predictor, parse(recipe, kind="lstm").predictor
    assert mlp.widths == (512, 2048, 2048, 512)
    assert lstm.width == 100
    for settings in (mlp, lstm):
        assert settings.learning_rate == 1e-3
        assert settings.loss == loss  # what it shares with gcn is the recipe's


def test_settings_reach_the_predictor():
    training = {"epochs": 7, "learning_rate": 0.5, "batch_size": 3, "ensemble": 2}
    assert built(kind="mlp", widths=[5, 4], **training) == MLP(widths=(5, 4), **training)
    assert built(kind="lstm", width=6, **training) == LSTM(width=6, **training)


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("mlp", "layers", 3),
        ("mlp", "width", 3),
        ("mlp", "readout", "global"),
        ("lstm", "layers", 3),
        ("lstm", "normalisation", "row"),
        ("lstm", "initialisation", "he"),
    ],
)
def test_a_setting_that_a_predictor_has_no_use_for_is_refused(kind: str, name: str, value: object):
    with pytest.raises(SettingsError, match=rf"`predictor\.{name}` is not a setting; use one of batch_size, "):
        parse(kind=kind, **{name: value})


@pytest.mark.parametrize("widths", [[], [0], ["many"], [5, -1]])
def test_widths_are_positive_numbers(widths: list[object]):
    with pytest.raises(SettingsError, match=r"`predictor\.widths"):
        parse(kind="mlp", widths=widths)


@pytest.mark.parametrize("kind", SMALL)
def test_a_stored_tree_means_what_it_meant(kind: str):
    settings = parse(**SMALL[kind])
    assert parse_settings(settings.tree(), "stored") == settings


@pytest.mark.parametrize("kind", SMALL)
def test_a_search_with_it_replays_and_its_model_predicts_the_same_when_read_back(kind: str, tmp_path: Path):
    method = {"sampler": "random", "pool": 50, "initial": 5, "retrain_every": 5}
    problem = toy_problem(14, method=method, predictor=SMALL[kind])
    log = run(problem)
    assert timeless(log.rows) == timeless(run(toy_problem(14, method=method, predictor=SMALL[kind])).rows)
    assert isinstance(problem.strategy, Bonas)
    model = problem.strategy.fit_model(log.trials, 0)
    model.write(tmp_path / "model")
    cells = SPACE.enumerate()[::100]
    again = read_model(tmp_path / "model")
    for a, b in zip(again.predict(SPACE, cells), model.predict(SPACE, cells), strict=True):
        np.testing.assert_array_equal(a, b)
        assert np.isfinite(a).all()


def test_a_model_file_never_names_code(tmp_path: Path):
    problem = toy_problem(14, method={"sampler": "random", "pool": 50}, predictor=SMALL["pyg"])
    model = problem.strategy.fit_model(run(problem).trials, 0)
    own = model.settings.model_copy(update={"model": "test_predictor_kinds:Trap"})
    replace(model, description=replace(model.description, settings=own)).write(tmp_path / "model")
    with pytest.raises(ModelError, match=r"predictor `test_predictor_kinds:Trap` is named by a model file"):
        read_model(tmp_path / "model").predict(SPACE, SPACE.enumerate()[:3])


class Trap:
    """Must not be made."""

    def __init__(self, *_: object) -> None:
        pytest.fail("code that a file names was run")
