"""A closed part of a search space: the architectures that a table knows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bonas_core.architecture import Architecture
from bonas_core.encoding import GraphBatch
from bonas_core.spaces.base import Genotypes, Keys, SearchSpace

_REDRAWS = 64  # mutations tried before a parent without members next to it comes back unchanged


class PoolSpace:
    """The given architectures of a space, and no others.

    Args:
        space: the space that they belong to.
        members: (n, genes) distinct by key.
    """

    def __init__(self, space: SearchSpace, members: Genotypes) -> None:
        self._space = space
        self._members = members
        self._keys = np.sort(space.keys(members))
        self.name = space.name
        self.encoding_version = space.encoding_version
        self.vocabulary = space.vocabulary
        self.positional = space.positional

    @property
    def size(self) -> int:
        return len(self._members)

    def sample(self, count: int, rng: np.random.Generator) -> Genotypes:
        return self._members[rng.integers(len(self._members), size=count)]

    def mutate(self, parents: Genotypes, rng: np.random.Generator) -> Genotypes:
        """Mutates as the whole space does, again and again until the child is a member."""
        children = parents.copy()
        rows = np.arange(len(parents))
        for _ in range(_REDRAWS):
            drawn = self._space.mutate(parents[rows], rng)
            member = self._contains(drawn)
            children[rows[member]] = drawn[member]
            rows = rows[~member]
            if not len(rows):
                break
        return children

    def neighbours(self, genotype: NDArray[np.int8]) -> Genotypes:
        cells = self._space.neighbours(genotype)
        return cells[self._contains(cells)]

    def keys(self, genotypes: Genotypes) -> Keys:
        return self._space.keys(genotypes)

    def parse(self, texts: Sequence[str]) -> Genotypes:
        return self._space.parse(texts)

    def format(self, genotypes: Genotypes) -> list[str]:
        return self._space.format(genotypes)

    def architecture(self, genotype: NDArray[np.int8]) -> Architecture:
        return self._space.architecture(genotype)

    def encode(self, genotypes: Genotypes) -> GraphBatch:
        return self._space.encode(genotypes)

    def enumerate(self) -> Genotypes:
        return self._members

    def _contains(self, genotypes: Genotypes) -> NDArray[np.bool_]:
        keys = self._space.keys(genotypes)
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.asarray(self._keys[place] == keys)
