"""Regularised (aging) evolution (Real et al. 2019)."""

from __future__ import annotations

import numpy as np

from bonas_core.determinism.randomness import Purpose, generator
from bonas_core.methods.base import Proposal, initial_design
from bonas_core.methods.samplers.base import fresh_random
from bonas_core.methods.samplers.evolution import tournament_winners
from bonas_core.spaces.base import Genotypes, SearchSpace, distinct
from bonas_core.trials import Trials

_ATTEMPTS = 256  # mutants looked at before a collapsed population is left for a random cell

_REDRAWS = 16


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

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
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
