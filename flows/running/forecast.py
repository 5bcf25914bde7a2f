"""Forecast of how long a search of trainings takes: from a few steps of one, or from those that have ended."""

from __future__ import annotations

import statistics
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from bonas_core.errors import TrialStoppedError
from bonas_core.image_training.evaluator import TrainingEvaluator
from bonas_core.image_training.parallel import Team, Tell, run
from bonas_core.problem import Problem
from bonas_core.report.durations import duration
from bonas_core.search import SearchLog
from bonas_core.spaces.architecture import Architecture
from bonas_core.trials import TrialState
from tasks.dispatch.slots import slots_for, taken

_STEPS = 3
_ON_THIS_MACHINE = ("inline", "thread", "process")


@dataclass(frozen=True)
class Forecast:
    """Rest of a search, in trainings and seconds."""

    trainings: int
    training_s: float
    """Seconds of one training."""
    at_once: int
    source: str
    """Origin of the seconds."""

    @property
    def seconds(self) -> float:
        """Seconds until the budget is spent, without the time to choose."""
        return self.trainings * self.training_s / min(self.at_once, self.trainings)

    def __str__(self) -> str:
        """Says it in one line."""
        at_once = f", {self.at_once} at a time" if self.at_once > 1 else ""
        return (
            f"about {duration(self.seconds)} for {self.trainings} trainings of {duration(self.training_s)}{at_once} "
            f"({self.source})"
        )


def forecast(problem: Problem, log: SearchLog) -> Forecast | None:
    """Forecasts what is left of a search.

    Returns:
        the forecast, or None where it trains nothing, is at its end, or trains elsewhere and has not begun.

    Raises:
        Exception: whatever a training of the first steps raises.
    """
    settings, evaluator = problem.settings, problem.evaluator
    left = settings.budget.trials - sum(trial.state.is_finished for trial in log.rows)
    if not isinstance(evaluator, TrainingEvaluator) or left < 1:
        return None
    ended = [trial.cost_s for trial in log.rows if trial.state is TrialState.DONE and trial.cost_s is not None]
    slots = settings.dispatch.slots if settings.dispatch.backend != "inline" else 1
    if ended:
        return Forecast(left, statistics.fmean(ended), slots, f"the mean of {len(ended)} that have ended")
    if settings.dispatch.backend not in _ON_THIS_MACHINE:
        return None
    seconds = _measured(problem, evaluator)
    return None if seconds is None else Forecast(left, seconds, slots, f"from {_STEPS} steps of a random cell")


def _measured(problem: Problem, evaluator: TrainingEvaluator) -> float | None:
    """Measures the seconds of a training of a random cell; None where all GPUs are taken."""
    cell = problem.space.architecture(problem.space.sample(1, np.random.default_rng(0))[0])
    slots = slots_for(problem.settings)
    if slots[0].gpu is None and problem.settings.dispatch.backend != "process":
        return evaluator.estimate(cell, "cpu", _STEPS).training_s

    def give_up() -> None:
        raise TrialStoppedError("all slots are taken")

    place = taken(slots, "an estimate", raise_if_stopped=give_up) if slots[0].gpu else nullcontext((slots[0], ()))
    try:
        with place as (slot, _):
            # in a process of its own: this one would keep some of a GPU's memory for as long as it lives, and is not to
            # be killed where memory runs out
            work = (evaluator, cell, slot.device)
            return float(run(1, slot.device, _estimate_there, work, lambda event: None))
    except TrialStoppedError:
        return None


def _estimate_there(team: Team, work: tuple[TrainingEvaluator, Architecture, str], on_event: Tell) -> float:
    evaluator, cell, device = work
    return float(evaluator.estimate(cell, device, _STEPS).training_s)
