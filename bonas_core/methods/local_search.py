"""Local search: look at the neighbours, go where it is best, begin again at a local optimum.

Studied by White et al. 2021, "Exploring the Loss Landscape in Neural Architecture Search".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bonas_core.determinism.randomness import Purpose, generator
from bonas_core.methods.base import Proposal, initial_design, with_mutation
from bonas_core.methods.rounds import same_trials
from bonas_core.methods.samplers.base import fresh_random
from bonas_core.settings.method import MethodSettings, MutationRule
from bonas_core.settings.predictor import PredictorSettings
from bonas_core.spaces.base import Genotypes, Keys, SearchSpace
from bonas_core.trials import Objective, Trials

Move = Literal["best", "first"]


class LocalSearchSettings(MethodSettings):
    """Local search."""

    name: Literal["local-search"] = "local-search"
    initial: int = Field(5, ge=2, le=100_000, description="random trials that start the search")
    move: Move = Field("best", description="to the best of all neighbours, or to the first that is better")
    mutation: MutationRule = None


@dataclass(frozen=True)
class _Walk:
    """Where the search stands before trial `since`."""

    since: int
    """Number of trials that led here; later ones are for the decision to come."""
    row: int | None
    """Trial of the current cell; None where the next trial, whatever it is, starts a walk."""
    neighbours: Genotypes
    keys: Keys
    """Of the neighbours."""


class LocalSearch:
    """Walks uphill from the best of `initial` random cells, and from a random unseen cell at every local optimum.

    The walk is not stored: it is replayed from the trials. A decision is taken by the trials up to the last neighbour
    that it needs, and the first trial after a local optimum starts the next walk. So whatever fills up a batch once
    all neighbours are in it (random cells and their neighbours) serves as the next start if there is none better.
    Neighbours that were evaluated earlier count without being evaluated again. Only a strictly better cell is moved to.

    Args:
        space: where to search.
        initial: random cells that start the search.
        move: `best`: when all neighbours are known, to the best of them; `first`: to the first that is better.
    """

    Settings: ClassVar = LocalSearchSettings

    def __init__(self, space: SearchSpace, initial: int = 10, move: Move = "best") -> None:
        self.initial = initial
        self._space = space
        self._move = move
        self._reached: tuple[int, Trials, _Walk] | None = None

    @classmethod
    def from_settings(
        cls,
        settings: LocalSearchSettings,
        space: SearchSpace,
        objective: Objective,
        predictor: PredictorSettings | None = None,
    ) -> Self:
        """Makes the search of a space, whose rule of mutation says what neighbours are."""
        return cls(with_mutation(space, settings.mutation), settings.initial, settings.move)

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        """Takes random cells first, then new neighbours of the present cell, and a random cell once none is left."""
        n = len(trials)
        if n < self.initial:
            design = initial_design(self._space, self.initial, seed)
            return [Proposal(g, "initial") for g in design[~np.isin(self._space.keys(design), trials.keys)][:count]]
        walk = self._replay(trials, seed)
        seen = trials.keys
        chosen: list[Proposal] = []
        while True:
            fresh = np.flatnonzero(~np.isin(walk.keys, seen))[: count - len(chosen)]
            chosen += [Proposal(g, "neighbour") for g in walk.neighbours[fresh]]
            seen = np.concatenate([seen, walk.keys[fresh]])
            if len(chosen) == count:
                return chosen
            number = n + len(chosen)
            start = fresh_random(self._space, seen, 1, generator(seed, Purpose.BASELINE, number))
            if not len(start):
                return chosen
            chosen.append(Proposal(start[0], "restart"))
            seen = np.concatenate([seen, self._space.keys(start)])
            walk = self._at(start[0], number, number + 1, seed)

    def _at(self, genotype: NDArray[np.int8], row: int, since: int, seed: int) -> _Walk:
        neighbours = self._space.neighbours(genotype)
        # spaces list neighbours gene by gene: without an order of its own, every walk would favour the first genes
        neighbours = neighbours[generator(seed, Purpose.TIE_BREAK, row).permutation(len(neighbours))]
        return _Walk(since, row, neighbours, self._space.keys(neighbours))

    def _replay(self, trials: Trials, seed: int) -> _Walk:
        """Takes every decision that the trials allow, going on from the last one known."""
        _, first = np.unique(trials.keys, return_index=True)
        rows_of = (trials.keys[first], first)
        # a diverged trial is worse than all that are done; a failed one is not learnt from
        scores = np.where(np.isnan(trials.scores), -np.inf, trials.scores)
        known = trials.finished | ~np.isnan(trials.scores)
        walk = self._known_prefix(trials, seed)
        while True:
            following = self._next(walk, trials, scores, known, rows_of, seed)
            if following is None:
                return walk
            walk = following
            if known[: walk.since].all():
                prefix = Trials(*(column.copy() for column in trials.first(walk.since).columns()))
                self._reached = (seed, prefix, walk)

    def _known_prefix(self, trials: Trials, seed: int) -> _Walk:
        if self._reached is not None and self._reached[0] == seed:
            _, before, walk = self._reached
            if same_trials(before, trials.first(walk.since)):
                return walk
        rows = np.arange(self.initial)
        scores = np.where(np.isnan(trials.scores[rows]), -np.inf, trials.scores[rows])
        usable = ~np.isnan(trials.scores[rows]) | trials.diverged[rows]
        if not usable.any():
            return _nowhere(trials, self.initial)
        row = int(rows[usable][scores[usable].argmax()])
        return self._at(trials.genotypes[row], row, self.initial, seed)

    def _next(
        self,
        walk: _Walk,
        trials: Trials,
        scores: NDArray[np.float64],
        known: NDArray[np.bool_],
        rows_of: tuple[Keys, NDArray[np.intp]],
        seed: int,
    ) -> _Walk | None:
        """The walk after its next decision; None where trials are missing for it."""
        if walk.row is None:
            row = walk.since
            if row >= len(trials):
                return None
            if trials.finished[row] and np.isnan(trials.scores[row]) and not trials.diverged[row]:
                return _nowhere(trials, row + 1)
            return self._at(trials.genotypes[row], row, row + 1, seed)
        if not known[walk.row]:
            return None
        sorted_keys, firsts = rows_of
        place = np.minimum(np.searchsorted(sorted_keys, walk.keys), len(sorted_keys) - 1)
        there = sorted_keys[place] == walk.keys
        rows = firsts[place[there]]
        here = scores[walk.row]
        if self._move == "first":
            move = _first_improvement(rows, walk.since, scores, known, here)
            if move is None and not known[rows].all():
                return None
            if move is not None:
                row, since = move
                return self._at(trials.genotypes[row], row, since, seed)
        if not there.all() or not known[rows].all():
            return None
        since = max(walk.since, int(rows.max(initial=-1)) + 1)
        if self._move == "best" and len(rows) and scores[rows].max() > here:
            row = int(rows[scores[rows].argmax()])
            return self._at(trials.genotypes[row], row, since, seed)
        return _nowhere(trials, since)


def _first_improvement(
    rows: NDArray[np.intp], since: int, scores: NDArray[np.float64], known: NDArray[np.bool_], here: float
) -> tuple[int, int] | None:
    """Trial of the first neighbour that is better, and the number of trials it took to see that.

    Neighbours known before the walk came here are looked at first, in the neighbours' order, then the others in the
    order of their evaluation, up to the first that is in flight.
    """
    late = np.sort(rows[rows >= since])
    for row in [*rows[rows < since], *late]:
        if not known[row]:
            return None
        if scores[row] > here:
            return int(row), max(since, int(row) + 1)
    return None


def _nowhere(trials: Trials, since: int) -> _Walk:
    return _Walk(since, None, trials.genotypes[:0], trials.keys[:0])
