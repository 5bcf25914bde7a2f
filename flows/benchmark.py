"""Tables of the paper, regenerated: many searches with the plain driver, over all cores, into one Parquet file.

Runs are written as they end; a benchmark that was stopped goes on with those that are missing.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress

from bonas_core.build import build
from bonas_core.errors import SettingsError, StoreError
from bonas_core.evaluators.base import ClosedEvaluator
from bonas_core.settings import Settings
from bonas_core.storage import make_folder, write_table, write_whole
from flows.presets import load_settings
from tasks.workspace import home


@dataclass(frozen=True)
class Method:
    """A row of a table: settings put on top of the preset's, and the paper's figure."""

    overrides: Mapping[str, Any]
    listed: str
    """`pool`: looks at a sample of candidates per step; `enumerating`: scores every cell; `none`: scores no
    candidates."""
    paper: Mapping[str, float]
    """Samples to the optimum in the paper's Table 2, by space."""


def _bonas(recipe: str, sampler: str) -> dict[str, Any]:
    return {"method.name": "bonas", "method.recipe": recipe, "method.sampler": sampler}


def _paper(nb101: float, nb201: float) -> dict[str, float]:
    return {"nasbench101": nb101, "nasbench201": nb201}


TABLE2: dict[str, Method] = {
    "bonas-ea": Method(_bonas("best", "evolution"), "pool", _paper(1520.9, 72.5)),
    "bonas-rs": Method(_bonas("best", "random"), "pool", _paper(3587.8, 320.0)),
    "bonas-paper-ea": Method(_bonas("paper", "evolution"), "pool", _paper(1520.9, 72.5)),
    "bonas-paper-rs": Method(_bonas("paper", "random"), "pool", _paper(3587.8, 320.0)),
    "bonas-all": Method(_bonas("best", "exhaustive"), "enumerating", {}),
    "random": Method({"method.name": "random"}, "none", _paper(188139.8, 7712.3)),
    "re": Method({"method.name": "regularised-evolution"}, "none", _paper(87402.7, 535.5)),
    "re-repeats": Method(
        {"method.name": "regularised-evolution", "method.repeats": True}, "none", _paper(87402.7, 535.5)
    ),
}
"""Methods by the name that `--methods` takes."""
PRESETS = {"nasbench201": "nb201-c10-val"}
"""Preset that a benchmark of a space starts from."""


def run_benchmark(
    name: str,
    space: str,
    seeds: int,
    methods: Sequence[str] | None,
    jobs: int,
    overrides: Sequence[str],
    out: Path | None,
) -> str:
    """Runs a benchmark and returns its table, which is also written to `out`.

    Raises:
        InputError: benchmark, space, method or setting is unknown, or `out` cannot be written.
    """
    if name != "table2":
        raise SettingsError(f"benchmark `{name}` is unknown; use table2")
    if space not in PRESETS:
        raise SettingsError(f"benchmark table2: space `{space}` has no preset; use one of {', '.join(PRESETS)}")
    chosen = list(methods or TABLE2)
    for method in chosen:
        if method not in TABLE2:
            raise SettingsError(f"benchmark table2: method `{method}` is unknown; use of {', '.join(TABLE2)}")
    runs = [
        _Run(method, seed, _settings(space, TABLE2[method], seed, overrides))
        for method in chosen
        for seed in range(seeds)
    ]
    problem = build(runs[0].settings)
    if not isinstance(problem.evaluator, ClosedEvaluator):
        raise SettingsError("benchmark table2: samples to the optimum need a table; set evaluator.kind=table")
    folder = make_folder((out or home() / "benchmarks" / name).absolute())
    values = np.array(problem.evaluator.objectives())
    begin = time.perf_counter()
    frame = _run_all(runs, folder / "runs.parquet", jobs, problem.evaluator.fingerprint)
    seconds = time.perf_counter() - begin
    text = _table2(
        frame, chosen, space, problem.objective.name, problem.objective.direction, values, seeds, seconds, jobs
    )
    write_whole(folder / f"{name}.md", text.encode())
    return f"{text}\nwritten to {folder}"


@dataclass(frozen=True)
class _Run:
    """One search of a benchmark."""

    method: str
    seed: int
    settings: Settings

    def digest(self, fingerprint: str) -> str:
        """Equal for runs that would give the same row."""
        tree = self.settings.tree()
        tree["evaluator"] = fingerprint
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def _settings(space: str, method: Method, seed: int, overrides: Sequence[str]) -> Settings:
    assignments = [f"{name}={json.dumps(value)}" for name, value in method.overrides.items()]
    settings, _ = load_settings(
        PRESETS[space],
        seed=seed,
        overrides=["budget.trials=1000000", "budget.stop_at=optimum", *assignments, *overrides],
    )
    return settings


def _run_all(runs: Sequence[_Run], path: Path, jobs: int, fingerprint: str) -> pd.DataFrame:
    wanted = {run.digest(fingerprint): run for run in runs}
    rows = {row["digest"]: row for row in _stored(path) if row["digest"] in wanted}
    missing = [(digest, run) for digest, run in wanted.items() if digest not in rows]
    console = Console(stderr=True)
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # for the processes to come: they share the cores among them
    with (
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
    ):
        bar = progress.add_task("searches", total=len(wanted), completed=len(rows))
        futures = {pool.submit(_search, run.method, run.settings): digest for digest, run in missing}
        try:
            for future in as_completed(futures):
                rows[futures[future]] = {**future.result(), "digest": futures[future]}
                _write(path, rows, wanted)
                progress.advance(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _write(path, rows, wanted)
    return pd.DataFrame([rows[digest] for digest in wanted])


def _search(method: str, settings: Settings) -> dict[str, Any]:
    """Runs one search to the optimum; in a process of its own."""
    from bonas_core.report.analysis import summary
    from bonas_core.search import StopRule, run

    begin = time.perf_counter()
    problem = build(settings)
    log = run(problem)
    found = summary(log.rows, problem.objective)
    reason = StopRule(problem).reason(log) or ""
    return {
        "method": method,
        "seed": settings.seed,
        "space": settings.space,
        "objective": problem.objective.name,
        "evaluations": found.evaluations,
        "distinct": found.distinct,
        "found": reason.startswith("objective"),
        "best": None if found.best is None else found.best.objective,
        "surrogate_s": found.surrogate_s,
        "wall_s": time.perf_counter() - begin,
    }


def _stored(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"benchmark results `{path}` cannot be read ({error}); move the file away to start anew"
        ) from None
    return [row for row in rows if "digest" in row]


def _write(path: Path, rows: Mapping[str, dict[str, Any]], wanted: Mapping[str, _Run]) -> None:
    write_table(path, pa.Table.from_pylist([rows[digest] for digest in wanted if digest in rows]))


def _table2(
    frame: pd.DataFrame,
    methods: Sequence[str],
    space: str,
    objective: str,
    direction: str,
    values: np.ndarray,
    seeds: int,
    seconds: float,
    jobs: int,
) -> str:
    best = values.max() if direction == "maximise" else values.min()
    ties = int((values == best).sum())
    lines = [
        f"# Samples to the optimum: {objective}",
        "",
        f"{direction.capitalize()} `{objective}` over {len(values)} cells of {space}; the optimum is {best:g} "
        f"({ties} cell{'s'[: ties != 1]}). {seeds} seeds a method; evaluations include the initial random ones. "
        "Mean ± standard error.",
        "",
        "| method | candidates | evaluations | median | min-max | distinct | found | paper | s choosing/sample |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in sorted(methods, key=lambda name: ["pool", "none", "enumerating"].index(TABLE2[name].listed)):
        rows = frame[frame["method"] == method]
        n = rows["evaluations"].to_numpy(dtype=float)
        found = int(rows["found"].sum())
        bound = "" if found == len(rows) else "≥ "
        paper = TABLE2[method].paper.get(space)
        lines.append(
            f"| {method} | {TABLE2[method].listed} | {bound}{n.mean():.1f} ± {_error(n):.1f} | {np.median(n):.0f} | "
            f"{n.min():.0f}-{n.max():.0f} | {rows['distinct'].mean():.1f} | {found}/{len(rows)} | "
            f"{'-' if paper is None else paper} | {rows['surrogate_s'].sum() / n.sum():.4f} |"
        )
    if "random" in methods:
        n = frame.loc[frame["method"] == "random", "evaluations"].to_numpy(dtype=float)
        exact = (len(values) + 1) / (ties + 1)
        away = abs(n.mean() - exact) / _error(n) if len(n) > 1 else math.nan
        lines += ["", f"Random search takes {exact:.1f} on average, exactly; ours is {away:.1f} standard errors away."]
    lines += [
        "",
        "`pool` methods score a sample of candidates at every step, `enumerating` ones every cell, `none` score none. "
        "The paper's figures are Table 2, 50 repetitions, objective and settings as far as it names them.",
        "",
        f"{len(frame)} searches; this run took {seconds:.0f} s with {jobs} processes.",
        "",
    ]
    return "\n".join(lines)


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan
