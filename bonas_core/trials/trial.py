"""Trials: one row of a search's record, and the immutable columns that strategies see of many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum


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
