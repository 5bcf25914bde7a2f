"""One trial evaluated: attempts, time-outs, and how it is recorded that it ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bonas_core.errors import StoreError, TrainingDivergedError, TrialStoppedError, TrialTimeoutError
from bonas_core.evaluators.base import EvaluationContext, Evaluator, Outcome, Progress, as_outcome, no_progress
from bonas_core.storage import Location, local_folder, send
from bonas_core.trials import Trial, TrialState


def evaluate(
    evaluator: Evaluator,
    trial: Trial,
    attempt: int = 1,
    device: str = "cpu",
    checkpoints: Location | None = None,
    progress: Progress = no_progress,
) -> Trial:
    """Evaluates one trial once.

    An evaluator always sees a folder on the disk; where `checkpoints` is in S3, it is filled from there before and
    sent there after every epoch.

    Returns:
        the trial, DONE or DIVERGED.

    Raises:
        Exception: whatever the evaluator raised, a divergence excepted; the caller may try again or record `failed`.
    """
    space = evaluator.space
    started, begin = datetime.now(UTC), time.perf_counter()
    architecture = space.architecture(space.parse([trial.architecture])[0])
    # which of several equal GPUs it was decides nothing, and would differ between replays
    common = {"attempt": attempt, "device": device.partition(":")[0], "started_at": started}
    found: Outcome | TrainingDivergedError
    try:
        with training_folder(checkpoints, progress) as (folder, told):
            context = EvaluationContext(trial.seed, device, folder, told)
            found = as_outcome(evaluator.evaluate(architecture, context))
    except TrainingDivergedError as error:
        found = error
    return ended(trial.with_changes(**common), found, time.perf_counter() - begin)


def ended(trial: Trial, found: Outcome | BaseException, cost_s: float | None = None) -> Trial:
    """The trial as it is recorded once it has ended: DONE, DIVERGED, or FAILED by an error other than a divergence.

    Args:
        trial: as it was proposed.
        found: its outcome, or the error that its evaluation ended with.
        cost_s: seconds that it took, where they are known.
    """
    closing: dict[str, Any] = {"cost_s": cost_s, "finished_at": datetime.now(UTC)}
    if isinstance(found, TrainingDivergedError):
        return trial.with_changes(state=TrialState.DIVERGED, error=str(found), **closing)
    if isinstance(found, BaseException):
        return failed(trial, found, max(trial.attempt, 1), cost_s or 0.0)
    closing |= {
        "metrics": dict(found.metrics),
        "epochs": found.epochs,
        "params": found.params,
        "images_per_second": found.images_per_second,
    }
    if not math.isfinite(found.objective):
        message = f"the evaluator returned {found.objective}"
        return trial.with_changes(state=TrialState.DIVERGED, error=message, **closing)
    return trial.with_changes(state=TrialState.DONE, objective=float(found.objective), **closing)


@contextmanager
def training_folder(checkpoints: Location | None, progress: Progress) -> Iterator[tuple[Path | None, Progress]]:
    """A folder on the disk for a training's state, and its callback.

    Where the state belongs in S3, the folder is filled from there before, and sent there after every epoch.
    """
    if checkpoints is None or isinstance(checkpoints, Path):
        yield checkpoints, progress
        return
    with local_folder(checkpoints) as folder:

        def told(epoch: int, metrics: Mapping[str, float]) -> None:
            send(folder, checkpoints)
            progress(epoch, metrics)

        yield folder, told


def failed(trial: Trial, error: BaseException, attempts: int, cost_s: float) -> Trial:
    """The trial as it is recorded when its last attempt has raised `error`; all attempts took `cost_s` seconds."""
    text = str(error).strip().splitlines()
    message = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    if is_out_of_memory(error):
        message = f"out of memory: {message}"
    ended = {"attempt": attempts, "cost_s": cost_s, "finished_at": datetime.now(UTC)}
    return trial.with_changes(state=TrialState.FAILED, error=message, **ended)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the machine or of a GPU."""
    # torch has a class of its own for GPUs, and raises RuntimeError on CPUs
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    return named or "can't allocate memory" in str(error) or "not enough memory" in str(error)


def evaluate_with_retries(
    evaluator: Evaluator,
    trial: Trial,
    retries: int,
    *,
    first: int = 1,
    timeout_s: float | None = None,
    device: str = "cpu",
    checkpoints: Location | None = None,
    progress: Progress = no_progress,
    attempting: Callable[[int], None] = lambda attempt: None,
) -> Trial:
    """Evaluates one trial, again after an error, up to `retries` times.

    Args:
        evaluator: evaluates the trial.
        trial: a proposed trial.
        retries: attempts after the first.
        first: number of the first attempt; larger than 1 where others were made before.
        timeout_s: seconds that an attempt may take; seen to after every epoch.
        device: a torch device.
        checkpoints: folder for training state; attempts go on from the one before.
        progress: called after every epoch; may raise TrialStoppedError, which is not tried again.
        attempting: called with the number of every attempt as it begins.

    Returns:
        the trial, DONE, DIVERGED or FAILED.

    Raises:
        StoreError: a file cannot be written. A full disk is no fault of the trial: the search stops, and goes on once
            there is room.
    """
    begin = time.perf_counter()
    attempt = first
    while True:
        attempting(attempt)
        try:
            watched = _watched(progress, timeout_s)
            return evaluate(evaluator, trial, attempt, device, checkpoints, watched)
        except (TrialStoppedError, StoreError):
            raise
        except Exception as error:
            if attempt > retries:
                return failed(trial, error, attempt, time.perf_counter() - begin)
        attempt += 1


def _watched(progress: Progress, timeout_s: float | None) -> Progress:
    """The callback, which raises once an attempt that begins now has taken too long."""
    if timeout_s is None:
        return progress
    deadline = time.monotonic() + timeout_s

    def watched(epoch: int, figures: Mapping[str, float]) -> None:
        progress(epoch, figures)
        if time.monotonic() > deadline:
            raise TrialTimeoutError(timed_out(timeout_s))

    return watched


def timed_out(timeout_s: float) -> str:
    """What is recorded of an attempt that took too long."""
    return f"the attempt took longer than dispatch.trial_timeout, {timeout_s:g} s"
