"""The pool of candidates, and what draws it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bonas_core.spaces.base import Genotypes, Keys, SearchSpace, distinct
from bonas_core.trials import Trials


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
