"""Every write of a small search fails once in every way there is; resumed, the search ends as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from bonas_core import search
from bonas_core.errors import StoreError
from bonas_core.methods.bonas.strategy import Bonas
from bonas_core.problem import Problem
from bonas_core.search import SearchLog, StopRule, next_step, run
from bonas_core.storage import make_folder, remove_folder, remove_unfinished, single_writer, write_whole
from bonas_core.storage.disk import disk
from bonas_core.testing import Crash, Kind, ToyTraining, damage, faulty_disk, timeless, toy_problem
from bonas_core.testing.faults import KINDS
from bonas_core.trials import Trial, TrialState
from bonas_core.trials.history import TrialHistory
from tasks.home.search_folder import SearchFolder

TRAINING = {"evaluator": {"kind": "bonas_core.testing:ToyTraining"}, "dispatch": {"retries": 0}}
RANDOM = {**TRAINING, "method": {"name": "random"}}
LEARNING = {
    **TRAINING,
    "method": {
        "initial": 3,
        "retrain_every": 2,
        "batch": 2,
        "sampler": "reinforce",
        "pool": 20,
        "controller": {"units": 4, "samples": 10},
    },
    "predictor": {"layers": 1, "width": 4, "epochs": 1},
}
MANIFEST = {
    "uid": "u",
    "created_at": "2026-01-01T00:00:00+00:00",
    "fingerprint": "f",
    "space": "nasbench201",
    "seed": 0,
    "settings": {
        "space": "nasbench201",
        "method": {"name": "bonas"},
        "budget": {"trials": 6},
        "dispatch": {"slots": 1},
    },
    "objective": {"name": "toy", "unit": "fraction", "direction": "maximise"},
    "versions": {},
    "mlflow": {},
}


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr("bonas_core.trials.history._COMPACT_AT", 4)
    monkeypatch.setattr("bonas_core.registry.entry_points", cache(entry_points))  # half of the time otherwise
    monkeypatch.setattr(ToyTraining, "trained", [])


@cache
def random_problem(trials: int) -> Problem:
    return toy_problem(trials, **RANDOM)


def work(folder: SearchFolder, trials: int, parts: dict) -> list[Trial]:
    """What the search flow does, without orchestration: starts a search or goes on with it."""
    problem = random_problem(trials) if parts is RANDOM else toy_problem(trials, **parts)
    make_folder(folder.path)
    with single_writer(folder.path):
        if not folder.exists():
            folder.write(MANIFEST)
        folder.read()
        folder.write_state("running")
        remove_unfinished(folder.path)
        history = TrialHistory(folder.trials)
        log, rule = SearchLog(problem, history), StopRule(problem)
        while not (step := next_step(problem, log, rule)).stop:
            chosen = step.evaluate
            if step.propose:
                chosen = log.propose(choose(problem, folder, log, step.propose), 0.0)
            for trial in chosen:
                checkpoints = folder.checkpoints / str(trial.trial)
                log.finish(search.evaluate(problem.evaluator, trial, checkpoints=make_folder(checkpoints)))
                remove_folder(checkpoints)
                history.compact_if_large()
        folder.write_state("finished")
    return log.rows


def choose(problem, folder: SearchFolder, log: SearchLog, count: int):
    strategy, trials, seed = problem.strategy, log.trials, problem.settings.seed
    if isinstance(strategy, Bonas) and not strategy.is_initial(trials):
        from tasks.round import predictor_path, retrain_predictor, update_sampler

        version, size = strategy.predictor_version(trials, seed), strategy.training_size(trials)
        if not strategy.has(version):
            path = predictor_path(folder.predictors, size, version)
            retrain_predictor.fn(problem, strategy, trials, seed, path)
        update_sampler.fn(strategy, trials, seed, folder.samplers)
    return strategy.propose(trials, count, seed)


def sweep(root: Path, trials: int, parts: dict, all_kinds: bool) -> Counter[str]:
    """Fails every operation of a search in every way, or one by turns; returns how often each kind was tried."""
    with faulty_disk() as counted:
        expected = timeless(work(SearchFolder(root / "whole" / "search"), trials, parts))
    ToyTraining.trained.clear()
    tried: Counter[str] = Counter()
    failures = []
    for number, point in enumerate(counted.points):
        kinds = KINDS[point.partition(" ")[0]]
        turn = sum(earlier.partition(" ")[0] == point.partition(" ")[0] for earlier in counted.points[:number])
        for kind in kinds if all_kinds else [kinds[turn % len(kinds)]]:
            folder = SearchFolder(root / f"{number}-{kind}" / "search")
            with faulty_disk(number, kind) as faulty, suppress(Crash, StoreError):
                work(folder, trials, parts)
            assert faulty.failed is not None
            assert faulty.failed[:25] == point[:25]  # a merged part is named by its content, in which times differ
            recorded = {t.seed for t in TrialHistory(folder.trials).trials() if t.state.is_finished}
            before = len(ToyTraining.trained)
            work(folder, trials, parts)
            again = [trained for trained in ToyTraining.trained[before:] if trained[0] in recorded]
            twice = len(ToyTraining.trained) - len(set(ToyTraining.trained))
            left = [path for path in folder.path.rglob("*") if path.suffix in (".tmp", ".corrupt")]
            right = timeless(TrialHistory(folder.trials).trials()) == expected
            if not right or again or twice > 1 or left:  # an epoch whose checkpoint was not written is trained again
                failures.append((point, kind, right, again, twice, left))
            tried[kind] += 1
            ToyTraining.trained.clear()
            remove_folder(folder.path)
    print(
        f"\n{len(counted.points)} fault points, {len(tried)} kinds, {tried.total()} faults ("
        + ", ".join(f"{count} {kind}" for kind, count in sorted(tried.items()))
        + f"), {len(failures)} failures"
    )
    assert failures == []
    return tried


def test_a_search_survives_any_single_fault_of_any_write(tmp_path: Path):
    tried = sweep(tmp_path, 3, RANDOM, all_kinds=False)
    assert set(tried) == {kind for kinds in KINDS.values() for kind in kinds}
    assert tried.total() > 80


@pytest.mark.slow  # every kind at every point, with predictors, states of a sampler, rounds of several trials
@pytest.mark.parametrize(("trials", "parts"), [(4, RANDOM), (5, LEARNING)], ids=["random", "learning"])
def test_a_search_survives_every_single_fault_of_every_write(trials: int, parts: dict, tmp_path: Path):
    assert sweep(tmp_path, trials, parts, all_kinds=True).total() > 300


@pytest.mark.parametrize("how", ["empty", "truncate", "flip", "junk"])
def test_a_damaged_part_is_set_aside_and_its_trials_are_done_again(how: str, tmp_path: Path):
    whole = work(SearchFolder(tmp_path / "whole"), 6, RANDOM)
    names = [part.name for part in TrialHistory(tmp_path / "whole" / "trials").parts()]
    assert any(name.startswith("compacted") for name in names)
    for name in names:
        folder = SearchFolder(tmp_path / name)
        work(folder, 6, RANDOM)
        ToyTraining.trained.clear()
        part = folder.trials / name
        if not part.exists():  # a merged part is named by its content, in which times differ
            part = next(folder.trials.glob("compacted*"))
        damage(part, how)
        with pytest.raises(StoreError, match=f"{part.stem}.*cannot be read"):
            TrialHistory(folder.trials).trials()
        left = TrialHistory(folder.trials)
        assert [path.name for path in folder.trials.glob("*.corrupt")] == []
        with pytest.warns(UserWarning, match=rf"set aside as `.*/{part.name}\.corrupt`: it is damaged"):
            rows = run(toy_problem(6, **RANDOM), left, folder.checkpoints).rows
        assert timeless(rows) == timeless(whole)
        assert timeless(TrialHistory(folder.trials).trials()) == timeless(whole)
        assert len(ToyTraining.trained) == len(set(ToyTraining.trained))


def test_a_fault_is_the_one_that_was_asked_for(tmp_path: Path):
    write_whole(tmp_path / "file", b"old")
    for kind, content in [
        (Kind.ERROR, b"old"),
        (Kind.NO_SPACE, b"old"),
        (Kind.CRASH_BEFORE, b"old"),
        (Kind.CRASH_AFTER, b"new!"),
    ]:
        with faulty_disk("rename fi*", kind) as faulty, pytest.raises((Crash, StoreError)) as caught:
            write_whole(tmp_path / "file", b"new!")
        assert (tmp_path / "file").read_bytes() == content
        assert faulty.points[:4] == ["create file", "write file", "sync file", "rename file"]
        assert faulty.failed == "rename file"
        if kind is Kind.NO_SPACE:
            assert "No space left on device; free space or choose another store" in str(caught.value)
        died = isinstance(caught.value, Crash)
        assert len(list(tmp_path.glob(".*.tmp"))) == (kind is Kind.CRASH_BEFORE)
        assert died == (kind in (Kind.CRASH_BEFORE, Kind.CRASH_AFTER))
        for path in tmp_path.glob(".*.tmp"):
            path.unlink()
    for kind, left in ((Kind.SHORT_WRITE, []), (Kind.CRASH_WITHIN, [b"ne"])):
        with faulty_disk(1, kind), pytest.raises((Crash, StoreError)):
            write_whole(tmp_path / "file", b"new!")
        assert [path.read_bytes() for path in tmp_path.glob(".*.tmp")] == left
    assert type(disk()).__name__ == "Disk"


SEARCH = """
import sys
from bonas_core.trials.history import TrialHistory
from bonas_core.search import run
from bonas_core.testing import toy_problem
run(toy_problem(4, method={"name": "random"}), TrialHistory(sys.argv[1]))
"""


@pytest.mark.parametrize(("kind", "finished"), [("kill-before", 2), ("kill-after", 3)])
def test_a_process_is_killed_at_a_named_point(kind: str, finished: int, tmp_path: Path):
    (tmp_path / "searching.py").write_text(SEARCH)
    point = "rename trial-000002.parquet"
    command = [sys.executable, "-m", "bonas_core.testing.faults", point, kind, "searching", str(tmp_path / "trials")]
    paths = os.pathsep.join([str(Path(__file__).parents[3]), str(tmp_path)])
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    trials = TrialHistory(tmp_path / "trials").trials()
    assert sum(trial.state is TrialState.DONE for trial in trials) == finished
    whole = run(toy_problem(4, method={"name": "random"}), TrialHistory(tmp_path / "trials")).rows
    assert timeless(whole) == timeless(run(toy_problem(4, method={"name": "random"})).rows)


@pytest.mark.parametrize(
    ("trouble", "state", "error"),
    [
        ("fail", TrialState.FAILED, "RuntimeError: this trial fails on purpose"),
        ("nan", TrialState.DIVERGED, "the evaluator returned nan"),
        ("exhaust", TrialState.FAILED, "out of memory: MemoryError"),
        ("diverge", TrialState.DIVERGED, "this trial diverges on purpose"),
    ],
)
def test_evaluators_misbehave_as_they_are_told(trouble: str, state: TrialState, error: str):
    log = run(toy_problem(6, method={"name": "random"}, evaluator={f"{trouble}_every": 2}))
    bad = [trial for trial in log.rows if trial.seed % 2 == 0]
    assert bad
    assert {(trial.state, trial.error) for trial in bad} == {(state, error)}
    assert all(trial.state is TrialState.DONE for trial in log.rows if trial.seed % 2)


def test_an_evaluator_that_hangs_waits_for_an_hour(monkeypatch):
    waited = []
    monkeypatch.setattr("threading.Event.wait", lambda event, timeout=None: waited.append(timeout))
    log = run(toy_problem(1, method={"name": "random"}, evaluator={"hang_every": 1}))
    assert waited == [3600]
    assert log.rows[0].state is TrialState.DONE


def test_an_evaluator_is_killed_as_the_system_does(monkeypatch):
    kills = []
    monkeypatch.setattr("os.kill", lambda *arguments: kills.append(arguments))
    run(toy_problem(1, method={"name": "random"}, evaluator={"kill_every": 1}))
    assert kills == [(os.getpid(), signal.SIGKILL)]
