"""A search: ask a strategy, tell it the outcome, until the budget is spent.

`SearchLog` is the state, and all of it: the trials so far. `next_step` says what is to be done about it. The plain
driver `run` does that in a loop; an orchestrator does the same steps as tasks.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from bonas_core.build import Problem
from bonas_core.determinism.randomness import Purpose, derived_seed
from bonas_core.errors import StoreError, TrainingDivergedError, TrialStoppedError, TrialTimeoutError
from bonas_core.evaluators.base import ClosedEvaluator, EvaluationContext, Evaluator, Progress, no_progress
from bonas_core.methods.base import Proposal
from bonas_core.spaces.base import Genotypes
from bonas_core.storage import Location, local_folder, make_folder, send
from bonas_core.trials import Trial, Trials, TrialState
from bonas_core.trials.history import TrialHistory


class SearchLog:
    """The trials of a search, as rows for people and as columns for strategies; written to a history where there is
    one.

    Damaged parts of the history are set aside. A trial whose result was in one is evaluated again; one whose proposal
    was in one is proposed again, from the trials before it, and those after it stay as they are recorded.

    Raises:
        StoreError: the history cannot be read, or trials are missing that cannot be proposed again.
    """

    def __init__(self, problem: Problem, history: TrialHistory | None = None) -> None:
        self.rows: list[Trial] = []
        self._problem = problem
        self._history = history
        self._columns = _columns(problem, 256)
        self.best: Trial | None = None
        self.spent_s = 0.0
        """Seconds of evaluating and choosing."""
        self.set_aside: list[Location] = []
        """Parts of the history that were damaged, where they are now."""
        self._recorded: dict[int, Trial] = {}  # trials after one that is missing
        if history is None:
            return
        trials, self.set_aside = history.recover()
        self._recorded = {trial.trial: trial for trial in trials}
        self._take_up()

    @property
    def trials(self) -> Trials:
        """What strategies see."""
        return self._columns.first(len(self.rows))

    @property
    def pending(self) -> list[Trial]:
        """Trials proposed but not finished, in the order of their numbers."""
        open_rows = np.flatnonzero(~self._columns.finished[: len(self.rows)])
        return [self.rows[row] for row in open_rows]

    @property
    def rounds(self) -> int:
        """Number of rounds begun."""
        return self.rows[-1].round + 1 if self.rows else 0

    @property
    def next_recorded_round(self) -> float:
        """Where trials are missing: the first trial of a later round that is recorded; a round may have been cut
        short by a budget that was smaller then."""
        later = (trial.trial for trial in self._recorded.values() if trial.round > self.rounds)
        return min(later, default=math.inf)

    def propose(self, proposals: Sequence[Proposal], surrogate_s: float) -> list[Trial]:
        """Adds the proposals of one round, which took `surrogate_s` seconds to choose."""
        objective, space = self._problem.objective, self._problem.space
        # a round of the initial design may take several calls: it is one round
        initial = bool(self.rows) and self.rows[-1].round == 0 and proposals[0].sampler == "initial"
        number = 0 if initial else self.rounds
        now = datetime.now(UTC)
        fresh = []
        for place, proposal in enumerate(proposals):
            architecture = space.architecture(proposal.genotype)
            trial = len(self.rows) + place
            fresh.append(
                Trial(
                    trial=trial,
                    round=number,
                    key=architecture.key,
                    architecture=architecture.text,
                    sampler=proposal.sampler,
                    acquisition=proposal.acquisition,
                    predicted_mean=_map(objective.objective, proposal.predicted_mean),
                    predicted_std=_map(lambda std: abs(objective.objective(std)), proposal.predicted_std),
                    incumbent=_map(objective.objective, proposal.incumbent),
                    predictor_version=proposal.predictor_version,
                    seed=derived_seed(self._problem.settings.seed, Purpose.TRIAL, trial),
                    surrogate_s=surrogate_s / len(proposals),
                    proposed_at=now,
                )
            )
        missing = [trial for trial in fresh if not self._is_recorded(trial)]
        if self._history is not None and missing:
            self._history.propose(missing)
        rows = [self._recorded.pop(trial.trial, trial) for trial in fresh]
        self._append(rows, np.stack([proposal.genotype for proposal in proposals]))
        self._take_up()
        return [trial for trial in rows if not trial.state.is_finished]

    def finish(self, trial: Trial) -> None:
        """Records the result of a trial."""
        if self._history is not None:
            self._history.finish(trial)
        self._finish(trial)

    def _take_up(self) -> None:
        """Appends the recorded trials that follow, up to one that is missing or the round that it belonged to."""
        recorded, begin = self._recorded, len(self.rows)
        end = begin
        while end in recorded:
            end += 1
        if end - begin < len(recorded):
            if self._problem.settings.dispatch.mode == "asynchronous" and self._history is not None:
                raise StoreError(
                    f"history `{self._history.location}` holds trial {max(recorded)} but not trial {end}; "
                    "put back the part that was moved away, or start another search"
                )
            last = recorded[end - 1].round if end > begin else 0
            size = sum(trial.round == last for trial in recorded.values() if trial.trial < end)
            if last and size < self._problem.settings.method.batch:
                end -= size  # a round is proposed as a whole
        rows = [recorded.pop(trial) for trial in range(begin, end)]
        if rows:
            self._append(rows, self._problem.space.parse([trial.architecture for trial in rows]))

    def _is_recorded(self, trial: Trial) -> bool:
        recorded = self._recorded.get(trial.trial)
        if recorded is not None and (recorded.key, recorded.seed) != (trial.key, trial.seed):
            raise StoreError(
                f"trial {trial.trial} is recorded as `{recorded.architecture}`, but after what is lost it would be "
                f"`{trial.architecture}`; put back the part that was set aside or moved away, or start another search"
            )
        return recorded is not None

    def _append(self, rows: Sequence[Trial], genotypes: Genotypes) -> None:
        n, m = len(self.rows), len(self.rows) + len(rows)
        if m > len(self._columns):
            larger = _columns(self._problem, max(m, 2 * n))
            for new, old in zip(larger.columns(), self._columns.columns(), strict=True):
                new[:n] = old[:n]
            self._columns = larger
        self._columns.genotypes[n:m] = genotypes
        self._columns.keys[n:m] = self._problem.space.keys(genotypes)
        self.rows.extend(rows)
        for trial in rows:
            self.spent_s += trial.surrogate_s
            if trial.state.is_finished:
                self._finish(trial)

    def _finish(self, trial: Trial) -> None:
        n, objective = trial.trial, self._problem.objective
        self.rows[n] = trial
        self.spent_s += trial.cost_s or 0.0
        self._columns.finished[n] = True
        self._columns.diverged[n] = trial.state is TrialState.DIVERGED
        if trial.state is TrialState.DONE and trial.objective is not None:
            self._columns.scores[n] = objective.score(trial.objective)
            if self.best is None or objective.better(trial.objective, self.best.objective or 0.0):
                self.best = trial


def _columns(problem: Problem, capacity: int) -> Trials:
    genes = problem.space.sample(1, np.random.default_rng(0)).shape[1]
    return Trials(
        np.zeros((capacity, genes), dtype=np.int8),
        np.zeros(capacity, dtype=np.uint64),
        np.full(capacity, np.nan),
        np.zeros(capacity, dtype=bool),
        np.zeros(capacity, dtype=bool),
    )


def _map(function: Callable[[float], float], value: float | None) -> float | None:
    return None if value is None else function(value)


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
    try:
        with training_folder(checkpoints, progress) as (folder, told):
            context = EvaluationContext(trial.seed, device, folder, told)
            outcome = evaluator.evaluate(architecture, context)
    except TrainingDivergedError as error:
        ended = {"cost_s": time.perf_counter() - begin, "finished_at": datetime.now(UTC)}
        return trial.with_changes(state=TrialState.DIVERGED, error=str(error), **common, **ended)
    ended = {"cost_s": time.perf_counter() - begin, "finished_at": datetime.now(UTC)}
    figures = {"metrics": dict(outcome.metrics), "epochs": outcome.epochs, "params": outcome.params}
    ended["images_per_second"] = outcome.images_per_second
    if not math.isfinite(outcome.objective):
        message = f"the evaluator returned {outcome.objective}"
        return trial.with_changes(state=TrialState.DIVERGED, error=message, **figures, **common, **ended)
    return trial.with_changes(state=TrialState.DONE, objective=float(outcome.objective), **figures, **common, **ended)


@contextmanager
def training_folder(checkpoints: Location | None, progress: Progress) -> Iterator[tuple[Path | None, Progress]]:
    """A folder on the disk for a training's state, and its callback; a folder in S3 is filled from there before, and
    sent there after every epoch."""
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


def run(
    problem: Problem,
    history: TrialHistory | None = None,
    checkpoints: Location | None = None,
    on_trial: Callable[[Trial], None] = lambda trial: None,
) -> SearchLog:
    """The plain driver: searches in a loop, one trial after the other, without any orchestration.

    Args:
        problem: what to search; see `bonas_core.build.build`.
        history: where trials are recorded; a history that has trials already is continued.
        checkpoints: folder for training state, one folder below it a trial.
        on_trial: called with every finished trial.

    Example:
        >>> from bonas_core.testing import toy_problem
        >>> log = run(toy_problem(trials=12))
        >>> len(log.rows)
        12
    """
    log = SearchLog(problem, history)
    for part in log.set_aside:
        warnings.warn(f"history part set aside as `{part}`: it is damaged, its trials are done again", stacklevel=2)
    rule = StopRule(problem)
    settings = problem.settings
    while True:
        step = next_step(problem, log, rule)
        if step.stop:
            return log
        due = step.evaluate
        if step.propose:
            begin = time.perf_counter()
            proposals = problem.strategy.propose(log.trials, step.propose, settings.seed)
            if proposals:
                log.propose(proposals, time.perf_counter() - begin)
                continue
            due = log.pending  # the space has no more
            if not due:
                return log
        for trial in due:
            folder = None if checkpoints is None else make_folder(checkpoints / str(trial.trial))
            dispatch = settings.dispatch
            finished = evaluate_with_retries(
                problem.evaluator, trial, dispatch.retries, timeout_s=dispatch.trial_timeout, checkpoints=folder
            )
            log.finish(finished)
            on_trial(finished)
            if history is not None:
                history.compact_if_large()
