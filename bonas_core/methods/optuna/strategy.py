"""Optuna's samplers as strategies: every decision of an architecture is a categorical parameter (Akiba et al. 2019).

Needs the extra `optuna`.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState, create_trial

from bonas_core.determinism.randomness import Purpose, derived_seed, generator
from bonas_core.determinism.threads import torch_threads
from bonas_core.errors import SettingsError
from bonas_core.methods.base import Proposal, initial_design
from bonas_core.methods.samplers.base import fresh_random
from bonas_core.spaces.base import ControlledSpace, Genotypes, SearchSpace
from bonas_core.trials import Trials

MakeSampler = Callable[[int, int], BaseSampler]
"""Seed and number of random trials at the start to a sampler."""


def tpe(seed: int, startup: int) -> BaseSampler:
    """The tree-structured Parzen estimator, Optuna's default, with its default settings."""
    return TPESampler(seed=seed, n_startup_trials=startup)


def gp(seed: int, startup: int) -> BaseSampler:
    """The Gaussian process with log expected improvement, with its default settings."""
    return GPSampler(seed=seed, n_startup_trials=startup)


class OptunaStrategy:
    """Asks a sampler of Optuna, after `initial` random cells.

    A study is made anew from the trials at every call, and the sampler is seeded by the number of trials, so that
    proposals depend on nothing else. Failed trials are FAIL to the study, diverged ones have the worst score seen, and
    trials in flight are RUNNING.

    Optuna may ask for what is no architecture of the space or has a trial already. Neither is proposed: the study is
    told what is known, the score of the trial (FAIL where it has none) or the worst score seen for what is no
    architecture, and is asked again, up to `tries` times a proposal; then a random unseen cell is taken. These answers
    are forgotten with the study. This favours Optuna over its use out of the box, where repeats cost evaluations.

    Args:
        space: where to search; it must have decisions.
        name: what proposals say they come from.
        make_sampler: makes the sampler.
        initial: random cells that start the search; the sampler starts with as many random trials.
        tries: how often the study is asked for one proposal.

    Raises:
        SettingsError: the space has no decisions.
    """

    def __init__(
        self, space: SearchSpace, name: str, make_sampler: MakeSampler, initial: int = 10, tries: int = 64
    ) -> None:
        if not isinstance(space, ControlledSpace) or not space.decisions():
            raise SettingsError(
                f"method `{name}`: space `{space.name}` has no decisions; give it those of `ControlledSpace`, or use "
                "another method"
            )
        self.initial = initial
        self._space = space
        self._name = name
        self._make_sampler = make_sampler
        self._tries = tries
        self._distributions: dict[str, BaseDistribution] = {
            f"decision{place}": CategoricalDistribution(tuple(range(choices)))
            for place, choices in enumerate(space.decisions())
        }

    def propose(self, trials: Trials, count: int, seed: int) -> list[Proposal]:
        """Tells a fresh study every trial and takes new cells that it asks for, or a random one where none comes up."""
        n = len(trials)
        if n < self.initial:
            design = initial_design(self._space, self.initial, seed)
            return [Proposal(g, "initial") for g in design[~np.isin(self._space.keys(design), trials.keys)][:count]]
        rng = generator(seed, Purpose.BASELINE, n)
        seen = trials.keys
        proposals: list[Proposal] = []
        with _quiet(), torch_threads(1):
            study = optuna.create_study(
                direction="maximize", sampler=self._make_sampler(derived_seed(seed, Purpose.BASELINE, n), self.initial)
            )
            known, worst = self._tell(study, trials)
            while len(proposals) < count and (self._space.size is None or len(seen) < self._space.size):
                cell = self._ask(study, known, worst)
                name = self._name
                if cell is None:
                    name, cell = "random", fresh_random(self._space, seen, 1, rng)
                if not len(cell):
                    break
                key = self._space.keys(cell)
                known[int(key[0])] = None
                seen = np.concatenate([seen, key])
                proposals.append(Proposal(cell[0], name))
        return proposals

    def _tell(self, study: optuna.Study, trials: Trials) -> tuple[dict[int, float | None], float]:
        """Tells the study every trial; returns the score by key, None where there is none, and the worst score."""
        rows, observed = trials.observed()
        scores: list[float | None] = [None] * len(trials)
        for row, score in zip(rows.tolist(), observed.tolist(), strict=True):
            scores[row] = score
        decisions = self._decisions(trials.genotypes)
        study.add_trials(
            [
                self._frozen(choices, score, finished)
                for choices, score, finished in zip(decisions, scores, trials.finished.tolist(), strict=True)
            ]
        )
        return dict(zip(trials.keys.tolist(), scores, strict=True)), float(observed.min(initial=np.inf))

    def _decisions(self, genotypes: Genotypes) -> list[list[int]]:
        assert isinstance(self._space, ControlledSpace)
        choices: list[list[int]] = self._space.to_decisions(genotypes).tolist()
        return choices

    def _frozen(self, choices: list[int], score: float | None, finished: bool) -> FrozenTrial:
        state = TrialState.COMPLETE
        if score is None:
            state = TrialState.FAIL if finished else TrialState.RUNNING
        params = dict(zip(self._distributions, choices, strict=True))
        return create_trial(state=state, value=score, params=params, distributions=self._distributions)

    def _ask(self, study: optuna.Study, known: dict[int, float | None], worst: float) -> Genotypes | None:
        """One cell (1, genes) that is not known, or None where none came up; its trial stays open in the study."""
        assert isinstance(self._space, ControlledSpace)
        for _ in range(self._tries):
            asked = study.ask(fixed_distributions=self._distributions)
            choices: NDArray[np.int8] = np.array([[asked.params[name] for name in self._distributions]], dtype=np.int8)
            genotypes, valid = self._space.from_decisions(choices)
            score: float | None = worst if np.isfinite(worst) else None
            if valid[0]:
                key = int(self._space.keys(genotypes)[0])
                if key not in known:
                    return genotypes
                score = known[key]
            if score is None:
                study.tell(asked, state=TrialState.FAIL)
            else:
                study.tell(asked, score)
        return None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's log and without warnings that a sampler of it is experimental."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)
