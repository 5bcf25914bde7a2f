"""The reinforce sampler: candidates drawn by a controller that learns to find expected improvement (paper section 3.3).

BONAS(RL) takes the controller of Zoph et al. (CVPR 2018) and its training, proximal policy optimisation (Schulman et
al. 2017), but rewards it with EI instead of accuracy: a thousand architectures can be rewarded at every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bonas_core.determinism.threads import torch_threads
from bonas_core.errors import SettingsError
from bonas_core.methods.samplers.base import Acquire, Learnt, Pool, fresh_random
from bonas_core.spaces.base import ControlledSpace, SearchSpace, distinct
from bonas_core.trials import Trials

_BOUND = 0.1  # initial weights are uniform within +- this
_MEMORY = 0.95  # weight of the past in the baseline
_WORST = -1.0  # reward of what cannot be proposed, in standard deviations of the others'

# a tensor of the controller, and Adam's moments of its gradient
_WEIGHT, _MEAN, _SQUARE = "weight/", "mean/", "square/"
_STEPS, _BASELINE = "steps", "baseline"


@dataclass(frozen=True)
class ReinforceSampler:
    """BONAS(RL): an LSTM spells architectures decision by decision; what it has learnt changes at every step.

    What was learnt holds the controller's weights, the moments of Adam, and the baseline of the rewards.
    """

    units: int = 100
    """Of the LSTM, and of the embeddings of decisions."""
    samples: int = 1000
    """Architectures drawn and rewarded at every update, R in the paper."""
    minibatch: int = 20
    """Architectures per gradient step."""
    epochs: int = 1
    """Passes over the architectures of an update."""
    learning_rate: float = 3.5e-4
    clip: float = 0.2
    """A gradient step no longer rewards a probability that left 1 +- this times its old value."""
    entropy: float = 1e-5
    """Weight of the entropy bonus."""
    name = "reinforce"

    @classmethod
    def from_settings(cls, settings: Any) -> Self:
        """Makes the sampler of a method that has a controller."""
        return cls(**settings.controller.model_dump())

    def check_space(self, space: SearchSpace) -> None:
        """Raises SettingsError where the space has no decisions that a controller could take."""
        if not isinstance(space, ControlledSpace) or not space.decisions():
            raise SettingsError(
                f"method.sampler: space `{space.name}` has no decisions for the {self.name} sampler; "
                "use evolution or random"
            )

    def start(self, space: SearchSpace, rng: np.random.Generator) -> Learnt:
        """A controller of random weights."""
        learnt: Learnt = {_STEPS: np.zeros(1, dtype=np.float32), _BASELINE: np.full(1, np.nan)}
        for name, tensor in _Controller(_decisions(space), self.units).state_dict().items():
            learnt[_WEIGHT + name] = rng.uniform(-_BOUND, _BOUND, tuple(tensor.shape)).astype(np.float32)
            learnt[_MEAN + name] = np.zeros_like(learnt[_WEIGHT + name])
            learnt[_SQUARE + name] = np.zeros_like(learnt[_WEIGHT + name])
        return learnt

    @torch_threads(1)
    def update(
        self, space: SearchSpace, learnt: Learnt, trials: Trials, acquire: Acquire, rng: np.random.Generator
    ) -> Learnt:
        """Draws architectures, rewards them by their EI, and makes those of more than the usual reward more likely."""
        controller = _controller(space, learnt, self.units)
        optimiser = torch.optim.Adam(controller.parameters(), lr=self.learning_rate, foreach=True)
        for name, parameter in controller.named_parameters():
            optimiser.state[parameter] = {
                "step": torch.tensor(float(learnt[_STEPS][0])),
                "exp_avg": torch.from_numpy(learnt[_MEAN + name].copy()),
                "exp_avg_sq": torch.from_numpy(learnt[_SQUARE + name].copy()),
            }
        choices = controller.draw(self.samples, rng)
        reward = _rewards(space, trials, choices, acquire)
        past = float(learnt[_BASELINE][0])
        baseline = reward.mean() if np.isnan(past) else _MEMORY * past + (1 - _MEMORY) * reward.mean()
        advantage = torch.from_numpy((reward - baseline).astype(np.float32))
        taken = torch.from_numpy(choices.astype(np.int64))
        with torch.no_grad():
            before = _log_likelihood(controller(taken), taken)
        for _ in range(self.epochs):
            order = torch.from_numpy(rng.permutation(self.samples))
            for begin in range(0, self.samples, self.minibatch):
                rows = order[begin : begin + self.minibatch]
                optimiser.zero_grad()
                self._loss(controller(taken[rows]), taken[rows], before[rows], advantage[rows]).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
        after: Learnt = {_BASELINE: np.full(1, baseline)}
        for name, parameter in controller.named_parameters():
            state = optimiser.state[parameter]
            after[_STEPS] = np.full(1, float(state["step"]), dtype=np.float32)
            after[_WEIGHT + name] = parameter.detach().numpy().copy()
            after[_MEAN + name] = state["exp_avg"].numpy().copy()
            after[_SQUARE + name] = state["exp_avg_sq"].numpy().copy()
        return after

    @torch_threads(1)
    def draw(self, space: SearchSpace, learnt: Learnt, trials: Trials, size: int, rng: np.random.Generator) -> Pool:
        """Candidates spelt by the controller; random ones make up for those that are invalid, repeated or known."""
        choices = _controller(space, learnt, self.units).draw(size, rng)
        genotypes, valid = _controlled(space).from_decisions(choices)
        found = genotypes[valid]
        found = found[distinct(space.keys(found), trials.keys)]
        if len(found) < size:
            seen = np.concatenate([trials.keys, space.keys(found)])
            found = np.concatenate([found, fresh_random(space, seen, size - len(found), rng)])
        return Pool(found, np.ones(len(found), dtype=bool))

    def _loss(self, log_probabilities: Tensor, taken: Tensor, before: Tensor, advantage: Tensor) -> Tensor:
        """The clipped surrogate of PPO, summed over decisions, less the entropy bonus; mean over a minibatch."""
        ratio = (_log_likelihood(log_probabilities, taken) - before).exp()
        gain = advantage[:, None]
        surrogate = torch.minimum(ratio * gain, ratio.clamp(1 - self.clip, 1 + self.clip) * gain)
        entropy = -(log_probabilities.exp() * log_probabilities.clamp(min=-1e4)).sum(dim=2)
        return -(surrogate + self.entropy * entropy).sum(dim=1).mean()


def _controlled(space: SearchSpace) -> ControlledSpace:
    assert isinstance(space, ControlledSpace)  # see `check_space`
    return space


def _decisions(space: SearchSpace) -> tuple[int, ...]:
    return _controlled(space).decisions()


def _controller(space: SearchSpace, learnt: Learnt, units: int) -> _Controller:
    controller = _Controller(_decisions(space), units)
    weights = {name: learnt[_WEIGHT + name] for name in controller.state_dict()}
    controller.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in weights.items()})
    return controller


def _rewards(space: SearchSpace, trials: Trials, choices: NDArray[np.int8], acquire: Acquire) -> NDArray[np.float64]:
    """(n,) rewards of rows of decisions: EI, standardised over those that might be proposed.

    EI shrinks by orders of magnitude in the course of a search: standardised, it does not shrink the steps. Rows that
    are no architecture and those that have a trial get the worst of the rewards, one deviation below average at most:
    so a controller that spells nothing new learns to spell something else.
    """
    genotypes, valid = _controlled(space).from_decisions(choices)
    keys = space.keys(genotypes[valid])
    unseen = ~np.isin(keys, trials.keys)
    rows = np.flatnonzero(valid)[unseen]
    if not len(rows):
        return np.full(len(choices), _WORST)
    _, first, place = np.unique(keys[unseen], return_index=True, return_inverse=True)
    value = acquire(genotypes[rows[first]])[place]
    value = np.exp(value - value.max())
    value = (value - value.mean()) / (value.std() or 1.0)
    rewards = np.full(len(choices), min(_WORST, value.min()))
    rewards[rows] = value
    return rewards


def _log_likelihood(log_probabilities: Tensor, taken: Tensor) -> Tensor:
    """(n, D) log probability of every decision that was taken, of (n, D, C) of all that could be."""
    return log_probabilities.gather(2, taken[..., None]).squeeze(2)


class _Controller(nn.Module):
    """A one-layer LSTM that takes D decisions of at most C choices, each knowing those before it."""

    def __init__(self, decisions: tuple[int, ...], units: int) -> None:
        super().__init__()
        D, C = len(decisions), max(decisions)
        self.begin = nn.Parameter(torch.zeros(units))
        """Input of the first decision."""
        self.embedding = nn.Parameter(torch.zeros(D - 1, C, units))
        """Input of every later decision: the choice before it."""
        self.lstm = nn.LSTM(units, units, batch_first=True)
        self.head = nn.Parameter(torch.zeros(D, units, C))
        closed = torch.arange(C) >= torch.tensor(decisions)[:, None]
        self.register_buffer("closed", torch.zeros(D, C).masked_fill(closed, -torch.inf), persistent=False)

    def forward(self, taken: Tensor) -> Tensor:
        """(n, D, C) log probabilities of all choices, given that of every decision `taken` (n, D)."""
        n, D = taken.shape
        later = self.embedding[torch.arange(D - 1), taken[:, :-1]]
        hidden, _ = self.lstm(torch.cat([self.begin.expand(n, 1, -1), later], dim=1))
        logits = torch.einsum("ndh,dhc->ndc", hidden, self.head)
        return (logits + self.get_buffer("closed")).log_softmax(dim=2)

    @torch.no_grad()
    def draw(self, count: int, rng: np.random.Generator) -> NDArray[np.int8]:
        """(count, D) decisions."""
        closed = self.get_buffer("closed")
        D = len(closed)
        uniform = torch.from_numpy(rng.random((D, count, 1), dtype=np.float32))
        taken = torch.empty((count, D), dtype=torch.int8)
        inputs = self.begin.expand(count, 1, -1)
        memory = None
        for d in range(D):
            hidden, memory = self.lstm(inputs, memory)
            below = (hidden[:, 0] @ self.head[d] + closed[d]).softmax(dim=1).cumsum(dim=1)
            # rounding may leave the last sum below 1: a closed choice is never taken
            last = torch.isfinite(closed[d]).sum() - 1
            choice = (uniform[d] >= below).sum(dim=1).clamp(max=last)
            taken[:, d] = choice
            if d < D - 1:
                inputs = self.embedding[d, choice][:, None]
        return taken.numpy()
