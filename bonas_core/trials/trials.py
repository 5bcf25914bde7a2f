"""Trials: one row of a search's record, and the immutable columns that strategies see of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bonas_core.spaces.base import Genotypes, Keys


class TrialState(StrEnum):
    """Where a trial stands."""

    PROPOSED = "PROPOSED"
    """Chosen and recorded; its evaluation has not ended."""
    RUNNING = "RUNNING"
    """Being evaluated by a live process; shown to people, never stored."""
    DONE = "DONE"
    """Evaluated; it has an objective."""
    FAILED = "FAILED"
    """Its evaluation raised an error on every attempt; it is never proposed again."""
    DIVERGED = "DIVERGED"
    """Its training left the range of numbers; it counts as the worst score seen."""

    @property
    def is_finished(self) -> bool:
        """Whether the trial will not change any more."""
        return self in (TrialState.DONE, TrialState.FAILED, TrialState.DIVERGED)


@dataclass(frozen=True, slots=True)
class Trial:
    """One architecture that a search chose to evaluate: a row of the history."""

    trial: int
    """Number of the trial, counting from 0 in the order of proposal."""
    round: int
    """Number of the round that proposed it; round 0 is the initial design."""
    key: str
    architecture: str
    state: TrialState = TrialState.PROPOSED
    objective: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    sampler: str = ""
    """What drew it: `initial`, a sampler, or a strategy without samplers."""
    acquisition: float | None = None
    """log EI of the trial when it was chosen, on the scale of standardised targets."""
    predicted_mean: float | None = None
    """Objective that was predicted before the trial was evaluated."""
    predicted_std: float | None = None
    incumbent: float | None = None
    """Best objective when the trial was chosen."""
    predictor_version: str | None = None
    seed: int = 0
    epochs: int | None = None
    params: int | None = None
    cost_s: float | None = None
    """Seconds of the attempt that ended the trial or, where all attempts failed, of all of them."""
    device: str | None = None
    attempt: int = 0
    """Attempts made, counting from 1."""
    error: str | None = None
    surrogate_s: float = 0.0
    """Seconds spent on choosing it: a round's time is shared equally among its trials."""
    proposed_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    images_per_second: float | None = None
    """Speed of its training, scoring not counted, where the evaluator says."""

    def with_changes(self, **changes: object) -> Trial:
        """The same trial with some columns replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]


TIME_COLUMNS = ("cost_s", "images_per_second", "surrogate_s", "proposed_at", "started_at", "finished_at")
"""Columns that say how long, how fast, when: all others are equal between a resumed search and an uninterrupted one."""


@dataclass(frozen=True)
class Trials:
    """What a strategy may know of n trials, in the order of their numbers (row i is trial i)."""

    genotypes: Genotypes
    """(n, genes)"""
    keys: Keys
    """(n,)"""
    scores: NDArray[np.float64]
    """(n,) larger is better; NaN where there is none. See `Objective.score`."""
    finished: NDArray[np.bool_]
    """(n,)"""
    diverged: NDArray[np.bool_]
    """(n,)"""

    def __len__(self) -> int:
        return len(self.keys)

    def first(self, count: int) -> Trials:
        """The trials with numbers below `count`."""
        return Trials(*(column[:count] for column in self.columns()))

    def observed(self) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Rows that count as observations, and their scores: DONE, and DIVERGED as the worst of them."""
        rows = np.flatnonzero(~np.isnan(self.scores) | self.diverged)
        scores = self.scores[rows]
        if self.diverged.any():
            done = scores[~np.isnan(scores)]
            scores = np.where(np.isnan(scores), done.min() if len(done) else 0.0, scores)
        return rows, scores

    def columns(self) -> tuple[NDArray[Any], ...]:
        """The columns in the order of the fields."""
        return self.genotypes, self.keys, self.scores, self.finished, self.diverged


@dataclass(frozen=True)
class Objective:
    """How an evaluator's figure becomes a score: larger is better, and a fraction where the unit says so."""

    name: str
    unit: str = "fraction"
    direction: str = "maximise"

    @property
    def is_fraction(self) -> bool:
        """Whether scores lie in [0, 1]."""
        return self.unit in ("percent", "fraction") and self.direction == "maximise"

    def score(self, objective: float) -> float:
        """Score of an objective in the evaluator's unit."""
        return objective * self._factor

    def objective(self, score: float) -> float:
        """Objective, in the evaluator's unit, of a score."""
        return score / self._factor

    def better(self, objective: float, other: float) -> bool:
        """Whether the first is the better objective."""
        return self.score(objective) > self.score(other)

    @property
    def _factor(self) -> float:
        return (0.01 if self.unit == "percent" else 1.0) * (1 if self.direction == "maximise" else -1)
