"""BONAS, Bayesian Optimised Neural Architecture Search (paper Algorithm 1), as a strategy.

It is put together from parts that can be exchanged one by one: a `Learner` (predictor and regression), an acquisition
function, a sampler and a schedule. `stages` declares what a proposal is made of: train the predictor on a prefix of the
trials, let a sampler that learns do so, sample the pool, embed it, score it. The regression is fitted to all trials at
every step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from bonas_core.determinism.blas import one_blas_thread
from bonas_core.determinism.randomness import Purpose, generator
from bonas_core.errors import ModelError, SettingsError
from bonas_core.methods.base import Proposal, Stage, Stages, carry_out, initial_design, with_mutation
from bonas_core.methods.bonas.acquisition import Acquisition, ei
from bonas_core.methods.bonas.model import ModelDescription, PredictorModel, predictor_path, read_model
from bonas_core.methods.bonas.schedule import Schedule
from bonas_core.methods.bonas.settings import BonasSettings
from bonas_core.methods.bonas.surrogate import Features, FittedPredictor, Learner, Surrogate, digest_of
from bonas_core.methods.samplers.base import LearningSampler, Pool, Sampler, fresh_random
from bonas_core.methods.samplers.state import SamplerState, kept_state, latest_state
from bonas_core.registry import make, resolve
from bonas_core.settings.predictor import PredictorSettings
from bonas_core.spaces.base import Genotypes, SearchSpace
from bonas_core.storage import Location, make_folder, store_folder
from bonas_core.trials import Objective, Trials

_SMALL_SPACE = 50_000  # architectures that can be scored at every step without being noticed
_BLOCK = 1 << 15
"""Candidates of a whole space that are embedded at a time: it may have hundreds of thousands."""
_KEPT = 1 << 10
"""Trials that are embedded together once and for all by one predictor. How many rows are embedded together decides on
their last digits, so that this must not depend on which trials there were when a process started."""


@dataclass(frozen=True)
class Embedded:
    """The trials and the candidates of one step as feature vectors."""

    pool: Pool
    trials: Features
    """(n, M)"""
    candidates: Features
    """(candidates, M)"""


@dataclass(frozen=True)
class Shortlist:
    """The candidates of a whole space that are scored until the next retraining."""

    version: str
    """Of the predictor that it belongs to."""
    rows: NDArray[np.intp]
    features: Features


@dataclass
class Memory:
    """What was computed before and can be computed again from the trials: it saves time and decides nothing."""

    fitted: FittedPredictor | None = None
    sampler: SamplerState | None = None
    shortlist: Shortlist | None = None
    embedded: tuple[str, list[Features]] = field(default_factory=lambda: ("", []))
    """Version of a predictor, and blocks of trials that it has embedded."""


class Bonas:
    """BONAS on one search space.

    Args:
        learner: learns the surrogate.
        sampler: draws the candidates of every step.
        acquisition: says what a candidate is worth.
        schedule: says when what is done.
        pool: number of candidates, |C| in the paper.
        shortlist: candidates of a whole space that are scored between retrainings.
        description: what a file of a predictor says of it; without one nothing is kept in files.
        sampler_digest: of all settings that what a sampler learns depends on; becomes part of its state's version.
    """

    Settings: ClassVar = BonasSettings

    def __init__(
        self,
        learner: Learner,
        sampler: Sampler | LearningSampler,
        acquisition: Acquisition = ei,
        schedule: Schedule = Schedule(),  # noqa: B008  it is frozen
        *,
        pool: int = 1000,
        shortlist: int = 4096,
        description: ModelDescription | None = None,
        sampler_digest: str = "",
    ) -> None:
        self.learner = learner
        self.sampler = sampler
        self.acquisition = acquisition
        self.schedule = schedule
        self.space = learner.space
        self.initial = schedule.initial
        self.memory = Memory()
        self._pool = pool
        self._shortlist = shortlist
        self._description = description
        self._predictor_name = "predictor" if description is None else description.settings.kind.upper()
        self._sampler_digest = sampler_digest

    @classmethod
    def from_settings(
        cls, settings: BonasSettings, space: SearchSpace, objective: Objective, predictor: PredictorSettings | None
    ) -> Self:
        """Puts the parts together that the settings name.

        Raises:
            SettingsError: a part cannot work on the space or with the objective.
            ModelError: the predictor to start from cannot be used.
        """
        assert predictor is not None
        if predictor.targets == "logit" and not objective.is_fraction:
            raise SettingsError(
                f"predictor.targets: logit needs scores in [0, 1], the objective is in {objective.unit} to "
                f"{objective.direction}; use rank or standardise"
            )
        space = with_mutation(space, settings.mutation)
        name = settings.sampler
        if name == "auto":
            name = "exhaustive" if space.size is not None and space.size <= _SMALL_SPACE else "evolution"
        sampler: Sampler | LearningSampler = make("sampler", name, settings)
        if name == "exhaustive" and space.size is None:
            raise SettingsError(f"method.sampler: space `{space.name}` cannot be enumerated; use evolution or random")
        if isinstance(sampler, LearningSampler):
            sampler.check_space(space)
        start = _warm_start(space, predictor)
        depends_on = {
            "space": space.name,
            "encoding": space.encoding_version,
            # the same predictor may lie in different files
            "predictor": {**predictor.model_dump(mode="json"), "warm_start": None if start is None else start.version},
            "fractions": objective.is_fraction,
        }
        learner = Learner(
            space,
            predictor.build(space),
            make("regression", settings.regression, predictor),
            predictor.loss,
            predictor.targets,
            settings.incumbent,
            objective.is_fraction,
            None if start is None else start.weights,
            hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest(),
        )
        depends_on["method"] = settings.model_dump(mode="json")
        return cls(
            learner,
            sampler,
            resolve("acquisition", settings.acquisition),
            Schedule(
                settings.initial, settings.retrain_every, settings.retrain_growth, settings.batch, settings.patience
            ),
            pool=settings.pool,
            shortlist=settings.shortlist,
            description=ModelDescription(
                space.name, space.encoding_version, space.vocabulary, predictor, settings.regression, objective
            ),
            sampler_digest=hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest(),
        )

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        """Chooses architectures; see `Strategy`."""
        return carry_out(self.stages(trials, count, seed))

    def stages(self, trials: Trials, count: int, seed: int, folder: Location | None = None) -> Stages:
        """The stages of a proposal; see `StagedStrategy`."""
        if self.schedule.is_initial(trials):
            initial: list[Proposal] = yield Stage("propose", partial(self.propose_initial, trials, count, seed))
            return initial
        if not self.has(self.predictor_version(trials, seed)):
            name = f"retrain {self._predictor_name}"
            title = f"{name} on {self.schedule.training_size(trials)} trials"
            yield Stage(name, partial(self.retrain, trials, seed, folder), title, learns=True)
        fitted = self.fit_predictor(trials, seed)
        if isinstance(self.sampler, LearningSampler):
            yield Stage("update sampler", partial(self.update_kept_sampler, trials, seed, folder))
        pool: Pool = yield Stage("sample pool", partial(self.sample_pool, trials, seed))
        embedded: Embedded = yield Stage("embed", partial(self.embed, trials, pool, fitted, seed))
        name = getattr(self.acquisition, "__name__", "candidates").replace("_", " ")
        select = partial(self.select, trials, embedded, fitted, count, seed)
        picked: list[Proposal] = yield Stage(f"score {name.upper()}", select)
        return picked

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

    def sampler_version(self, trials: Trials, seed: int) -> str:
        """Version of the sampler's state of this step, without learning it."""
        seen = trials.first(self.schedule.sampler_size(trials))
        text = f"{self._sampler_digest}|{seed}|{len(seen)}"
        return digest_of(text, seen.keys, seen.scores, seen.finished, seen.diverged)

    def update_kept_sampler(self, trials: Trials, seed: int, folder: Location | None) -> SamplerState:
        """The same as `update_sampler`, by way of the states that the folder keeps."""
        if folder is None:
            return self.update_sampler(trials, seed)
        if not self.has_sampler_state(trials, seed):
            stored = latest_state(folder, lambda state: self.is_sampler_state(state, trials, seed))
            if stored is not None:
                self.remember_sampler(stored)
        return kept_state(folder, self.update_sampler(trials, seed))

    @one_blas_thread()
    def update_sampler(self, trials: Trials, seed: int) -> SamplerState:
        """Lets a sampler that learns do so (line 17), unless the state of this step is at hand already.

        Every update starts from the state before it. One that is not at hand is learnt again, from the trials that
        there were at each update since the start or since the state that is at hand: slow, but the same.
        """
        assert isinstance(self.sampler, LearningSampler)
        size = self.schedule.sampler_size(trials)
        state, fitted = self.memory.sampler, self.memory.fitted
        if state is None or not self.has_sampler_state(trials, seed):
            learnt = self.sampler.start(self.space, generator(seed, Purpose.SAMPLER))
            state = SamplerState("", self.schedule.initial - self.schedule.batch, learnt)
        while state.seen < size:
            state = self._updated(self.sampler, state, trials.first(state.seen + self.schedule.batch), seed)
        self.memory.sampler = state
        self.memory.fitted = fitted or self.memory.fitted  # learning again may have trained older predictors
        return state

    def is_sampler_state(self, state: SamplerState, trials: Trials, seed: int) -> bool:
        """Whether this is the sampler's state of this step, or of an earlier one that led to it."""
        return state.seen <= len(trials) and state.version == self.sampler_version(trials.first(state.seen), seed)

    def has_sampler_state(self, trials: Trials, seed: int) -> bool:
        """Whether such a state is at hand."""
        state = self.memory.sampler
        return state is not None and self.is_sampler_state(state, trials, seed)

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
        self.memory.sampler = state

    def predictor_version(self, trials: Trials, seed: int) -> str:
        """Version of the predictor of this step, without training it."""
        return self.learner.version(trials.first(self.schedule.training_size(trials)), seed)

    def fit_predictor(self, trials: Trials, seed: int) -> FittedPredictor:
        """Trains the predictor of this step (lines 2, 19), unless it is at hand already."""
        if self.memory.fitted is None or not self.has(self.predictor_version(trials, seed)):
            seen = trials.first(self.schedule.training_size(trials))
            self.memory.fitted = self.learner.fit_predictor(seen, seed)
        return self.memory.fitted

    def has(self, version: str) -> bool:
        """Whether the predictor of this version is at hand."""
        return self.memory.fitted is not None and self.memory.fitted.version == version

    def remember(self, fitted: FittedPredictor) -> None:
        """Takes a predictor that was trained before, so that `fit_predictor` need not train it again."""
        self.memory.fitted = fitted

    def retrain(self, trials: Trials, seed: int, folder: Location | None) -> FittedPredictor:
        """Trains the predictor of this step by way of the folder: one that it keeps is not trained again."""
        if folder is None or self._description is None:
            return self.fit_predictor(trials, seed)
        path = predictor_path(folder, self.schedule.training_size(trials), self.predictor_version(trials, seed))
        with suppress(ModelError):  # missing or damaged: it can be had again
            self.remember(read_model(path).fitted)
            return self.fit_predictor(trials, seed)
        model = self.fit_model(trials, seed)
        make_folder(path.parent)
        model.write(path)
        return model.fitted

    def fit_model(self, trials: Trials, seed: int) -> PredictorModel:
        """Trains the predictor of this step, with its regression on the trials that it saw.

        Raises:
            ModelError: the strategy was put together by hand, so that nothing says what a file would have to say.
        """
        if self._description is None:
            raise ModelError("a strategy put together by hand has no description; make it by `from_settings`")
        fitted = self.fit_predictor(trials, seed)
        seen = trials.first(fitted.trained_on)
        with one_blas_thread():
            surrogate = self.learner.fit_surrogate(seen, self.learner.embed(fitted, seen.genotypes))
        return PredictorModel(self._description, fitted, surrogate)

    @one_blas_thread()
    def embed(self, trials: Trials, pool: Pool, fitted: FittedPredictor, seed: int) -> Embedded:
        """Embeddings of the trials and of the candidates (line 9).

        A pool that is the whole space is cut to a shortlist first: the candidates that were worth most when this
        predictor was new, given what it was trained on. Between retrainings only they are scored again.
        """
        known = self._embed_trials(fitted, trials)
        if pool.whole_space:
            found = self._shortlisted(trials, pool, fitted, seed)
            if pool.open[found.rows].any():
                return Embedded(Pool(pool.genotypes[found.rows], pool.open[found.rows]), known, found.features)
            rest = np.flatnonzero(pool.open)  # everything on it has been tried
            pool = Pool(pool.genotypes[rest], pool.open[rest])
        return Embedded(pool, known, self.learner.embed(fitted, pool.genotypes))

    @one_blas_thread()
    def fit_surrogate(self, trials: Trials, features: Features) -> Surrogate:
        """Fits the regression to every observed trial (line 16); `features` are the trials' embeddings."""
        return self.learner.fit_surrogate(trials, features)

    @one_blas_thread()
    def score(self, surrogate: Surrogate, candidates: Features, rng: np.random.Generator) -> NDArray[np.float64]:
        """What each of the candidates is worth (lines 10, 11)."""
        posterior = surrogate.regression.posterior(candidates, precision=np.float32)
        return self.acquisition(posterior, surrogate.best, rng)

    @one_blas_thread()
    def select(
        self, trials: Trials, embedded: Embedded, fitted: FittedPredictor, count: int, seed: int
    ) -> list[Proposal]:
        """Picks `count` candidates that are worth most (line 13), one after the other.

        Trials in flight, and those picked before in the same round, count as if they had been found to be what is
        expected of them (kriging believer, Ginsbourger et al. 2010). Ties are broken at random. A search that is out of
        patience explores.
        """
        n = len(trials)
        ties, draws = generator(seed, Purpose.TIE_BREAK, n), generator(seed, Purpose.ACQUISITION, n)
        pool, candidates = embedded.pool, embedded.candidates
        features, targets = self.learner.observed(trials, embedded.trials)
        values = targets.values
        surrogate = believed = self.learner.regress(features, values, targets)
        in_flight = embedded.trials[~trials.finished]
        open_rows = pool.open.copy()
        incumbent = float(targets.to_scores(np.array([surrogate.best]))[0])
        proposals: list[Proposal] = []
        for place in range(min(count, int(open_rows.sum()))):
            if self.schedule.explores(trials, place):
                proposals.append(self._random(trials, proposals, seed))
                open_rows &= self.space.keys(pool.genotypes) != self.space.keys(proposals[-1].genotype[None])
                continue
            if len(in_flight):
                features = np.concatenate([features, in_flight])
                values = np.append(values, believed.regression.posterior(in_flight).mean)
                believed = self.learner.regress(features, values, targets)
            value = np.where(open_rows, self.score(believed, candidates, draws), -np.inf)
            pick = int(ties.choice(np.flatnonzero(value == value.max())))
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

    def _random(self, trials: Trials, picked: Sequence[Proposal], seed: int) -> Proposal:
        """A random unseen architecture."""
        rng = generator(seed, Purpose.EXPLORATION, len(trials) + len(picked))
        seen = [trials.keys, *(self.space.keys(proposal.genotype[None]) for proposal in picked)]
        return Proposal(fresh_random(self.space, np.concatenate(seen), 1, rng)[0], "random")

    def _shortlisted(self, trials: Trials, pool: Pool, fitted: FittedPredictor, seed: int) -> Shortlist:
        """The rows of the whole space that are scored until the next retraining."""
        found = self.memory.shortlist
        if found is None or found.version != fitted.version:
            seen = trials.first(fitted.trained_on)
            draws = generator(seed, Purpose.SHORTLIST, fitted.trained_on)
            surrogate = self.fit_surrogate(seen, self._embed_trials(fitted, seen))
            value = np.concatenate(
                [
                    self.score(surrogate, self.learner.embed(fitted, pool.genotypes[begin : begin + _BLOCK]), draws)
                    for begin in range(0, len(pool.genotypes), _BLOCK)
                ]
            )
            size = min(max(self._shortlist, 2 * self.schedule.waits_for(fitted.trained_on)), len(value))
            rows = np.sort(np.argpartition(-value, size - 1)[:size])
            found = Shortlist(fitted.version, rows, self.learner.embed(fitted, pool.genotypes[rows]))
            self.memory.shortlist = found
        return found

    def _updated(self, sampler: LearningSampler, state: SamplerState, trials: Trials, seed: int) -> SamplerState:
        """The state after one more update, made when there were just these trials."""
        learnt = state.learnt
        if not self.schedule.is_initial(trials):  # else there is no acquisition function yet
            fitted = self.fit_predictor(trials, seed)
            surrogate = self.fit_surrogate(trials, self._embed_trials(fitted, trials))
            draws = generator(seed, Purpose.REWARD, len(trials))

            def acquire(genotypes: Genotypes) -> NDArray[np.float64]:
                return self.score(surrogate, self.learner.embed(fitted, genotypes), draws)

            rng = generator(seed, Purpose.SAMPLER, len(trials))
            learnt = sampler.update(self.space, learnt, trials, acquire, rng)
        return SamplerState(self.sampler_version(trials, seed), len(trials), learnt)

    def _embed_trials(self, fitted: FittedPredictor, trials: Trials) -> Features:
        """Embeddings of the trials; only those of the last `_KEPT` or fewer are computed at every step."""
        if self.memory.embedded[0] != fitted.version:
            self.memory.embedded = fitted.version, []
        blocks, full = self.memory.embedded[1], len(trials) // _KEPT
        for block in range(len(blocks), full):
            blocks.append(self.learner.embed(fitted, trials.genotypes[block * _KEPT : (block + 1) * _KEPT]))
        return np.concatenate([*blocks[:full], self.learner.embed(fitted, trials.genotypes[full * _KEPT :])])


def _warm_start(space: SearchSpace, predictor: PredictorSettings) -> FittedPredictor | None:
    """The predictor that trainings start from, of a file that must fit the space and the settings.

    Raises:
        ModelError: there is no such file, or it is of another space or kind.
    """
    if predictor.warm_start is None:
        return None
    model = read_model(store_folder(predictor.warm_start))
    model.check_space(space)
    for name in predictor.shape:
        own, other = getattr(predictor, name), getattr(model.settings, name, None)
        if own != other:
            raise ModelError(
                f"predictor.warm_start: `{predictor.warm_start}` was trained with predictor.{name} = {other}, not "
                f"{own}; set predictor.{name}={other}, or start without it"
            )
    return model.fitted
