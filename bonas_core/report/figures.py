"""Figures of a report as inline SVG, and of a model card as PNG, drawn without pyplot: nothing global is left changed.

Colours are those of Okabe and Ito, which people with any colour vision can tell apart.
"""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.ticker import MaxNLocator

from bonas_core.report.analysis import Point, Predictions, Progress, RandomSearch, Scale, Vector, layout
from bonas_core.spaces.architecture import Architecture

BLUE, VERMILLION = "#0072B2", "#D55E00"
_INK, _MUTED, _FAINT = "#222222", "#6b6b6b", "#b5b5b5"
_FILLS = ("#cfe6f5", "#fbe3c0", "#cdeee2", "#f6d9e8", "#fdf6c3", "#f7d5c4", "#e2e2f4")
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be selected, searched and read out
    "svg.hashsalt": "bonas",
    "text.parse_math": False,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
    "font.size": 9.5,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": "#ececec",
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "legend.frameon": False,
    "savefig.dpi": 150,
}
_RASTER_ABOVE = 2000  # points: as an image they take less room
_OUTSIDE = 0.1  # share of points on one side by which the frame does not go


def best_so_far(
    progress: Progress,
    scale: Scale,
    direction: str,
    random: RandomSearch | None,
    random_label: str,
    others: Sequence[Vector],
    others_mean: Vector | None,
    optimum: float | None,
    description: str,
) -> str:
    """Draws the best objective after every evaluation beside that of random search.

    Args:
        progress: best objective of the search after every evaluation.
        scale: how objectives are shown.
        direction: `maximise` or `minimise`.
        random: the distribution of random search, where there is one.
        random_label: says where it comes from.
        others: best objectives so far of stored random searches.
        others_mean: mean of the stored random searches, where it is to be shown.
        optimum: best objective of all architectures, where known.
        description: what the figure shows, in words.
    """

    def draw() -> Figure:
        has_test = bool(np.isfinite(progress.test).any())
        figure = Figure(figsize=(11.1, 5.3 if has_test else 4.3), layout="constrained")
        panels = figure.subplots(
            2 if has_test else 1, 1, sharex=True, squeeze=False, height_ratios=[3.6, 1] if has_test else None
        )[:, 0]
        top = panels[0]
        count = len(progress.best)
        for place, other in enumerate(others):
            label = f"stored random searches ({len(others)})" if place == 0 else None
            _steps(top, other[:count] * scale.factor, color=_FAINT, linewidth=0.8, label=label)
        if others_mean is not None:
            _steps(top, others_mean[:count] * scale.factor, color=_MUTED, linestyle=(0, (4, 2)), label="their mean")
        if random is not None:
            draws = np.arange(1, len(random.mean) + 1)
            low, high = random.worse * scale.factor, random.better * scale.factor
            top.fill_between(draws, low, high, color="#e4e4e4", linewidth=0, label="80 % of random searches")
            top.plot(draws, random.mean * scale.factor, color=_MUTED, linestyle=(0, (4, 2)), label=random_label)
        _steps(top, progress.best * scale.factor, color=BLUE, linewidth=2, label="this search")
        if optimum is not None:
            top.axhline(optimum * scale.factor, color=_INK, linewidth=0.8, linestyle=":", label="best of the table")
        top.set_ylim(*_frame_of_curves(progress, random, others, others_mean, optimum, scale))
        word = "highest" if direction == "maximise" else "lowest"
        top.set_ylabel(f"{word} objective so far ({scale.unit})")
        top.legend(loc="lower right" if direction == "maximise" else "upper right", fontsize=9)
        if has_test:
            _steps(panels[1], progress.test * scale.factor, color=VERMILLION, linewidth=1)
            panels[1].set_ylabel(f"its test\nmetric ({scale.unit})")
        for panel in panels:
            if progress.initial:
                panel.axvspan(0.5, progress.initial + 0.5, color=BLUE, alpha=0.07, linewidth=0)
            panel.margins(x=0)
        if progress.initial:
            top.annotate(
                "initial design" if progress.initial > 0.12 * count else "initial",
                (0.5, 1.0),
                xycoords=("data", "axes fraction"),
                xytext=(3, 3),
                textcoords="offset points",
                fontsize=8.5,
                color=_MUTED,
            )
        panels[-1].set_xlim(0.5, count + 0.5)
        panels[-1].set_xlabel("evaluations")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        return figure

    return _svg("progress", description, draw)


def _steps(axes: Axes, values: Vector, **style: Any) -> None:
    """A step line that holds each value until the next evaluation."""
    marker = "o" if len(values) == 1 else None
    axes.step(np.arange(1, len(values) + 1), values, where="post", marker=marker, **style)


def _frame_of_curves(
    progress: Progress,
    random: RandomSearch | None,
    others: Sequence[Vector],
    others_mean: Vector | None,
    optimum: float | None,
    scale: Scale,
) -> tuple[float, float]:
    """Limits that give the room to the late, close race: of the first few evaluations the worst may be cut off."""
    count = len(progress.best)
    start = min(max(2, count // 25), count - 1)
    curves = [progress.best, *([random.mean, random.worse] if random is not None else [])]
    curves += [others_mean[:count]] if others_mean is not None else []
    shown = [progress.best[np.isfinite(progress.best)][-1:]]
    shown += [curve[start:] for curve in curves]
    shown += [other[:count][-1:] for other in others]
    shown += [np.array([optimum])] if optimum is not None else []
    values = np.concatenate(shown) * scale.factor
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 0.02 * abs(high) or 0.5
    return low - margin, high + margin


def predicted_against_actual(predictions: Predictions, scale: Scale, description: str) -> str:
    """Draws every prediction that was made before its trial ran over the objective of that trial."""

    def draw() -> Figure:
        figure = Figure(figsize=(5.4, 5.1), layout="constrained")
        axes = figure.subplots()
        actual, mean = predictions.actual * scale.factor, predictions.mean * scale.factor
        std = predictions.std * scale.factor
        low, high = _frame_of_points(actual, mean)
        rasterise = len(actual) > _RASTER_ABOVE
        axes.plot([low, high], [low, high], color=_MUTED, linewidth=1, linestyle=(0, (4, 2)))
        size = 22 if len(actual) < 300 else 8
        inside = (np.minimum(actual, mean) >= low) & (np.maximum(actual, mean) <= high)
        x, y, error = actual[inside], mean[inside], std[inside]
        faint = max(0.03, min(0.18, 40 / len(actual)))
        axes.vlines(x, y - error, y + error, color=BLUE, alpha=faint, linewidth=1, rasterized=rasterise)
        axes.scatter(x, y, s=size, color=BLUE, alpha=0.65, linewidths=0, rasterized=rasterise)
        if not inside.all():
            x, y = np.clip(actual[~inside], low, high), np.clip(mean[~inside], low, high)
            axes.scatter(x, y, s=size, facecolor="none", edgecolor=VERMILLION, clip_on=False, zorder=3)
            text = f"{len(x)} of {len(actual)} lie outside the frame: circles at its edge"
            axes.set_title(text, loc="left", fontsize=8.5, color=_MUTED)
        axes.set_xlim(low, high)
        axes.set_ylim(low, high)
        axes.set_aspect("equal")
        axes.set_xlabel(f"actual objective ({scale.unit})")
        axes.set_ylabel(f"objective predicted before ({scale.unit})")
        return figure

    return _svg("prediction", description, draw)


def _frame_of_points(actual: Vector, mean: Vector) -> tuple[float, float]:
    """One frame for both axes; far outliers fall outside where they would squeeze all the rest."""
    both = np.concatenate([actual, mean])
    low, high = float(both.min()), float(both.max())
    inner_low = min(float(np.quantile(values, _OUTSIDE)) for values in (actual, mean))
    inner_high = max(float(np.quantile(values, 1 - _OUTSIDE)) for values in (actual, mean))
    room = 0.5 * (inner_high - inner_low)
    if room > 0:
        low, high = max(low, inner_low - room), min(high, inner_high + room)
    margin = 0.06 * (high - low) or 0.02 * abs(high) or 0.5
    return low - margin, high + margin


_COLUMN, _ROW, _HEIGHT = 0.62, 0.56, 0.32  # inches: gap between columns, distance of rows, height of a box


def cell(architecture: Architecture, vocabulary: Sequence[str], description: str) -> str:
    """Draws an architecture as a graph from left to right; `none` operations and what they feed are dim."""
    return _svg("cell", description, _cell_figure(architecture, vocabulary))


def cell_image(architecture: Architecture, vocabulary: Sequence[str]) -> bytes:
    """Draws an architecture as `cell` does, as PNG."""
    return _png(_cell_figure(architecture, vocabulary))


def training_curve(curve: Mapping[int, Mapping[str, float]]) -> bytes:
    """Draws losses, and accuracy where images were held out, after every epoch, as PNG.

    Args:
        curve: by epoch, the figures that a training reports as its progress.
    """

    def draw() -> Figure:
        epochs = sorted(curve)
        has_accuracy = bool(epochs) and "objective" in curve[epochs[-1]]
        figure = Figure(figsize=(7.5, 5.4 if has_accuracy else 3.2), layout="constrained")
        panels = figure.subplots(2 if has_accuracy else 1, 1, sharex=True, squeeze=False)[:, 0]
        lines = [(panels[0], "train_loss", BLUE, "training"), (panels[0], "validation_loss", VERMILLION, "validation")]
        lines += [(panels[-1], "objective", VERMILLION, "validation")] if has_accuracy else []
        for panel, name, colour, label in lines:
            found = [(epoch, curve[epoch][name]) for epoch in epochs if name in curve[epoch]]
            if found:
                marker = "o" if len(found) == 1 else None
                panel.plot(*zip(*found, strict=True), color=colour, label=label, marker=marker)
        panels[0].set_ylabel("loss")
        panels[0].legend(loc="upper right", fontsize=9)
        if has_accuracy:
            panels[-1].set_ylabel("accuracy (%)")
        panels[-1].set_xlabel("epochs")
        panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        return figure

    return _png(draw)


def _cell_figure(architecture: Architecture, vocabulary: Sequence[str]) -> Callable[[], Figure]:
    def draw() -> Figure:
        labels = [_shortened(operation) for operation in architecture.operations]
        found = layout(architecture)
        width = 0.3 + 0.082 * max(map(len, labels))
        columns = 1 + max(column for column, _ in found.places)
        reach = max(abs(row) for route in (found.places, *found.routes) for _, row in route)
        size = (columns * width + (columns - 1) * _COLUMN + 0.1, 2 * reach * _ROW + _HEIGHT + 0.1)
        figure = Figure(figsize=size)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(-width / 2 - 0.05, size[0] - width / 2 - 0.05)
        axes.set_ylim(-size[1] / 2, size[1] / 2)

        def at(place: Point) -> Point:
            return place[0] * (width + _COLUMN), -place[1] * _ROW

        for (source, target), route in zip(architecture.edges, found.routes, strict=True):
            dim = "none" in (architecture.operations[source], architecture.operations[target])
            axes.add_patch(
                FancyArrowPatch(
                    path=_route([at(place) for place in route], width / 2),
                    arrowstyle="-|>",
                    mutation_scale=9,
                    shrinkA=0,
                    shrinkB=0,
                    linewidth=0.9 if dim else 1.3,
                    linestyle=(0, (2, 2)) if dim else "-",
                    color="#cccccc" if dim else "#555555",
                    fill=True,
                    zorder=1 if dim else 2,
                )
            )
        for operation, label, place in zip(architecture.operations, labels, found.places, strict=True):
            dim = operation == "none"
            x, y = at(place)
            axes.add_patch(
                FancyBboxPatch(
                    (x - width / 2, y - _HEIGHT / 2),
                    width,
                    _HEIGHT,
                    boxstyle="round,pad=0,rounding_size=0.07",
                    facecolor=_fill(operation, vocabulary),
                    edgecolor="#cccccc" if dim else "#555555",
                    linestyle=(0, (2, 2)) if dim else "-",
                    linewidth=1,
                    zorder=3,
                )
            )
            axes.text(x, y, label, ha="center", va="center", color="#8a8a8a" if dim else _INK, zorder=4)
        return figure

    return draw


def _route(points: Sequence[Point], half: float) -> Path:
    """A smooth line that leaves and enters columns level and crosses those between straight."""
    vertices: list[Point] = [(points[0][0] + half, points[0][1])]
    codes = [Path.MOVETO]
    for place, (x, y) in enumerate(points[1:], start=1):
        before = vertices[-1]
        end = (x - half, y)
        middle = (before[0] + end[0]) / 2
        vertices += [(middle, before[1]), (middle, y), end]
        codes += [Path.CURVE4] * 3
        if place < len(points) - 1:
            vertices.append((x + half, y))
            codes.append(Path.LINETO)
    return Path(vertices, codes)


def _fill(operation: str, vocabulary: Sequence[str]) -> str:
    if operation == "none":
        return "#ffffff"
    if operation in ("input", "output") or operation not in vocabulary:
        return "#ededed"
    kinds = [label for label in vocabulary if label not in ("none", "input", "output")]
    return _FILLS[kinds.index(operation) % len(_FILLS)]


def _shortened(text: str, limit: int = 24) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


@contextmanager
def _own_style() -> Iterator[None]:
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def _png(draw: Callable[[], Figure]) -> bytes:
    """Draws a figure as a file; equal figures are equal bytes."""
    buffer = io.BytesIO()
    with _own_style():
        draw().savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _svg(name: str, description: str, draw: Callable[[], Figure]) -> str:
    """Draws a figure as an SVG element to put into a page; equal figures are equal texts."""
    buffer = io.StringIO()
    with _own_style():
        metadata = {"Creator": None, "Date": None, "Format": None, "Type": None}
        draw().savefig(buffer, format="svg", transparent=True, metadata=metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip()
    # several figures share a page, so that their ids must not meet
    text = re.sub(r"<[^>]*>", lambda tag: _renamed(tag.group(), name), text)
    label = html.escape(description, quote=True)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1)


def _renamed(tag: str, prefix: str) -> str:
    tag = re.sub(r'(\sid=")', rf"\g<1>{prefix}-", tag)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", tag)
