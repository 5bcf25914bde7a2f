"""A search whose loop is its user's: ask what to evaluate, tell what it came to."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from bonas_core.errors import InputError, SettingsError, first_line
from bonas_core.evaluators.base import EvaluationContext, Evaluator, Outcome, as_outcome
from bonas_core.evaluators.function import FunctionEvaluator
from bonas_core.methods.base import carry_out, stages_of
from bonas_core.problem import Problem, build_space, build_strategy
from bonas_core.search.driver import drive
from bonas_core.search.evaluation import ended
from bonas_core.search.log import SearchLog
from bonas_core.search.steps import StopRule
from bonas_core.settings import parse_settings
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import SearchSpace
from bonas_core.storage import Location, make_folder, read_json, single_writer, store_folder, write_whole
from bonas_core.trials import Objective, Trial
from bonas_core.trials.history import TrialHistory

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class Asked:
    """An architecture that a search wants to know the objective of."""

    trial: int
    """Number of the trial."""
    architecture: Architecture
    seed: int
    """For all randomness of its evaluation."""


class Search:
    """A search for the best architecture of a space.

    Args:
        space: a search space, its registered name, or `module:object`.
        objective: a function of an `Architecture` that returns a number or an `Outcome`, or an `Evaluator`; `run` needs
            one, `ask` and `tell` do not.
        trials: how many to evaluate in all.
        seed: of everything random; the same seed makes the same search.
        folder: where trials are recorded, a path or URI; a search that is there is gone on with.
        unit: of the objective: `percent`, `fraction`, or any other name.
        direction: `maximise` or `minimise`.
        groups: further groups of settings, such as `method={"name": "random"}` or `predictor={"kind": "mlp"}`.

    Raises:
        InputError: something of this cannot be used, or the folder holds a search of other settings.

    Example:
        >>> search = Search("nasbench201", lambda cell: cell.operations.count("nor_conv_3x3"), unit="count", trials=12)
        >>> search.run().trial in range(12)
        True
    """

    def __init__(
        self,
        space: str | SearchSpace = "nasbench201",
        objective: Callable[..., Any] | Evaluator | None = None,
        *,
        trials: int = 200,
        seed: int = 0,
        folder: str | Location | None = None,
        unit: str = "fraction",
        direction: str = "maximise",
        **groups: Mapping[str, Any],
    ) -> None:
        made = build_space(space) if isinstance(space, str) else space
        evaluator = _evaluator(made, objective, unit, direction)
        kind = f"{type(evaluator).__module__}:{type(evaluator).__qualname__}"
        settings = parse_settings(
            {
                "space": space if isinstance(space, str) else f"{type(space).__module__}:{type(space).__qualname__}",
                "evaluator": {"kind": kind},
                "budget": {"trials": trials, **groups.pop("budget", {})},
                "seed": seed,
                **groups,
            },
            "Search",
        )
        goal = Objective(evaluator.objective, evaluator.unit, evaluator.direction)
        strategy = build_strategy(settings, evaluator.space, goal)
        self.problem = Problem(settings, evaluator, strategy, goal)
        self._stack = ExitStack()
        self._folder = None if folder is None else store_folder(folder)
        self._history = None if self._folder is None else self._opened(self._folder)
        self._log = SearchLog(self.problem, self._history)
        self._asked: set[int] = set()

    @property
    def trials(self) -> list[Trial]:
        """All trials so far, in the order of their numbers."""
        return list(self._log.rows)

    @property
    def best(self) -> Trial:
        """The trial with the best objective.

        Raises:
            InputError: none has an objective yet.
        """
        if self._log.best is None:
            raise InputError("search: no trial has an objective yet; evaluate some first")
        return self._log.best

    def ask(self) -> Asked:
        """The next architecture to evaluate; any number may be asked for before the first is told.

        A trial that was asked for in a process that died is asked for again first.

        Raises:
            InputError: the space has no more architectures.
        """
        waiting = [trial for trial in self._log.pending if trial.trial not in self._asked]
        if not waiting:
            settings, begin = self.problem.settings, datetime.now(UTC)
            stages = stages_of(self.problem.strategy, self._log.trials, 1, settings.seed, self._folder)
            proposals = carry_out(stages)
            if not proposals:
                raise InputError(f"search: space `{self.problem.space.name}` has no more architectures to ask for")
            waiting = self._log.propose(proposals, (datetime.now(UTC) - begin).total_seconds())
        trial = waiting[0]
        self._asked.add(trial.trial)
        space = self.problem.space
        return Asked(trial.trial, space.architecture(space.parse([trial.architecture])[0]), trial.seed)

    def tell(self, asked: Asked | int, outcome: float | Outcome | BaseException) -> Trial:
        """Records what a trial came to.

        Args:
            asked: the trial, or its number.
            outcome: the objective, an `Outcome`, or the error that its evaluation ended with.

        Returns:
            the finished trial.

        Raises:
            InputError: no such trial waits for its outcome, or the outcome is none.
        """
        number = asked if isinstance(asked, int) else asked.trial
        waiting = {trial.trial: trial for trial in self._log.pending}
        if number not in waiting:
            raise InputError(f"trial {number} does not wait for an outcome; tell each trial that was asked for once")
        try:
            found = outcome if isinstance(outcome, BaseException) else as_outcome(outcome)
        except TypeError as error:
            raise InputError(f"trial {number}: {first_line(error)}") from None
        finished = ended(waiting[number], found)
        self._log.finish(finished)
        return finished

    def run(self, trials: int | None = None) -> Trial:
        """Evaluates until the budget is spent, and returns the best trial.

        Args:
            trials: a budget in place of that which the search was made with.
        """
        if isinstance(self.problem.evaluator, _Asking):
            raise SettingsError("search: it has no objective to run; give it one, or use ask and tell")
        if trials is not None:
            budget = self.problem.settings.budget.model_copy(update={"trials": trials})
            settings = self.problem.settings.model_copy(update={"budget": budget})
            self.problem = Problem(settings, self.problem.evaluator, self.problem.strategy, self.problem.objective)
            self._log.problem = self.problem
        checkpoints = None if self._folder is None else self._folder / "checkpoints"
        drive(self._log, self._history, checkpoints, folder=self._folder)
        return self.best

    def is_over(self) -> bool:
        """Whether the budget is spent: for loops over `ask` and `tell`."""
        return StopRule(self.problem).reason(self._log) is not None

    def close(self) -> None:
        """Lets another process write to the folder."""
        self._stack.close()

    def __enter__(self) -> Self:
        """The search itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Closes the search."""
        self.close()

    def _opened(self, folder: Location) -> TrialHistory:
        """The history of a folder that this process alone writes to, and whose settings are those of this search."""
        make_folder(folder)
        self._stack.enter_context(single_writer(folder))
        own = self.problem.settings.tree() | {"budget": None, "fingerprint": self.problem.evaluator.fingerprint}
        path = folder / _SETTINGS
        if path.is_file():
            stored = read_json(path)
            other = next((name for name in own if stored.get(name) != own[name]), None)
            if other is not None:
                self.close()
                raise SettingsError(
                    f"folder `{folder}` holds a search with another `{other}`; name another folder, or go on with the "
                    "settings that it was begun with"
                )
        else:
            write_whole(path, json.dumps(own, indent=2).encode())
        return TrialHistory(folder / "trials")


class _Asking:
    """Stands for an evaluation that is done outside of the search."""

    fingerprint = "ask-and-tell"

    def __init__(self, space: SearchSpace, unit: str, direction: str) -> None:
        self.objective = "told objective"
        self.space = space
        self.unit = unit
        self.direction = direction

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        """Nothing is evaluated here."""
        raise InputError("search: it has no objective; tell it what trials came to")


def _evaluator(
    space: SearchSpace, objective: Callable[..., Any] | Evaluator | None, unit: str, direction: str
) -> Evaluator:
    if objective is None:
        return _Asking(space, unit, direction)
    if isinstance(objective, Evaluator):
        return objective
    if not callable(objective):
        raise SettingsError(
            f"objective: a {type(objective).__name__} is neither a function nor an evaluator; give "
            "`def train(architecture)`"
        )
    return FunctionEvaluator(space, objective, unit=unit, direction=direction)
