"""Best-so-far curves of a study's searches, with confidence bands (the paper's Figures 4 and 5)."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from bonas_core.report.analysis import Scale
from flows.benchmarks.searches import Results

_COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#000000",
    "#8c6d31",
    "#7f7f7f",
    "#a55194",
)
"""Colours of Okabe and Ito, which people with any colour vision can tell apart, then four more."""


def draw(results: Results) -> bytes:
    """Draws a PNG: to the left the objective that searches optimise, to the right the same cells on the test split.

    A search that has found the optimum keeps it: its curve goes on to the end of the longest one. Bands are one
    standard error of the mean to each side.
    """
    scale = Scale.of(results.problem.objective)
    sides = ["improved_to"]
    if any(len(row) and not np.isnan(row).all() for row in results.frame["test_of_improved"]):
        sides.append("test_of_improved")
    figure = Figure(figsize=(6 * len(sides), 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    titles = {"improved_to": "objective of the best so far", "test_of_improved": "the same cell on the test split"}
    for place, side in enumerate(sides):
        axes: Axes = figure.add_subplot(1, len(sides), place + 1)
        lowest = []
        for number, method in enumerate(results.methods):
            rows = results.frame[results.frame["method"] == method]
            at, curves = _on_a_grid(rows, side)
            mean = scale.factor * curves.mean(axis=0)
            error = scale.factor * curves.std(axis=0, ddof=1 if len(rows) > 1 else 0) / np.sqrt(len(rows))
            colour, dashed = _COLOURS[number % len(_COLOURS)], number >= len(_COLOURS)
            axes.plot(at, mean, color=colour, label=method, linewidth=1.4, linestyle="--" if dashed else "-")
            axes.fill_between(at, mean - error, mean + error, color=colour, alpha=0.18, linewidth=0)
            lowest.append(mean[min(10, len(mean) - 1)])
        best = results.values.max() if results.problem.objective.direction == "maximise" else results.values.min()
        if side == "improved_to":
            axes.axhline(scale.factor * best, color="#6b6b6b", linewidth=0.8, linestyle=":")
        axes.set(xscale="log", xlabel="samples", ylabel=scale.unit, title=titles[side])
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color="#ececec")
        if place == 0:
            axes.legend(frameon=False, fontsize=8)
    figure.suptitle(
        f"{results.problem.objective.name}: mean of {len(results.plan.seeds)} searches, ± one standard error"
    )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    return buffer.getvalue()


def _on_a_grid(rows: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Lists sample counts (n,) and the searches' best so far at each (searches, n)."""
    longest = int(rows["evaluations"].max())
    grid = np.unique(np.round(np.geomspace(1, longest, min(longest, 400))).astype(int))
    return grid, np.array([_at(a, v, grid) for a, v in zip(rows["improved_at"], rows[column], strict=True)])


def _at(steps: Sequence[int], values: Sequence[float], grid: np.ndarray) -> np.ndarray:
    place = np.searchsorted(np.asarray(steps), grid, side="right") - 1
    return np.asarray(values, dtype=float)[np.maximum(place, 0)]
