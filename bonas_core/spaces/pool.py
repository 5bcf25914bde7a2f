"""A closed part of a search space: the architectures that a table knows."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bonas_core.errors import SettingsError
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import ControlledSpace, Genotypes, Keys, MutationRules, SearchSpace
from bonas_core.spaces.encoding import GraphBatch

_MUTATIONS = 256  # of every parent
_CACHED_PARENTS = 4096


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
        self._kin = lru_cache(_CACHED_PARENTS)(lambda genes: self.kin(np.frombuffer(genes, dtype=np.int8)))
        self.name = space.name
        self.encoding_version = space.encoding_version
        self.vocabulary = space.vocabulary
        self.positional = space.positional

    @property
    def size(self) -> int:
        """Number of members."""
        return len(self._members)

    def sample(self, count: int, rng: np.random.Generator) -> Genotypes:
        """Draws members uniformly and independently."""
        return self._members[rng.integers(len(self._members), size=count)]

    def mutate(self, parents: Genotypes, rng: np.random.Generator) -> Genotypes:
        """Gives every row a child as the whole space mutates it that is another member.

        The child is drawn from `kin`, so that it costs little however small a part of the space the members are; a
        parent without kin comes back unchanged.
        """
        different, group = np.unique(parents, axis=0, return_inverse=True)
        kin = [self._kin(row.tobytes()) for row in different]
        count = np.array([len(members) for members in kin], dtype=np.intp)[group.reshape(-1)]
        first = np.cumsum([0, *map(len, kin)])[:-1][group.reshape(-1)]
        picked = first + (rng.random(len(parents)) * count).astype(np.intp)
        children = parents.copy()
        children[count > 0] = np.concatenate([parents[:0], *kin])[picked[count > 0]]
        return children

    def kin(self, parent: NDArray[np.int8]) -> Genotypes:
        """(k, genes) the other members among 256 mutations of a member, as often as they came.

        The mutations are drawn by a stream that the parent's key seeds: they are a property of the pool.
        """
        key = self._space.keys(parent[None])
        drawn = self._space.mutate(np.repeat(parent[None], _MUTATIONS, axis=0), np.random.default_rng(key))
        keys = self._space.keys(drawn)
        found: Genotypes = drawn[self._holds(keys) & (keys != key)]
        return found

    @property
    def mutations(self) -> tuple[str, ...]:
        """Those of the whole space."""
        return self._space.mutations if isinstance(self._space, MutationRules) else ()

    def with_mutation(self, name: str) -> PoolSpace:
        """The same members with another rule of the whole space."""
        if not isinstance(self._space, MutationRules):
            raise SettingsError(f"space `{self.name}` has no mutations to choose from; leave method.mutation empty")
        return PoolSpace(self._space.with_mutation(name), self._members)

    def neighbours(self, genotype: NDArray[np.int8]) -> Genotypes:
        """Neighbours in the whole space that are members."""
        cells = self._space.neighbours(genotype)
        return cells[self._contains(cells)]

    def keys(self, genotypes: Genotypes) -> Keys:
        """Canonical identities in the whole space, whether the rows are members or not."""
        return self._space.keys(genotypes)

    def parse(self, texts: Sequence[str]) -> Genotypes:
        """Reads architectures of the whole space, whether they are members or not."""
        return self._space.parse(texts)

    def format(self, genotypes: Genotypes) -> list[str]:
        """Prints every row as the whole space prints it."""
        return self._space.format(genotypes)

    def architecture(self, genotype: NDArray[np.int8]) -> Architecture:
        """Graph, text and key of one row in the whole space."""
        return self._space.architecture(genotype)

    def encode(self, genotypes: Genotypes) -> GraphBatch:
        """Encodes rows as the whole space does, so that predictors of one serve the other."""
        return self._space.encode(genotypes)

    def enumerate(self) -> Genotypes:
        """Lists every member once, in the order in which they were given."""
        return self._members

    def decisions(self) -> tuple[int, ...]:
        """Those of the whole space; none where that has none."""
        return self._space.decisions() if isinstance(self._space, ControlledSpace) else ()

    def from_decisions(self, choices: NDArray[np.int8]) -> tuple[Genotypes, NDArray[np.bool_]]:
        """What the whole space makes of the rows; only members are valid."""
        genotypes, valid = self._controlled().from_decisions(choices)
        valid[valid] = self._contains(genotypes[valid])
        return genotypes, valid

    def to_decisions(self, genotypes: Genotypes) -> NDArray[np.int8]:
        """Spells every row as the whole space does; raises SettingsError where that has no decisions."""
        return self._controlled().to_decisions(genotypes)

    def _controlled(self) -> ControlledSpace:
        if not isinstance(self._space, ControlledSpace):
            raise SettingsError(f"space `{self.name}` has no decisions; give it those of `ControlledSpace`")
        return self._space

    def _contains(self, genotypes: Genotypes) -> NDArray[np.bool_]:
        return self._holds(self._space.keys(genotypes))

    def _holds(self, keys: Keys) -> NDArray[np.bool_]:
        place = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        return np.asarray(self._keys[place] == keys)
