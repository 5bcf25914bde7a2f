"""Greedy search by a linear model: the least that a learnt predictor must beat."""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bonas_core.determinism.blas import one_blas_thread
from bonas_core.determinism.randomness import Purpose, generator
from bonas_core.methods.rounds import Ranking, RoundStrategy
from bonas_core.methods.samplers.base import fresh_random
from bonas_core.settings.method import MethodSettings
from bonas_core.settings.predictor import PredictorSettings
from bonas_core.spaces.base import Genotypes, SearchSpace
from bonas_core.trials import Objective, Trials

_PENALTY = 1.0  # of the squared weights, in units of a trial


class LinearSettings(MethodSettings):
    """Greedy search by a linear model."""

    name: Literal["linear"] = "linear"
    initial: int = Field(5, ge=2, le=100_000, description="random trials that start the search")
    every: int = Field(1, ge=1, description="trials of a round, between fits of the model")
    pool: int = Field(1000, ge=1, le=10_000_000, description="random cells and mutants of the best that are ranked")


class Linear(RoundStrategy):
    """Ridge regression of scores on one-hot labels and edges; the candidates with the best predicted mean are next.

    Half of the candidates are mutants of the best cell so far, the others random.

    Args:
        space: where to search.
        initial: random cells that start the search.
        every: cells of a round.
        pool: candidates of a round.
    """

    Settings: ClassVar = LinearSettings

    name = "linear"

    def __init__(self, space: SearchSpace, initial: int = 5, every: int = 1, pool: int = 1000) -> None:
        super().__init__(space, initial, every)
        self._pool = pool

    @classmethod
    def from_settings(
        cls,
        settings: LinearSettings,
        space: SearchSpace,
        objective: Objective,
        predictor: PredictorSettings | None = None,
    ) -> Self:
        """Makes the search of a space."""
        return cls(space, settings.initial, settings.every, settings.pool)

    @one_blas_thread()
    def rank(self, trials: Trials, seed: int) -> Ranking:
        """Fits the model to the observed trials and ranks candidates by it."""
        rows, scores = trials.observed()
        rng = generator(seed, Purpose.POOL, len(trials))
        best = trials.genotypes[rows[scores.argmax()]]
        mutants = self._space.mutate(np.repeat(best[None], self._pool // 2 + 1, axis=0), rng)
        drawn = np.concatenate([mutants, fresh_random(self._space, trials.keys, self._pool // 2 + 1, rng)])
        keys = self._space.keys(drawn)
        first = np.sort(np.unique(keys, return_index=True)[1])
        candidates, keys = drawn[first], keys[first]
        x, centre = self._features(trials.genotypes[rows]), scores.mean()
        kernel = x @ x.T + _PENALTY * np.eye(len(x))
        mean = self._features(candidates) @ (x.T @ np.linalg.solve(kernel, scores - centre)) + centre
        order = np.argsort(-mean, kind="stable")
        return Ranking(candidates[order], keys[order], mean[order])

    def _features(self, genotypes: Genotypes) -> NDArray[np.float64]:
        """(n, F) labels of all vertices and edges, one bit each."""
        graphs = self._space.encode(genotypes)
        labels = graphs.labels[:, :, None] == np.arange(len(graphs.vocabulary))
        edges = np.broadcast_to(graphs.adjacency, (len(graphs), *graphs.adjacency.shape[1:]))
        parts = [labels.reshape(len(graphs), -1), edges.reshape(len(graphs), -1)]
        return np.concatenate(parts, axis=1).astype(np.float64)
