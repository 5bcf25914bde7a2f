"""Outages, the nightly and weekly flows, and what is deployed."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from bonas_core.settings import Settings, parse_settings
from bonas_core.testing import timeless, toy_problem
from bonas_core.trials import Trial, TrialState
from bonas_core.trials.history import TrialHistory

pytestmark = pytest.mark.flow

ROOT = Path(__file__).parents[2]


def settings_for(store: Path, trials: int, **parts: Any) -> Settings:
    tree = {
        "evaluator": {"kind": "bonas_core.testing:ToyEvaluator"},
        "method": {"initial": 4, "retrain_every": 4, "sampler": "random", "pool": 50},
        **({} if "name" in parts.get("method", {}) else {"predictor": {"epochs": 3, "width": 4, "layers": 1}}),
        "budget": {"trials": trials},
        "store": str(store),
        **parts,
    }
    return parse_settings(tree, "test")


def test_servers_that_go_away_for_a_while_neither_end_a_search_nor_change_it(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.command.display import displayed
    from flows.search import SearchRun, search
    from tasks.mlflow_store.client import connect
    from tasks.mlflow_store.search_run import Tracker

    search(settings_for(store, 8), search_id="calm")
    failures = {"prefect": 2, "mlflow": 1}
    bo_round, log_trials = SearchRun.bo_round, Tracker.log_trials

    def round_without_prefect(self: Any, *arguments: Any, **options: Any) -> int:
        ended = bo_round.fn(self, *arguments, **options)
        if failures["prefect"]:
            failures["prefect"] -= 1
            raise RuntimeError("the end of the round could not be told") from httpx.ConnectError("refused")
        return int(ended)

    def without_mlflow(self: Tracker, *arguments: Any) -> None:
        if failures["mlflow"]:
            failures["mlflow"] -= 1
            raise ConnectionError("away")
        log_trials(self, *arguments)

    monkeypatch.setattr(SearchRun, "bo_round", round_without_prefect)
    monkeypatch.setattr(Tracker, "log_trials", without_mlflow)
    with displayed():
        result = search(settings_for(store, 8, tracking={"experiment": "stormy"}), search_id="stormy")
    assert result["state"] == "finished"
    errors = capsys.readouterr().err
    assert errors.count("the search pauses until its server is back") == 2
    assert errors.count("warning: MLflow: away") == 1
    calm, stormy = (timeless(TrialHistory(store / name / "trials").trials()) for name in ("calm", "stormy"))
    assert calm == stormy
    client = connect(None)
    experiment = client.get_experiment_by_name("stormy")
    assert experiment is not None
    (parent,) = client.search_runs([experiment.experiment_id], "tags.`bonas.kind` = 'search'")
    assert [point.step for point in client.get_metric_history(parent.info.run_id, "objective")] == list(range(8))


def test_an_error_that_is_no_outage_ends_the_search(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.search import SearchRun, search

    def broken(*arguments: Any, **options: Any) -> int:
        raise RuntimeError("a fault of the program")

    monkeypatch.setattr(SearchRun, "bo_round", broken)
    with pytest.raises(RuntimeError, match="a fault of the program"):
        search(settings_for(store, 8), search_id="broken")


def test_every_night_all_open_searches_gain_trials_and_every_week_their_predictor_is_refreshed(store: Path) -> None:
    from flows.search import search
    from flows.upkeep import continue_searches, refresh_predictor
    from tasks.mlflow_store.client import connect
    from tasks.mlflow_store.registry import CHAMPION

    random = {"method": {"name": "random"}}
    for name, seed, begun in (("one", 1, 6), ("two", 2, 10)):
        settings = settings_for(store, 40, seed=seed, **random)
        assert search(settings, search_id=name, more_trials=begun)["state"] == "paused"
    search(settings_for(store, 3, seed=3, **random), search_id="done")
    gained = continue_searches(str(store), trials=20)
    assert gained == {"one": {"state": "paused", "gained": 10}, "two": {"state": "paused", "gained": 10}}
    assert continue_searches(str(store), hours=1e-12) == {}
    result = refresh_predictor("nasbench201", str(store))
    assert 30 <= result["trials"] <= 39
    client = connect(None)
    version = client.get_model_version_by_alias("bonas-nasbench201", "refreshed")
    assert f"trained on {result['trials']} cells" in version.description
    assert float(version.tags["bonas.honest_score"]) == pytest.approx(result["honest_score"], abs=1e-6)
    champion = client.get_model_version_by_alias("bonas-nasbench201", CHAMPION)
    assert (champion.version == version.version) == result["promoted"]


DONE, DIVERGED = TrialState.DONE, TrialState.DIVERGED


def trials_of(states: list[TrialState], constant: bool = False) -> list[Trial]:
    """Trials of random cells that ended in these ways."""
    space = toy_problem().space
    cells = space.format(space.enumerate()[:: len(space.enumerate()) // max(len(states), 1)][: len(states)])
    objectives = [None if state is not DONE else 0.5 if constant else place / 100 for place, state in enumerate(states)]
    return [
        Trial(place, place, cell, cell, state, objective=objective)
        for place, (cell, state, objective) in enumerate(zip(cells, states, objectives, strict=True))
    ]


@pytest.mark.parametrize(
    ("states", "constant"),
    [
        ([], False),
        ([DONE], False),
        ([DIVERGED] * 40, False),
        ([DONE] * 32 + [DIVERGED] * 8, False),
        ([DIVERGED] * 32 + [DONE] * 8, False),
        ([DONE] * 40, True),
    ],
    ids=["no trial", "one", "all diverged", "later diverged", "earlier diverged", "constant"],
)
def test_a_predictor_has_no_score_where_trials_tell_nothing(states: list[TrialState], constant: bool) -> None:
    from flows.upkeep import holdout_score

    problem = toy_problem(
        method={"sampler": "random", "initial": 2, "retrain_every": 1},
        predictor={"epochs": 2, "width": 4, "layers": 1},
    )
    trials = trials_of(states, constant)
    assert holdout_score(problem, trials, len(trials) * 4 // 5) is None


@pytest.mark.parametrize("trouble", ["diverge_every", "fail_every"])
def test_nothing_is_learnt_from_searches_that_found_nothing(trouble: str, store: Path) -> None:
    from flows.search import search
    from flows.upkeep import refresh_predictor

    evaluator = {"kind": "bonas_core.testing:ToyEvaluator", trouble: 1}
    parts = {"method": {"name": "random"}, "evaluator": evaluator, "dispatch": {"retries": 0}}
    search(settings_for(store, 32, **parts), search_id="barren")
    trials = 32 if trouble == "diverge_every" else 0
    assert refresh_predictor("nasbench201", str(store)) == {"trials": trials, "promoted": False}
    assert refresh_predictor("darts", str(store)) == {"trials": 0, "promoted": False}


def test_a_damaged_search_keeps_no_other_from_going_on_or_being_learnt_from(store: Path) -> None:
    from flows.search import search
    from flows.upkeep import continue_searches, gathered

    random = {"method": {"name": "random"}}
    for name in ("healed", "lost", "whole"):
        settings = settings_for(store, 12, seed=len(name), **random)
        assert search(settings, search_id=name, more_trials=8)["state"] == "paused"
    (store / "lost" / "search.json").write_text("{")
    part = next((store / "healed" / "trials").glob("trial-*.parquet"))
    part.write_bytes(part.read_bytes()[:-20])
    warnings: list[str] = []
    _, trials = gathered(store, "nasbench201", warnings.append)
    assert len(trials) == 8
    assert [line.split()[1] for line in warnings] == ["healed", "lost"]
    gained = continue_searches(str(store), trials=12)
    assert gained["whole"] == gained["healed"] == {"state": "finished", "gained": 4}
    assert gained["lost"]["gained"] == 0


def test_every_deployment_names_a_flow_and_fits_its_parameters() -> None:
    from prefect.flows import load_flow_from_entrypoint

    deployments = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    names = {deployment["name"] for deployment in deployments}
    assert names == {
        "search",
        "continue-searches",
        "refresh-predictor",
        "train-trial",
        "train",
        "open-domain",
        "rank-architectures",
    }
    for deployment in deployments:
        flow = load_flow_from_entrypoint(deployment["entrypoint"])
        assert flow.name == deployment["name"]
        if deployment["parameters"]:
            flow.validate_parameters(deployment["parameters"])


def test_the_form_of_a_search_has_choices_limits_and_descriptions() -> None:
    from prefect.utilities.callables import parameter_schema

    from flows.search import search

    schema = parameter_schema(search.fn).model_dump_for_openapi()
    dispatch = schema["definitions"]["DispatchSettings"]["properties"]
    assert {"thread", "process", "dask", "ray", "work-pool"} < set(dispatch["backend"]["enum"])
    assert dispatch["backend"]["description"]
    assert dispatch["slots"]["minimum"] == 1
    assert schema["definitions"]["BudgetSettings"]["properties"]["trials"]["minimum"] == 1
    assert all(schema["properties"][name]["description"] for name in ("settings", "search_id", "more_trials"))


@pytest.mark.slow  # servers, workers, and processes that have to come back
def test_a_search_on_a_work_pool_survives_kills_of_everything_it_consists_of(tmp_path: Path) -> None:
    """q = 2; every kind of victim once: the history equals that of the plain driver."""
    report = tmp_path / "report.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--json", str(report)]
    options = ["--kills", "4", "--victims", "trainer,worker,search,flow run", "--trials", "6", "--epochs", "10"]
    done = subprocess.run([*command, *options], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(report.read_text())
    assert found["equal"]
    assert found["lost"] == found["evaluated_twice"] == 0
    assert sum(found["kills"].values()) == 4


@pytest.mark.slow
def test_up_serves_on_loopback_until_it_is_interrupted_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BONAS_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PREFECT_API_URL")
    monkeypatch.delenv("PREFECT_HOME")
    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(probe.getsockname()[1])
    command = [sys.executable, "-m", "flows.command", "up", "--port", str(ports[0]), "--mlflow-port", str(ports[1])]
    up = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert up.stdout is not None
    assert up.stdout.readline() == f"Prefect     http://127.0.0.1:{ports[0]}\n", up.stderr
    pools = httpx.post(f"http://127.0.0.1:{ports[0]}/api/work_pools/filter", json={}, trust_env=False).json()
    assert {pool["name"] for pool in pools} == {"bonas", "bonas-trials"}
    assert httpx.get(f"http://127.0.0.1:{ports[1]}/health", trust_env=False).status_code == 200
    listening = subprocess.run(["ss", "-ltnH"], capture_output=True, text=True).stdout.split()
    assert not {f"0.0.0.0:{port}" for port in ports} & set(listening)
    up.send_signal(signal.SIGINT)
    up.wait()
    assert up.returncode == 130
    for port in ports:  # closed connections may keep a port from being bound for a minute, though nobody listens
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
