"""The pool of candidates, and what draws it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bonas_core.spaces.base import Genotypes, Keys, SearchSpace, distinct
from bonas_core.trials import Trials

Acquire = Callable[[Genotypes], NDArray[np.float64]]
"""(n, genes) -> (n,) what candidates are worth evaluating for: the logarithm of their expected improvement."""
Learnt = dict[str, NDArray[Any]]
"""What a sampler has learnt, as plain arrays, in the form in which it is stored."""


@dataclass(frozen=True)
class Pool:
    """Candidates to score."""

    genotypes: Genotypes
    """(n, genes)"""
    open: NDArray[np.bool_]
    """(n,) false for rows that may not be chosen, having been evaluated or being in flight."""
    whole_space: bool = False
    """Whether this is the enumeration of the space, whose embeddings last as long as a predictor."""


@runtime_checkable
class Sampler(Protocol):
    """Draws candidates; stateless: what it needs to know it finds in the trials."""

    name: str

    def pool(self, space: SearchSpace, trials: Trials, size: int, rng: np.random.Generator) -> Pool:
        """Draws about `size` distinct candidates that no trial has yet; none only if the space is used up."""


@runtime_checkable
class LearningSampler(Protocol):
    """Draws candidates by what it has learnt from their acquisition values at every step.

    It is stateless too: what it has learnt is handed to it and comes back, and equal arguments give equal results.
    """

    name: str

    def check_space(self, space: SearchSpace) -> None:
        """Raises SettingsError where the sampler cannot work on a space."""

    def start(self, space: SearchSpace, rng: np.random.Generator) -> Learnt:
        """What it knows before it has learnt anything."""

    def update(
        self, space: SearchSpace, learnt: Learnt, trials: Trials, acquire: Acquire, rng: np.random.Generator
    ) -> Learnt:
        """Learns from one step's acquisition function; `learnt` is left as it is."""

    def draw(self, space: SearchSpace, learnt: Learnt, trials: Trials, size: int, rng: np.random.Generator) -> Pool:
        """Draws candidates as `Sampler.pool` does."""


def fresh_random(space: SearchSpace, seen: Keys, size: int, rng: np.random.Generator) -> Genotypes:
    """Up to `size` distinct, unseen architectures, drawn uniformly; fewer where the space has fewer left."""
    if space.size is not None and space.size - len(seen) <= 2 * size:
        rest = space.enumerate()
        rest = rest[~np.isin(space.keys(rest), seen)]
        return rest[rng.permutation(len(rest))[:size]]
    found = space.sample(size, rng)
    found = found[distinct(space.keys(found), seen)]
    while len(found) < size:
        more = np.concatenate([found, space.sample(size, rng)])
        found = more[distinct(space.keys(more), seen)]
    return found[:size]
