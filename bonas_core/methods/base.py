"""The one interface of BONAS and of every baseline: given the trials so far, which architectures to evaluate next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bonas_core.determinism.randomness import Purpose, generator
from bonas_core.spaces.base import Genotypes, SearchSpace, distinct
from bonas_core.trials import Trials


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
