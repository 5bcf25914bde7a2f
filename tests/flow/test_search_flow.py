"""The search flow against the plain driver, under real Prefect and MLflow."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bonas_core.problem import build
from bonas_core.search import run
from bonas_core.settings import Settings, parse_settings
from bonas_core.testing import timeless
from bonas_core.trials import TrialState
from bonas_core.trials.history import TrialHistory

pytestmark = pytest.mark.flow

TOY = "bonas_core.testing:ToyEvaluator"
QUICK = {"epochs": 5, "width": 8, "layers": 2}
METHODS: dict[str, dict[str, Any]] = {
    "best": {"method": {"initial": 5, "retrain_every": 4}, "predictor": QUICK},
    "paper": {"method": {"recipe": "paper", "initial": 5, "retrain_every": 4, "pool": 50}, "predictor": QUICK},
    "batches": {"method": {"initial": 5, "retrain_every": 4, "batch": 3}, "predictor": QUICK},
    "controller": {
        "method": {
            "initial": 5,
            "retrain_every": 3,
            "batch": 2,
            "sampler": "reinforce",
            "pool": 50,
            "controller": {"units": 8, "samples": 40},
        },
        "predictor": QUICK,
    },
    "random": {"method": {"name": "random"}},
    "evolution": {"method": {"name": "regularised-evolution", "population": 5}},
    "failures": {
        "evaluator": {"kind": TOY, "fail_every": 5, "diverge_every": 3},
        "method": {"initial": 8, "retrain_every": 4},
        "predictor": QUICK,
        "dispatch": {"retries": 1},
    },
}


def settings_for(store: Path, trials: int = 14, **parts: Any) -> Settings:
    tree = {"evaluator": {"kind": TOY}, "budget": {"trials": trials}, "store": str(store), **parts}
    return parse_settings(tree, "test")


def comparable(history: TrialHistory) -> list[dict[str, Any]]:
    return timeless(history.trials())


@pytest.mark.parametrize("method", METHODS)
def test_the_flow_makes_the_trials_of_the_plain_driver(method: str, store: Path, tmp_path: Path) -> None:
    from flows.search import search

    settings = settings_for(store, **METHODS[method])
    result = search(settings, search_id="flow")
    plain = TrialHistory(tmp_path / "plain")
    run(build(settings), plain)
    assert result["state"] == "finished"
    assert comparable(TrialHistory(store / "flow" / "trials")) == comparable(plain)
    if method == "failures":
        states = {trial.state for trial in plain.trials()}
        assert {TrialState.FAILED, TrialState.DIVERGED, TrialState.DONE} == states


def test_threads_make_the_trials_of_one_slot(store: Path) -> None:
    from flows.search import search

    method = METHODS["batches"]
    search(settings_for(store, **method), search_id="one")
    search(settings_for(store, **method, dispatch={"backend": "thread", "slots": 3}), search_id="three")
    assert comparable(TrialHistory(store / "one" / "trials")) == comparable(TrialHistory(store / "three" / "trials"))


def test_a_search_goes_on_elsewhere_with_more_slots_as_if_nothing_had_changed(store: Path, services: Path) -> None:
    from flows.search import search
    from tasks.mlflow_store.client import connect

    method = METHODS["batches"]
    search(settings_for(store, **method), search_id="through")
    paused = search(settings_for(store, **method), search_id="moved", more_trials=8)
    assert paused["state"] == "paused"
    uri = f"sqlite:///{services / 'elsewhere.db'}"
    parts = {**method, "dispatch": {"backend": "thread", "slots": 3}, "tracking": {"uri": uri}}
    assert search(settings_for(store, **parts), search_id="moved")["state"] == "finished"
    assert comparable(TrialHistory(store / "moved" / "trials")) == comparable(
        TrialHistory(store / "through" / "trials")
    )
    client = connect(uri)
    experiment = client.get_experiment_by_name("bonas-nasbench201")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`bonas.kind` = 'search'")
    assert [point.step for point in client.get_metric_history(parent.info.run_id, "objective")] == list(range(14))


def test_mlflow_holds_the_search_its_predictors_and_a_champion(store: Path) -> None:
    from flows.search import search
    from tasks.mlflow_store.client import connect
    from tasks.mlflow_store.registry import CHAMPION

    settings = settings_for(store, trials=21, **{**METHODS["best"], "tracking": {"experiment": "tracked"}})
    search(settings, search_id="tracked")
    client = connect(None)
    experiment = client.get_experiment_by_name("tracked")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    parents = [found for found in runs if found.data.tags.get("bonas.kind") == "search"]
    nested = [found for found in runs if "mlflow.parentRunId" in found.data.tags]
    assert len(parents) == 1
    assert parents[0].info.status == "FINISHED"
    assert parents[0].data.params["method.retrain_every"] == "4"
    curve = client.get_metric_history(parents[0].info.run_id, "best_objective")
    assert [point.step for point in curve] == list(range(21))
    assert all(a.value <= b.value for a, b in pairwise(curve))
    trained_on = sorted(found.data.metrics["trained_on"] for found in nested)
    assert trained_on == [5, 9, 13, 17]
    for found in nested:
        assert found.data.tags["mlflow.parentRunId"] == parents[0].info.run_id
        assert len(client.get_metric_history(found.info.run_id, "loss")) == QUICK["epochs"]
        assert {"alpha", "beta", "log_evidence"} <= found.data.metrics.keys()
        versions = client.search_model_versions(f"run_id = '{found.info.run_id}'")
        assert [version.name for version in versions] == ["bonas-nasbench201"]
    assert client.get_model_version_by_alias("bonas-nasbench201", CHAMPION)


def test_the_champion_moves_only_to_a_better_honest_score(store: Path) -> None:
    from bonas_core.methods.bonas.model import read_model
    from flows.search import search
    from tasks.home.search_folder import search_folder
    from tasks.mlflow_store.client import connect
    from tasks.mlflow_store.registry import CHAMPION, registered_name
    from tasks.mlflow_store.search_run import HonestScore, Tracker

    settings = settings_for(store, trials=14, **METHODS["best"])
    search(settings, search_id="scored")
    client = connect(None)
    folder = search_folder("scored", str(store))
    tracker = Tracker(client, settings, "another", "a-name-of-its-own", "toy-space")
    paths = sorted(folder.predictors.glob("*/*.safetensors"))
    models = [read_model(path) for path in paths]
    for path, model in zip(paths, models, strict=True):
        tracker.publish_predictor(path, model)

    def champion() -> str:
        return str(client.get_model_version_by_alias(registered_name("toy-space"), CHAMPION).tags["bonas.predictor"])

    first, second, third = (model.fitted.version for model in models)
    assert champion() == first
    assert tracker.score_predictor(second, HonestScore(0.5, 10))
    assert champion() == second
    assert not tracker.score_predictor(third, HonestScore(0.4, 10))
    assert not tracker.score_predictor(first, HonestScore(0.6, 5))  # higher, but of so few trials that it may be luck
    assert champion() == second
    assert tracker.score_predictor(third, HonestScore(0.7, 10))
    assert champion() == third


def test_a_paused_search_does_not_stay_running_in_mlflow(store: Path) -> None:
    from tasks.mlflow_store.client import connect
    from tasks.mlflow_store.search_run import Tracker

    client = connect(None)
    tracker = Tracker(client, settings_for(store), "paused", "uid-of-a-paused-search", "toy-space")
    for state, status in (("paused", "SCHEDULED"), ("failed", "FAILED"), ("finished", "FINISHED")):
        tracker.set_state(state, {"evaluations": 3.0})
        assert client.get_run(tracker.run_id).info.status == status


def test_going_on_publishes_nothing_twice(store: Path) -> None:
    from flows.search import search
    from tasks.mlflow_store.client import connect

    parts = {**METHODS["best"], "tracking": {"experiment": "twice"}}
    search(settings_for(store, trials=10, **parts), search_id="twice")
    search(settings_for(store, trials=14, **parts), search_id="twice")
    client = connect(None)
    experiment = client.get_experiment_by_name("twice")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert sorted(found.data.metrics.get("trained_on", 0) for found in runs) == [0, 5, 9, 13]
    parent = next(found for found in runs if found.data.tags.get("bonas.kind") == "search")
    steps = [point.step for point in client.get_metric_history(parent.info.run_id, "objective")]
    assert steps == list(range(14))


def test_a_search_goes_on_without_its_tracking_server_and_publishes_later(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.command.display import displayed
    from flows.search import search
    from tasks.home.environment import local_tracking_uri
    from tasks.mlflow_store.client import connect

    absent = {"uri": "http://127.0.0.1:9", "experiment": "late"}
    with displayed():
        result = search(settings_for(store, trials=8, **METHODS["best"], tracking=absent), search_id="late")
    assert result["state"] == "finished"
    assert capsys.readouterr().err.count("warning: MLflow") == 1
    manifest = store / "late" / "search.json"
    stored = json.loads(manifest.read_text())
    stored["settings"]["tracking"]["uri"] = local_tracking_uri()
    manifest.write_text(json.dumps(stored))
    present = {"uri": local_tracking_uri(), "experiment": "late"}
    search(settings_for(store, trials=8, **METHODS["best"], tracking=present), search_id="late")
    client = connect(None)
    experiment = client.get_experiment_by_name("late")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 2  # the search and its one predictor


def test_artifacts_show_progress_leaderboard_and_summary(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.artifacts import Artifact
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from flows.search import search

    monkeypatch.setattr("flows.running.artifacts._EVERY_S", 0.0)  # after every round
    search(settings_for(store, trials=8, **METHODS["random"]), search_id="Shown_1")
    progress = Artifact.get("progress-shown-1")
    assert progress is not None
    assert progress.data == 100
    assert progress.description == "8 of 8 trials of Shown_1"
    leaders = Artifact.get("leaderboard-shown-1")
    assert leaders is not None
    table = json.loads(str(leaders.data))
    objectives = {trial.architecture: trial.objective for trial in TrialHistory(store / "Shown_1" / "trials").trials()}
    assert [row["rank"] for row in table] == list(range(1, 9))
    assert {row["architecture"].strip("`"): row["objective"] for row in table} == pytest.approx(objectives, rel=1e-5)
    report = store / "Shown_1" / "report" / "report.html"
    summary = Artifact.get("summary-shown-1")
    assert summary is not None
    assert f"Report: `{report}`" in str(summary.data)
    assert report.stat().st_size > 1000
    with get_client(sync_client=True) as client:
        made = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(like_="%-shown-1")))
    assert len(made) == 3  # each is changed in place


def test_the_report_stands_beside_the_run_in_mlflow(store: Path) -> None:
    from flows.search import search
    from tasks.mlflow_store.client import connect

    search(settings_for(store, trials=3, **METHODS["random"], tracking={"experiment": "told"}), search_id="told")
    client = connect(None)
    experiment = client.get_experiment_by_name("told")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert [found.path for found in client.list_artifacts(run.info.run_id, "report")] == ["report/report.html"]


def test_runs_have_names_that_a_person_understands(store: Path) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName

    from flows.search import search

    search(settings_for(store, trials=7, **METHODS["best"]), search_id="named")
    with get_client(sync_client=True) as client:
        names = FlowRunFilter(name=FlowRunFilterName(like_="named"))
        found = {flow_run.name for flow_run in client.read_flow_runs(flow_run_filter=names)}
    assert {"named", "named · round 0", "named · round 1", "named · round 2"} <= found


def test_a_damaged_predictor_is_trained_again(store: Path) -> None:
    from flows.search import search

    search(settings_for(store, trials=7, **METHODS["best"]), search_id="damaged")
    search(settings_for(store, trials=7, **METHODS["best"]), search_id="intact")
    for path in (store / "damaged" / "predictors").glob("*/*.safetensors"):
        path.write_bytes(path.read_bytes()[:50])
    for name in ("damaged", "intact"):
        search(settings_for(store, trials=11, **METHODS["best"]), search_id=name)
    assert comparable(TrialHistory(store / "damaged" / "trials")) == comparable(
        TrialHistory(store / "intact" / "trials")
    )


def test_a_sampler_goes_on_from_what_is_stored_and_learns_again_what_is_damaged(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bonas_core.methods.samplers.reinforce import ReinforceSampler
    from flows.search import search

    updates: list[int] = []
    update = ReinforceSampler.update
    monkeypatch.setattr(ReinforceSampler, "update", lambda *args: updates.append(1) or update(*args))
    parts = METHODS["controller"]
    plain = TrialHistory(tmp_path / "plain")
    run(build(settings_for(store, trials=13, **parts)), plain)
    assert len(updates) == 4  # at 5, 7, 9 and 11 trials
    folder = store / "learning" / "samplers"

    def updates_to(trials: int) -> int:
        updates.clear()
        search(settings_for(store, trials=trials, **parts), search_id="learning")
        return len(updates)

    assert updates_to(9) == 2
    assert [path.name[:6] for path in sorted(folder.iterdir())] == ["000005", "000007"]
    newest = max(folder.iterdir())
    newest.write_bytes(newest.read_bytes()[:99])
    assert updates_to(11) == 2  # at 7 again, from what was learnt at 5
    assert [path.name[:6] for path in sorted(folder.iterdir())] == ["000007", "000009"]
    assert updates_to(13) == 1
    assert comparable(TrialHistory(store / "learning" / "trials")) == comparable(plain)
