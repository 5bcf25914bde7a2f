"""The best cell of a budget of real trainings: BONAS and random search with one preset's training and budget.

Every search is durable: a benchmark that was killed goes on in the middle of a training.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bonas_core.errors import SettingsError
from bonas_core.problem import Problem, build
from bonas_core.report.analysis import Scale, progress, summary
from bonas_core.search import run
from bonas_core.settings import Settings
from bonas_core.storage import make_folder, single_writer, write_whole
from bonas_core.trials.history import TrialHistory
from flows.benchmarks.plan import Plan
from flows.benchmarks.runs import run_all
from flows.benchmarks.searches import preset_of, preset_settings, settings_digest, standard_error

METHODS: Mapping[str, Mapping[str, Any]] = {"bonas": {}, "random": {"method.name": "random"}}
"""Settings put on top of the preset's."""


@dataclass(frozen=True)
class TrainingsJob:
    """One search, recorded in a folder of its own."""

    method: str
    settings: Settings
    folder: Path

    def execute(self) -> dict[str, Any]:
        """Runs the search, or what is left of it, to the end of its budget."""
        problem = build(self.settings)
        with single_writer(make_folder(self.folder)):
            log = run(problem, TrialHistory(self.folder / "trials"), self.folder / "checkpoints")
        course, found = progress(log.rows, problem.objective), summary(log.rows, problem.objective)
        return {
            "method": self.method,
            "seed": self.settings.seed,
            "objective": problem.objective.name,
            "evaluations": found.evaluations,
            "distinct": found.distinct,
            "best": None if found.best is None else found.best.objective,
            "test": None if found.best is None else found.best.metrics.get("test"),
            "cell": None if found.best is None else found.best.architecture,
            "trained_s": sum(row.cost_s or 0.0 for row in log.rows),
            "curve": course.best.tolist(),
        }


def trainings(plan: Plan) -> str:
    """Runs what is missing of the searches, and writes `runs.parquet`, `trainings.png` and `trainings.md`.

    Returns:
        the table, as Markdown.

    Raises:
        SettingsError: a method is unknown, or the preset does not train.
    """
    chosen = plan.choose(METHODS)
    preset = preset_of(plan.space)
    searches = [
        (method, preset_settings(preset, METHODS[method], plan.overrides, seed))
        for method in chosen
        for seed in plan.seeds
    ]
    settings = searches[0][1]
    if settings.evaluator.kind != "training":
        raise SettingsError(f"benchmark trainings: `{preset}` trains nothing; use --space with a preset that does")
    problem = build(settings)
    plan.make_folder()
    jobs = {}
    for method, settings in searches:
        digest = settings_digest(settings, evaluator=problem.evaluator.fingerprint)
        jobs[digest] = TrainingsJob(
            method, settings, plan.folder / "searches" / f"{method}-{settings.seed}-{digest[:8]}"
        )
    frame = run_all(jobs, plan.rows, plan.processes)
    write_whole(plan.folder / "trainings.png", _curves(frame, chosen, problem))
    text = _table(frame, chosen, problem, preset)
    write_whole(plan.folder / "trainings.md", text.encode())
    return text


def _table(frame: pd.DataFrame, methods: Sequence[str], problem: Problem, preset: str) -> str:
    unit = Scale.of(problem.objective).unit
    lines = [
        f"# Best of a budget of real trainings: {problem.objective.name}",
        "",
        f"Preset `{preset}`: {problem.objective.direction} {problem.objective.name}; {frame['seed'].nunique()} seeds a "
        "method. Mean ± standard error over seeds; `test` is the accuracy on the test images of the cell that was best "
        "on validation, which no search has seen.",
        "",
        "| method | trainings | distinct cells | best on validation | each seed | its test | hours of training |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in methods:
        rows = frame[frame["method"] == method]
        best, test = rows["best"].to_numpy(dtype=float), rows["test"].to_numpy(dtype=float)
        cells = [
            method,
            f"{rows['evaluations'].mean():.0f}",
            f"{rows['distinct'].mean():.1f}",
            f"{best.mean():.2f} ± {standard_error(best):.2f} {unit}",
            ", ".join(f"{value:.2f}" for value in best),
            f"{test.mean():.2f} ± {standard_error(test):.2f}",
            f"{rows['trained_s'].sum() / 3600:.2f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _curves(frame: pd.DataFrame, methods: Sequence[str], problem: Problem) -> bytes:
    """Draws a PNG: best so far over the number of trainings, mean and one standard error to each side."""
    scale = Scale.of(problem.objective)
    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for method, colour in zip(methods, ("#0072B2", "#D55E00"), strict=False):
        rows = frame[frame["method"] == method]["curve"].tolist()
        shortest = min(map(len, rows))
        curves = np.array([row[:shortest] for row in rows], dtype=float) * scale.factor
        mean, at = curves.mean(axis=0), np.arange(1, shortest + 1)
        error = curves.std(axis=0, ddof=1 if len(rows) > 1 else 0) / np.sqrt(len(rows))
        axes.plot(at, mean, color=colour, label=method)
        axes.fill_between(at, mean - error, mean + error, color=colour, alpha=0.18, linewidth=0)
    axes.set(xlabel="trainings", ylabel=f"best so far, {scale.unit}", title=problem.objective.name)
    axes.title.set_fontsize(9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#ececec")
    axes.legend(frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()
