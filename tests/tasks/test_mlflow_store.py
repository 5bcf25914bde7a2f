"""What a real MLflow store holds of runs that are larger than one of MLflow's calls takes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from bonas_core.methods.bonas.model import FILE_NAME, PredictorModel
from bonas_core.methods.bonas.strategy import Bonas
from bonas_core.search import run
from bonas_core.settings import Settings, leaves, parse_settings
from bonas_core.testing import toy_problem

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

pytestmark = pytest.mark.flow

EPOCHS = 2345


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowClient]:
    """A client of an empty local store."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BONAS_HOME", str(tmp_path_factory.mktemp("home")))
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        from tasks.home.environment import home
        from tasks.mlflow_store.client import connect

        home().mkdir(exist_ok=True)
        yield connect(None)


@pytest.fixture(scope="module")
def model() -> PredictorModel:
    """A predictor that says it was trained for thousands of epochs."""
    problem = toy_problem(8, method={"sampler": "random", "pool": 20}, predictor={"epochs": 2, "width": 4, "layers": 1})
    strategy = problem.strategy
    assert isinstance(strategy, Bonas)
    model = strategy.fit_model(run(problem).trials, 0)
    weights = replace(model.fitted.weights, losses=tuple(1 / epoch for epoch in range(1, EPOCHS + 1)))
    return replace(model, fitted=replace(model.fitted, weights=weights))


def settings_for(**evaluator: Any) -> Settings:
    tree = {"evaluator": {"kind": "bonas_core.testing:ToyEvaluator", **evaluator}}
    return parse_settings(tree, "test")


def published(client: MlflowClient, model: PredictorModel, folder: Path, search_id: str) -> Run:
    """The run of a predictor that a search has published."""
    from tasks.mlflow_store.search_run import Tracker

    path = folder / "predictors" / "a-version" / FILE_NAME
    path.parent.mkdir(parents=True)
    model.write(path)
    tracker = Tracker(client, settings_for(), search_id, search_id, "toy-space")
    tracker.publish_predictor(path, model)
    query = f"tags.`mlflow.parentRunId` = '{tracker.run_id}'"
    (nested,) = client.search_runs([tracker.experiment_id], query)
    return nested


def parent_of(client: MlflowClient, settings: Settings, uid: str) -> Run:
    """The run of a search that has just begun."""
    from tasks.mlflow_store.search_run import Tracker

    return client.get_run(Tracker(client, settings, uid, uid, "toy-space").run_id)


def stored_settings(client: MlflowClient, run: Run, folder: Path) -> dict[str, Any]:
    """The settings as the run of a search keeps them whole."""
    return json.loads(Path(client.download_artifacts(run.info.run_id, "settings.json", str(folder))).read_text())


def test_the_losses_of_a_predictor_with_thousands_of_epochs_are_all_published(
    client: MlflowClient, model: PredictorModel, tmp_path: Path
) -> None:
    nested = published(client, model, tmp_path, "long")
    losses = client.get_metric_history(nested.info.run_id, "loss")
    assert [point.step for point in losses] == list(range(1, EPOCHS + 1))
    assert tuple(point.value for point in losses) == model.fitted.weights.losses
    assert {"alpha", "beta", "log_evidence", "trained_on"} <= nested.data.metrics.keys()


def test_a_predictor_whose_publishing_was_cut_off_is_published_again_without_doubles(
    client: MlflowClient, model: PredictorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: Any) -> None:
        raise ConnectionError("away")

    with monkeypatch.context() as patch:
        patch.setattr(type(client), "log_artifact", killed)
        with pytest.raises(ConnectionError):
            published(client, model, tmp_path / "first", "cut off")
    nested = published(client, model, tmp_path / "second", "cut off")
    assert len(client.get_metric_history(nested.info.run_id, "loss")) == EPOCHS


def test_settings_of_any_number_and_length_are_kept_whole(client: MlflowClient, tmp_path: Path) -> None:
    many = {f"option_{number}": number for number in range(250)}
    settings = settings_for(**many, middling="m" * 3000, long="l" * 20_000, **{"what?!": 1, "n" * 300: 2})
    run = parent_of(client, settings, "settings")
    parameters = run.data.params
    assert {f"evaluator.{name}": str(value) for name, value in many.items()}.items() <= parameters.items()
    assert parameters["evaluator.middling"] == "m" * 3000
    assert parameters["evaluator.long"].startswith("lll")
    assert parameters["evaluator.long"].endswith("... (20000 characters)")
    assert stored_settings(client, run, tmp_path) == settings.tree()


def test_parameters_that_a_dead_process_left_out_are_added_by_the_next(
    client: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*arguments: Any, **options: Any) -> None:
        raise ConnectionError("away")

    settings = settings_for(**{f"option_{number}": number for number in range(250)})
    with monkeypatch.context() as patch:
        patch.setattr(type(client), "log_batch", killed)
        with pytest.raises(ConnectionError):
            parent_of(client, settings, "dead")
    larger = settings.model_copy(update={"budget": settings.budget.model_copy(update={"trials": 1000})})
    parent_of(client, settings, "dead")
    run = parent_of(client, larger, "dead")
    expected = {name: str(value) for name, value in leaves(settings.tree()) if value is not None}
    assert run.data.params == expected


def test_more_predictors_than_a_page_of_runs_holds_are_known(
    client: MlflowClient, model: PredictorModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.mlflow_store import client as client_module
    from tasks.mlflow_store.search_run import Tracker

    monkeypatch.setattr(client_module, "_PAGE", 2)
    versions = [f"version-{number}" for number in range(5)]
    tracker = Tracker(client, settings_for(), "pages", "pages", "toy-space")
    path = tmp_path / FILE_NAME
    model.write(path)
    for version in versions:
        tracker.publish_predictor(path, replace(model, fitted=replace(model.fitted, version=version)))
    again = Tracker(client, settings_for(), "pages", "pages", "toy-space")
    assert all(map(again.is_published, versions))


def test_batches_are_logged_in_one_place_which_knows_the_limits() -> None:
    repository = Path(__file__).parents[2]
    files = [path for package in ("tasks", "flows") for path in (repository / package).rglob("*.py")]
    assert len(files) > 30
    logging = {
        path.name for path in files if re.search(r"client\.log_(batch|metrics|params)\(|set_tags\(", path.read_text())
    }
    assert logging == {"client.py"}
