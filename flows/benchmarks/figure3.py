"""Figure 3: objectives that predictors expected of cells they had not seen, against the actual ones, by density."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pyarrow as pa
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.stats import gaussian_kde

from bonas_core.report.analysis import Scale
from bonas_core.storage import write_table, write_whole
from flows.benchmarks.plan import Plan
from flows.benchmarks.predictors import ENTRIES, Correlations, run_predictors, table

_KERNELS = 2000  # points that the density is estimated from: more change nothing that the eye could see
_OUTSIDE = 0.03  # share of the worst cells that the frame may leave out
_PANEL_INCHES = 3.3


def figure3(plan: Plan) -> str:
    """Trains every predictor and writes `figure3.png`, its points as `figure3.parquet`, and `figure3.md` to `out`.

    Args:
        plan: its seeds are numbers of splits, whose test cells are shown together; trainings that table 1 left in its
            folder are not done again.

    Returns:
        the correlations, as Markdown.

    Raises:
        SettingsError: space, method or setting is unknown, or the objective is not a table's.
        TableError: the table is too small to be split.
    """
    results = run_predictors(plan)
    write_table(plan.folder / "figure3.parquet", pa.Table.from_pandas(points(results), preserve_index=False))
    write_whole(plan.folder / "figure3.png", draw(results))
    text = table(results)
    write_whole(plan.folder / "figure3.md", text.encode())
    return text


def points(results: Correlations) -> pd.DataFrame:
    """Lists a row per predictor and test cell: method, split, predicted and actual objective."""
    rows = results.frame[["method", "split", "predicted", "actual"]].explode(["predicted", "actual"], ignore_index=True)
    return rows.astype({"predicted": float, "actual": float})


def draw(results: Correlations) -> bytes:
    """Draws a PNG with a panel per predictor; the colour is a Gaussian estimate of the density of points."""
    scale = Scale.of(results.objective)
    shown = points(results)
    actual = scale.factor * shown["actual"].to_numpy()
    low, high = float(np.quantile(actual, _OUTSIDE)), float(actual.max())
    if results.objective.direction == "minimise":
        low, high = float(actual.min()), float(np.quantile(actual, 1 - _OUTSIDE))
    margin = 0.05 * (high - low) or 0.5
    low, high = low - margin, high + margin
    columns = len(results.methods)
    figure = Figure(figsize=(_PANEL_INCHES * columns + 0.8, _PANEL_INCHES + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    panels: list[Axes] = list(figure.subplots(1, columns, sharex=True, sharey=True, squeeze=False)[0])
    for panel, method in zip(panels, results.methods, strict=True):
        runs = results.frame[results.frame["method"] == method]
        rows = shown[shown["method"] == method]
        x, y = (scale.factor * rows[side].to_numpy() for side in ("actual", "predicted"))
        inside = (np.minimum(x, y) >= low) & (np.maximum(x, y) <= high)
        colour = density(x[inside], y[inside])
        order = np.argsort(colour)  # the densest on top
        panel.plot([low, high], [low, high], color="#6b6b6b", linewidth=0.8, linestyle=(0, (4, 2)), zorder=3)
        panel.scatter(
            x[inside][order], y[inside][order], c=colour[order], s=5, linewidths=0, cmap="viridis", rasterized=True
        )
        paper = ENTRIES[method].paper.get(str(runs["space"].iloc[0]))
        panel.set_title(
            f"{method}\nPearson {100 * runs['pearson'].mean():.1f} %, Spearman {100 * runs['spearman'].mean():.1f} %\n"
            f"{'' if paper is None else f'paper {paper:.1f} %, '}{int((~inside).sum())} of {len(x)} outside",
            fontsize=9,
        )
        panel.set(xlim=(low, high), ylim=(low, high), aspect="equal")
        panel.spines[["top", "right"]].set_visible(False)
        panel.grid(color="#ececec")
        panel.set_axisbelow(True)
    panels[0].set_ylabel(f"predicted ({scale.unit})")
    figure.supxlabel(f"actual {results.objective.name} ({scale.unit})", fontsize=10)
    bar = figure.colorbar(ScalarMappable(Normalize(0, 1), "viridis"), ax=panels, fraction=0.02, aspect=30)
    bar.set_label("density, of the densest point")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def density(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Estimates the density (n,) of n points at each of them, as a share of the largest; ones for points on a line."""
    chosen = np.random.default_rng(0).permutation(len(x))[:_KERNELS]
    try:
        found: NDArray[np.float64] = gaussian_kde(np.stack([x, y])[:, chosen])(np.stack([x, y]))
    except (np.linalg.LinAlgError, ValueError):
        return np.ones(len(x))
    return np.asarray(found / found.max())
