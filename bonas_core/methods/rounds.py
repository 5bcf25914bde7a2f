"""Methods that learn in rounds: a model of the trials ranks candidates, and the best are the next round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bonas_core.determinism.randomness import Purpose, generator
from bonas_core.methods.base import Proposal, initial_design, learnt_prefix
from bonas_core.methods.samplers.base import fresh_random
from bonas_core.spaces.base import Genotypes, Keys, SearchSpace
from bonas_core.trials import Trials


@dataclass(frozen=True)
class Ranking:
    """Candidates of one round in the order in which they are to be evaluated."""

    genotypes: Genotypes
    """(m, genes)"""
    keys: Keys
    """(m,)"""
    mean: NDArray[np.floating]
    """(m,) predicted scores."""
    std: NDArray[np.floating] | None = None
    """(m,) their standard deviations, where the model has any."""


class RoundStrategy(ABC):
    """Random trials first, then rounds of `every` trials that follow one ranking.

    The ranking of a round depends on the trials before it and the seed, so that the trials of a round are the same
    whether they are asked for at once or one by one. A batch larger than a round goes further down the ranking.

    Args:
        space: where to search.
        initial: random cells that start the search.
        every: trials of a round.
    """

    name: str
    """What proposals say they come from."""

    def __init__(self, space: SearchSpace, initial: int, every: int) -> None:
        self.initial = initial
        self._space = space
        self._every = every
        self._ranked: tuple[int, Trials, Ranking] | None = None

    @abstractmethod
    def rank(self, trials: Trials, seed: int) -> Ranking:
        """Learns from trials, of which two at least are observed, and ranks candidates.

        Args:
            trials: those before the round; candidates that one of them has need not be left out.
            seed: seed of the search.
        """

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        """Takes the best new cells of the round's ranking; before there is one, and past its end, random ones."""
        n = len(trials)
        before = trials.first(learnt_prefix(trials, self.initial, self._every))
        if n < self.initial or len(before.observed()[0]) < 2:
            design = initial_design(self._space, n + count, seed)
            return [Proposal(g, "initial") for g in design[~np.isin(self._space.keys(design), trials.keys)][:count]]
        ranking = self._ranking(before, seed)
        head = ranking.keys[: n + count]  # n of them at most have a trial
        rows = np.flatnonzero(~np.isin(head, trials.keys))[:count]
        proposals = [
            Proposal(
                ranking.genotypes[row],
                self.name,
                predicted_mean=float(ranking.mean[row]),
                predicted_std=None if ranking.std is None else float(ranking.std[row]),
            )
            for row in rows
        ]
        seen = np.concatenate([trials.keys, ranking.keys[rows]])
        rest = fresh_random(self._space, seen, count - len(rows), generator(seed, Purpose.BASELINE, n))
        return [*proposals, *(Proposal(g, "random") for g in rest)]

    def _ranking(self, trials: Trials, seed: int) -> Ranking:
        if self._ranked is not None and self._ranked[0] == seed and same_trials(self._ranked[1], trials):
            return self._ranked[2]
        ranking = self.rank(trials, seed)
        self._ranked = (seed, Trials(*(column.copy() for column in trials.columns())), ranking)
        return ranking


def same_trials(one: Trials, other: Trials) -> bool:
    """Whether a strategy sees the same in both."""
    return len(one) == len(other) and all(
        np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(one.columns(), other.columns(), strict=True)
    )
