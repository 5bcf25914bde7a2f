"""Random search without replacement (algorithms of Table 2; Yang et al. 2020)."""

from __future__ import annotations

from functools import lru_cache
from typing import ClassVar, Literal, Self

import numpy as np

from bonas_core.determinism.randomness import Purpose, generator
from bonas_core.methods.base import Proposal
from bonas_core.methods.samplers.base import fresh_random
from bonas_core.settings.method import MethodSettings
from bonas_core.settings.predictor import PredictorSettings
from bonas_core.spaces.base import Genotypes, SearchSpace
from bonas_core.trials import Objective, Trials


class RandomSearchSettings(MethodSettings):
    """Random search without replacement."""

    name: Literal["random"] = "random"


class RandomSearch:
    """Uniform draws without replacement.

    The optimum among m ties of n cells takes (n + 1) / (m + 1) draws on average.
    """

    Settings: ClassVar = RandomSearchSettings

    initial = 0

    def __init__(self, space: SearchSpace) -> None:
        self._space = space
        self._order = lru_cache(maxsize=1)(self._shuffled)

    @classmethod
    def from_settings(
        cls,
        settings: RandomSearchSettings,
        space: SearchSpace,
        objective: Objective,
        predictor: PredictorSettings | None = None,
    ) -> Self:
        """Makes the search of a space."""
        return cls(space)

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        """Takes the next cells of the space in a shuffled order, or new random ones where it cannot be enumerated."""
        n = len(trials)
        if self._space.size is not None:
            chosen = self._order(seed)[n : n + count]
        else:
            chosen = fresh_random(self._space, trials.keys, count, generator(seed, Purpose.BASELINE, n))
        return [Proposal(genotype, "random") for genotype in chosen]

    def _shuffled(self, seed: int) -> Genotypes:
        everything = self._space.enumerate()
        return np.asarray(everything[generator(seed, Purpose.BASELINE).permutation(len(everything))])
