"""What is to be done next about a search: finish trials, propose some, or stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bonas_core.evaluators.base import ClosedEvaluator
from bonas_core.problem import Problem
from bonas_core.search.log import SearchLog
from bonas_core.trials import Trial


@dataclass(frozen=True)
class Step:
    """What is to be done next: finish trials that are pending, propose `count` more, or stop for a reason."""

    evaluate: Sequence[Trial] = ()
    propose: int = 0
    stop: str | None = None


class StopRule:
    """When a search ends; it may know a closed table's best objective, which no strategy does."""

    def __init__(self, problem: Problem) -> None:
        budget = problem.settings.budget
        self._budget = budget
        self._objective = problem.objective
        target = budget.stop_at
        if target == "optimum":
            assert isinstance(problem.evaluator, ClosedEvaluator)
            values = problem.evaluator.objectives()
            target = max(values) if problem.objective.direction == "maximise" else min(values)
        self._target = target

    def reason(self, log: SearchLog) -> str | None:
        """Why the search is over, or None."""
        best = log.best.objective if log.best else None
        if self._target is not None and best is not None and not self._objective.better(float(self._target), best):
            return f"objective {best:g} reached the target {self._target:g}"
        if len(log.rows) >= self._budget.trials:
            return f"the budget of {self._budget.trials} trials is spent"
        if self._budget.hours is not None and log.spent_s / 3600 >= self._budget.hours:
            return f"the budget of {self._budget.hours:g} hours is spent"
        return None


def next_step(problem: Problem, log: SearchLog, rule: StopRule) -> Step:
    """What a driver has to do next; it depends on the trials alone, so that a search goes on where it was killed.

    In synchronous mode all trials of a round end before the next is chosen. In asynchronous mode the oldest trial in
    flight ends first, and the next is chosen as soon as fewer than `dispatch.slots` are in flight.
    """
    pending = log.pending
    dispatch = problem.settings.dispatch
    asynchronous = dispatch.mode == "asynchronous"
    if pending and not asynchronous:
        return Step(evaluate=pending)
    reason = rule.reason(log)
    if reason:
        return Step(evaluate=pending) if pending else Step(stop=reason)
    if len(pending) >= dispatch.slots:
        return Step(evaluate=pending[:1])
    left = int(min(problem.settings.budget.trials, log.next_recorded_round)) - len(log.rows)
    initial = problem.strategy.initial - len(log.rows)
    if initial > 0:
        return Step(propose=min(left, initial))
    return Step(propose=min(left, dispatch.slots - len(pending) if asynchronous else problem.settings.method.batch))
