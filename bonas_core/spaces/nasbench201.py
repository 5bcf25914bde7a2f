"""NAS-Bench-201, called NAS-Bench-102 in the BONAS paper (Dong & Yang, ICLR 2020): 4 nodes, 6 edges, 5 operations.

A genotype holds the operation of each of the six edges 0-1, 0-2, 1-2, 0-3, 1-3, 2-3, in the order of the official
string `|op01~0|+|op02~0|op12~1|+|op03~0|op13~1|op23~2|`. The graph puts operations on vertices: input, six
operations, output.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from bonas_core.errors import InvalidArchitectureError, SettingsError
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import Genotypes, Keys
from bonas_core.spaces.encoding import GraphBatch

OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
CELL_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))
"""Source and target node of every gene."""

_VERTICES = 8
_GRAPH_EDGES = tuple(
    sorted(
        [(0, 1 + e) for e, (source, _) in enumerate(CELL_EDGES) if source == 0]
        + [(1 + a, 1 + b) for a, (_, t) in enumerate(CELL_EDGES) for b, (s, _) in enumerate(CELL_EDGES) if t == s]
        + [(1 + e, 7) for e, (_, target) in enumerate(CELL_EDGES) if target == 3]
    )
)
_EXAMPLE = "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|nor_conv_1x1~0|avg_pool_3x3~1|nor_conv_3x3~2|"


class NASBench201:
    """The 15,625 cells of NAS-Bench-201; the operation tuple is the identity, as in the official table."""

    name = "nasbench201"
    encoding_version = 1
    vocabulary: tuple[str, ...] = (*OPERATIONS, "input", "output")
    positional = True
    mutations: tuple[str, ...] = ("redraw",)
    size = len(OPERATIONS) ** len(CELL_EDGES)

    def with_mutation(self, name: str) -> NASBench201:
        """The space itself: it has one rule."""
        if name not in self.mutations:
            raise SettingsError(f"space {self.name}: mutation `{name}` is unknown; use {self.mutations[0]}")
        return self

    def sample(self, count: int, rng: np.random.Generator) -> Genotypes:
        """Draws cells uniformly: each edge's operation independently."""
        return rng.integers(len(OPERATIONS), size=(count, len(CELL_EDGES)), dtype=np.int8)

    def mutate(self, parents: Genotypes, rng: np.random.Generator) -> Genotypes:
        """Draws the operation of one edge anew, the old one included (paper section 3.3; edges are fixed here)."""
        children = parents.copy()
        edge = rng.integers(len(CELL_EDGES), size=len(parents))
        children[np.arange(len(parents)), edge] = rng.integers(len(OPERATIONS), size=len(parents), dtype=np.int8)
        return children

    def neighbours(self, genotype: NDArray[np.int8]) -> Genotypes:
        """The 24 cells that differ in the operation of one edge."""
        steps = np.arange(1, len(OPERATIONS))
        edges = np.repeat(np.arange(len(CELL_EDGES)), len(steps))
        cells = np.tile(genotype, (len(edges), 1))
        cells[np.arange(len(edges)), edges] = (genotype[edges] + np.tile(steps, len(CELL_EDGES))) % len(OPERATIONS)
        return cells

    def keys(self, genotypes: Genotypes) -> Keys:
        """Reads a cell's operations as the digits of a number in base 5, which is its row in `enumerate`."""
        return genotypes.astype(np.uint64) @ _PLACE_VALUES

    def parse(self, texts: Sequence[str]) -> Genotypes:
        """Reads official strings, exactly as `format` prints them; an error says which rule a text breaks."""
        known = _rows_by_text()
        rows = [known.get(text) for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if row is None:
                raise InvalidArchitectureError(f"cell `{text}`: {_fault(text)}")
        return self.enumerate()[np.array(rows, dtype=np.int64)]

    def format(self, genotypes: Genotypes) -> list[str]:
        """Prints cells in the official form: for each of nodes 1 to 3 a group of `operation~source` terms."""
        return [
            "+".join(
                "|"
                + "|".join(f"{OPERATIONS[g]}~{s}" for g, (s, t) in zip(row, CELL_EDGES, strict=True) if t == node)
                + "|"
                for node in (1, 2, 3)
            )
            for row in genotypes.tolist()
        ]

    def architecture(self, genotype: NDArray[np.int8]) -> Architecture:
        """Turns one cell into a graph with its operations, not its nodes, as vertices; its key is its text."""
        text = self.format(genotype[None])[0]
        labels = ("input", *(OPERATIONS[g] for g in genotype), "output")
        return Architecture(labels, _GRAPH_EDGES, text, key=text)

    def encode(self, genotypes: Genotypes) -> GraphBatch:
        """Encodes cells as graphs of 8 vertices: the input, the operations of the six edges, and the output."""
        labels = np.empty((len(genotypes), _VERTICES), dtype=np.int8)
        labels[:, 0], labels[:, -1] = len(OPERATIONS), len(OPERATIONS) + 1
        labels[:, 1:-1] = genotypes
        return GraphBatch(labels, _ADJACENCY, self.vocabulary)

    def enumerate(self) -> Genotypes:
        """All cells, counting up with the last edge fastest (the official index order is a table's own column)."""
        return np.indices((len(OPERATIONS),) * len(CELL_EDGES), dtype=np.int8).reshape(len(CELL_EDGES), -1).T

    def decisions(self) -> tuple[int, ...]:
        """The operation of every edge: a genotype is its own spelling."""
        return (len(OPERATIONS),) * len(CELL_EDGES)

    def from_decisions(self, choices: NDArray[np.int8]) -> tuple[Genotypes, NDArray[np.bool_]]:
        """Takes rows of decisions as genotypes, all of which are architectures."""
        return choices.copy(), np.ones(len(choices), dtype=bool)

    def to_decisions(self, genotypes: Genotypes) -> NDArray[np.int8]:
        """Copies genotypes, which are rows of decisions themselves."""
        return genotypes.copy()


_PLACE_VALUES = len(OPERATIONS) ** np.arange(len(CELL_EDGES) - 1, -1, -1, dtype=np.uint64)
_ADJACENCY = np.zeros((1, _VERTICES, _VERTICES), dtype=bool)
_ADJACENCY[0, [i for i, _ in _GRAPH_EDGES], [j for _, j in _GRAPH_EDGES]] = True


@lru_cache(maxsize=1)
def _rows_by_text() -> dict[str, int]:
    space = NASBench201()
    return {text: row for row, text in enumerate(space.format(space.enumerate()))}


def _fault(text: str) -> str:
    """Says which rule of the official string form a text breaks, and the remedy."""
    groups = text.strip().split("+")
    if len(groups) != 3:
        return f"it has {len(groups)} node groups joined by `+`, a cell has 3; write it as `{_EXAMPLE}`"
    for node, group in enumerate(groups, start=1):
        inputs = group.strip("|").split("|")
        if len(inputs) != node:
            return f"node {node} has {len(inputs)} inputs, it takes {node}; write it as `{_EXAMPLE}`"
        for expected, item in enumerate(inputs):
            match = re.fullmatch(r"([^~]*)~(.*)", item)
            if match is None:
                return f"`{item}` is not `operation~source`; write it as `{_EXAMPLE}`"
            operation, source = match.groups()
            if operation not in OPERATIONS:
                return f"`{operation}` is not an operation; use one of {', '.join(OPERATIONS)}"
            if source != str(expected):
                return f"`{item}` names source `{source}`, input {expected} of node {node} comes from node {expected}"
    return f"its separators are not those of the official string; write it as `{_EXAMPLE}`"
