"""Back ends: the same trials from each, and what happens to trials that misbehave."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bonas_core.settings import Settings, parse_settings
from bonas_core.testing import timeless
from bonas_core.trials import Trial, TrialState
from bonas_core.trials.history import TrialHistory

pytestmark = pytest.mark.flow

UNRULY = '''
"""Trials that misbehave, each in its own way; others sum up their operations."""
import os, signal, threading
from bonas_core.evaluators.base import Outcome


class Unruly:
    objective, unit, direction, fingerprint = "toy", "fraction", "maximise", "unruly"

    def __init__(self, space, how=None):
        self.space, self.how = space, {int(trial): how for trial, how in (how or {}).items()}

    def evaluate(self, architecture, context):
        how = self.how.get(int(context.checkpoints.name), "well")
        been_here = context.checkpoints / "been-here"
        first = not been_here.exists()
        been_here.touch()
        if how == "hangs":
            threading.Event().wait()
        if how == "dies" or (how == "dies once" and first):
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "exhausts memory":
            raise MemoryError("no more")
        if how == "fails" or (how == "fails once" and first):
            raise RuntimeError("not today")
        if how == "waits":
            with open(context.checkpoints.parents[2] / "gate") as gate:
                gate.read()
        context.progress(1, {"objective": 0.5})
        metrics = {"threads": float(os.environ["OMP_NUM_THREADS"]), "pid": float(os.getpid())}
        return Outcome(len(set(architecture.operations)) / 10, metrics)
'''


@pytest.fixture
def unruly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of an evaluator that this process and its children can import."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "unruly.py").write_text(UNRULY)
    monkeypatch.syspath_prepend(tmp_path / "modules")
    sys.modules.pop("unruly", None)
    return "unruly:Unruly"


def settings_for(store: Path, trials: int = 9, **parts: Any) -> Settings:
    tree = {
        "evaluator": {"kind": "bonas_core.testing:ToyEvaluator"},
        "method": {"initial": 3, "retrain_every": 4, "batch": 2, "sampler": "random", "pool": 50},
        **({} if "name" in parts.get("method", {}) else {"predictor": {"epochs": 3, "width": 4, "layers": 1}}),
        "budget": {"trials": trials},
        "store": str(store),
        **parts,
    }
    return parse_settings(tree, "test")


def rows(store: Path, name: str) -> list[Trial]:
    return TrialHistory(store / name / "trials").trials()


def searched(settings: Settings, name: str) -> list[Trial]:
    from flows.search import search

    search(settings, search_id=name)
    assert settings.store is not None
    assert not list((Path(settings.store) / name / "dispatch").glob("*"))
    return rows(Path(settings.store), name)


def test_processes_make_the_trials_of_threads(store: Path) -> None:
    evaluator = {"kind": "bonas_core.testing:ToyEvaluator", "diverge_every": 3, "fail_every": 4}
    threads, processes = (
        searched(settings_for(store, evaluator=evaluator, dispatch={"backend": name, "slots": 2, "retries": 1}), name)
        for name in ("thread", "process")
    )
    assert timeless(threads) == timeless(processes)
    assert {trial.state for trial in threads} == {TrialState.DONE, TrialState.FAILED, TrialState.DIVERGED}


def test_trials_that_misbehave_end_failed_with_the_reason_and_stop_nothing(
    store: Path, unruly: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.dispatch.supervisor._DEATHS", 2)
    how = {0: "hangs", 1: "dies once", 2: "dies", 3: "exhausts memory", 4: "fails", 5: "fails once"}
    settings = settings_for(
        store,
        trials=8,
        evaluator={"kind": unruly, "how": how},
        method={"name": "random", "batch": 4},
        dispatch={"backend": "process", "slots": 2, "retries": 1, "trial_timeout": 1.0},
    )
    trials = searched(settings, "unruly")
    states = [str(trial.state) for trial in trials]
    assert states == ["FAILED", "DONE", "FAILED", "FAILED", "FAILED", "DONE", "DONE", "DONE"]
    errors = {trial.trial: str(trial.error) for trial in trials if trial.state is TrialState.FAILED}
    assert "longer than dispatch.trial_timeout, 1 s" in errors[0]
    assert "signal SIGKILL" in errors[2]
    assert "without finishing an epoch" in errors[2]
    assert errors[3].startswith("out of memory: MemoryError")
    assert errors[4] == "RuntimeError: not today"
    assert [trial.attempt for trial in trials] == [2, 1, 2, 2, 2, 2, 1, 1]  # a death by chance is no attempt
    done = [trial for trial in trials if trial.state is TrialState.DONE]
    assert {trial.metrics["threads"] for trial in done} == {1.0}
    assert os.getpid() not in {trial.metrics["pid"] for trial in done}


def test_asynchronous_trials_are_recorded_as_they_end_and_a_new_one_takes_the_free_slot(
    store: Path, unruly: str
) -> None:
    """Trial 0 ends only when trials 1 to 5 have been recorded: the slot beside it was given to each in turn."""
    from flows.running.observer import Observer, observing

    store.mkdir(parents=True)
    gate = store / "gate"
    os.mkfifo(gate)
    ended: list[int] = []

    class Gatekeeper(Observer):
        def trial_finished(self, trial: Trial) -> None:
            ended.append(trial.trial)
            if trial.trial == 5:
                os.close(os.open(gate, os.O_RDWR))  # trial 0 waits at the other end; this never does

    settings = settings_for(
        store,
        trials=8,
        evaluator={"kind": unruly, "how": {0: "waits"}},
        method={"name": "random"},
        dispatch={"backend": "process", "slots": 2, "mode": "asynchronous"},
    )
    with observing(Gatekeeper()):
        trials = searched(settings, "async")
    assert ended[:5] == [1, 2, 3, 4, 5]
    assert sorted(ended) == list(range(8))
    assert all(trial.state is TrialState.DONE for trial in trials)
    assert trials[5].proposed_at < trials[0].finished_at  # type: ignore[operator]


def test_a_trial_that_waits_for_a_slot_says_who_has_it_and_takes_it_when_its_holder_is_killed(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.running.reporting import show_search
    from flows.search import search
    from tasks.home.search_folder import SearchFolder

    monkeypatch.setenv("BONAS_SLOTS", str(tmp_path / "slots"))
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    hold = (
        "import sys; from tasks.dispatch.slots import Slot, taken\n"
        "with taken([Slot('cpu-0', 'cpu')], 'trial 7 of another search'):\n"
        "    print('held', flush=True); sys.stdin.read()\n"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    told: list[str] = []

    def write_status(self: Any, state: str, **details: Any) -> None:
        original(self, state, **details)
        if state == "waiting" and not told:
            told.extend(row["reason"] for row in show_search(SearchFolder(store / "waits"))["waiting"])
            holder.kill()

    from tasks.dispatch.assignment import Assignment

    original = Assignment.write_status
    monkeypatch.setattr(Assignment, "write_status", write_status)
    search(settings_for(store, trials=2, dispatch={"backend": "process"}), search_id="waits")
    holder.wait()
    assert f"cpu-0 (trial 7 of another search, process {holder.pid})" in told[0]
    assert [trial.state for trial in rows(store, "waits")] == [TrialState.DONE] * 2


def test_a_result_that_a_trainer_left_behind_is_recorded_and_not_evaluated_again(store: Path, unruly: str) -> None:
    from bonas_core.trials import TrialState
    from tasks.dispatch.assignment import Assignment

    settings = settings_for(
        store,
        trials=3,
        evaluator={"kind": unruly, "how": {1: "fails"}},
        method={"name": "random", "batch": 3},
        dispatch={"backend": "process", "retries": 0},
    )
    whole = searched(settings, "whole")
    assert whole[1].state is TrialState.FAILED
    # as after a kill: proposed, two of them recorded, and the third ended while nobody was there to record it
    killed = TrialHistory(store / "killed" / "trials")
    killed.propose([trial.with_changes(state=TrialState.PROPOSED, error=None, attempt=0) for trial in whole])
    (store / "killed" / "search.json").write_text((store / "whole" / "search.json").read_text())
    left = Assignment.of(store / "killed", 1)
    left.folder.mkdir(parents=True)
    left.write_result(whole[1].with_changes(state=TrialState.DONE, objective=0.25, error=None))
    trials = searched(settings, "killed")
    assert trials[1].objective == 0.25
    assert [trial.state for trial in trials] == [TrialState.DONE] * 3


@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_a_missing_extra_is_named_in_one_line_and_nothing_is_written(
    backend: str, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.command.app import exit_code

    monkeypatch.setitem(sys.modules, f"prefect_{backend}", None)
    assert exit_code(["search", "quickstart", "--store", str(store), "--set", f"dispatch.backend={backend}"]) == 2
    errors = capsys.readouterr().err
    assert f"pip install 'bonas[{backend}]'" in errors
    assert len(errors.splitlines()) == 1
    assert not store.exists()


@pytest.mark.slow  # a cluster takes ten seconds to start
@pytest.mark.parametrize("backend", ["dask", "ray"])
def test_clusters_make_the_trials_of_threads(backend: str, store: Path) -> None:
    pytest.importorskip(f"prefect_{backend}")
    evaluator = {"kind": "bonas_core.testing:ToyEvaluator", "diverge_every": 3, "fail_every": 4}
    parts = {"evaluator": evaluator, "trials": 7}
    threads = searched(settings_for(store, dispatch={"backend": "thread", "slots": 2, "retries": 1}, **parts), "thread")
    cluster = searched(settings_for(store, dispatch={"backend": backend, "slots": 2, "retries": 1}, **parts), backend)
    assert timeless(threads) == timeless(cluster)


def test_gpus_are_slots_with_one_visible_device_each(monkeypatch: pytest.MonkeyPatch) -> None:
    from tasks.dispatch.slots import slots_for

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,GPU-5e2")
    training = parse_settings({"evaluator": {"kind": "training", "threads": 4}}, "test")
    slots = slots_for(training)
    assert [(slot.name, slot.device) for slot in slots] == [("gpu-3", "cuda:0"), ("gpu-GPU-5e2", "cuda:1")]
    assert slots[1].environment(4)["CUDA_VISIBLE_DEVICES"] == "GPU-5e2"
    assert slots[1].environment(4)["OMP_NUM_THREADS"] == "4"
    table = parse_settings({"dispatch": {"slots": 3}}, "test")
    assert {slot.device for slot in slots_for(table)} == {"cpu"}
    on_cpu = parse_settings({"evaluator": {"kind": "training"}, "dispatch": {"device": "cpu"}}, "test")
    assert {slot.gpu for slot in slots_for(on_cpu)} == {None}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert {slot.device for slot in slots_for(training)} == {"cpu"}


def test_a_file_system_without_locks_is_told_rather_than_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bonas_core.errors import StoreError
    from tasks.dispatch.slots import Slot, taken

    def refuse(descriptor: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setenv("BONAS_SLOTS", str(tmp_path))
    monkeypatch.setattr("tasks.dispatch.slots.lock_descriptor", refuse)
    with (
        pytest.raises(StoreError, match=r"locks no files \(No locks available\)"),
        taken([Slot("cpu-0", "cpu")], "one"),
    ):
        pass


def test_trainings_in_several_processes_take_as_many_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bonas_core.errors import SettingsError
    from tasks.dispatch.slots import slots_for, taken

    monkeypatch.setenv("BONAS_SLOTS", str(tmp_path))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,4,5,6,7")
    single, double = (
        slots_for(parse_settings({"evaluator": {"kind": "training", "processes": count}}, "test")) for count in (1, 2)
    )
    assert [(slot.name, slot.device, slot.gpu) for slot in double] == [
        ("gpu-3+gpu-4", "cuda:0", "3,4"),
        ("gpu-5+gpu-6", "cuda:2", "5,6"),
    ]
    with taken(single, "one"), taken(double, "two") as (slot, descriptors):
        assert (slot.gpu, len(descriptors)) == ("5,6", 2)  # one of the first two is taken, and the other is left free
        with taken(single, "three") as (slot, _):
            assert slot.gpu == "4"
    with pytest.raises(SettingsError, match="each of 6 needs a GPU, and there are 5; set it to 5"):
        slots_for(parse_settings({"evaluator": {"kind": "training", "processes": 6}}, "test"))
