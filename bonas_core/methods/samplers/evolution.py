"""The evolution sampler: mutants of tournament winners in an aging population (paper section 3.3; Real et al. 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from bonas_core.methods.samplers.base import Pool, fresh_random
from bonas_core.spaces.base import Genotypes, SearchSpace, distinct
from bonas_core.trials import Trials

_TRIES = 1.5  # mutants drawn per candidate wanted: near the end of a search most repeat one another


@dataclass(frozen=True)
class EvolutionSampler:
    """BONAS(EA): candidates are single mutations of parents, each the best of a random tournament.

    The population is the last `population` observed trials (aging): the paper leaves its size open.
    """

    population: int = 30
    tournament: int = 10
    random_fraction: float = 0.0
    """Share of the pool drawn at random instead."""
    name = "evolution"

    @classmethod
    def from_settings(cls, settings: Any) -> Self:
        """Makes the sampler of a method that has a population."""
        return cls(settings.population, settings.tournament, settings.random_fraction)

    def pool(self, space: SearchSpace, trials: Trials, size: int, rng: np.random.Generator) -> Pool:
        """Draws new mutants of tournament winners and a share of random cells; all are random if no mutant is new."""
        wanted = size - round(size * self.random_fraction)
        mutants = space.mutate(
            tournament_winners(trials, self.population, self.tournament, int(wanted * _TRIES), rng), rng
        )
        found = mutants[distinct(space.keys(mutants), trials.keys)][:wanted]
        # an exhausted neighbourhood must not end a search while the space has more
        missing = size - wanted if len(found) else size
        if missing:
            seen = np.concatenate([trials.keys, space.keys(found)])
            found = np.concatenate([found, fresh_random(space, seen, missing, rng)])
        return Pool(found, np.ones(len(found), dtype=bool))


def tournament_winners(
    trials: Trials,
    population: int,
    tournament: int,
    count: int,
    rng: np.random.Generator,
    replacement: bool = False,
) -> Genotypes:
    """Parents: each the best of `tournament` drawn from the last `population` observed trials.

    Without `replacement` a trial enters a tournament once at most.
    """
    rows, scores = trials.observed()
    rows, scores = rows[-population:], scores[-population:]
    if not len(rows):
        return trials.genotypes[:0]
    if replacement:
        entrants = rng.integers(len(rows), size=(count, tournament))
    else:
        entrants = rng.random((count, len(rows))).argsort(axis=1)[:, :tournament]
    winners = entrants[np.arange(count), scores[entrants].argmax(axis=1)]
    return np.asarray(trials.genotypes[rows[winners]])
