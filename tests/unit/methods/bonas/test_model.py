import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from bonas_core.errors import ModelError
from bonas_core.methods.bonas.model import PredictorModel, read_model
from bonas_core.methods.bonas.strategy import Bonas
from bonas_core.search import SearchLog, run
from bonas_core.spaces.nasbench201 import NASBench201
from bonas_core.testing import ToyEvaluator, toy_problem

SPACE = NASBench201()
CELLS = SPACE.enumerate()[::100]


class Percent(ToyEvaluator):
    """The toy accuracy in percent."""

    unit = "percent"

    def evaluate(self, architecture, context):
        outcome = super().evaluate(architecture, context)
        return replace(outcome, objective=100 * outcome.objective)


class Loss(ToyEvaluator):
    """A figure to minimise."""

    unit = "nats"
    direction = "minimise"


def fitted(evaluator: str = "bonas_core.testing:ToyEvaluator", **predictor) -> tuple[PredictorModel, SearchLog]:
    problem = toy_problem(
        14,
        evaluator={"kind": evaluator},
        method={"sampler": "random", "pool": 50},
        predictor={"width": 8, "layers": 2, "epochs": 10, **predictor},
    )
    log = run(problem)
    strategy = problem.strategy
    assert isinstance(strategy, Bonas)
    return strategy.fit_model(log.trials, 0), log


@pytest.fixture(scope="module")
def model() -> PredictorModel:
    return fitted()[0]


@pytest.mark.parametrize("targets", ["rank", "standardise", "logit"])
@pytest.mark.parametrize("intercept", ["centre", "constant"])
def test_a_model_read_back_predicts_the_same(targets: str, intercept: str, tmp_path: Path):
    model, _ = fitted(targets=targets, intercept=intercept, ensemble=2)
    model.write(tmp_path / "model")
    again = read_model(tmp_path / "model")
    for a, b in zip(again.predict(SPACE, CELLS), model.predict(SPACE, CELLS), strict=True):
        np.testing.assert_array_equal(a, b)
    assert (again.settings, again.objective, again.description.vocabulary) == (
        model.settings,
        model.objective,
        model.description.vocabulary,
    )
    assert (again.fitted.version, again.fitted.trained_on) == (model.fitted.version, model.fitted.trained_on)
    assert again.fitted.weights.losses == model.fitted.weights.losses


def test_writing_a_model_read_back_gives_the_same_file(model: PredictorModel, tmp_path: Path):
    model.write(tmp_path / "a")
    read_model(tmp_path / "a").write(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(("evaluator", "factor"), [("test_model:Percent", 100), ("test_model:Loss", 1)])
def test_predictions_are_in_the_unit_of_the_objective(evaluator: str, factor: float):
    model, log = fitted(evaluator)
    mean, std = model.predict(SPACE, log.trials.genotypes)
    truth = np.array([trial.objective for trial in log.rows])
    assert np.corrcoef(mean, truth)[0, 1] > 0.5
    assert abs(mean - truth).mean() < 0.2 * factor
    assert (std > 0).all()
    assert (std < factor).all()


def test_a_model_refuses_another_space(model: PredictorModel):
    class Other(NASBench201):
        name = "other"

    with pytest.raises(ModelError, match=r"predictor of space `nasbench201` \(encoding 1\) cannot rank space `other`"):
        model.predict(Other(), CELLS)


def test_a_model_refuses_another_version_of_the_encoding(model: PredictorModel):
    class Newer(NASBench201):
        encoding_version = 2

    with pytest.raises(ModelError, match=r"cannot rank space `nasbench201` \(encoding 2\); name a model"):
        model.predict(Newer(), CELLS)


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ModelError, match="none` does not exist; only predictors registered by a search"):
        read_model(tmp_path / "none")


@pytest.mark.parametrize("keep", [0, 4, 100, 0.5, -1])
def test_a_truncated_file_is_refused(keep: float, model: PredictorModel, tmp_path: Path):
    path = tmp_path / "model"
    model.write(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if keep == 0.5 else int(keep)])
    refused(path)


def refused(path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_model(path)
    assert str(caught.value).startswith(f"model file `{path}` is not a predictor (")
    assert str(caught.value).endswith("; name a model registered by a search")
    assert "\n" not in str(caught.value)


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.mkdir, (self.path,)


def test_a_pickle_is_refused_and_never_run(tmp_path: Path):
    (tmp_path / "model").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    refused(tmp_path / "model")
    assert not (tmp_path / "sprung").exists()


def test_tensors_without_a_description_are_refused(tmp_path: Path):
    save_file({"x": np.zeros(3)}, tmp_path / "model")
    refused(tmp_path / "model")


def changed(model: PredictorModel, path: Path, old: str, new: str) -> None:
    """Writes a model with its description altered."""
    model.write(path)
    with safe_open(path, framework="numpy") as file:
        text = file.metadata()["bonas"]
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    assert old in text
    save_file(tensors, path, metadata={"bonas": text.replace(old, new)})


def test_another_format_is_refused(model: PredictorModel, tmp_path: Path):
    changed(model, tmp_path / "model", '"format": 1', '"format": 2')
    with pytest.raises(ModelError, match="has format 2, this release reads 1; upgrade"):
        read_model(tmp_path / "model")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"space"', '"place"'),
        ('"alpha"', '"alfa"'),
        ('"loss": "mse"', '"loss": "huber"'),
        ('"settings": {', '"settings": {"extra": 1, '),
        ('{"format"', '[{"format"'),
    ],
)
def test_a_description_that_is_not_understood_is_refused(old: str, new: str, model: PredictorModel, tmp_path: Path):
    changed(model, tmp_path / "model", old, new)
    refused(tmp_path / "model")


def test_a_file_larger_than_any_model_is_not_read(model: PredictorModel, tmp_path: Path, monkeypatch):
    model.write(tmp_path / "model")
    monkeypatch.setattr("bonas_core.storage.tensors._LARGEST", 100)
    with pytest.raises(ModelError, match=r"is not a predictor .* more than the 100 that such a file may have"):
        read_model(tmp_path / "model")
