"""Regularised (aging) evolution (Real et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from bonas_core.determinism.randomness import Purpose, generator
from bonas_core.methods.base import Proposal, initial_design, with_mutation
from bonas_core.methods.samplers.base import fresh_random
from bonas_core.methods.samplers.evolution import tournament_winners
from bonas_core.settings.method import MethodSettings, MutationRule
from bonas_core.settings.predictor import PredictorSettings
from bonas_core.spaces.base import Genotypes, MutationRules, SearchSpace, distinct
from bonas_core.trials import Objective, Trials

_ATTEMPTS = 256  # mutants looked at before a collapsed population is left for a random cell

_REDRAWS = 16


@dataclass(frozen=True)
class Published:
    """Regularised evolution as it was published: in all versions the oldest dies and a child differs."""

    population: int
    tournament: int
    replacement: bool
    """Whether a trial may enter a tournament more than once."""
    mutation: str | None
    """The nearest rule of a space that has several."""


PUBLISHED = {
    # Real et al. (2019)
    "real": Published(100, 25, True, "rewire"),
    # curves of the NAS-Bench-101 paper
    "nas-benchmarks": Published(100, 10, True, "add-remove"),
    # notebook of the benchmark's own code
    "nasbench-notebook": Published(50, 10, False, "flip"),
    # White et al. (2021); each edge flips with chance 1/21 there, 1/7 here
    "naszilla": Published(30, 10, True, "flip"),
    # Dong & Yang (2020), on NAS-Bench-201: the operation of one edge
    "autodl": Published(10, 3, True, None),
}
"""By the name of the preset."""


class RegularisedEvolutionSettings(MethodSettings):
    """Regularised evolution."""

    name: Literal["regularised-evolution"] = "regularised-evolution"
    preset: Literal["real", "nas-benchmarks", "nasbench-notebook", "naszilla", "autodl"] | None = Field(
        None,
        description="as it was published: fills in population and tournament, says how entrants are drawn, and sets "
        "the rule of mutation where the space has it",
    )
    population: int = Field(30, ge=2, description="trials alive")
    tournament: int = Field(10, ge=1, description="entrants of a tournament")
    repeats: bool = Field(False, description="may evaluate a cell again")
    mutation: MutationRule = None

    by_recipe: ClassVar[frozenset[str]] = frozenset({"population", "tournament"})

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, tree: Any) -> Any:
        published = PUBLISHED.get(str(tree.get("preset"))) if isinstance(tree, Mapping) else None
        if published is None:
            return tree
        return {"population": published.population, "tournament": published.tournament, **tree}


class RegularisedEvolution:
    """Each step mutates the best of a tournament from the last `population` trials.

    Args:
        space: where to search.
        population: number of trials alive; as many random ones start the search.
        tournament: entrants per tournament.
        repeats: whether a cell may be evaluated again, which costs a query: the literal algorithm; failed and diverged
            ones are left alone all the same. Otherwise mutants are drawn until one is new.
        replacement: whether a trial may enter a tournament more than once.
    """

    Settings: ClassVar = RegularisedEvolutionSettings

    def __init__(
        self,
        space: SearchSpace,
        population: int = 30,
        tournament: int = 10,
        repeats: bool = False,
        replacement: bool = False,
    ) -> None:
        self.initial = population
        self._space = space
        self._population = population
        self._tournament = tournament
        self._repeats = repeats
        self._replacement = replacement

    @classmethod
    def from_settings(
        cls,
        settings: RegularisedEvolutionSettings,
        space: SearchSpace,
        objective: Objective,
        predictor: PredictorSettings | None = None,
    ) -> Self:
        """Makes the search of a space, which a preset's rule of mutation mutates if it has it and no other is set."""
        preset, rule = PUBLISHED.get(str(settings.preset)), settings.mutation
        known = space.mutations if isinstance(space, MutationRules) else ()
        if rule is None and preset is not None and preset.mutation in known:
            rule = preset.mutation
        replacement = preset is not None and preset.replacement
        return cls(with_mutation(space, rule), settings.population, settings.tournament, settings.repeats, replacement)

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        """Fills the population with random cells first, then mutates winners of tournaments among the latest trials."""
        n = len(trials)
        if n < self.initial:
            return [Proposal(g, "initial") for g in initial_design(self._space, self.initial, seed)[n : n + count]]
        rng = generator(seed, Purpose.BASELINE, n)
        return [Proposal(g, "evolution") for g in self._children(trials, count, rng)]

    def _children(self, trials: Trials, count: int, rng: np.random.Generator) -> Genotypes:
        attempts = max(_ATTEMPTS, 4 * count)
        if self._repeats:
            barred = trials.keys[trials.finished & np.isnan(trials.scores)]
            children = self._mutants(trials, count, rng)
            keys = self._space.keys(children)
            if np.isin(keys, barred).any():
                children = np.concatenate([children, self._mutants(trials, attempts, rng)])
                keys = self._space.keys(children)
            children = children[~np.isin(keys, barred)][:count]
        else:
            children = self._mutants(trials, attempts, rng)
            children = children[distinct(self._space.keys(children), trials.keys)][:count]
        if len(children) == count:
            return children
        # no trial has a score to be a parent, or all that they lead to is there
        seen = np.concatenate([trials.keys, self._space.keys(children)])
        return np.concatenate([children, fresh_random(self._space, seen, count - len(children), rng)])

    def _mutants(self, trials: Trials, count: int, rng: np.random.Generator) -> Genotypes:
        parents = tournament_winners(trials, self._population, self._tournament, count, rng, self._replacement)
        children = self._space.mutate(parents, rng)
        for _ in range(_REDRAWS):  # a mutation may draw what was there: ask again, a query is worth more
            same = self._space.keys(children) == self._space.keys(parents)
            if not same.any():
                break
            children[same] = self._space.mutate(parents[same], rng)
        return children
