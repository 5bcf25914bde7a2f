"""WeakNAS: a perceptron that is good near the best cells only, trained again with every round (Wu et al. 2021)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from bonas_core.determinism.randomness import Purpose, derived_seed, generator
from bonas_core.methods.perceptrons import MLPEnsemble, bfloat16_is_fast
from bonas_core.methods.rounds import Ranking, RoundStrategy
from bonas_core.methods.samplers.base import fresh_random
from bonas_core.settings.method import MethodSettings
from bonas_core.settings.predictor import PredictorSettings
from bonas_core.spaces.base import Genotypes, Keys, SearchSpace
from bonas_core.spaces.encoding import GraphBatch
from bonas_core.trials import Objective, Trials

if TYPE_CHECKING:
    import torch

PREDICTOR = MLPEnsemble(
    layers=4, width=1000, loss="mse", epochs=100, learning_rate=1e-3, batch_size=200, weight_decay=1e-4, patience=10
)
"""As the authors train it: 100 iterations of scikit-learn's `MLPRegressor`, whose defaults are the rest."""

_BLOCK = 65_536  # cells whose features are numbers at a time: for a whole space they take four times what bits take
_MARGIN = 8  # times the cells that a round can be drawn from: as many are predicted in full precision


class WeakNASSettings(MethodSettings):
    """WeakNAS."""

    name: Literal["weaknas"] = "weaknas"
    initial: int = Field(5, ge=2, le=100_000, description="random trials that start the search")
    retrain_every: int = Field(10, ge=1, description="trials of a round, between trainings of the perceptron")
    pool: int = Field(1000, ge=1, le=10_000_000, description="cells that stand for a space that cannot be enumerated")


class WeakNAS(RoundStrategy):
    """Ranks the whole space by the predicted score, and draws each round uniformly from the new cells among the first.

    Where fewer than a round of the `top` cells are new, the best new ones follow. A space that cannot be enumerated is
    represented by `pool` random cells, drawn anew for each round, besides the trials. Scores are standardised by mean
    and deviation of those observed; the authors take those of the whole table, which no search can know.

    Args:
        space: where to search.
        initial: random cells that start the search; the authors take 10 on NAS-Bench-201 and 100 on NAS-Bench-101.
        every: cells of a round.
        top: how far down the ranking a round is drawn from.
        pool: cells that stand for a space that cannot be enumerated.
        predictor: learns the scores.
    """

    Settings: ClassVar = WeakNASSettings

    name = "weaknas"

    def __init__(
        self,
        space: SearchSpace,
        initial: int = 10,
        every: int = 10,
        top: int = 100,
        pool: int = 1000,
        predictor: MLPEnsemble = PREDICTOR,
    ) -> None:
        super().__init__(space, initial, every)
        self._top = top
        self._pool = pool
        self._predictor = predictor
        self._whole: tuple[Genotypes, Keys, NDArray[np.bool_]] | None = None

    @classmethod
    def from_settings(
        cls,
        settings: WeakNASSettings,
        space: SearchSpace,
        objective: Objective,
        predictor: PredictorSettings | None = None,
    ) -> Self:
        """Makes the search of a space."""
        return cls(space, settings.initial, settings.retrain_every, pool=settings.pool)

    def rank(self, trials: Trials, seed: int) -> Ranking:
        """Trains the predictor anew and ranks cells by predicted score; new ones among the `top` best are shuffled."""
        n = len(trials)
        genotypes, keys, features = self._candidates(trials, seed)
        observed, scores = trials.observed()
        order = np.argsort(keys, kind="stable")
        rows = order[np.searchsorted(keys[order], trials.keys[observed])]
        mean, scale = scores.mean(), scores.std() or 1.0
        weights = self._predictor.fit(
            features[rows].astype(np.float32), (scores - mean) / scale, derived_seed(seed, Purpose.PREDICTOR, n)
        )
        predicted = self._predict(weights, features, self._top + n) * scale + mean
        best = np.argsort(-predicted, kind="stable")
        first = best[: self._top]
        first = first[~np.isin(keys[first], trials.keys)]
        ranked = np.concatenate([generator(seed, Purpose.TIE_BREAK, n).permutation(first), best[self._top :]])
        return Ranking(genotypes[ranked], keys[ranked], predicted[ranked])

    def _candidates(self, trials: Trials, seed: int) -> tuple[Genotypes, Keys, NDArray[np.bool_]]:
        """Cells to rank, the observed trials among them, with their keys and features."""
        if self._space.size is None:
            rng = generator(seed, Purpose.POOL, len(trials))
            new = fresh_random(self._space, trials.keys, self._pool, rng)
            genotypes = np.concatenate([trials.genotypes, new])
            return genotypes, self._space.keys(genotypes), one_hot(self._space.encode(genotypes))
        if self._whole is None:
            everything = self._space.enumerate()
            self._whole = (everything, self._space.keys(everything), one_hot(self._space.encode(everything)))
        return self._whole

    def _predict(self, weights: list[torch.Tensor], features: NDArray[np.bool_], depth: int) -> NDArray[np.float64]:
        """(B,) predicted scores, right for the `depth` best cells and well beyond.

        Where that is faster, the rest of a large space are rough: rounding errs by far less than what lies between them
        and the `depth` best.
        """
        contenders = _MARGIN * depth
        if len(features) < 4 * contenders or not bfloat16_is_fast():
            return self._in_blocks(weights, features)
        predicted = self._in_blocks([weight.bfloat16() for weight in weights], features)
        best = np.argpartition(-predicted, contenders)[:contenders]
        predicted[best] = self._in_blocks(weights, features[best])
        return predicted

    def _in_blocks(self, weights: list[torch.Tensor], features: NDArray[np.bool_]) -> NDArray[np.float64]:
        blocks = [features[begin : begin + _BLOCK] for begin in range(0, len(features), _BLOCK)]
        return np.concatenate(
            [self._predictor.predict(weights, block.astype(np.float32))[0].astype(np.float64) for block in blocks]
        )


def one_hot(graphs: GraphBatch) -> NDArray[np.bool_]:
    """(B, F) labels of all vertices, one bit a label, and edges, one bit each; without bits that never change."""
    B = len(graphs)
    labels = graphs.labels[:, :, None] == np.arange(len(graphs.vocabulary), dtype=np.int8)
    parts = [labels.reshape(B, -1)]
    if graphs.adjacency.shape[0] == B:
        parts.append(graphs.adjacency.reshape(B, -1))
    bits = np.concatenate(parts, axis=1)
    return np.asarray(bits[:, bits.any(axis=0) & ~bits.all(axis=0)])
