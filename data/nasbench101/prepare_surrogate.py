"""Prepares `nasbench101-surrogate`: a predicted accuracy for all 423,624 cells, where no table is at hand.

Gradient-boosted trees learn the accuracies of real, trained cells from counts of paths, edges and degrees
(`features.py`) and predict every cell; noise like that of a training run is put on top. The table is an objective to
study search methods on at the size of the benchmark. Its values are no accuracies that anybody measured, so every name
that it goes by says surrogate.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit, logit, ndtri
from scipy.stats import kendalltau, pearsonr, rankdata, spearmanr
from sklearn.ensemble import HistGradientBoostingRegressor

from bonas_core.errors import TableError
from bonas_core.evaluators.table import file_digest, parse_graphs
from bonas_core.spaces.base import Genotypes, Keys
from bonas_core.spaces.nasbench101 import NASBench101
from data import prepared
from data.nasbench101.features import features
from data.nasbench101.prepare import check_fractions, graph_columns, read_cells

SOURCE = "a Parquet of trained cells with hash, adjacency, ops and val_acc_108; see data/nasbench101/README.md"
COLUMN = "val_acc_108_surrogate"
MEAN_COLUMN = "val_acc_108_surrogate_mean"

_NAME = "nasbench101-surrogate"
_MEASURED = "val_acc_108"
_FEWEST = 1000
"""Number of trained cells from which on there is something to learn and to hold out."""
_HELD_OUT = 0.1
_COMMON = 0.005
"""Share of the trained cells in which a feature must not be zero to be used."""
_ITERATIONS = 300
_LEVELS = 20
"""Number of levels of predicted accuracy that have residuals of their own."""
_CHUNK = 50_000


@dataclass(frozen=True)
class Surrogate:
    """A regression from cells to accuracies.

    Accuracies have a heavy tail of failed trainings, so the trees learn the normal score of the rank, and their
    predictions are mapped back through the quantiles of the measured accuracies.
    """

    trees: HistGradientBoostingRegressor
    columns: NDArray[np.intp]
    """Features used."""
    scores: NDArray[np.float64]
    """Normal scores of the measured accuracies, in order."""
    logits: NDArray[np.float64]
    """The measured accuracies, in order."""

    def predict(self, cells: Genotypes) -> NDArray[np.float64]:
        """(n,) predicted accuracy of every cell, as a logit."""
        chunks = [cells[start : start + _CHUNK] for start in range(0, len(cells), _CHUNK)]
        scores = [self.trees.predict(features(chunk)[:, self.columns]) for chunk in chunks]
        predicted: NDArray[np.float64] = np.interp(np.concatenate(scores), self.scores, self.logits)
        return predicted


def fit(cells: Genotypes, accuracy: NDArray[np.float64]) -> Surrogate:
    """Fits the regression to measured accuracies.

    Args:
        cells: (n, genes) the trained cells.
        accuracy: (n,) fractions between 0 and 1.
    """
    inputs = features(cells)
    columns = np.flatnonzero((inputs != 0).mean(axis=0) >= _COMMON)
    scores = ndtri((rankdata(accuracy) - 0.5) / len(accuracy))
    trees = HistGradientBoostingRegressor(
        max_iter=_ITERATIONS, learning_rate=0.1, l2_regularization=1.0, early_stopping=False, random_state=0
    )
    trees.fit(inputs[:, columns], scores)
    order = np.argsort(scores, kind="stable")
    return Surrogate(trees, columns, scores[order], logit(accuracy[order]))


@dataclass(frozen=True)
class Noise:
    """Residuals of held-out cells by predicted level: how far a single training run is from its prediction."""

    levels: NDArray[np.float64]
    """(levels,) predicted accuracies, as logits, rising."""
    residuals: NDArray[np.float64]
    """(levels, quantiles) residuals in logits around each level, rising."""

    def draw(self, predicted: NDArray[np.float64], keys: Keys) -> NDArray[np.float64]:
        """(n,) residuals in logits, each drawn by its cell's key: the same ones for ever.

        Args:
            predicted: (n,) predicted accuracies as logits.
            keys: (n,) identities of the cells.
        """
        quantile = uniform(keys) * (self.residuals.shape[1] - 1)
        level = np.interp(predicted, self.levels, np.arange(len(self.levels)))
        row, column = (
            np.minimum(at.astype(np.intp), size - 2)
            for at, size in zip((level, quantile), self.residuals.shape, strict=True)
        )
        up, right = level - row, quantile - column
        lower = self.residuals[row, column] * (1 - right) + self.residuals[row, column + 1] * right
        upper = self.residuals[row + 1, column] * (1 - right) + self.residuals[row + 1, column + 1] * right
        drawn: NDArray[np.float64] = lower * (1 - up) + upper * up
        return drawn


def noise_of(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> Noise:
    """Estimates the noise that held-out predictions show; both are logits."""
    groups = np.array_split(np.argsort(predicted, kind="stable"), _LEVELS)
    quantiles = np.linspace(0, 1, min(map(len, groups)))
    residuals = measured - predicted
    return Noise(
        np.array([predicted[group].mean() for group in groups]),
        np.stack([np.quantile(residuals[group], quantiles) for group in groups]),
    )


def uniform(keys: Keys) -> NDArray[np.float64]:
    """(n,) numbers in [0, 1) that keys scatter to (the finaliser of SplitMix64)."""
    mixed = keys + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return (mixed >> np.uint64(11)).astype(np.float64) / 2.0**53


def prepare(source: Path, target: Path) -> str:
    """Learns from trained cells, predicts the space and writes the table; minutes on one core.

    Raises:
        TableError: the source cannot be used, or is too small to learn from; nothing is written then.
    """
    cells, table = read_cells(source)
    if _MEASURED not in table.column_names:
        raise TableError(f"table `{source}` has no column `{_MEASURED}`; it has {', '.join(table.column_names)}")
    check_fractions(table, [_MEASURED], source)
    if len(cells) < _FEWEST:
        raise TableError(f"table `{source}` has {len(cells)} cells; a surrogate is learnt from {_FEWEST} or more")
    accuracy = np.clip(table[_MEASURED].to_numpy().astype(np.float64), 1e-6, 1 - 1e-6)

    shuffled = np.random.default_rng(0).permutation(len(cells))
    held_out, rest = np.split(shuffled, [round(_HELD_OUT * len(cells))])
    predicted = fit(cells[rest], accuracy[rest]).predict(cells[held_out])
    noise = noise_of(predicted, logit(accuracy[held_out]))
    agreement = _agreement(expit(predicted), accuracy[held_out])

    everything = _space()
    mean = fit(cells, accuracy).predict(everything)
    noisy = expit(mean + noise.draw(mean, NASBench101().keys(everything)))
    best = int(np.count_nonzero(noisy == noisy.max()))
    described = {
        "source": source.name,
        "sha256": file_digest(source),
        "trained_cells": len(cells),
        "held_out_cells": len(held_out),
        "held_out": agreement,
        "cells_at_the_best": best,
        "best": float(noisy.max()),
    }
    trees = f"boosted trees learnt from {len(cells)} trained cells"
    columns = {
        COLUMN: f"surrogate for the CIFAR-10 validation accuracy of one run of 108 epochs: {trees}, with noise",
        MEAN_COLUMN: f"surrogate for the CIFAR-10 validation accuracy after 108 epochs: {trees}, without noise",
    }
    values = {COLUMN: noisy, MEAN_COLUMN: expit(mean)}
    written = pa.table({**graph_columns(everything), **values})
    prepared.write(target, written, described, {"name": _NAME, "columns": columns})
    return f"{target}: {len(everything)} cells\n{_summary(described)}"


def check(target: Path) -> str:
    """Checks the table against its digest and the rules of the space.

    Raises:
        TableError: it is missing or not what was written.
    """
    table, described = prepared.read(target, f"bonas data prepare {_NAME} --source PATH")
    parse_graphs(NASBench101(), target)
    check_fractions(table, [COLUMN, MEAN_COLUMN], target)
    return f"{target}: {table.num_rows} cells, as prepared\n{_summary(described)}"


def _space() -> Genotypes:
    """Enumerates the cells to predict."""
    return NASBench101().enumerate()


def _agreement(predicted: NDArray[np.float64], measured: NDArray[np.float64]) -> dict[str, float]:
    measures = {"spearman": spearmanr, "kendall": kendalltau, "pearson": pearsonr}
    return {name: float(measure(predicted, measured).statistic) for name, measure in measures.items()}


def _summary(described: dict[str, Any]) -> str:
    agreement = ", ".join(f"{name.capitalize()} {value:.4f}" for name, value in described["held_out"].items())
    return (
        f"learnt from {described['source']}, sha256 {described['sha256']}, {described['trained_cells']} trained cells\n"
        f"{described['held_out_cells']} held-out cells, predicted and measured: {agreement}\n"
        f"best {COLUMN}: {described['best']:.6f}, of {described['cells_at_the_best']} cell(s)"
    )
