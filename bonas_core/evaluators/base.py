"""What turns an architecture into a number: a table look-up, a surrogate, or a real training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, SupportsFloat, runtime_checkable

from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import SearchSpace


@dataclass(frozen=True)
class Outcome:
    """What one evaluation found."""

    objective: float
    """The figure that the search optimises, in the evaluator's own unit."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """Everything else worth keeping; `test` is the figure on the test split. A search never reads these."""
    epochs: int | None = None
    """Training epochs behind the objective, where there were any."""
    params: int | None = None
    """Trainable parameters of the network, where known."""
    images_per_second: float | None = field(default=None, compare=False)
    """Speed of a training; like its seconds, no part of what was found."""


def as_outcome(found: object) -> Outcome:
    """What an evaluator returned, which may be a plain number: the objective.

    Raises:
        TypeError: it is neither an `Outcome` nor a number.
    """
    if isinstance(found, Outcome):
        return found
    if isinstance(found, bool) or not isinstance(found, SupportsFloat):
        raise TypeError(f"the evaluator returned {type(found).__name__}; return a number, the objective, or an Outcome")
    return Outcome(float(found))


Progress = Callable[[int, Mapping[str, float]], None]
"""Told of a training after every epoch: the epochs done and the figures so far."""


def no_progress(epoch: int, figures: Mapping[str, float]) -> None:
    """Takes progress and does nothing with it."""


@dataclass(frozen=True)
class EvaluationContext:
    """What an evaluation may depend on beside the architecture."""

    seed: int
    """Seed of the trial; the same architecture, seed and device give the same outcome."""
    device: str = "cpu"
    """A torch device."""
    checkpoints: Path | None = None
    """Folder for training state, there before the call; an evaluation that finds its state in it goes on from there."""
    progress: Progress = no_progress
    """Called after every epoch with the epochs done and the figures so far."""


@runtime_checkable
class Evaluator(Protocol):
    """Evaluates architectures of one space.

    To search over a training function of your own, write a class with these members, whose constructor takes
    `(space, **settings)`, and name it as `kind: module:Class` in the settings.
    """

    objective: str
    """The objective in full: data or table, split, epochs, mean or single run."""
    unit: str
    """`percent`, `fraction`, or any other name of a unit, which is then not scaled."""
    direction: str
    """`maximise` or `minimise`."""
    fingerprint: str
    """Changes whenever the same architecture could get another outcome (data, table, recipe)."""
    space: SearchSpace
    """The space it evaluates, or the part of it that it can evaluate: a table narrows a space to its own rows."""

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        """Evaluates one architecture.

        Raises:
            TrainingDivergedError: the training left the range of numbers; any other exception counts as a failure.
        """


@runtime_checkable
class ClosedEvaluator(Evaluator, Protocol):
    """An evaluator that knows the objective of every architecture beforehand, so that a driver can stop at the best."""

    def objectives(self) -> list[float]:
        """The objective of every architecture that it can evaluate: for drivers and reports, never for a search."""
