"""The units of a BO round as Prefect tasks: thin wrappers, so that each is seen, timed and retried on its own.

Tasks take live objects of the search; nothing of theirs is cached, hashed or persisted by Prefect, because the
history is the only state of a search.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from bonas_core import search
from bonas_core.errors import TrialStoppedError
from bonas_core.methods.base import Stage
from bonas_core.problem import Problem
from bonas_core.storage import Location, make_folder
from bonas_core.trials import Trial
from tasks.dispatch.assignment import Assignment
from tasks.dispatch.failure import unless_failed
from tasks.dispatch.slots import place_here
from tasks.dispatch.supervisor import OnEvent, ignore, train_in_own_process


def run_stage(stage: Stage) -> Any:
    """Run one stage of a strategy's proposal as a task, under the name that the strategy gives it."""

    @task(name=stage.name, task_run_name=str(stage), cache_policy=NO_CACHE)
    def run() -> Any:
        return stage.run()

    return run()


@task(name="train", cache_policy=NO_CACHE)
def train_here(problem: Problem, trial: Trial, checkpoints: Location, on_event: OnEvent, stop: Event) -> Trial:
    """Evaluate one trial in this process; it may take days, and goes on from its last checkpoint.

    Raises:
        TrialFailedError: its last attempt failed.
    """

    def stopped() -> None:
        if stop.is_set():
            raise TrialStoppedError(f"trial {trial.trial} was given up")

    def progress(epoch: int, figures: Mapping[str, float]) -> None:
        on_event({"event": "epoch", "epoch": epoch, "figures": figures})
        stopped()

    def attempting(attempt: int) -> None:
        on_event({"event": "attempt", "attempt": attempt})

    settings = problem.settings
    stopped()
    with place_here(settings, f"trial {trial.trial} of {checkpoints.parent.parent.name}", stopped) as slot:
        make_folder(checkpoints)
        return unless_failed(
            search.evaluate_with_retries(
                problem.evaluator,
                trial,
                settings.dispatch.retries,
                timeout_s=settings.dispatch.trial_timeout,
                device=slot.device,
                checkpoints=checkpoints,
                progress=progress,
                attempting=attempting,
            )
        )


@task(name="train", cache_policy=NO_CACHE)
def train_in_child(assignment: Assignment, on_event: OnEvent = ignore, stop: Event | None = None) -> Trial:
    """Have one trial evaluated by a process of its own, on the machine where this task runs.

    Raises:
        TrialFailedError: its last attempt failed.
    """
    return unless_failed(train_in_own_process(assignment, on_event, stop))


@task(name="record", cache_policy=NO_CACHE)
def record(log: search.SearchLog, trial: Trial) -> None:
    """Write a result to the history; writing it again changes nothing."""
    log.finish(trial)
