"""The one interface of BONAS and of every other method: given the trials so far, which architectures to evaluate next.

A method is a class with `Settings`, the group of settings that `method.name` chooses, and `from_settings`. What it
makes is a `Strategy`. One whose proposals come about in stages worth seeing says so with `stages`; drivers carry stages
out, each as they like, and know none by name.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bonas_core.determinism.randomness import Purpose, generator
from bonas_core.errors import SettingsError
from bonas_core.settings.method import MethodSettings
from bonas_core.settings.predictor import PredictorSettings
from bonas_core.spaces.base import Genotypes, MutationRules, SearchSpace, distinct
from bonas_core.storage import Location
from bonas_core.trials import Objective, Trials


@dataclass(frozen=True)
class Proposal:
    """An architecture to evaluate, and what was believed of it when it was chosen; figures are scores."""

    genotype: NDArray[np.int8]
    sampler: str
    acquisition: float | None = None
    predicted_mean: float | None = None
    predicted_std: float | None = None
    incumbent: float | None = None
    predictor_version: str | None = None


@runtime_checkable
class Strategy(Protocol):
    """Chooses architectures; a pure function of trials and seed: equal arguments, equal proposals."""

    initial: int
    """Number of trials chosen before anything is learnt; they may all be evaluated at once."""

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        """Chooses `count` architectures, fewer (or none) where the space has no more to offer.

        Args:
            trials: everything proposed so far; trials in flight have no score yet.
            count: how many to choose.
            seed: seed of the search; all randomness comes from it and the number of trials.
        """


@dataclass(frozen=True)
class Stage:
    """One unit of choosing, which a driver may run, show and time on its own."""

    name: str
    """What it does, such as `sample pool`."""
    run: Callable[[], Any]
    """Does it; the strategy gets back what this returns."""
    title: str | None = None
    """What this run of it does, where that says more than the name."""
    learns: bool = False
    """Whether it leaves something learnt in the folder."""

    def __str__(self) -> str:
        """The title, or the name where there is none."""
        return self.title or self.name


Stages = Generator[Stage, Any, list[Proposal]]
"""The stages of one proposal: each is sent what it returned, and the generator returns the proposals."""


@runtime_checkable
class StagedStrategy(Strategy, Protocol):
    """A strategy whose proposals come about in stages."""

    def stages(self, trials: Trials, count: int, seed: int, folder: Location | None = None) -> Stages:
        """The stages of `propose`, one after the other.

        Args:
            trials: as in `propose`.
            count: as in `propose`.
            seed: as in `propose`.
            folder: where what is learnt is kept between processes, so that none learns it again; None keeps nothing.
        """


class Method(Protocol):
    """What a registered name or `module:object` of `method.name` stands for: a class of strategies."""

    Settings: ClassVar[type[MethodSettings]]

    @classmethod
    def from_settings(
        cls, settings: Any, space: SearchSpace, objective: Objective, predictor: PredictorSettings | None
    ) -> Strategy:
        """Makes the strategy of a search.

        Args:
            settings: an instance of `Settings`.
            space: where to search.
            objective: what is sought.
            predictor: the settings of a predictor where the method has one.

        Raises:
            SettingsError: the method cannot search this space, or settings contradict each other.
        """


def stages_of(strategy: Strategy, trials: Trials, count: int, seed: int, folder: Location | None = None) -> Stages:
    """The stages of any strategy's proposal: those that it declares, or `propose` as the only one."""
    if isinstance(strategy, StagedStrategy):
        return (yield from strategy.stages(trials, count, seed, folder))
    proposals: list[Proposal] = yield Stage("propose", lambda: strategy.propose(trials, count, seed))
    return proposals


def carry_out(stages: Stages, run: Callable[[Stage], Any] = lambda stage: stage.run()) -> list[Proposal]:
    """Runs stages until there are proposals.

    Args:
        stages: of a strategy.
        run: runs one stage and returns what it returned.
    """
    result = None
    while True:
        try:
            stage = stages.send(result)
        except StopIteration as end:
            proposals: list[Proposal] = end.value
            return proposals
        result = run(stage)


def with_mutation(space: SearchSpace, name: str | None) -> SearchSpace:
    """The space with the rule of mutation that is named; None leaves it as it is.

    Raises:
        SettingsError: the space has no such rule.
    """
    if name is None:
        return space
    rules = space.mutations if isinstance(space, MutationRules) else ()
    if name not in rules:
        remedy = f"use one of {', '.join(rules)}" if rules else "it has one way to mutate: leave the setting empty"
        raise SettingsError(f"method.mutation: space `{space.name}` has no rule `{name}`; {remedy}")
    assert isinstance(space, MutationRules)
    return space.with_mutation(name)


def learnt_prefix(trials: Trials, initial: int, every: int, growth: float = 0.0) -> int:
    """Number of trials that a model has seen which learns first from `initial`, then whenever there are `every` more.

    Args:
        trials: those proposed so far.
        initial: number of the first trials.
        every: least number of trials that it waits for.
        growth: what share of those that it has seen it waits for at least: of thousands, ten more teach it nothing that
            would be worth learning all of them again. Trainings to n trials cost n log n rather than n squared.
    """
    finished = int(trials.finished.sum())
    if not growth:
        return initial + max(finished - initial, 0) // every * every
    seen = initial
    while (more := seen + until_retraining(seen, every, growth)) <= finished:
        seen = more
    return seen


def until_retraining(seen: int, every: int, growth: float) -> int:
    """Number of trials that a model which has seen so many waits for; see `learnt_prefix`."""
    return max(every, int(growth * seen))


_BLOCK = 64


def initial_design(space: SearchSpace, count: int, seed: int) -> Genotypes:
    """The first `count` distinct architectures of a uniform stream (fewer if the space has fewer).

    The stream is drawn in blocks of one size, so that a shorter design is a prefix of every longer one.
    """
    rng = generator(seed, Purpose.INITIAL)
    limit = count if space.size is None else min(count, space.size)
    drawn = space.sample(_BLOCK, rng)
    while True:
        rows = distinct(space.keys(drawn), np.array([], dtype=np.uint64))
        if len(rows) >= limit:
            return drawn[rows[:limit]]
        drawn = np.concatenate([drawn, space.sample(_BLOCK, rng)])
