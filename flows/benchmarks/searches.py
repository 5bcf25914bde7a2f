"""Benchmarks made of whole searches: a study is a set of methods, each run from many seeds to the optimum or a cap.

One row is one search, with its best-so-far curve, so that tables and figures are drawn from `runs.parquet` alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from bonas_core.errors import SettingsError
from bonas_core.evaluators.base import ClosedEvaluator, Evaluator
from bonas_core.problem import Problem, build, build_evaluator, build_space
from bonas_core.settings import Settings
from bonas_core.settings.method import METHOD
from flows.benchmarks.plan import Plan
from flows.benchmarks.runs import run_all
from flows.running.presets import load_settings, presets

PRESETS = {
    "nasbench201": "nb201-c10-val",
    "nasbench101": "nb101-cells-val",
    "nasbench101-surrogate": "nb101-surrogate",
}
"""Preset that a benchmark of a space starts from; `--space` takes the name of any other preset as well."""
TOP_SHARE = 0.001
"""The top of a table that the column `top_at` is about."""


@dataclass(frozen=True)
class Method:
    """A row of a table: settings put on top of the preset's, and the paper's figure."""

    overrides: Mapping[str, Any]
    listed: str
    """Way to score candidates: `pool`, a sample per step; `enumerating`, every cell; `none`, no candidates."""
    paper: Mapping[str, float] = field(default_factory=dict)
    """Samples to the optimum in the paper, by space."""


@dataclass(frozen=True)
class Study:
    """Methods to compare by the samples that each needs."""

    title: str
    methods: Mapping[str, Method]
    """Methods by the name that `--methods` takes."""
    note: str
    """Paragraph that a reader needs to read the table."""
    default: tuple[str, ...] = ()
    """Methods that run where none are named; empty: all."""
    reference: str | None = None
    """Method that all others are compared with, by the ratio of their means."""
    figure: bool = False
    """True where best-so-far curves are drawn."""


@dataclass(frozen=True)
class SearchJob:
    """One search of a study."""

    method: str
    settings: Settings

    def digest(self, fingerprint: str) -> str:
        """Digests the search: equal for searches that would give the same row."""
        return settings_digest(self.settings, evaluator=fingerprint, method_name=self.method)

    def execute(self) -> dict[str, Any]:
        """Runs the search to the optimum or the cap."""
        from bonas_core.report.analysis import progress, summary
        from bonas_core.search import StopRule, run

        problem = build(self.settings, _evaluator(self.settings.model_dump_json(include={"space", "evaluator"})))
        begin = time.perf_counter()
        log = run(problem)
        wall_s = time.perf_counter() - begin
        found, course = summary(log.rows, problem.objective), progress(log.rows, problem.objective)
        # NaN, before anything has an objective, is unequal to itself: those steps are dropped with the mask
        steps = np.flatnonzero(np.diff(course.best, prepend=np.nan) != 0)
        steps = steps[np.isfinite(course.best[steps])]
        reason = StopRule(problem).reason(log) or ""
        return {
            "method": self.method,
            "seed": self.settings.seed,
            "space": self.settings.space,
            "objective": problem.objective.name,
            "evaluations": found.evaluations,
            "distinct": found.distinct,
            "found": reason.startswith("objective"),
            "best": None if found.best is None else found.best.objective,
            "test": None if found.best is None else found.best.metrics.get("test"),
            "top_at": _top_at(problem, course.best),
            "surrogate_s": found.surrogate_s,
            "wall_s": wall_s,
            "improved_at": (steps + 1).tolist(),
            "improved_to": course.best[steps].tolist(),
            "test_of_improved": course.test[steps].tolist(),
        }


@lru_cache(maxsize=1)
def _evaluator(tree: str) -> Evaluator:
    """Builds the evaluator that the next searches of this process share: a large table takes seconds to read."""
    settings = Settings.model_validate_json(tree)
    return build_evaluator(settings, build_space(settings.space))


def _top_at(problem: Problem, curve: np.ndarray) -> int | None:
    """Counts the samples to the first of the table's best thousandth; None where the search ended before."""
    if not isinstance(problem.evaluator, ClosedEvaluator):
        return None
    sign = -1 if problem.objective.direction == "maximise" else 1
    ranked = np.sort(sign * np.array(problem.evaluator.objectives()))
    there = np.flatnonzero(sign * curve <= ranked[max(round(TOP_SHARE * len(ranked)), 1) - 1])
    return int(there[0]) + 1 if len(there) else None


@dataclass(frozen=True)
class Results:
    """A study that has run."""

    study: Study
    methods: tuple[str, ...]
    plan: Plan
    frame: pd.DataFrame
    """A row per method and seed."""
    problem: Problem
    values: np.ndarray
    """The objective of every cell of the table."""
    seconds: float


def run_study(study: Study, plan: Plan) -> Results:
    """Runs the searches of a study whose rows are not there yet.

    Raises:
        SettingsError: space, method or setting is unknown, or the objective is not a table's.
    """
    chosen = plan.choose(study.methods, study.default)
    preset = preset_of(plan.space)
    check_taken(plan.overrides, {method: study.methods[method].overrides for method in chosen})
    jobs = [
        SearchJob(method, search_settings(preset, study.methods[method].overrides, seed, plan.overrides))
        for method in chosen
        for seed in plan.seeds
    ]
    problem = build(jobs[0].settings)
    evaluator = problem.evaluator
    if not isinstance(evaluator, ClosedEvaluator):
        raise SettingsError("benchmark: samples to the optimum need a table; set evaluator.kind=table")
    plan.make_folder()
    begin = time.perf_counter()
    frame = run_all({job.digest(evaluator.fingerprint): job for job in jobs}, plan.rows, plan.processes)
    values = np.array(evaluator.objectives())
    return Results(study, chosen, plan, frame, problem, values, time.perf_counter() - begin)


def preset_of(space: str) -> str:
    """Finds the preset that a benchmark of a space, or of a preset, starts from.

    Raises:
        SettingsError: there is none.
    """
    if space in PRESETS:
        return PRESETS[space]
    if any(preset.name == space for preset in presets()):
        return space
    known = ", ".join([*PRESETS, "or the name of a preset"])
    raise SettingsError(f"benchmark: space `{space}` has no preset; use one of {known}")


def taken(overrides: Sequence[str], own: Mapping[str, Any]) -> list[str]:
    """Those overrides that concern settings which a method has: others are for other methods of the same benchmark.

    Args:
        overrides: of all methods, as `name=value`.
        own: the method's own settings, by dotted name.
    """
    name = str(own.get("method.name", METHOD.default_name))
    settings = METHOD.settings_class(name)

    def concerns(assignment: str) -> bool:
        group, _, setting = assignment.partition("=")[0].strip().partition(".")
        if group == "method" and setting:
            return setting.partition(".")[0] in settings.model_fields
        return group != "predictor" or name == METHOD.default_name or ":" in name

    return [assignment for assignment in overrides if concerns(assignment)]


def check_taken(overrides: Sequence[str], methods: Mapping[str, Mapping[str, Any]]) -> None:
    """Raises SettingsError if an override concerns a setting that none of the methods has."""
    for assignment in overrides:
        if not any(taken([assignment], own) for own in methods.values()):
            name = assignment.partition("=")[0]
            raise SettingsError(
                f"--set `{assignment}`: none of {', '.join(methods)} has a setting `{name}`; leave it out"
            )


def search_settings(preset: str, own: Mapping[str, Any], seed: int, overrides: Sequence[str]) -> Settings:
    """Makes the settings of one search of a benchmark: to the optimum, unless overrides set a cap before."""
    return preset_settings(preset, {"budget.trials": 1_000_000, "budget.stop_at": "optimum", **own}, overrides, seed)


def preset_settings(preset: str, own: Mapping[str, Any], overrides: Sequence[str], seed: int | None = None) -> Settings:
    """Loads a preset with a benchmark's own settings on top, and on top of those the command line's and the seed."""
    assignments = [f"{name}={json.dumps(value)}" for name, value in own.items()]
    return load_settings(preset, seed=seed, overrides=[*assignments, *taken(overrides, own)])[0]


def settings_digest(settings: Settings, **more: str) -> str:
    """Digests settings: equal for settings whose trees are equal once `more` is put into them."""
    return hashlib.sha256(json.dumps({**settings.tree(), **more}, sort_keys=True).encode()).hexdigest()


def standard_error(values: np.ndarray) -> float:
    """Computes the standard error of the mean; nan for a single value."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else math.nan


def ratio_interval(numerator: np.ndarray, denominator: np.ndarray, level: float = 0.95) -> tuple[float, float, float]:
    """Computes the ratio of two means with its bootstrap percentile interval (10,000 resamples, both independently)."""
    rng = np.random.default_rng(0)
    tops = numerator[rng.integers(len(numerator), size=(10_000, len(numerator)))].mean(axis=1)
    bottoms = denominator[rng.integers(len(denominator), size=(10_000, len(denominator)))].mean(axis=1)
    low, high = np.quantile(tops / bottoms, [(1 - level) / 2, (1 + level) / 2])
    return float(numerator.mean() / denominator.mean()), float(low), float(high)


def table(results: Results) -> str:
    """Writes the study as Markdown: samples to the optimum and to the top, with errors, beside the paper's figure."""
    study, problem, values = results.study, results.problem, results.values
    direction = problem.objective.direction
    best = values.max() if direction == "maximise" else values.min()
    ties = int((values == best).sum())
    cap = {job_cap for job_cap in [problem.settings.budget.trials] if job_cap < 1_000_000}
    capped = f" Searches end after {cap.pop()} samples at the latest, which then count." if cap else ""
    header = ["method", "candidates", "evaluations", "median", "min-max", "distinct", "found", "to the top 0.1 %"]
    header.append("paper")
    if study.reference:
        header += [f"ratio to {study.reference}", "ratio, to the top 0.1 %"]
    header.append("s choosing/sample")
    lines = [
        f"# {study.title}: {problem.objective.name}",
        "",
        f"{direction.capitalize()} `{problem.objective.name}` over {len(values)} cells of {problem.space.name}; the "
        f"optimum is {best:g} ({ties} cell{'s'[: ties != 1]}). {len(results.plan.seeds)} searches a method, "
        f"{results.plan.repeats}; evaluations include the initial random ones. Mean ± standard error.{capped}",
        "",
        f"| {' | '.join(header)} |",
        f"| {' | '.join(['---'] * len(header))} |",
    ]
    listed = ["pool", "none", "enumerating"]
    by_method = dict(iter(results.frame.groupby("method")))
    for method in sorted(results.methods, key=lambda name: listed.index(study.methods[name].listed)):
        rows = by_method[method]
        n = _samples(rows)
        found = int(rows["found"].sum())
        bound = "" if found == len(rows) else "≥ "
        paper = study.methods[method].paper.get(results.plan.space)
        cells = [
            method,
            study.methods[method].listed,
            f"{bound}{n.mean():.1f} ± {standard_error(n):.1f}",
            f"{np.median(n):.0f}",
            f"{n.min():.0f}-{n.max():.0f}",
            f"{rows['distinct'].mean():.1f}",
            f"{found}/{len(rows)}",
            _to_the_top(rows),
            "-" if paper is None else f"{paper}",
        ]
        if study.reference:
            reference = by_method.get(study.reference)
            cells += [_ratio(of, rows, reference) for of in (_samples, _samples_to_the_top)]
        cells.append(f"{rows['surrogate_s'].sum() / n.sum():.4f}")
        lines.append(f"| {' | '.join(cells)} |")
    if "random" in results.methods and not capped:
        n = _samples(by_method["random"])
        exact = (len(values) + 1) / (ties + 1)
        away = abs(n.mean() - exact) / standard_error(n)
        lines += ["", f"Random search takes {exact:.1f} on average, exactly; ours is {away:.1f} standard errors away."]
    lines += [
        "",
        "`pool` methods score a sample of candidates at every step, `enumerating` ones every cell, `none` score none. "
        "A `≥` marks a mean over searches of which some had not found the optimum when they were stopped. "
        + study.note,
        "",
        f"{len(results.frame)} searches; this run took {results.seconds:.0f} s with {results.plan.processes} "
        "processes.",
        "",
    ]
    return "\n".join(lines)


def _samples(rows: pd.DataFrame) -> np.ndarray:
    return rows["evaluations"].to_numpy(dtype=float)


def _samples_to_the_top(rows: pd.DataFrame) -> np.ndarray:
    """Counts all of a search's samples where it ended before."""
    return rows["top_at"].fillna(rows["evaluations"]).to_numpy(dtype=float)


def _to_the_top(rows: pd.DataFrame) -> str:
    n = _samples_to_the_top(rows)
    bound = "≥ " if rows["top_at"].isna().any() else ""
    return f"{bound}{n.mean():.1f} ± {standard_error(n):.1f}"


def _ratio(of: Callable[[pd.DataFrame], np.ndarray], rows: pd.DataFrame, reference: pd.DataFrame | None) -> str:
    if reference is None:
        return "-"
    ratio, low, high = ratio_interval(of(rows), of(reference))
    return f"{ratio:.2f} ({low:.2f}-{high:.2f})"
