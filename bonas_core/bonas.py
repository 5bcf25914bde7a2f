"""BONAS, Bayesian Optimised Neural Architecture Search (paper Algorithm 1), as a strategy.

`propose` is four stages, each a method that an orchestrator may call on its own: `sample_pool`, `embed`, `score` and
`select`, over a predictor that `fit_predictor` trains on a prefix of the trials. The prefix grows by `retrain_every`
trials at a time; Bayesian linear regression is refitted to all trials at every step.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bonas_core import regression
from bonas_core.acquisition import log_expected_improvement
from bonas_core.predictors.base import Predictor, PredictorWeights
from bonas_core.predictors.losses import loss_weights
from bonas_core.randomness import Purpose, derived_seed, generator
from bonas_core.regression import BayesianLinearRegression
from bonas_core.samplers.base import Pool, Sampler
from bonas_core.spaces.base import Genotypes, SearchSpace
from bonas_core.strategy import Proposal, initial_design
from bonas_core.targets import Targets, transform
from bonas_core.trials import Trials

Features = NDArray[np.float32]


@dataclass(frozen=True)
class FittedPredictor:
    """A predictor trained on the first `trained_on` trials."""

    version: str
    """Digest of the settings and of the trials that it saw: equal versions are equal predictors."""
    trained_on: int
    weights: PredictorWeights


@dataclass(frozen=True)
class Surrogate:
    """The regression on embeddings of all observed trials, with the scale of its targets."""

    regression: BayesianLinearRegression
    targets: Targets

    def predict_scores(self, features: Features) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Predicted scores of n architectures and their standard deviations, both (n,)."""
        posterior = self.regression.posterior(features)
        mean = self.targets.to_scores(posterior.mean)
        # a transform that bends has no single scale: take it over one deviation to each side
        upper = self.targets.to_scores(posterior.mean + posterior.std)
        lower = self.targets.to_scores(posterior.mean - posterior.std)
        return mean, (upper - lower) / 2


class Bonas:
    """BONAS on one search space.

    Args:
        space: where to search.
        predictor: learns the embedding.
        sampler: draws the candidates of every step.
        pool: number of candidates, |C| in the paper.
        initial: random trials that start the search, N in the paper.
        retrain_every: trials between retrainings of the predictor, k in the paper.
        loss: weights the squared errors of the predictor's training, one of `LOSSES`.
        targets: transform of scores before they are learnt, one of `TRANSFORMS`.
        intercept: how the regression gets one: `centre` or `constant`.
        fractions: whether scores lie in [0, 1]; otherwise loss weights are computed from scores scaled to their own
            range. digest: of all settings that a predictor depends on; becomes part of its version.
    """

    def __init__(
        self,
        space: SearchSpace,
        predictor: Predictor,
        sampler: Sampler,
        *,
        pool: int = 1000,
        initial: int = 10,
        retrain_every: int = 10,
        loss: str = "exp",
        targets: str = "standardise",
        intercept: str = "constant",
        fractions: bool = True,
        digest: str = "",
    ) -> None:
        self.initial = initial
        self.space = space
        self.predictor = predictor
        self.sampler = sampler
        self._pool = pool
        self._retrain_every = retrain_every
        self._loss = loss
        self._targets = targets
        self._intercept = intercept
        self._fractions = fractions
        self._digest = digest
        self._fitted: FittedPredictor | None = None
        self._whole: tuple[str, Features] | None = None

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        if self.is_initial(trials):
            return self.propose_initial(trials, count, seed)
        pool = self.sample_pool(trials, seed)
        fitted = self.fit_predictor(trials, seed)
        return self.select(trials, pool, fitted, *self.embed(trials, pool, fitted), count, seed)

    def is_initial(self, trials: Trials) -> bool:
        """Whether there is too little to learn from: the next trials are random."""
        return len(trials) < self.initial or len(trials.first(self.training_size(trials)).observed()[0]) < 2

    def propose_initial(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        """The next of the random trials that start the search."""
        n = len(trials)
        return [Proposal(g, "initial") for g in initial_design(self.space, n + count, seed)[n:]]

    def sample_pool(self, trials: Trials, seed: int) -> Pool:
        """Draws the candidates of this step (Algorithm 1, line 7)."""
        return self.sampler.pool(self.space, trials, self._pool, generator(seed, Purpose.POOL, len(trials)))

    def training_size(self, trials: Trials) -> int:
        """Number of trials that the predictor of this step has seen: all of them at the last retraining."""
        finished = int(trials.finished.sum())
        return self.initial + max(finished - self.initial, 0) // self._retrain_every * self._retrain_every

    def predictor_version(self, trials: Trials, seed: int) -> str:
        """Version of the predictor of this step, without training it."""
        seen = trials.first(self.training_size(trials))
        digest = hashlib.sha256(f"{self._digest}|{seed}|{len(seen)}".encode())
        for column in (seen.keys, seen.scores, seen.diverged):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest()[:16]

    def fit_predictor(self, trials: Trials, seed: int) -> FittedPredictor:
        """Trains the predictor of this step (lines 2, 19), unless it is at hand already."""
        version = self.predictor_version(trials, seed)
        if self._fitted is None or not self.has(version):
            size = self.training_size(trials)
            weights = self._train(trials.first(size), derived_seed(seed, Purpose.PREDICTOR, size))
            self._fitted = FittedPredictor(version, size, weights)
        return self._fitted

    def has(self, version: str) -> bool:
        """Whether the predictor of this version is at hand."""
        return self._fitted is not None and self._fitted.version == version

    def remember(self, fitted: FittedPredictor) -> None:
        """Takes a predictor that was trained before, so that `fit_predictor` need not train it again."""
        self._fitted = fitted

    def embed(self, trials: Trials, pool: Pool, fitted: FittedPredictor) -> tuple[Features, Features]:
        """Embeddings of the trials and of the candidates (line 9)."""
        if not len(pool.genotypes):  # the space is used up
            known = self._embed(fitted, trials.genotypes)
            return known, known[:0]
        if not pool.whole_space:
            return self._embed(fitted, trials.genotypes), self._embed(fitted, pool.genotypes)
        if self._whole is None or self._whole[0] != fitted.version:
            self._whole = (fitted.version, self._embed(fitted, pool.genotypes))
        return self._embed(fitted, trials.genotypes), self._whole[1]

    def fit_surrogate(self, trials: Trials, features: Features) -> Surrogate:
        """Fits the regression to every observed trial (line 16); `features` are the trials' embeddings."""
        rows, scores = trials.observed()
        targets = transform(scores, self._targets)
        return Surrogate(regression.fit(features[rows], targets.values, self._intercept), targets)

    def score(self, surrogate: Surrogate, candidates: Features) -> NDArray[np.float64]:
        """log EI of the candidates over the best observed target (lines 10, 11)."""
        return log_expected_improvement(
            surrogate.regression.posterior(candidates), float(surrogate.targets.values.max())
        )

    def select(
        self,
        trials: Trials,
        pool: Pool,
        fitted: FittedPredictor,
        features: Features,
        candidates: Features,
        count: int,
        seed: int,
    ) -> list[Proposal]:
        """Picks `count` candidates of largest EI (line 13), one after the other.

        After each pick the regression is refitted with the predicted mean of that pick as if it had been observed
        ("kriging believer", Ginsbourger et al. 2010), and so it is for trials in flight. Ties are broken at random.
        """
        rng = generator(seed, Purpose.TIE_BREAK, len(trials))
        open_rows = pool.open.copy()
        incumbent = float(trials.observed()[1].max())
        for row in np.flatnonzero(~trials.finished):
            trials = _believe(trials, int(row), self._predicted(trials, features, features[row]))
        proposals: list[Proposal] = []
        for _ in range(min(count, int(open_rows.sum()))):
            surrogate = self.fit_surrogate(trials, features)
            value = np.where(open_rows, self.score(surrogate, candidates), -np.inf)
            pick = int(rng.choice(np.flatnonzero(value == value.max())))
            open_rows[pick] = False
            mean, std = surrogate.predict_scores(candidates[pick : pick + 1])
            proposals.append(
                Proposal(
                    pool.genotypes[pick],
                    self.sampler.name,
                    acquisition=float(value[pick]),
                    predicted_mean=float(mean[0]),
                    predicted_std=float(std[0]),
                    incumbent=incumbent,
                    predictor_version=fitted.version,
                )
            )
            if len(proposals) < count:
                trials = _with_belief(trials, pool.genotypes[pick], self.space, float(mean[0]))
                features = np.concatenate([features, candidates[pick : pick + 1]])
        return proposals

    def _predicted(self, trials: Trials, features: Features, of: Features) -> float:
        return float(self.fit_surrogate(trials, features).predict_scores(of[None])[0][0])

    def _embed(self, fitted: FittedPredictor, genotypes: Genotypes) -> Features:
        return self.predictor.embed(fitted.weights, self.space.encode(genotypes))

    def _train(self, trials: Trials, seed: int) -> PredictorWeights:
        rows, scores = trials.observed()
        y = scores if self._fractions else (scores - scores.min()) / (np.ptp(scores) or 1.0)
        graphs = self.space.encode(trials.genotypes[rows])
        return self.predictor.fit(graphs, transform(scores, self._targets).values, loss_weights(y, self._loss), seed)


def _believe(trials: Trials, row: int, score: float) -> Trials:
    scores = trials.scores.copy()
    scores[row] = score
    return Trials(trials.genotypes, trials.keys, scores, trials.finished, trials.diverged)


def _with_belief(trials: Trials, genotype: NDArray[np.int8], space: SearchSpace, score: float) -> Trials:
    return Trials(
        np.concatenate([trials.genotypes, genotype[None]]),
        np.concatenate([trials.keys, space.keys(genotype[None])]),
        np.append(trials.scores, score),
        np.append(trials.finished, False),
        np.append(trials.diverged, False),
    )
