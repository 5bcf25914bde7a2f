"""CPU time and memory of histories of 1,000 and of 100,000 trials, in one run; ratios are what to compare.

.venv/bin/python benchmarks/history.py [--trials 1000 100000]

Its last 1,000 trials are recorded as a search records them, by a proposal and a result each, merged every 200 parts;
those before are merged parts of 2^k trials, as merging leaves them. `open` reads it and makes the columns that
strategies see; `record` adds a proposal and a result; `propose` asks a strategy: regularised evolution, and BONAS with
a predictor at hand and a pool of 1,000. The first proposal after a retraining also embeds all trials, which is not
measured.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import numpy as np  # noqa: E402

from bonas_core.problem import build  # noqa: E402
from bonas_core.search import SearchLog  # noqa: E402
from bonas_core.settings import parse_settings  # noqa: E402
from bonas_core.spaces.base import SearchSpace  # noqa: E402
from bonas_core.storage import Disk, use_disk  # noqa: E402
from bonas_core.trials import Trial, TrialState  # noqa: E402
from bonas_core.trials.history import TrialHistory  # noqa: E402

_GROWN = 1000  # trials that are recorded one by one


class MadeUp:
    """An evaluator of any space, for its settings only: the trials here are made up."""

    objective, unit, direction, fingerprint = "made up", "fraction", "maximise", "made-up"

    def __init__(self, space: SearchSpace) -> None:
        self.space = space


class Unsynced(Disk):
    """A disk that waits for nothing: how long it takes to sync is the machine's business, not the history's."""

    def sync(self, descriptor: int) -> None: ...

    def sync_folder(self, folder: Path) -> None: ...


def problem(method: dict[str, Any], trials: int) -> Any:
    tree = {
        "space": "nasbench101",
        "evaluator": {"kind": f"{__name__}:MadeUp"},
        "method": method,
        "predictor": {"epochs": 1},  # its training is not what is measured
        "budget": {"trials": trials + 1000},
    }
    return build(parse_settings(tree, "benchmark"))


def made_up(space: SearchSpace, count: int) -> list[Trial]:
    """Finished trials of distinct cells."""
    rng = np.random.default_rng(0)
    genotypes = space.sample(3 * count, rng)
    _, first = np.unique(space.keys(genotypes), return_index=True)
    genotypes = genotypes[np.sort(first)[:count]]
    assert len(genotypes) == count
    texts, keys = space.format(genotypes), space.keys(genotypes)
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return [
        Trial(
            trial=trial,
            round=trial,
            key=f"{keys[trial]:032x}",
            architecture=texts[trial],
            state=TrialState.DONE,
            objective=float(rng.random()),
            metrics={"test": float(rng.random()), "train_loss": float(rng.random())},
            sampler="evolution",
            acquisition=-1.5,
            predicted_mean=0.5,
            predicted_std=0.1,
            incumbent=0.9,
            predictor_version=f"{trial // 10:016x}",
            seed=int(rng.integers(2**62)),
            epochs=10,
            params=10_000,
            cost_s=1.5,
            device="cpu",
            attempt=1,
            surrogate_s=0.1,
            proposed_at=now,
            started_at=now,
            finished_at=now,
        )
        for trial in range(count)
    ]


def grow(folder: Path, trials: int) -> None:
    """Records the last thousand trials one by one, and prints what they took in the middle and on average, and what
    merging everything takes."""
    use_disk(Unsynced())
    space = problem({"name": "random"}, trials).space
    history, taken = TrialHistory(folder), []
    rows = made_up(space, trials)
    size = trials - _GROWN
    while size > 1:  # merged parts as they are after so many trials
        half = 1 << (size.bit_length() - 2)
        begin = trials - _GROWN - size
        other = TrialHistory(folder.with_name("merged"))
        other.propose(rows[begin : begin + half])
        other.propose(rows[begin + half : begin + 2 * half])
        other.compact()
        shutil.copytree(other.location, folder, dirs_exist_ok=True)
        shutil.rmtree(other.location)
        size -= 2 * half
    for trial in rows[-_GROWN:]:
        begin = time.process_time()
        history.propose([trial.with_changes(state=TrialState.PROPOSED, objective=None, metrics={}, finished_at=None)])
        history.finish(trial)
        history.compact_if_large()
        taken.append(time.process_time() - begin)
    begin = time.process_time()
    TrialHistory(shutil.copytree(folder, folder.with_name("copy"))).compact()
    merged = time.process_time() - begin
    print(1000 * statistics.median(taken), 1000 * statistics.mean(taken), 1000 * merged)
    shutil.rmtree(folder.with_name("copy"))


def resident() -> float:
    """Memory of this process, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def use(folder: Path, trials: int) -> None:
    """Opens a history and proposes from it, and prints the times and the memory."""
    evolution = problem({"name": "regularised-evolution"}, trials)
    bonas = problem({"sampler": "evolution", "pool": 1000, "initial": 100, "retrain_every": trials}, trials)
    with TemporaryDirectory() as other:  # loads what is loaded at the first time only
        TrialHistory(other).finish(made_up(evolution.space, 1)[0])
        SearchLog(evolution, TrialHistory(other))
    before, begin = resident(), time.process_time()
    log = SearchLog(evolution, TrialHistory(folder))
    opened, memory = time.process_time() - begin, resident() - before
    assert len(log.rows) == trials

    def timed(action: Callable[[], Any], repeats: int) -> float:
        taken = []
        for _ in range(repeats):
            begin = time.process_time()
            action()
            taken.append(time.process_time() - begin)
        return 1000 * min(taken)

    by_evolution = timed(lambda: evolution.strategy.propose(log.trials, 1, 0), 5)
    bonas.strategy.propose(log.trials, 1, 0)  # trains the predictor
    by_bonas = timed(lambda: bonas.strategy.propose(log.trials, 1, 0), 3)
    print(opened * 1000, by_evolution, by_bonas, memory, len(list(folder.iterdir())))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 100_000])
    parser.add_argument("--part", nargs=3, metavar=("NAME", "FOLDER", "TRIALS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.part:
        name, folder, trials = arguments.part
        {"grow": grow, "use": use}[name](Path(folder), int(trials))
        return
    columns = []
    with TemporaryDirectory() as folder:
        for trials in arguments.trials:
            figures: list[float] = []
            for part in ("grow", "use"):  # each in a process of its own, so that memory is its own
                command = [sys.executable, __file__, "--part", part, f"{folder}/{trials}", str(trials)]
                figures += map(
                    float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
                )
            columns.append(figures)
    names = [
        "record a trial, median of the last 1,000, ms",
        "record a trial, mean of the last 1,000, merging included, ms",
        "merge everything into one part, ms",
        "open, ms",
        "propose, regularised evolution, ms",
        "propose, BONAS, ms",
        "memory of the trials, MB",
        "files",
    ]
    print("| | " + " | ".join(f"{trials:,} trials" for trials in arguments.trials) + " | ratio |")
    print("| --- " * (len(columns) + 2) + "|")
    for row, name in enumerate(names):
        values = [column[row] for column in columns]
        print(f"| {name} | " + " | ".join(f"{v:,.2f}" for v in values) + f" | {values[-1] / values[0]:.1f} |")


if __name__ == "__main__":
    main()
