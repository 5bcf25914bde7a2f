"""BONAS, Bayesian Optimised Neural Architecture Search (paper Algorithm 1), as a strategy.

`propose` is four stages, each a method that an orchestrator may call on its own: `sample_pool`, `embed`, `score` and
`select`, over a predictor that `fit_predictor` trains on a prefix of the trials. The prefix grows by `retrain_every`
trials at a time; Bayesian linear regression is refitted to all trials at every step. A sampler that learns does so in
`update_sampler`, before the pool is drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bonas_core.determinism.blas import one_blas_thread
from bonas_core.determinism.randomness import Purpose, derived_seed, generator
from bonas_core.errors import ModelError
from bonas_core.methods.base import Proposal, initial_design, learnt_prefix, until_retraining
from bonas_core.methods.bonas import regression
from bonas_core.methods.bonas.acquisition import log_expected_improvement
from bonas_core.methods.bonas.predictors.base import Predictor, PredictorWeights
from bonas_core.methods.bonas.predictors.losses import loss_weights
from bonas_core.methods.bonas.regression import BayesianLinearRegression
from bonas_core.methods.bonas.targets import Targets, transform
from bonas_core.methods.samplers.base import LearningSampler, Pool, Sampler, fresh_random
from bonas_core.methods.samplers.state import SamplerState
from bonas_core.spaces.base import Genotypes, SearchSpace
from bonas_core.trials import Trials

Features = NDArray[np.float32]

_EXPLORE_EVERY = 4
"""Trials per random one, once a search has waited in vain for its patience."""
_BLOCK = 1 << 15
"""Candidates of a whole space that are embedded at a time: it may have hundreds of thousands."""
_KEPT = 1 << 10
"""Trials that are embedded together once and for all by one predictor. How many rows are embedded together decides on
their last digits, so that this must not depend on which trials there were when a process started."""


@dataclass(frozen=True)
class FittedPredictor:
    """A predictor trained on the first `trained_on` trials."""

    version: str
    """Digest of the settings and of the trials that it saw: equal versions are equal predictors."""
    trained_on: int
    weights: PredictorWeights


@dataclass(frozen=True)
class Embedded:
    """The trials and the candidates of one step as feature vectors."""

    pool: Pool
    trials: Features
    """(n, M)"""
    candidates: Features
    """(candidates, M)"""


@dataclass(frozen=True)
class Surrogate:
    """The regression on embeddings of all observed trials, with the scale of its targets."""

    regression: BayesianLinearRegression
    targets: Targets
    best: float
    """The target to improve upon: the incumbent of EI."""

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
        retrain_growth: the same as a share of the trials that it was trained on; the larger of the two counts.
        loss: weights the squared errors of the predictor's training, one of `LOSSES`.
        targets: transform of scores before they are learnt, one of `TRANSFORMS`.
        intercept: how the regression gets one: `centre` or `constant`.
        min_noise: least noise of the regression, as a share of the targets' variance.
        fractions: whether scores lie in [0, 1]; otherwise loss weights are computed from scores scaled to their own
            range.
        batch: trials proposed between updates of a sampler that learns.
        shortlist: candidates of a whole space that are scored between retrainings.
        incumbent: what EI improves upon: `observed`, the best target; or `posterior`, the best predicted mean of what
            was evaluated, where single evaluations are noisy.
        patience: trials without improvement after which every fourth trial is a random one, until there is an
            improvement; 0: never. A model can be sure of a family of good cells that is not the best one: outside of
            it only few cells were tried, and EI has it used up before it looks elsewhere.
        start: weights that every training of the predictor begins from (warm start, paper section 4.4.2).
        digest: of all settings that a predictor depends on; becomes part of its version.
        sampler_digest: of all settings that what a sampler learns depends on; becomes part of its state's version.
    """

    def __init__(
        self,
        space: SearchSpace,
        predictor: Predictor,
        sampler: Sampler | LearningSampler,
        *,
        pool: int = 1000,
        initial: int = 10,
        retrain_every: int = 10,
        retrain_growth: float = 0.0,
        loss: str = "exp",
        targets: str = "standardise",
        intercept: str = "constant",
        min_noise: float = regression.MIN_NOISE,
        fractions: bool = True,
        batch: int = 1,
        shortlist: int = 4096,
        incumbent: str = "observed",
        patience: int = 0,
        start: PredictorWeights | None = None,
        digest: str = "",
        sampler_digest: str = "",
    ) -> None:
        self.initial = initial
        self.space = space
        self.predictor = predictor
        self.sampler = sampler
        self._pool = pool
        self._retrain_every = retrain_every
        self._retrain_growth = retrain_growth
        self._loss = loss
        self._targets = targets
        self._intercept = intercept
        self._min_noise = min_noise
        self._fractions = fractions
        self._batch = batch
        self._shortlist_size = shortlist
        self._incumbent = incumbent
        self._patience = patience
        self._start = start
        self._digest = digest
        self._sampler_digest = sampler_digest
        self._fitted: FittedPredictor | None = None
        self._state: SamplerState | None = None
        self._shortlist: tuple[str, NDArray[np.intp], Features] | None = None
        self._known: tuple[str, list[Features]] = "", []

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        if self.is_initial(trials):
            return self.propose_initial(trials, count, seed)
        fitted = self.fit_predictor(trials, seed)
        pool = self.sample_pool(trials, seed)
        return self.select(trials, self.embed(trials, pool, fitted), fitted, count, seed)

    def is_initial(self, trials: Trials) -> bool:
        """Whether there is too little to learn from: the next trials are random."""
        return len(trials) < self.initial or len(trials.first(self.training_size(trials)).observed()[0]) < 2

    def propose_initial(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        """The next of the random trials that start the search."""
        n = len(trials)
        return [Proposal(g, "initial") for g in initial_design(self.space, n + count, seed)[n:]]

    def sample_pool(self, trials: Trials, seed: int) -> Pool:
        """Draws the candidates of this step (Algorithm 1, line 7)."""
        rng = generator(seed, Purpose.POOL, len(trials))
        if isinstance(self.sampler, LearningSampler):
            return self.sampler.draw(self.space, self.update_sampler(trials, seed).learnt, trials, self._pool, rng)
        return self.sampler.pool(self.space, trials, self._pool, rng)

    @property
    def sampler_learns(self) -> bool:
        """Whether `update_sampler` has anything to do."""
        return isinstance(self.sampler, LearningSampler)

    def sampler_size(self, trials: Trials) -> int:
        """Number of trials that a learning sampler's state of this step has seen: one more batch with every update."""
        return self.initial + max(len(trials) - self.initial, 0) // self._batch * self._batch

    def sampler_version(self, trials: Trials, seed: int) -> str:
        """Version of the sampler's state of this step, without learning it."""
        seen = trials.first(self.sampler_size(trials))
        return _digest(
            f"{self._sampler_digest}|{seed}|{len(seen)}", seen.keys, seen.scores, seen.finished, seen.diverged
        )

    @one_blas_thread()
    def update_sampler(self, trials: Trials, seed: int) -> SamplerState:
        """Lets a sampler that learns do so (line 17), unless the state of this step is at hand already.

        Every update starts from the state before it. One that is not at hand is learnt again, from the trials that
        there were at each update since the start or since the state that is at hand: slow, but the same.
        """
        assert isinstance(self.sampler, LearningSampler)
        size = self.sampler_size(trials)
        state, fitted = self._state, self._fitted
        if state is None or not self.has_sampler_state(trials, seed):
            learnt = self.sampler.start(self.space, generator(seed, Purpose.SAMPLER))
            state = SamplerState("", self.initial - self._batch, learnt)
        while state.seen < size:
            state = self._updated(self.sampler, state, trials.first(state.seen + self._batch), seed)
        self._state = state
        self._fitted = fitted or self._fitted  # learning again may have trained older predictors
        return state

    def is_sampler_state(self, state: SamplerState, trials: Trials, seed: int) -> bool:
        """Whether this is the sampler's state of this step, or of an earlier one that led to it."""
        return state.seen <= len(trials) and state.version == self.sampler_version(trials.first(state.seen), seed)

    def has_sampler_state(self, trials: Trials, seed: int) -> bool:
        """Whether such a state is at hand."""
        return self._state is not None and self.is_sampler_state(self._state, trials, seed)

    def remember_sampler(self, state: SamplerState) -> None:
        """Takes a state that was learnt before, so that `update_sampler` need not learn it again.

        Raises:
            ModelError: it is not a state of this sampler.
        """
        assert isinstance(self.sampler, LearningSampler)
        fresh = self.sampler.start(self.space, np.random.default_rng(0))
        if {name: array.shape for name, array in state.learnt.items()} != {
            name: array.shape for name, array in fresh.items()
        }:
            raise ModelError(f"the state `{state.version}` of a sampler has arrays of another sampler; remove its file")
        self._state = state

    def training_size(self, trials: Trials) -> int:
        """Number of trials that the predictor of this step has seen: all of them at the last retraining."""
        return learnt_prefix(trials, self.initial, self._retrain_every, self._retrain_growth)

    def predictor_version(self, trials: Trials, seed: int) -> str:
        """Version of the predictor of this step, without training it."""
        seen = trials.first(self.training_size(trials))
        return _digest(f"{self._digest}|{seed}|{len(seen)}", seen.keys, seen.scores, seen.diverged)

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

    @one_blas_thread()
    def embed(self, trials: Trials, pool: Pool, fitted: FittedPredictor) -> Embedded:
        """Embeddings of the trials and of the candidates (line 9).

        A pool that is the whole space is cut to a shortlist first: the candidates that had the largest EI when this
        predictor was new, given what it was trained on. Between retrainings only they are scored again.
        """
        known = self._embed_trials(fitted, trials)
        if pool.whole_space:
            rows, features = self._shortlisted(trials, pool, fitted)
            if pool.open[rows].any():
                return Embedded(Pool(pool.genotypes[rows], pool.open[rows]), known, features)
            rest = np.flatnonzero(pool.open)  # everything on it has been tried
            pool = Pool(pool.genotypes[rest], pool.open[rest])
        return Embedded(pool, known, self._embed(fitted, pool.genotypes))

    @one_blas_thread()
    def fit_surrogate(self, trials: Trials, features: Features) -> Surrogate:
        """Fits the regression to every observed trial (line 16); `features` are the trials' embeddings."""
        observed, targets = self._observed(trials, features)
        return self._regressed(observed, targets.values, targets)

    def _observed(self, trials: Trials, features: Features) -> tuple[Features, Targets]:
        """Embeddings and targets of the observed ones among the trials."""
        rows, scores = trials.observed()
        return features[rows], transform(scores, self._targets)

    def _regressed(self, features: Features, values: NDArray[np.float64], targets: Targets) -> Surrogate:
        fitted = regression.fit(features, values, self._intercept, self._min_noise)
        expected = values if self._incumbent == "observed" else fitted.posterior(features).mean
        return Surrogate(fitted, targets, float(expected.max()))

    @one_blas_thread()
    def score(self, surrogate: Surrogate, candidates: Features) -> NDArray[np.float64]:
        """log EI of the candidates over the incumbent (lines 10, 11)."""
        posterior = surrogate.regression.posterior(candidates, precision=np.float32)
        return log_expected_improvement(posterior, surrogate.best)

    @one_blas_thread()
    def select(
        self, trials: Trials, embedded: Embedded, fitted: FittedPredictor, count: int, seed: int
    ) -> list[Proposal]:
        """Picks `count` candidates of largest EI (line 13), one after the other.

        Trials in flight, and those picked before in the same round, count as if they had been found to be what is
        expected of them (kriging believer, Ginsbourger et al. 2010). Ties are broken at random. A search that is out of
        patience explores.
        """
        rng = generator(seed, Purpose.TIE_BREAK, len(trials))
        pool, candidates = embedded.pool, embedded.candidates
        features, targets = self._observed(trials, embedded.trials)
        values = targets.values
        surrogate = believed = self._regressed(features, values, targets)
        in_flight = embedded.trials[~trials.finished]
        open_rows = pool.open.copy()
        incumbent = float(targets.to_scores(np.array([surrogate.best]))[0])
        proposals: list[Proposal] = []
        for place in range(min(count, int(open_rows.sum()))):
            if self._explores(trials, place):
                proposals.append(self._random(trials, proposals, seed))
                open_rows &= self.space.keys(pool.genotypes) != self.space.keys(proposals[-1].genotype[None])
                continue
            if len(in_flight):
                features = np.concatenate([features, in_flight])
                values = np.append(values, believed.regression.posterior(in_flight).mean)
                believed = self._regressed(features, values, targets)
            value = np.where(open_rows, self.score(believed, candidates), -np.inf)
            pick = int(rng.choice(np.flatnonzero(value == value.max())))
            open_rows[pick] = False
            in_flight = candidates[pick : pick + 1]
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
        return proposals

    def _explores(self, trials: Trials, place: int) -> bool:
        """Whether the trial after `place` picks of this round is to be a random one."""
        scores = trials.observed()[1]
        waited = len(scores) - 1 - int(scores.argmax())
        return 0 < self._patience <= waited and (len(trials) + place) % _EXPLORE_EVERY == 0

    def _random(self, trials: Trials, picked: Sequence[Proposal], seed: int) -> Proposal:
        """A random unseen architecture."""
        rng = generator(seed, Purpose.EXPLORATION, len(trials) + len(picked))
        seen = [trials.keys, *(self.space.keys(proposal.genotype[None]) for proposal in picked)]
        return Proposal(fresh_random(self.space, np.concatenate(seen), 1, rng)[0], "random")

    def _shortlisted(self, trials: Trials, pool: Pool, fitted: FittedPredictor) -> tuple[NDArray[np.intp], Features]:
        """Rows of the whole space that are scored until the next retraining, and their embeddings."""
        if self._shortlist is None or self._shortlist[0] != fitted.version:
            seen = trials.first(fitted.trained_on)
            surrogate = self.fit_surrogate(seen, self._embed_trials(fitted, seen))
            value = np.concatenate(
                [
                    self.score(surrogate, self._embed(fitted, pool.genotypes[begin : begin + _BLOCK]))
                    for begin in range(0, len(pool.genotypes), _BLOCK)
                ]
            )
            waits_for = until_retraining(fitted.trained_on, self._retrain_every, self._retrain_growth)
            size = min(max(self._shortlist_size, 2 * waits_for), len(value))
            rows = np.sort(np.argpartition(-value, size - 1)[:size])
            self._shortlist = (fitted.version, rows, self._embed(fitted, pool.genotypes[rows]))
        return self._shortlist[1:]

    def _updated(self, sampler: LearningSampler, state: SamplerState, trials: Trials, seed: int) -> SamplerState:
        """The state after one more update, made when there were just these trials."""
        learnt = state.learnt
        if not self.is_initial(trials):  # else there is no acquisition function yet
            fitted = self.fit_predictor(trials, seed)
            surrogate = self.fit_surrogate(trials, self._embed_trials(fitted, trials))
            learnt = sampler.update(
                self.space,
                learnt,
                trials,
                lambda genotypes: self.score(surrogate, self._embed(fitted, genotypes)),
                generator(seed, Purpose.SAMPLER, len(trials)),
            )
        return SamplerState(self.sampler_version(trials, seed), len(trials), learnt)

    def _embed_trials(self, fitted: FittedPredictor, trials: Trials) -> Features:
        """Embeddings of the trials; only those of the last `_KEPT` or fewer are computed at every step."""
        if self._known[0] != fitted.version:
            self._known = fitted.version, []
        blocks, full = self._known[1], len(trials) // _KEPT
        for block in range(len(blocks), full):
            blocks.append(self._embed(fitted, trials.genotypes[block * _KEPT : (block + 1) * _KEPT]))
        return np.concatenate([*blocks[:full], self._embed(fitted, trials.genotypes[full * _KEPT :])])

    def _embed(self, fitted: FittedPredictor, genotypes: Genotypes) -> Features:
        if not len(genotypes):  # the space is used up; how wide features are, one architecture tells
            return self._embed(fitted, self.space.sample(1, np.random.default_rng(0)))[:0]
        return self.predictor.embed(fitted.weights, self.space.encode(genotypes))

    def _train(self, trials: Trials, seed: int) -> PredictorWeights:
        rows, scores = trials.observed()
        y = scores if self._fractions else (scores - scores.min()) / (np.ptp(scores) or 1.0)
        graphs = self.space.encode(trials.genotypes[rows])
        values, weights = transform(scores, self._targets).values, loss_weights(y, self._loss)
        return self.predictor.fit(graphs, values, weights, seed, self._start)


def _digest(text: str, *columns: NDArray[Any]) -> str:
    digest = hashlib.sha256(text.encode())
    for column in columns:
        digest.update(np.ascontiguousarray(column).tobytes())
    return digest.hexdigest()[:16]
