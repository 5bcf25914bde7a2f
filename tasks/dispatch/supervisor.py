"""Supervision of a training in a process of its own: time-outs that hold, deaths by their causes, one slot.

The process that supervises does no training itself: it takes a slot, starts a trainer with the slot's environment (or
takes one that is idle), and waits. A trainer that dies is started again and goes on from the last checkpoint.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from bonas_core.errors import BonasError, TrialStoppedError, TrialTimeoutError
from bonas_core.search import failed, timed_out
from bonas_core.settings import Settings
from bonas_core.trials import Trial
from tasks.dispatch.assignment import Assignment
from tasks.dispatch.slots import Slot, slots_for, taken, threads_of

OnEvent = Callable[[Mapping[str, Any]], None]
"""Callback of events: `{"event": "attempt", "attempt": 1}`, `{"event": "epoch", "epoch": 1, "figures": ...}`."""

_LOOK_EVERY_S = 0.2
_GRACE_S = 5.0
"""An attempt stops itself after the epoch in which its time runs out; one that does not is killed so much later."""
_DEATHS = 10
"""A trainer that dies so often without finishing an epoch is not killed by chance."""


def ignore(event: Mapping[str, Any]) -> None:
    """Does nothing with an event."""


class TrainerDiedError(BonasError):
    """A trainer ended without a result."""


def train_in_own_process(
    assignment: Assignment, on_event: OnEvent = ignore, stop: threading.Event | None = None
) -> Trial:
    """Trains an assigned trial, and returns how it ended; a trial that has a result already is not trained again.

    Args:
        assignment: says what to train; its result is written there before this returns.
        on_event: called with attempts and epochs.
        stop: set by another thread to give up.

    Raises:
        TrialStoppedError: `stop` was set.
    """
    settings, trial = assignment.read_order()

    def raise_if_stopped() -> None:
        if stop is not None and stop.is_set():
            raise TrialStoppedError(f"trial {trial.trial} was given up")

    with assignment.trained_here(raise_if_stopped):
        result = assignment.read_result()
        if result is None:
            result = _trained(assignment, settings, trial, on_event, raise_if_stopped)
        return result


def _trained(
    assignment: Assignment, settings: Settings, trial: Trial, on_event: OnEvent, raise_if_stopped: Callable[[], None]
) -> Trial:
    attempt, deaths = 1, 0
    begin = time.perf_counter()

    def on_wait(reason: str) -> None:
        assignment.write_status("waiting", reason=reason)

    while True:
        ooms = _oom_kills()
        watch = _Watch(settings.dispatch.trial_timeout, attempt, on_event, raise_if_stopped)
        holder = f"trial {trial.trial} of {assignment.search.name}"
        with taken(slots_for(settings), holder, on_wait, raise_if_stopped) as (slot, descriptors):
            assignment.write_status("training", attempt=attempt, slot=slot.name)
            request = {
                "search": str(assignment.search),
                "trial": trial.trial,
                "attempt": attempt,
                "slot": slot.name,
                "device": "cuda" if slot.gpu else slot.device,
            }
            trainer = _Trainer.for_slot(slot, descriptors, threads_of(settings))
            code = trainer.train(request, watch)
        result = assignment.read_result()
        if result is not None:
            return result
        attempt = watch.attempt
        if watch.overdue:
            error: BonasError = TrialTimeoutError(timed_out(settings.dispatch.trial_timeout or 0))
        elif _oom_kills() > ooms and code == -signal.SIGKILL:
            error = TrainerDiedError("out of memory: the system killed the trainer")
        else:
            deaths = 1 if watch.epochs else deaths + 1
            if deaths < _DEATHS:
                continue  # not the trial's fault: the same attempt goes on
            error = TrainerDiedError(
                f"the trainer died {deaths} times without finishing an epoch ({_cause(code)}); "
                "signal SIGKILL without a sender often means that memory ran out"
            )
            attempt = settings.dispatch.retries + 1
        if attempt > settings.dispatch.retries:
            result = failed(trial, error, attempt, time.perf_counter() - begin)
            assignment.write_result(result)
            return result
        attempt += 1


class _Watch:
    """Follows the events of one trainer about one trial."""

    def __init__(
        self, timeout_s: float | None, attempt: int, on_event: OnEvent, raise_if_stopped: Callable[[], None]
    ) -> None:
        self.attempt = attempt
        self.epochs = 0
        self.overdue = False
        self.raise_if_stopped = raise_if_stopped
        self._timeout_s = timeout_s
        self._on_event = on_event
        self._deadline: float | None = None

    def on_event(self, event: Mapping[str, Any]) -> None:
        """Takes note of an event."""
        if event["event"] == "attempt":
            self.attempt = event["attempt"]
            if self._timeout_s is not None:
                self._deadline = time.monotonic() + self._timeout_s + min(_GRACE_S, self._timeout_s)
        if event["event"] == "epoch":
            self.epochs += 1
        self._on_event(event)

    def is_overdue(self) -> bool:
        """Tells whether the attempt should have stopped itself by now."""
        self.overdue = self._deadline is not None and time.monotonic() > self._deadline
        return self.overdue


class _Trainer:
    """One trainer process."""

    _idle: list[_Trainer] = []  # noqa: RUF012
    _guard = threading.Lock()

    def __init__(self, environment: Mapping[str, str], keep: bool, descriptors: tuple[int, ...] = ()) -> None:
        self._environment = environment
        self._keep = keep
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tasks.dispatch.trainer"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            process_group=0,  # Ctrl-C is for the search, which then stops its trainers
            pass_fds=descriptors,
        )
        self._events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    @classmethod
    def for_slot(cls, slot: Slot, descriptors: tuple[int, ...], threads: int) -> _Trainer:
        """Takes an idle trainer that suits the slot, or makes a new one."""
        environment = slot.environment(threads)
        if slot.gpu:  # its memory must be free when the slot is: the process ends with the trial, and holds the slot
            return cls(environment, keep=False, descriptors=descriptors)
        with cls._guard:
            for trainer in cls._idle:
                if trainer._environment == environment and trainer._process.poll() is None:
                    cls._idle.remove(trainer)
                    return trainer
        return cls(environment, keep=True)

    @classmethod
    def stop_idle(cls) -> None:
        """Ends the trainers that nobody uses."""
        with cls._guard:
            idle, cls._idle[:] = list(cls._idle), []
        for trainer in idle:
            trainer._stop()

    def train(self, request: Mapping[str, Any], watch: _Watch) -> int:
        """Trains until there is a result (0), or the process has died or been killed (its exit code)."""
        try:
            stdin = self._process.stdin
            assert stdin is not None
            try:
                stdin.write(json.dumps(request) + "\n")
                stdin.flush()
            except BrokenPipeError:
                return self._process.wait()
            while True:
                watch.raise_if_stopped()
                if watch.is_overdue():
                    return self._stop()
                try:
                    event = self._events.get(timeout=_LOOK_EVERY_S)
                except queue.Empty:
                    continue
                if event is None:
                    return self._process.wait()
                if event["event"] == "ended":
                    break
                watch.on_event(event)
        except BaseException:
            self._stop()
            raise
        if self._keep:
            with self._guard:
                self._idle.append(self)
        else:
            self._stop()
        return 0

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._events.put(json.loads(line))
        self._events.put(None)

    def _stop(self) -> int:
        """Ends the process, which has nothing to lose but an epoch; returns its exit code."""
        self._process.kill()
        return self._process.wait()


def stop_idle_trainers() -> None:
    """Ends the trainers of this process that wait for a trial."""
    _Trainer.stop_idle()


def _cause(code: int) -> str:
    return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _oom_kills() -> int:
    """Counts how often the kernel has killed for want of memory since it started; 0 where it does not say."""
    try:
        with open("/proc/vmstat") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("oom_kill "))
    except (OSError, StopIteration, ValueError):
        return 0
