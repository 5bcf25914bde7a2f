"""The numbers of a report: pure functions of a search's trials, without any drawing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bonas_core.ranks import average_ranks
from bonas_core.spaces.architecture import Architecture
from bonas_core.trials import Objective, Trial, TrialState

Vector = NDArray[np.float64]

BAND = (0.1, 0.9)
"""Quantiles between which random searches are shown."""
_FEWEST = 3  # pairs: two of them always correlate perfectly
_NEGLIGIBLE = 1e-20  # probability


@dataclass(frozen=True)
class Scale:
    """Factor and unit with which objectives are shown; fractions become percent."""

    factor: float
    unit: str

    @staticmethod
    def of(objective: Objective) -> Scale:
        """Chooses the scale of an objective."""
        return {"percent": Scale(1.0, "%"), "fraction": Scale(100.0, "%")}.get(
            objective.unit, Scale(1.0, objective.unit)
        )


@dataclass(frozen=True)
class Predictions:
    """Predictions made before n trials ran, with the objectives of those trials."""

    actual: Vector
    """Objectives, (n,)."""
    mean: Vector
    """Predicted means, (n,)."""
    std: Vector
    """Predicted standard deviations, (n,); 0 where one is not known."""


@dataclass(frozen=True)
class Correlation:
    """Agreement of n predictions with the objectives; a correlation is None where it is not defined."""

    spearman: float | None
    pearson: float | None
    n: int


@dataclass(frozen=True)
class Summary:
    """A search in a few figures."""

    done: int
    failed: int
    diverged: int
    proposed: int
    """Trials whose evaluation has not ended."""
    evaluations: int
    """Trials whose evaluation has ended in any way."""
    distinct: int
    """Distinct architectures among the evaluations; a method may evaluate one again."""
    best: Trial | None
    """The first of the best trials."""
    surrogate_s: float
    """Seconds spent on choosing trials."""
    evaluation_s: float
    """Seconds spent on evaluating trials, as far as they recorded it."""
    honest_correlation: float | None
    """Rank correlation (Spearman) of objectives with what was predicted before the trials ran."""
    honest_trials: int
    """Number of trials behind the correlation."""


def summary(trials: Sequence[Trial], objective: Objective) -> Summary:
    """Sums up the trials of a search.

    Example:
        >>> trial = Trial(0, 0, "key", "cell", TrialState.DONE, objective=0.9)
        >>> summary([trial], Objective("accuracy")).evaluations
        1
    """
    states = [trial.state for trial in trials]
    ended = evaluated(trials)
    agreement = honest_correlation(trials)
    return Summary(
        done=states.count(TrialState.DONE),
        failed=states.count(TrialState.FAILED),
        diverged=states.count(TrialState.DIVERGED),
        proposed=len(trials) - len(ended),
        evaluations=len(ended),
        distinct=len({trial.key for trial in ended}),
        best=next(iter(leaderboard(trials, objective)), None),
        surrogate_s=math.fsum(trial.surrogate_s for trial in trials),
        evaluation_s=math.fsum(trial.cost_s or 0.0 for trial in trials),
        honest_correlation=agreement.spearman,
        honest_trials=agreement.n,
    )


def evaluated(trials: Sequence[Trial]) -> list[Trial]:
    """Trials whose evaluation has ended, in the order of their numbers."""
    return sorted((trial for trial in trials if trial.state.is_finished), key=lambda trial: trial.trial)


def leaderboard(trials: Sequence[Trial], objective: Objective) -> list[Trial]:
    """DONE trials from the best to the worst, earlier ones first among equals."""
    return sorted(filter(_has_objective, trials), key=lambda trial: (-objective.score(_objective(trial)), trial.trial))


def predictions(trials: Sequence[Trial]) -> Predictions:
    """Predictions that were made before their trials ran, of the trials that have an objective."""
    found = [
        (_objective(trial), trial.predicted_mean, trial.predicted_std or 0.0)
        for trial in trials
        if _has_objective(trial) and trial.predicted_mean is not None and math.isfinite(trial.predicted_mean)
    ]
    actual, mean, std = np.array(found, dtype=np.float64).reshape(-1, 3).T
    return Predictions(actual, mean, np.nan_to_num(std, posinf=0.0))


def honest_correlation(trials: Sequence[Trial]) -> Correlation:
    """Agreement of objectives with what was predicted before the trials ran.

    It is not defined for fewer than three trials, nor where all predictions or all objectives are equal.
    """
    found = predictions(trials)
    return Correlation(
        spearman=_correlation(average_ranks(found.actual), average_ranks(found.mean)),
        pearson=_correlation(found.actual, found.mean),
        n=len(found.actual),
    )


def _correlation(x: Vector, y: Vector) -> float | None:
    if len(x) < _FEWEST or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    x, y = (x - x.mean()) / np.ptp(x), (y - y.mean()) / np.ptp(y)
    return float(np.clip(x @ y / math.sqrt((x @ x) * (y @ y)), -1, 1))


@dataclass(frozen=True)
class Progress:
    """The best of a search after each of its n evaluations."""

    best: Vector
    """Best objective, (n,); NaN before the first."""
    test: Vector
    """Test metric of the trial that was best, (n,); NaN where there is none."""
    initial: int
    """Evaluations of the initial design."""


def progress(trials: Sequence[Trial], objective: Objective) -> Progress:
    """The best of a search after each evaluation, failed ones counted."""
    ended = evaluated(trials)
    incumbent: Trial | None = None
    best, test = np.full((2, len(ended)), np.nan)
    for row, trial in enumerate(ended):
        if _has_objective(trial) and (incumbent is None or objective.better(_objective(trial), _objective(incumbent))):
            incumbent = trial
        if incumbent is not None:
            best[row] = _objective(incumbent)
            test[row] = incumbent.metrics.get("test", np.nan)
    return Progress(best, test, sum(trial.sampler == "initial" for trial in ended))


def best_so_far(objectives: Sequence[float], objective: Objective) -> Vector:
    """Best of the first 1, 2, ... n objectives; NaN counts as worse than everything, and comes first or never."""
    accumulate = np.fmax if objective.direction == "maximise" else np.fmin
    return np.asarray(accumulate.accumulate(np.asarray(objectives, dtype=np.float64)))


def mean_best_so_far(searches: Sequence[Sequence[float]], objective: Objective) -> Vector:
    """Mean over searches of their best after 1, 2, ... n evaluations, as far as all of them go.

    Beyond the shortest, the mean would jump as searches leave it: it would compare different searches.
    """
    n = min(map(len, searches), default=0)
    if not n:
        return np.empty(0)
    return np.asarray(np.mean([best_so_far(search[:n], objective) for search in searches], axis=0))


@dataclass(frozen=True)
class RandomSearch:
    """The best of 1, 2, ... n random draws without replacement, in distribution; all three (n,)."""

    mean: Vector
    worse: Vector
    """A tenth of random searches is at most as good as this."""
    better: Vector
    """Nine tenths of random searches are at most as good as this."""


def random_search(population: Sequence[float], draws: int, objective: Objective) -> RandomSearch:
    """The best objective of up to `draws` random draws without replacement, exactly.

    Let v_1, v_2, ... be the distinct objectives from the best on, and a_k the number of architectures that are better
    than v_k. Of N architectures, n draws miss those a_k with probability

        q_k(n) = C(N - a_k, n) / C(N, n) = product over j < n of (N - a_k - j) / (N - j),

    which is the probability that the best draw is v_k or worse. So its mean is v_1 + sum over k > 1 of
    q_k (v_k - v_{k-1}), and its quantiles can be read off.

    Args:
        population: the objective of every architecture that can be drawn.
        draws: largest number of draws; there cannot be more than architectures.
        objective: says what is better.
    """
    values, counts = np.unique(np.asarray(population, dtype=np.float64), return_counts=True)
    if objective.direction == "maximise":
        values, counts = values[::-1], counts[::-1]
    total = int(counts.sum())
    left = total - (np.cumsum(counts) - counts)
    steps = np.diff(values)
    missed = np.ones(len(values))
    curves = np.empty((3, min(draws, total)))
    for n in range(curves.shape[1]):
        missed = missed * np.maximum(left - n, 0) / (total - n)
        missed = missed[: np.count_nonzero(missed > _NEGLIGIBLE)]
        left = left[: len(missed)]
        curves[0, n] = values[0] + missed[1:] @ steps[: len(missed) - 1]
        # `missed` falls with k; the small number makes up for rounding
        curves[1:, n] = [values[np.count_nonzero(missed >= quantile - 1e-12) - 1] for quantile in BAND]
    return RandomSearch(*curves)


def rank(population: Sequence[float], best: float, objective: Objective) -> int:
    """Place of an objective among all: 1 for the best."""
    return 1 + sum(objective.better(value, best) for value in population)


def draws_to_match(population: Sequence[float], best: float, objective: Objective) -> float | None:
    """Random draws without replacement needed on average until one is as good: (N + 1) / (m + 1) with m as good."""
    as_good = sum(not objective.better(best, value) for value in population)
    return (len(population) + 1) / (as_good + 1) if as_good else None


Point = tuple[float, float]


@dataclass(frozen=True)
class Layout:
    """A graph in columns: its input on the left, and every vertex to the right of all that feed it.

    A place is (column, row); rows may be halves and are centred on 0. Vertices of a column are one row apart, and so
    are the places where edges pass through it.
    """

    places: tuple[Point, ...]
    """Place of every vertex."""
    routes: tuple[tuple[Point, ...], ...]
    """Places that every edge passes from its source to its target, one in every column."""


def layers(architecture: Architecture) -> list[int]:
    """Column of every vertex: the longest path to it; the output comes last even if it is fed by few."""
    depth = [0] * architecture.vertices
    for source, target in sorted(architecture.edges):
        depth[target] = max(depth[target], depth[source] + 1)
    depth[-1] = max(depth[-1], 1 + max(depth[:-1], default=-1))
    return depth


def layout(architecture: Architecture) -> Layout:
    """Places vertices in layers and orders each layer so that few edges cross (Sugiyama et al. 1981)."""
    depth = layers(architecture)
    # an edge across several layers becomes a chain with a stop in each: stops are nodes like vertices
    columns: list[list[int]] = [[] for _ in range(max(depth) + 1)]
    for vertex, column in enumerate(depth):
        columns[column].append(vertex)
    chains = []
    count = architecture.vertices
    for source, target in architecture.edges:
        stops = list(range(depth[source] + 1, depth[target]))
        chain = [source, *range(count, count + len(stops)), target]
        for node, stop in zip(chain[1:-1], stops, strict=True):
            columns[stop].append(node)
        count += len(stops)
        chains.append(chain)
    before: list[list[int]] = [[] for _ in range(count)]
    after: list[list[int]] = [[] for _ in range(count)]
    for chain in chains:
        for left, right in pairwise(chain):
            before[right].append(left)
            after[left].append(right)

    rows = [0.0] * count
    for nodes in columns:
        _spread(nodes, rows)
    for _ in range(8):
        for nodes in columns[1:]:
            _order(nodes, before, rows)
        for nodes in reversed(columns[:-1]):
            _order(nodes, after, rows)
    column_of = {node: float(column) for column, nodes in enumerate(columns) for node in nodes}
    place = [(column_of[node], rows[node]) for node in range(count)]
    return Layout(
        tuple(place[: architecture.vertices]), tuple(tuple(place[node] for node in chain) for chain in chains)
    )


def _order(column: list[int], neighbours: list[list[int]], rows: list[float]) -> None:
    """Sorts a column by the mean row of its nodes' neighbours."""
    means = {n: sum(rows[m] for m in neighbours[n]) / len(neighbours[n]) if neighbours[n] else rows[n] for n in column}
    column.sort(key=means.__getitem__)
    _spread(column, rows)


def _spread(column: list[int], rows: list[float]) -> None:
    """Puts the nodes of a column one row apart, centred on 0."""
    for place, node in enumerate(column):
        rows[node] = place - (len(column) - 1) / 2


def _has_objective(trial: Trial) -> bool:
    return trial.state is TrialState.DONE and trial.objective is not None and math.isfinite(trial.objective)


def _objective(trial: Trial) -> float:
    assert trial.objective is not None
    return trial.objective
