"""Predictors trained on most of a table and asked to rank the rest (section 4.1 of the paper).

Every cell of the table belongs to one of three parts, drawn anew for each split: 85 % are learnt from, 10 % decide at
which epoch to stop, 5 % are predicted. One row of `runs.parquet` is one predictor on one split, with its predictions,
so that Table 1 and Figure 3 are drawn from it alone.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import pearsonr, spearmanr

from bonas_core.errors import SettingsError, TableError
from bonas_core.evaluators.base import ClosedEvaluator, EvaluationContext, Evaluator
from bonas_core.evaluators.table import read_table
from bonas_core.methods.bonas.predictors.base import PredictorWeights
from bonas_core.methods.bonas.predictors.fitting import NetworkPredictor
from bonas_core.methods.bonas.predictors.losses import loss_weights
from bonas_core.methods.bonas.targets import transform
from bonas_core.problem import build_evaluator, build_space
from bonas_core.settings import Settings, TableSettings
from bonas_core.spaces.base import SearchSpace
from bonas_core.spaces.encoding import GraphBatch
from bonas_core.spaces.path_encoding import ENDS, path_encoding
from bonas_core.trials import Objective
from flows.benchmarks.plan import Plan
from flows.benchmarks.runs import run_all
from flows.benchmarks.searches import preset_of, preset_settings, standard_error

Vector = NDArray[np.float64]

TRAINED, VALIDATED = 0.85, 0.10
"""Shares of the cells that are learnt from and that decide when to stop."""
_CHECKS = 50  # validations in the longest training
_PATIENCE = 0.5  # share of the longest training that may bring nothing better before it ends
_FEWEST = 40  # cells of a table: fewer leave no two to be predicted
_COLUMNS = 400  # of path counts
_TREES = 100
_VERSION = 2  # raised when an unchanged job would give another row


@dataclass(frozen=True)
class Entry:
    """A row of the table: a predictor's settings, and the paper's figure."""

    overrides: Mapping[str, Any]
    """Settings put on top of the preset's; `predictor.epochs` is the most that it trains."""
    about: str
    paper: Mapping[str, float] = field(default_factory=dict)
    """Correlation in per cent in the paper's Table 1, by space."""


def _network(kind: str, epochs: int, **more: Any) -> dict[str, Any]:
    common = {"kind": kind, "loss": "mse", "targets": "standardise", "learning_rate": 1e-3, "batch_size": 128}
    named = {f"predictor.{name}": value for name, value in {**common, "epochs": epochs, **more}.items()}
    return {"method.recipe": "paper", **named}


ENTRIES: dict[str, Entry] = {
    "mlp": Entry(
        _network("mlp", 20),
        "512, 2048, 2048, 512 units on flattened graphs",
        {"nasbench101": 83.0, "nasbench201": 86.5},
    ),
    "lstm": Entry(_network("lstm", 40), "100 units on graphs as sequences", {"nasbench101": 74.1, "nasbench201": 79.5}),
    "gcn": Entry(
        _network("gcn", 150), "4 layers of 64 units, global vertex", {"nasbench101": 84.1, "nasbench201": 97.3}
    ),
    "gcn-best": Entry(
        _network("gcn", 60, targets="rank", initialisation="he", learning_rate=3e-3, batch_size=256),
        "the same network, trained on ranks",
    ),
    "trees": Entry({}, "extremely randomised trees on counts of paths: what the data allow"),
}
"""Predictors by the name that `--methods` takes."""


@dataclass(frozen=True)
class PredictionJob:
    """One predictor on one split."""

    method: str
    split: int
    settings: Settings

    def digest(self, fingerprint: str) -> str:
        """Digests the job: equal for jobs that would give the same row."""
        predictor = self.settings.tree()["predictor"] if self.method != "trees" else _TREES
        parts = [_VERSION, self.method, self.split, self.settings.space, predictor, fingerprint]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def execute(self) -> dict[str, Any]:
        """Trains, predicts, and correlates."""
        cells = _cells(self.settings.model_dump_json(include={"space", "evaluator"}))
        trained, validated, tested = split_rows(len(cells.scores), self.split)
        begin = time.process_time()
        fit = _fit_trees if self.method == "trees" else _fit_network
        fitted = fit(self, cells, trained, validated)
        seconds = time.process_time() - begin
        to_objective = np.vectorize(cells.objective.objective, otypes=[float])
        predicted, actual = to_objective(fitted.predict(tested)), to_objective(cells.scores[tested])
        return {
            "method": self.method,
            "split": self.split,
            "space": self.settings.space,
            "objective": cells.objective.name,
            "pearson": correlation(pearsonr, predicted, actual),
            "spearman": correlation(spearmanr, predicted, actual),
            "cells": len(trained),
            "epoch": fitted.epoch,
            "epochs": fitted.epochs,
            "cpu_s": seconds,
            "predicted": predicted.tolist(),
            "actual": actual.tolist(),
        }


@dataclass(frozen=True)
class _Cells:
    """The cells of a table."""

    space: SearchSpace
    graphs: GraphBatch
    scores: Vector
    objective: Objective


@dataclass(frozen=True)
class _Fitted:
    predict: Callable[[NDArray[np.intp]], Vector]
    """Function from rows of the table to predicted scores."""
    epoch: int
    """Epoch that validation chose."""
    epochs: int
    """Number of epochs that were trained."""


@dataclass(frozen=True)
class Correlations:
    """Correlations of predictors on all splits."""

    methods: tuple[str, ...]
    plan: Plan
    frame: pd.DataFrame
    """A row per method and split."""
    settings: Settings
    objective: Objective
    cells: int
    seconds: float


def run_predictors(plan: Plan) -> Correlations:
    """Trains predictors on those splits whose rows are not there yet.

    Raises:
        SettingsError: space, method or setting is unknown, or the objective is not a table's.
        TableError: the table is too small to be split.
    """
    chosen = plan.choose(ENTRIES)
    preset = preset_of(plan.space)
    all_settings = {method: preset_settings(preset, ENTRIES[method].overrides, plan.overrides) for method in chosen}
    settings = all_settings[chosen[0]]
    evaluator = _closed(settings)
    count = len(evaluator.objectives())
    if count < _FEWEST:
        raise TableError(f"benchmark table1: the table has {count} cells, a split needs {_FEWEST}; use a larger one")
    plan.make_folder()
    begin = time.perf_counter()
    wanted = [PredictionJob(method, split, all_settings[method]) for split in plan.seeds for method in chosen]
    frame = run_all({job.digest(evaluator.fingerprint): job for job in wanted}, plan.rows, plan.processes)
    objective = Objective(evaluator.objective, evaluator.unit, evaluator.direction)
    return Correlations(chosen, plan, frame, settings, objective, count, time.perf_counter() - begin)


def split_rows(count: int, split: int) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Draws the rows to learn from, to stop by, and to predict: each row is in one of them, and equal splits are equal.

    Args:
        count: rows of the table.
        split: number of the split.
    """
    order = np.random.default_rng(split).permutation(count)
    first, second = round(TRAINED * count), round((TRAINED + VALIDATED) * count)
    return order[:first], order[first:second], order[second:]


def correlation(kind: Callable[[Vector, Vector], Any], predicted: Vector, actual: Vector) -> float:
    """Computes a correlation coefficient; 0 where one side does not vary."""
    varies = np.ptp(predicted) > 0 and np.ptp(actual) > 0
    return float(kind(predicted, actual).statistic) if varies else 0.0


def table(results: Correlations) -> str:
    """Writes the correlations as Markdown, the paper's beside."""
    by_method = {str(name): rows for name, rows in results.frame.groupby("method")}
    predicted = len(by_method[results.methods[0]]["actual"].iloc[0])
    lines = [
        f"# Table 1, correlation of predictions: {results.objective.name}",
        "",
        f"{results.cells} cells, {len(results.plan.seeds)} random splits into {TRAINED:.0%} to learn from, "
        f"{VALIDATED:.0%} to choose the epoch and the rest to be predicted, {predicted} cells. "
        "Correlation of predicted and actual objective in per cent, mean ± standard error over the splits.",
        "",
        "| predictor | what it is | Pearson | Spearman | paper | epoch chosen | CPU s a split |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method in results.methods:
        rows = by_method[method]
        paper = ENTRIES[method].paper.get(str(rows["space"].iloc[0]))
        cells = [
            method,
            ENTRIES[method].about,
            _percent(rows["pearson"]),
            _percent(rows["spearman"]),
            "-" if paper is None else f"{paper:.1f}",
            "-" if method == "trees" else f"{rows['epoch'].mean():.0f} of {rows['epochs'].mean():.0f}",
            f"{rows['cpu_s'].mean():.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "The paper does not say which of the two coefficients it gives, nor how long it trains. Here the epoch of the "
        "smallest squared error on the validation cells counts, and a training ends when half of its longest "
        "duration has brought no better one. `trees` sees counts of paths and of edges between operations: what more a "
        "predictor could reach is not known, but that much is in the data.",
        *_noise(results),
        "",
        f"{len(results.frame)} trainings; this run took {results.seconds:.0f} s with {results.plan.processes} "
        "processes.",
        "",
    ]
    return "\n".join(lines)


def _percent(values: pd.Series) -> str:
    numbers = 100 * values.to_numpy(dtype=float)
    error = standard_error(numbers)
    return f"{numbers.mean():.2f}" + ("" if np.isnan(error) else f" ± {error:.2f}")


def _noise(results: Correlations) -> list[str]:
    """Says how well one training of a cell stands for the mean of its trainings, where the table has both."""
    evaluator = results.settings.evaluator
    if not isinstance(evaluator, TableSettings) or not evaluator.table:
        return []
    for column in dict.fromkeys(
        [evaluator.objective, str(evaluator.test), evaluator.objective.replace("_val_", "_test_")]
    ):
        try:
            frame = read_table(Path(evaluator.table), [(column,), (f"{column}_oneseed",)])
        except TableError:  # the table has no such pair
            continue
        mean, single = (frame[name].to_numpy(dtype=float) for name in (column, f"{column}_oneseed"))
        return [
            "",
            f"For comparison, one training of each cell correlates with the mean of its trainings (itself included) in "
            f"`{column}` at {100 * correlation(pearsonr, single, mean):.2f} (Pearson) and "
            f"{100 * correlation(spearmanr, single, mean):.2f} (Spearman).",
        ]
    return []


def _closed(settings: Settings) -> ClosedEvaluator:
    evaluator: Evaluator = build_evaluator(settings, build_space(settings.space))
    if not isinstance(evaluator, ClosedEvaluator):
        raise SettingsError("benchmark table1: predictors learn from a table; set evaluator.kind=table")
    return evaluator


@lru_cache(maxsize=1)
def _cells(tree: str) -> _Cells:
    """Reads the cells that the next jobs of this process share."""
    evaluator = _closed(Settings.model_validate_json(tree))
    space, objective = evaluator.space, Objective(evaluator.objective, evaluator.unit, evaluator.direction)
    genotypes = space.enumerate()
    outcomes = [
        evaluator.evaluate(space.architecture(genotype), EvaluationContext(seed=row))
        for row, genotype in enumerate(genotypes)
    ]
    scores = np.array([objective.score(outcome.objective) for outcome in outcomes])
    return _Cells(space, space.encode(genotypes), scores, objective)


def _fit_network(job: PredictionJob, cells: _Cells, trained: NDArray[np.intp], validated: NDArray[np.intp]) -> _Fitted:
    """Trains a network and keeps the weights of the epoch with the smallest squared error on the validation cells."""
    settings = job.settings.predictor
    assert settings is not None
    predictor = settings.build(cells.space)
    if not isinstance(predictor, NetworkPredictor):
        raise SettingsError(
            f"benchmark table1: predictor `{settings.kind}` cannot be watched while it trains; derive it from "
            "bonas_core.methods.bonas.predictors.fitting:NetworkPredictor"
        )
    scores = cells.scores[trained]
    targets = transform(scores, settings.targets)
    longest = settings.epochs
    every = max(1, round(longest / _CHECKS))
    best: dict[str, Any] = {"error": np.inf, "epoch": 0, "weights": None}
    done = 0
    expected = np.interp(cells.scores[validated], targets.nodes, targets.node_values)  # as the training sees them

    def watch(epoch: int, current: Callable[[], PredictorWeights]) -> bool:
        nonlocal done
        done = epoch
        if epoch % every and epoch != longest:
            return False
        weights = current()
        error = float(np.mean((predictor.predict(weights, cells.graphs[validated]) - expected) ** 2))
        if error < best["error"]:
            best.update(error=error, epoch=epoch, weights=weights)
        return bool(epoch - best["epoch"] >= max(every, _PATIENCE * longest))

    fractions = scores if cells.objective.is_fraction else (scores - scores.min()) / (np.ptp(scores) or 1.0)
    importance = loss_weights(fractions, settings.loss)
    last = predictor.fit(cells.graphs[trained], targets.values, importance, job.split, watch=watch)
    weights = best["weights"] or last
    return _Fitted(lambda rows: targets.to_scores(predictor.predict(weights, cells.graphs[rows])), best["epoch"], done)


def _fit_trees(job: PredictionJob, cells: _Cells, trained: NDArray[np.intp], validated: NDArray[np.intp]) -> _Fitted:
    from sklearn.ensemble import ExtraTreesRegressor

    features = graph_counts(cells.graphs, cells.space.positional)
    model = ExtraTreesRegressor(_TREES, max_features=0.33, random_state=job.split, n_jobs=1)
    model.fit(features[trained], cells.scores[trained])
    return _Fitted(lambda rows: np.asarray(model.predict(features[rows])), 0, 0)


def graph_counts(graphs: GraphBatch, positional: bool) -> NDArray[np.float32]:
    """Computes hand-made features (n, C) of graphs: counts of labels, of edges by their labels, and of paths by theirs.

    Args:
        graphs: n graphs.
        positional: whether the label of each vertex counts as well.
    """
    operations = len(set(graphs.vocabulary) - set(ENDS))
    longest = 1
    while sum(operations**length for length in range(longest + 2)) <= _COLUMNS and longest < graphs.labels.shape[1]:
        longest += 1
    chunks = []
    for begin in range(0, len(graphs), 2048):
        chunk = graphs[begin : begin + 2048]
        n, V = chunk.labels.shape
        one_hot = (chunk.labels[:, :, None] == np.arange(len(chunk.vocabulary))).astype(np.float32)
        adjacency = np.broadcast_to(chunk.adjacency, (n, V, V)).astype(np.float32)
        pairs = (one_hot.transpose(0, 2, 1) @ adjacency @ one_hot).reshape(n, -1)
        places = [one_hot.reshape(n, -1)] if positional else []
        paths = path_encoding(chunk, longest, counts=True)
        chunks.append(np.concatenate([one_hot.sum(axis=1), pairs, paths, *places], axis=1))
    features = np.concatenate(chunks)
    return features[:, np.ptp(features, axis=0) > 0]
