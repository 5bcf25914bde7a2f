"""The state of a search, and all of it: the trials so far."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import numpy as np

from bonas_core.determinism.randomness import Purpose, derived_seed
from bonas_core.errors import StoreError
from bonas_core.methods.base import Proposal
from bonas_core.problem import Problem
from bonas_core.spaces.base import Genotypes
from bonas_core.storage import Location
from bonas_core.trials import Trial, Trials, TrialState
from bonas_core.trials.history import TrialHistory


class SearchLog:
    """The trials of a search, as rows for people and as columns for strategies.

    They are written to a history where there is one. Damaged parts of it are set aside. A trial whose result was in one
    is evaluated again; one whose proposal was in one is proposed again, from the trials before it, and those after it
    stay as they are recorded.

    Raises:
        StoreError: the history cannot be read, or trials are missing that cannot be proposed again.
    """

    def __init__(self, problem: Problem, history: TrialHistory | None = None) -> None:
        self.rows: list[Trial] = []
        self.problem = problem
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
        """Where trials are missing: number of the first trial of a later round that is recorded, else infinity.

        A round may have been cut short by a budget that was smaller then.
        """
        later = (trial.trial for trial in self._recorded.values() if trial.round > self.rounds)
        return min(later, default=math.inf)

    def propose(self, proposals: Sequence[Proposal], surrogate_s: float) -> list[Trial]:
        """Adds the proposals of one round, which took `surrogate_s` seconds to choose."""
        objective, space = self.problem.objective, self.problem.space
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
                    seed=derived_seed(self.problem.settings.seed, Purpose.TRIAL, trial),
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
            if self.problem.settings.dispatch.mode == "asynchronous" and self._history is not None:
                raise StoreError(
                    f"history `{self._history.location}` holds trial {max(recorded)} but not trial {end}; "
                    "put back the part that was moved away, or start another search"
                )
            last = recorded[end - 1].round if end > begin else 0
            size = sum(trial.round == last for trial in recorded.values() if trial.trial < end)
            if last and size < self.problem.settings.method.batch:
                end -= size  # a round is proposed as a whole
        rows = [recorded.pop(trial) for trial in range(begin, end)]
        if rows:
            self._append(rows, self.problem.space.parse([trial.architecture for trial in rows]))

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
            larger = _columns(self.problem, max(m, 2 * n))
            for new, old in zip(larger.columns(), self._columns.columns(), strict=True):
                new[:n] = old[:n]
            self._columns = larger
        self._columns.genotypes[n:m] = genotypes
        self._columns.keys[n:m] = self.problem.space.keys(genotypes)
        self.rows.extend(rows)
        for trial in rows:
            self.spent_s += trial.surrogate_s
            if trial.state.is_finished:
                self._finish(trial)

    def _finish(self, trial: Trial) -> None:
        n, objective = trial.trial, self.problem.objective
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
