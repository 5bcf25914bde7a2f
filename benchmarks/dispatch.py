"""What back ends cost and gain, in one run: overhead per trial, two slots against one, a killed holder's slot.

    .venv/bin/python benchmarks/dispatch.py [--trials 12] [--backends thread,process,dask,ray]

Overhead: trials that take no time, one slot; the first includes the start of processes or cluster. Slots: a search
over real trainings with q = 1 and with q = 2, each training in a process of its own. Dask and Ray need their extras.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

HOLD = """
import sys
from tasks.dispatch.slots import Slot, taken
with taken([Slot("cpu-0", "cpu")], "benchmark"):
    print("held", flush=True)
    sys.stdin.read()
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--backends", default="inline,thread,process,dask,ray")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bonas-dispatch-", ignore_cleanup_errors=True) as name:
        os.environ["BONAS_HOME"] = name
        from tasks.home.environment import use_local_services

        use_local_services()
        for backend in arguments.backends.split(","):
            if backend in ("dask", "ray") and find_spec(f"prefect_{backend}") is None:
                print(f"{backend:8} not installed")
                continue
            first, each = overhead(Path(name), backend, arguments.trials)
            print(f"{backend:8} start and first trial {first:6.1f} s, then {1000 * each:7.0f} ms a trial", flush=True)
        print(f"a killed holder's slot is taken again after {1000 * slot_reuse():.0f} ms (median of 5)", flush=True)
        rates = {q: trials_per_hour(Path(name), q, arguments.trials, arguments.epochs) for q in (1, 2)}
        print(f"q = 1: {rates[1]:.0f} trials per hour, q = 2: {rates[2]:.0f}, ratio {rates[2] / rates[1]:.2f}")


def overhead(home: Path, backend: str, trials: int) -> tuple[float, float]:
    """Seconds until the first trial has ended, and of each after it, for trials that take no time."""
    from prefect import flow

    return flow(dispatched)(str(home), backend, trials)


def dispatched(home: str, backend: str, trials: int) -> tuple[float, float]:
    """Has trials evaluated, as a flow."""
    from bonas_core.search import SearchLog
    from bonas_core.testing import toy_problem
    from flows.running.dispatch import Dispatcher
    from flows.running.observer import Observer
    from tasks.home.search_folder import SearchFolder

    problem = toy_problem(trials, method={"name": "random"}, dispatch={"backend": backend})
    folder = SearchFolder(Path(home) / "overhead" / backend)
    folder.path.mkdir(parents=True)
    log = SearchLog(problem)
    proposed = log.propose(problem.strategy.propose(log.trials, trials, 0), 0.0)
    begin = time.perf_counter()
    with Dispatcher(problem, folder, Observer()) as dispatcher:
        dispatcher.submit(proposed[0], "first")
        dispatcher.wait()
        first = time.perf_counter() - begin
        for trial in proposed[1:]:
            dispatcher.submit(trial, f"trial {trial.trial}")
        for _ in proposed[1:]:
            dispatcher.wait()
        return first, (time.perf_counter() - begin - first) / (trials - 1)


def trials_per_hour(home: Path, q: int, trials: int, epochs: int) -> float:
    """Rate of a search with q slots, from its first trial's start to its last one's end."""
    from bonas_core.settings import parse_settings
    from bonas_core.trials.history import TrialHistory
    from flows.search import search

    tree: dict[str, Any] = {
        "evaluator": {"kind": "training", "data": "digits", "epochs": epochs},
        "method": {"initial": 4, "batch": q, "retrain_every": 4},
        "budget": {"trials": trials},
        "dispatch": {"backend": "process", "slots": q},
        "store": str(home / "rates"),
    }
    search(parse_settings(tree, "benchmark"), search_id=f"q{q}")
    rows = TrialHistory(home / "rates" / f"q{q}" / "trials").to_pandas()
    seconds = (rows["finished_at"].max() - rows["started_at"].min()).total_seconds()
    return 3600 * len(rows) / seconds


def slot_reuse(repeats: int = 5) -> float:
    """Seconds from the kill of a slot's holder until somebody who waits has it."""
    from tasks.dispatch.slots import Slot, taken

    took = []
    for _ in range(repeats):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        killed: list[float] = []

        def kill(reason: str, holder: Any = holder, killed: list[float] = killed) -> None:
            holder.kill()
            killed.append(time.perf_counter())

        with taken([Slot("cpu-0", "cpu")], "benchmark", waiting=kill):
            took.append(time.perf_counter() - killed[0])
        holder.wait()
    return statistics.median(took)


def environment() -> dict[str, str]:
    """The environment of a child with this process's import path."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}


if __name__ == "__main__":
    main()
