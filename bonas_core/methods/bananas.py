"""BANANAS: Bayesian optimisation with an ensemble of perceptrons on path encodings (White et al. 2021)."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bonas_core.determinism.randomness import Purpose, derived_seed, generator
from bonas_core.methods.base import with_mutation
from bonas_core.methods.perceptrons import MLPEnsemble
from bonas_core.methods.rounds import Ranking, RoundStrategy
from bonas_core.settings.method import MethodSettings, MutationRule
from bonas_core.settings.predictor import PredictorSettings
from bonas_core.spaces.base import Genotypes, SearchSpace, distinct
from bonas_core.spaces.path_encoding import path_encoding
from bonas_core.trials import Objective, Trials

ENSEMBLE = MLPEnsemble(
    layers=10, width=20, members=5, loss="mae", epochs=150, learning_rate=0.01, betas=(0.9, 0.99), batch_size=32
)
"""As the authors train it."""

_CANDIDATES = 100
_PARENTS = 5
_REACH = 3  # operations of a path: 40 columns on NAS-Bench-101, the paper's cut, and all paths of NAS-Bench-201


class BananasSettings(MethodSettings):
    """BANANAS."""

    name: Literal["bananas"] = "bananas"
    initial: int = Field(5, ge=2, le=100_000, description="random trials that start the search")
    retrain_every: int = Field(10, ge=1, description="trials of a round, between trainings of the ensemble")
    mutation: MutationRule = None


class Bananas(RoundStrategy):
    """BANANAS with the authors' settings.

    Candidates are mutations of the best cell, a hundred tries; where that gives fewer than a hundred new cells, of the
    second best as well, and so on to the fifth best. Each candidate draws a score from the normal distribution of the
    ensemble's predictions (independent Thompson sampling), and the largest are the round.

    Scores are learnt as percentages where they are fractions, which are the authors' units, and otherwise scaled to a
    spread of 10: the loss is absolute and the learning rate fixed, so the unit is a part of the method.

    Args:
        space: where to search.
        initial: random cells that start the search.
        every: cells of a round.
        fractions: whether scores lie in [0, 1].
        ensemble: the predictor.
    """

    Settings: ClassVar = BananasSettings

    name = "bananas"

    def __init__(
        self,
        space: SearchSpace,
        initial: int = 10,
        every: int = 10,
        fractions: bool = True,
        ensemble: MLPEnsemble = ENSEMBLE,
    ) -> None:
        super().__init__(space, initial, every)
        self._fractions = fractions
        self._ensemble = ensemble

    @classmethod
    def from_settings(
        cls,
        settings: BananasSettings,
        space: SearchSpace,
        objective: Objective,
        predictor: PredictorSettings | None = None,
    ) -> Self:
        """Makes the search of a space."""
        space = with_mutation(space, settings.mutation)
        return cls(space, settings.initial, settings.retrain_every, objective.is_fraction)

    def rank(self, trials: Trials, seed: int) -> Ranking:
        """Trains the ensemble anew and ranks mutants of the best cells by a score drawn from each one's prediction."""
        n = len(trials)
        rng = generator(seed, Purpose.POOL, n)
        rows, scores = trials.observed()
        candidates = self._candidates(trials, rows[np.argsort(-scores, kind="stable")[:_PARENTS]], rng)
        shift, scale = (1.0, 100.0) if self._fractions else (scores.max(), 10 / (scores.std() or 1.0))
        weights = self._ensemble.fit(
            self._encode(trials.genotypes[rows]),
            (scores - shift) * scale,
            derived_seed(seed, Purpose.PREDICTOR, n),
        )
        members = self._ensemble.predict(weights, self._encode(candidates)).astype(np.float64) / scale + shift
        mean, std = members.mean(axis=0), members.std(axis=0)
        order = np.argsort(-rng.normal(mean, std), kind="stable")
        return Ranking(candidates[order], self._space.keys(candidates[order]), mean[order], std[order])

    def _candidates(self, trials: Trials, parents: NDArray[np.intp], rng: np.random.Generator) -> Genotypes:
        mutants = self._space.mutate(np.repeat(trials.genotypes[parents], _CANDIDATES, axis=0), rng)
        fresh = distinct(self._space.keys(mutants), trials.keys)
        # a parent is asked only while those before it have not given enough
        given = np.bincount(fresh // _CANDIDATES, minlength=len(parents)).cumsum()
        asked = int(np.searchsorted(given, _CANDIDATES)) + 1
        return np.asarray(mutants[fresh[fresh // _CANDIDATES < asked]])

    def _encode(self, genotypes: Genotypes) -> NDArray[np.float32]:
        return path_encoding(self._space.encode(genotypes), _REACH)
