"""What a search space offers to samplers, predictors and evaluators.

A space stores many architectures as the rows of one integer array, its *genotypes*, so that sampling, mutation,
identity and encoding work on a whole pool at once. `architecture` turns one row into an `Architecture`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.encoding import GraphBatch

Genotypes = NDArray[np.int8]
"""(n, genes): one architecture a row. What the genes mean is the space's own business."""
Keys = NDArray[np.uint64]
"""(n,): canonical identities; equal exactly for architectures that the space holds to be the same."""


@runtime_checkable
class SearchSpace(Protocol):
    """A set of architectures that can be sampled, changed, compared, printed and encoded.

    To search a space of your own, write a class with these members and name it as `module:Class` in the settings.
    """

    name: str
    """Short name, part of file and model names: lower case letters, digits and dashes."""
    encoding_version: int
    """Raised whenever `encode` changes what a predictor would see; stored predictors are refused across versions."""
    vocabulary: tuple[str, ...]
    """Vertex labels in one-hot order."""
    positional: bool
    """Whether vertex i plays the same role in every architecture, so that vertex features may be told apart by
    place."""

    def sample(self, count: int, rng: np.random.Generator) -> Genotypes:
        """Draws `count` architectures uniformly and independently (repeats may occur)."""

    def mutate(self, parents: Genotypes, rng: np.random.Generator) -> Genotypes:
        """Changes every row by one mutation; a row may come back as it was where the space's rule allows it."""

    def neighbours(self, genotype: NDArray[np.int8]) -> Genotypes:
        """All architectures that one mutation can make of this one, without itself and without repeats.

        Where these would be too many to look at, only those one smallest change away are listed.
        """

    def keys(self, genotypes: Genotypes) -> Keys:
        """Canonical identity of every row."""

    def parse(self, texts: Sequence[str]) -> Genotypes:
        """Reads architectures as `format` prints them.

        Raises:
            InvalidArchitectureError: a text is not an architecture of this space; the message says what is wrong.
        """

    def format(self, genotypes: Genotypes) -> list[str]:
        """Prints every row."""

    def architecture(self, genotype: NDArray[np.int8]) -> Architecture:
        """One row as a labelled graph with its text and canonical key."""

    def encode(self, genotypes: Genotypes) -> GraphBatch:
        """The graphs that predictors see, without the global vertex."""

    @property
    def size(self) -> int | None:
        """Number of architectures where they can be enumerated, else None."""

    def enumerate(self) -> Genotypes:
        """Every architecture once, in a fixed order.

        Raises:
            InputError: the space cannot be enumerated (`size` is None).
        """


@runtime_checkable
class ControlledSpace(SearchSpace, Protocol):
    """A space whose architectures a controller can spell as decisions, one after the other (Zoph et al. 2018).

    A space of your own needs these members for samplers that learn a controller, and for nothing else.
    """

    def decisions(self) -> tuple[int, ...]:
        """Number of choices of each of the D decisions, in the order they are taken; empty where there are none."""

    def from_decisions(self, choices: NDArray[np.int8]) -> tuple[Genotypes, NDArray[np.bool_]]:
        """What rows of decisions spell.

        Args:
            choices: (n, D) the choice of every decision, counting from 0.

        Returns:
            (n, genes) genotypes, and (n,) whether each is an architecture of the space; rows of the others mean
            nothing.
        """

    def to_decisions(self, genotypes: Genotypes) -> NDArray[np.int8]:
        """(n, D) one way to spell every row: `from_decisions` gives an architecture of the same key."""


@runtime_checkable
class MutationRules(Protocol):
    """What a space offers beside the members of `SearchSpace` if it can be mutated by more than one rule."""

    mutations: tuple[str, ...]
    """Names of its rules, the default first."""

    def with_mutation(self, name: str) -> SearchSpace:
        """The same space whose `mutate` and `neighbours` follow another of its rules.

        Raises:
            SettingsError: there is no such rule.
        """


def distinct(keys: Keys, excluded: Keys) -> NDArray[np.intp]:
    """Rows whose key is not in `excluded` and did not occur before, in their order."""
    _, first = np.unique(keys, return_index=True)
    first.sort()
    return first[~np.isin(keys[first], excluded)]
