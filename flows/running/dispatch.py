"""Evaluation of trials: one place for all back ends.

A dispatcher keeps the trials that are in flight for as long as the search runs, across rounds. Every trial is a task
run, submitted to a task runner of Prefect; what differs between back ends is the runner and the task:

    inline      no runner     evaluates in this process when it is waited for
    thread      threads       evaluates in this process
    process     threads       each has a trainer process, see `tasks.dispatch.supervisor`
    work-pool   threads       each has a run of the `train-trial` deployment, see `tasks.dispatch.workpool`
    dask, ray   a cluster     the task runs there and has a trainer process there

However a trial is evaluated, its outcome depends on the trial alone, so all back ends make the same trials.
"""

from __future__ import annotations

import queue
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from contextvars import copy_context
from importlib import import_module
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from bonas_core.errors import BonasError
from bonas_core.problem import Problem
from bonas_core.settings import DispatchSettings
from bonas_core.trials import Trial
from flows.running.backends import CLUSTERS
from flows.running.interruption import raise_if_requested
from flows.running.observer import Observer
from tasks.dispatch.assignment import Assignment
from tasks.dispatch.failure import TrialFailedError
from tasks.dispatch.supervisor import OnEvent, stop_idle_trainers
from tasks.dispatch.workpool import check_deployment, train_on_work_pool
from tasks.home.search_folder import SearchFolder
from tasks.round import train_here, train_in_child

_LOSSES = 10
"""A trial whose cluster worker dies so often is not lost by chance."""


class Dispatcher:
    """Evaluates the trials of one search, several at a time."""

    def __init__(self, problem: Problem, folder: SearchFolder, observer: Observer) -> None:
        """Prepares the evaluation of trials; nothing is started yet.

        Args:
            problem: of the search, whose settings say where and how many.
            folder: of the search.
            observer: called with what happens to trials.
        """
        self._problem = problem
        self._settings = problem.settings.dispatch
        self._folder = folder
        self._observer = observer
        self._stop = Event()
        self._flying: dict[int, tuple[Trial, str]] = {}
        self._losses: Counter[int] = Counter()
        self._ended: queue.Queue[tuple[int, Callable[[], State[Trial]]]] = queue.Queue()
        self._stack = ExitStack()
        self._runner: TaskRunner[Any] | None = None
        self._context = copy_context()

    def __enter__(self) -> Self:
        """Starts what the back end needs."""
        self._context = copy_context()  # that of the search's own run
        if self._settings.backend == "work-pool":
            check_deployment(self._settings.deployment)
        if self._settings.backend != "inline":
            self._runner = self._stack.enter_context(task_runner(self._settings))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Gives up the trials in flight and ends what was started."""
        self._stop.set()  # trials that are in flight are given up, to be evaluated when the search goes on
        self._stack.__exit__(kind, error, traceback)
        stop_idle_trainers()

    def submit(self, trial: Trial, name: str) -> None:
        """Submits a trial for evaluation under the name of its run, unless it is in flight already."""
        if trial.trial in self._flying:
            return
        self._flying[trial.trial] = trial, name
        task, arguments = self._work(trial, name)
        task = task.with_options(task_run_name=name)
        if self._runner is None:
            self._ended.put((trial.trial, lambda: task(**arguments, return_state=True)))
            return
        submit = self._runner.submit
        if self._settings.backend in CLUSTERS:  # what surrounds a task travels to the cluster: no live round can
            future: PrefectFuture[Trial] = self._context.run(submit, task, arguments)
        else:
            future = submit(task, arguments)

        def on_end(done: PrefectFuture[Trial]) -> None:
            done.wait()
            self._ended.put((trial.trial, lambda: _state(done)))

        if self._settings.backend == "ray":  # whose callback was seen never to come
            Thread(target=on_end, args=(future,), daemon=True).start()
        else:
            future.add_done_callback(on_end)

    def wait(self) -> Trial:
        """Waits for the next trial to end; with the inline back end it is evaluated now."""
        while True:
            number, state = self._ended.get()
            result = state().result(raise_on_failure=False)
            trial, name = self._flying.pop(number)
            if isinstance(result, TrialFailedError):
                return result.trial
            if isinstance(result, Trial):
                return result
            assert isinstance(result, BaseException)
            self._losses[number] += 1
            if (
                self._settings.backend not in CLUSTERS
                or isinstance(result, BonasError)
                or self._losses[number] > _LOSSES
            ):
                raise result
            self._observer.warning(f"trial {number}: a worker of the cluster died ({result}); it is evaluated again")
            self.submit(trial, name)

    def _work(self, trial: Trial, name: str) -> tuple[Any, dict[str, Any]]:
        """Picks the task that evaluates a trial, and its arguments."""
        on_event = self._on_event(trial)
        if self._settings.backend in ("inline", "thread"):
            checkpoints = self._folder.checkpoints / str(trial.trial)
            arguments = {"problem": self._problem, "trial": trial, "checkpoints": checkpoints}
            return train_here, {**arguments, "on_event": on_event, "stop": self._stop}
        assert isinstance(self._folder.path, Path)  # as `check_backend` has seen to
        assignment = Assignment.of(self._folder.path, trial.trial)
        assignment.write_order(self._problem.settings, trial)
        if self._settings.backend == "process":
            return train_in_child, {"assignment": assignment, "on_event": on_event, "stop": self._stop}
        if self._settings.backend == "work-pool":
            arguments = {"assignment": assignment, "run_name": f"{self._folder.id} · {name}", "on_event": on_event}
            return train_on_work_pool, {**arguments, "stop": self._stop, "warn": self._observer.warning}
        return train_in_child, {"assignment": assignment}

    def _on_event(self, trial: Trial) -> OnEvent:
        """Makes the callback that passes the events of a trial on to the observer."""

        def on_event(event: Mapping[str, Any]) -> None:
            if event["event"] == "attempt":
                self._observer.trial_started(trial)
                return
            self._observer.epoch(trial, event["epoch"], event["figures"])
            if self._runner is None:
                raise_if_requested()

        return on_event


def task_runner(settings: DispatchSettings) -> TaskRunner[Any]:
    """Makes the task runner of a back end other than inline; see `check_backend` for what it needs."""
    if settings.backend not in CLUSTERS:
        return ThreadPoolTaskRunner(max_workers=settings.slots)
    module, name = CLUSTERS[settings.backend]
    runner: Callable[..., TaskRunner[Any]] = getattr(import_module(module), name)
    if settings.address is not None:
        return runner(address=settings.address)
    if settings.backend == "dask":
        local = {"n_workers": settings.slots, "threads_per_worker": 1, "dashboard_address": None, "host": "127.0.0.1"}
        return runner(cluster_kwargs=local)
    return runner(init_kwargs={"num_cpus": settings.slots, "include_dashboard": False})


def _state(future: PrefectFuture[Trial]) -> State[Trial]:
    future.wait()
    return future.state
