"""When BONAS does what: how many trials start a search, when its predictor is trained again, when it explores."""

from __future__ import annotations

from dataclasses import dataclass

from bonas_core.methods.base import learnt_prefix, until_retraining
from bonas_core.trials import Trials

_EXPLORE_EVERY = 4
"""Trials per random one, once a search has waited in vain for its patience."""


@dataclass(frozen=True)
class Schedule:
    """The moments of a search, all of them functions of the trials alone."""

    initial: int = 10
    """Random trials that start the search, N in the paper."""
    retrain_every: int = 10
    """Trials between retrainings of the predictor, k in the paper."""
    retrain_growth: float = 0.0
    """The same as a share of the trials that it was trained on; the larger of the two counts."""
    batch: int = 1
    """Trials proposed between updates of a sampler that learns."""
    patience: int = 0
    """Trials without improvement after which every fourth trial is a random one, until there is an improvement; 0:
    never. A model can be sure of a family of good cells that is not the best one: outside of it only few cells were
    tried, and the acquisition function has it used up before it looks elsewhere."""

    def training_size(self, trials: Trials) -> int:
        """Number of trials that the predictor of this step has seen: all of them at the last retraining."""
        return learnt_prefix(trials, self.initial, self.retrain_every, self.retrain_growth)

    def waits_for(self, trained_on: int) -> int:
        """Number of trials until a predictor trained on so many is trained again."""
        return until_retraining(trained_on, self.retrain_every, self.retrain_growth)

    def sampler_size(self, trials: Trials) -> int:
        """Number of trials that a learning sampler's state of this step has seen: one more batch with every update."""
        return self.initial + max(len(trials) - self.initial, 0) // self.batch * self.batch

    def is_initial(self, trials: Trials) -> bool:
        """Whether there is too little to learn from: the next trials are random."""
        return len(trials) < self.initial or len(trials.first(self.training_size(trials)).observed()[0]) < 2

    def explores(self, trials: Trials, place: int) -> bool:
        """Whether the trial after `place` picks of this round is to be a random one."""
        scores = trials.observed()[1]
        waited = len(scores) - 1 - int(scores.argmax())
        return 0 < self.patience <= waited and (len(trials) + place) % _EXPLORE_EVERY == 0
