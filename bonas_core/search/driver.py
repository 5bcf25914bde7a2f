"""The plain driver of a search: a loop, without any orchestration."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

from bonas_core.methods.base import carry_out, stages_of
from bonas_core.problem import Problem
from bonas_core.search.evaluation import evaluate_with_retries
from bonas_core.search.log import SearchLog
from bonas_core.search.steps import StopRule, next_step
from bonas_core.storage import Location, make_folder
from bonas_core.trials import Trial
from bonas_core.trials.history import TrialHistory


def run(
    problem: Problem,
    history: TrialHistory | None = None,
    checkpoints: Location | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
    folder: Location | None = None,
) -> SearchLog:
    """The plain driver: searches in a loop, one trial after the other, without any orchestration.

    Args:
        problem: what to search; see `bonas_core.problem.build`.
        history: where trials are recorded; a history that has trials already is continued.
        checkpoints: folder for training state, one folder below it a trial.
        on_trial: called with every finished trial.
        folder: where a strategy keeps what it learns, so that a search that goes on need not learn it again.

    Example:
        >>> from bonas_core.testing import toy_problem
        >>> log = run(toy_problem(trials=12))
        >>> len(log.rows)
        12
    """
    log = SearchLog(problem, history)
    drive(log, history, checkpoints, on_trial, folder)
    return log


def drive(
    log: SearchLog,
    history: TrialHistory | None = None,
    checkpoints: Location | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
    folder: Location | None = None,
) -> None:
    """Goes on with a search until it ends; see `run`."""
    problem = log.problem
    for part in log.set_aside:
        warnings.warn(f"history part set aside as `{part}`: it is damaged, its trials are done again", stacklevel=3)
    rule = StopRule(problem)
    settings = problem.settings
    while True:
        step = next_step(problem, log, rule)
        if step.stop:
            return
        due = step.evaluate
        if step.propose:
            begin = time.perf_counter()
            proposals = carry_out(stages_of(problem.strategy, log.trials, step.propose, settings.seed, folder))
            if proposals:
                log.propose(proposals, time.perf_counter() - begin)
                continue
            due = log.pending  # the space has no more
            if not due:
                return
        for trial in due:
            place = None if checkpoints is None else make_folder(checkpoints / str(trial.trial))
            dispatch = settings.dispatch
            finished = evaluate_with_retries(
                problem.evaluator, trial, dispatch.retries, timeout_s=dispatch.trial_timeout, checkpoints=place
            )
            log.finish(finished)
            on_trial(finished)
            if history is not None:
                history.compact_if_large()
