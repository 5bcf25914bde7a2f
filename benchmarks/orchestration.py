"""What Prefect and MLflow cost: one search of table look-ups through the flow and by the plain driver, in one run.

    .venv/bin/python benchmarks/orchestration.py [--trials 60]

Prints milliseconds per round, and where those of the flow go.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOY_SEED = 7
TASKS = 5  # of a round that does not retrain: sample pool, embed, score EI, train, record


def write_table(path: Path) -> None:
    """A table of all NAS-Bench-201 cells with the toy accuracies of `bonas_core.testing`."""
    import pandas as pd

    from bonas_core.evaluators.base import EvaluationContext
    from bonas_core.spaces.nasbench201 import NASBench201
    from bonas_core.testing import ToyEvaluator

    space = NASBench201()
    cells = space.enumerate()
    toy, context = ToyEvaluator(space), EvaluationContext(seed=1)
    accuracies = [toy.evaluate(space.architecture(cell), context).objective for cell in cells]
    pd.DataFrame({"arch_str": space.format(cells), "accuracy": accuracies}).to_parquet(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    trials = parser.parse_args().trials
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["BONAS_HOME"] = str(folder)
        from tasks.home.environment import use_local_services

        use_local_services()
        write_table(folder / "table.parquet")
        compare(folder, trials)


def compare(folder: Path, trials: int) -> None:
    """Times both drivers and prints the comparison."""
    from bonas_core.problem import build
    from bonas_core.search import run
    from bonas_core.settings import parse_settings
    from bonas_core.trials.history import TrialHistory

    evaluator = {"kind": "table", "table": str(folder / "table.parquet"), "objective": "accuracy", "unit": "fraction"}
    tree = {"evaluator": evaluator, "budget": {"trials": trials}, "seed": TOY_SEED, "store": str(folder / "store")}
    settings = parse_settings(tree, "benchmark")
    run(build(settings))  # imports and first-call costs of torch are nobody's overhead

    begin = time.perf_counter()
    log = run(build(settings), TrialHistory(folder / "plain"))
    plain = time.perf_counter() - begin
    rounds = log.rounds

    begin = time.perf_counter()
    from flows import search as module

    spent: Counter[str] = Counter()
    calls: Counter[str] = Counter()
    time_http(spent, calls)
    for task in ("sample_pool", "retrain_predictor", "embed", "score_and_pick", "propose", "train", "record"):
        time_task(getattr(module, task), spent)
    marks: list[float] = []
    frozen: Counter[str] = Counter()  # without what closing the search spends
    original = module.SearchRun.until_done

    def until_done(self: Any) -> str:
        marks.append(time.perf_counter())
        spent.clear()
        calls.clear()
        reason = original(self)
        marks.append(time.perf_counter())
        frozen.update(spent)
        marks.append(sum(calls.values()))
        begin_bare = time.perf_counter()
        marks.append(bare_round_seconds())
        marks.append(time.perf_counter() - begin_bare)
        return reason

    module.SearchRun.until_done = until_done  # type: ignore[method-assign]
    module.search(settings, search_id="flow")
    whole = time.perf_counter() - begin - marks[4]
    in_rounds = marks[1] - marks[0]

    print(f"{trials} look-ups in {rounds} rounds")
    print(f"plain driver with history   {plain:7.2f} s  {1000 * plain / rounds:7.1f} ms a round")
    print(f"flow, its rounds            {in_rounds:7.2f} s  {1000 * in_rounds / rounds:7.1f} ms a round")
    print(f"flow, start and end         {whole - in_rounds:7.2f} s  once: server start, MLflow, report")
    print(
        f"an empty round of Prefect   {'':7}    {1000 * marks[3]:7.1f} ms: a subflow of {TASKS} tasks that do nothing"
    )
    print(f"ratio of rounds             {in_rounds / plain:7.1f}")
    print(f"API calls                   {marks[2] / rounds:7.1f} a round")
    print("\nwhere a round of the flow goes, ms:")
    for what, seconds in frozen.most_common():
        print(f"  {what:<40} {1000 * seconds / rounds:7.1f}")
    rest = in_rounds - sum(frozen.values())
    print(f"  {'Prefect engine in this process':<40} {1000 * rest / rounds:7.1f}")


def time_task(task: Any, spent: Counter[str]) -> None:
    """Adds up what the function inside a task takes."""
    task.fn = timed(task.fn, f"task body: {task.name}", spent)


def bare_round_seconds(repeats: int = 20) -> float:
    """What a round costs that does nothing: the least that Prefect allows, within the same flow and server."""
    from prefect import flow, task
    from prefect.cache_policies import NO_CACHE
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    @task(name="nothing", cache_policy=NO_CACHE)
    def nothing() -> None:
        """Do nothing."""

    @flow(name="empty_round", flow_run_name="round {number}")
    def empty_round(number: int) -> None:
        for _ in range(TASKS):
            nothing()

    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):  # as the search does
        empty_round(0)
        begin = time.perf_counter()
        for number in range(1, repeats + 1):
            empty_round(number)
        return (time.perf_counter() - begin) / repeats


def time_http(spent: Counter[str], calls: Counter[str]) -> None:
    """Adds up what this process waits for Prefect's API, and counts its calls."""
    import httpx

    httpx.Client.send = timed(httpx.Client.send, "waiting for the API", spent, calls)  # type: ignore[method-assign]
    original = httpx.AsyncClient.send

    async def send(*arguments: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        try:
            return await original(*arguments, **options)
        finally:
            spent["waiting for the API"] += time.perf_counter() - begin
            calls["async"] += 1

    httpx.AsyncClient.send = send  # type: ignore[method-assign]


def timed(
    function: Callable[..., Any], what: str, spent: Counter[str], calls: Counter[str] | None = None
) -> Callable[..., Any]:
    """The function, with its time added up and its calls counted."""
    from functools import wraps

    @wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Any:
        begin = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            spent[what] += time.perf_counter() - begin
            if calls is not None:
                calls[what] += 1

    return wrapper


if __name__ == "__main__":
    main()
