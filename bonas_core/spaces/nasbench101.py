"""NAS-Bench-101 (Ying et al., ICML 2019): cells of 2 to 7 labelled vertices and at most 9 edges.

A genotype has 26 genes: the 21 bits of an upper-triangular 7 x 7 matrix, row by row (0,1)(0,2)...(5,6), and
the operations of vertices 1 to 5. Vertex 0 is the input and the last existing vertex the output: a cell of n
vertices uses the first n rows and columns, and the operations from vertex n-1 on are ABSENT. Genotypes are
stored *pruned*: every vertex lies on a path from input to output. A row that may break this is called a *raw*
row; `prune` makes it a genotype.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import chain, permutations
from types import MappingProxyType
from typing import Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from bonas_core.errors import InvalidArchitectureError, SettingsError
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import Genotypes, Keys, distinct
from bonas_core.spaces.encoding import PADDING, GraphBatch

OPERATIONS = ("conv3x3-bn-relu", "conv1x1-bn-relu", "maxpool3x3")
"""In the official canonical order: the index is the label that the official hash sees."""
MAX_VERTICES = 7
MAX_EDGES = 9
ABSENT = PADDING
"""Operation of a vertex that the cell does not have."""

Sampling = Literal["uniform", "authors"]
Mutation = Literal["rewire", "add-remove", "flip"]

_SOURCES, _TARGETS = np.triu_indices(MAX_VERTICES, 1)
_PAIRS: list[tuple[int, int]] = list(zip(_SOURCES.tolist(), _TARGETS.tolist(), strict=True))
_EDGES = len(_PAIRS)
_INTERIOR = MAX_VERTICES - 2
_GENES = _EDGES + _INTERIOR
_GENE = np.zeros((MAX_VERTICES, MAX_VERTICES), dtype=np.int64)
"""(7, 7) index of the gene of edge i->j; meaningless where i >= j."""
_GENE[_SOURCES, _TARGETS] = np.arange(_EDGES)

_INPUT, _OUTPUT = len(OPERATIONS), len(OPERATIONS) + 1
_SHORT = tuple(operation.removesuffix("-bn-relu") for operation in OPERATIONS)
_EDGE_TEXTS = [f"{i}-{j}" for i, j in _PAIRS]
_EXAMPLE = "input;conv3x3;maxpool3x3;output|0-1,0-2,1-3,2-3"

_KEY_BLOCK = 512
"""Rows per pass over the key tables, so that the intermediate arrays stay in the processor's cache."""

_TRIES = 64  # mutations tried before a parent comes back unchanged


class NASBench101:
    """The 423,624 cells of NAS-Bench-101; isomorphic pruned cells are the same cell.

    Args:
        sampling: "uniform" draws every cell with equal chance. "authors" draws raw rows of 7 vertices,
            all bits and operations with equal chance, until one is valid, as the benchmark's authors do; this
            favours cells of few vertices.
        mutation: "rewire" is the rule of the BONAS paper, section 3.3: it keeps or shrinks a cell. "add-remove" adds
            an edge and removes one, "flip" flips every bit with a chance, as the benchmark's authors do; both work on
            raw rows of 7 vertices, so cells can grow. `mutate` says how each goes.

    Raises:
        SettingsError: `sampling` or `mutation` is none of these.
    """

    name = "nasbench101"
    encoding_version = 1
    vocabulary: tuple[str, ...] = (*OPERATIONS, "input", "output")
    positional = False
    count_by_vertices = MappingProxyType({2: 1, 3: 6, 4: 84, 5: 2_441, 6: 62_010, 7: 359_082})
    """Number of cells by number of vertices."""
    size = 423_624
    mutations: tuple[str, ...] = get_args(Mutation)

    def __init__(self, sampling: Sampling = "uniform", mutation: Mutation = "rewire") -> None:
        for setting, value, known in (("sampling", sampling, Sampling), ("mutation", mutation, Mutation)):
            if value not in get_args(known):
                raise SettingsError(
                    f"space {self.name}: {setting} `{value}` is unknown; use one of {', '.join(get_args(known))}"
                )
        self.sampling = sampling
        self.mutation = mutation

    def with_mutation(self, name: str) -> NASBench101:
        """The same space with another of `mutations`.

        Raises:
            SettingsError: there is no such rule.
        """
        return NASBench101(self.sampling, cast(Mutation, name))

    def sample(self, count: int, rng: np.random.Generator) -> Genotypes:
        """Draws `count` cells as `sampling` says; the first uniform draw enumerates the space."""
        if self.sampling == "uniform":
            return self.enumerate()[rng.integers(self.size, size=count)]
        cells = np.empty((0, _GENES), dtype=np.int8)
        while len(cells) < count:
            bits = rng.integers(2, size=(count, _EDGES), dtype=np.int8)
            ops = rng.integers(len(OPERATIONS), size=(count, _INTERIOR), dtype=np.int8)
            drawn = self.prune(np.hstack([bits, ops]))
            cells = np.concatenate([cells, drawn[self.valid(drawn)]])
        return cells[:count]

    def mutate(self, parents: Genotypes, rng: np.random.Generator) -> Genotypes:
        """Changes every cell by the rule of `mutation`; children are always valid and pruned.

        rewire
            With equal chance rewires one edge or redraws one operation. Rewiring gives a random edge i->j another
            random source before j that does not feed j yet; where there is none the cell stays as it was. Redrawing
            sets a random interior vertex to a random operation, the old one included. The new source is reached from
            the input, so the output still is, and no edge is added. Pruning may drop vertices and edges, and no
            mutation brings them back.
        add-remove
            With equal chance redraws one operation, or adds a random absent edge and removes another random edge. A
            new edge may begin or end at a vertex that the cell does not have: it comes with a random operation, and
            with a second edge from or to a random vertex that the cell has, so that it lies on a path.
        flip
            Flips each of the 21 edges with chance 1/7 and gives each of the 5 operations, with chance 1/5, one of the
            other two (the mutation of the benchmark's own notebook).

        The last two work on a raw row of 7 vertices in which the cell's vertices take random places in their order,
        and the vertices that it lacks stand unconnected with random operations. A child that is not a cell is drawn
        again, at most 64 times; the parent comes back if none was.
        """
        if self.mutation == "rewire":
            return self.prune(_rewired_or_redrawn(parents, rng))
        change = _flipped if self.mutation == "flip" else _added_and_removed
        children = parents.copy()
        rows = np.arange(len(parents))
        for _ in range(_TRIES):
            drawn = self.prune(change(parents[rows], rng))
            valid = self.valid(drawn)
            children[rows[valid]] = drawn[valid]
            rows = rows[~valid]
            if not len(rows):
                break
        return children

    def neighbours(self, genotype: NDArray[np.int8]) -> Genotypes:
        """The other cells that are one step away by the rule of `mutation`, without repeats.

        With "rewire" these are all that `mutate` can make of the cell. The other rules can make hundreds, or any cell
        at all, of one; their steps are the smallest changes: one edge more, one edge less, another operation, or a
        new vertex between two that are there, with an edge from the earlier and an edge to the later.
        """
        steps = _rewirings(genotype) if self.mutation == "rewire" else _toggles(genotype)
        cells = self.prune(np.concatenate([*steps, _redrawings(genotype)]))
        cells = cells[self.valid(cells)]
        return cells[distinct(self.keys(cells), self.keys(genotype[None]))]

    def keys(self, genotypes: Genotypes) -> Keys:
        """The smallest number that spells the cell in any order of its interior vertices.

        A number spells the operations, the ordered pairs of interior vertices that are edges, and the edges
        from the input and to the output, so keys are equal exactly for isomorphic cells. `_KEY_TABLES` says
        what each byte of a row's bits contributes in each of the 120 orders.
        """
        adjacency = _adjacency(genotypes)
        rows, output = np.arange(len(genotypes)), self.vertices(genotypes) - 1
        to_output = adjacency[rows, :, output]
        adjacency[rows, :, output] = False
        i, j = np.triu_indices(_INTERIOR, 1)
        ops = genotypes[:, _EDGES:]
        bits = [adjacency[:, 1 + i, 1 + j], adjacency[:, 0, 1:-1], to_output[:, 1:-1], to_output[:, :1]]
        code = np.packbits(np.hstack([*bits, ops & 1, ops & 2]), axis=1, bitorder="little").T.astype(np.intp)

        keys = np.empty(len(genotypes), dtype=np.uint64)
        for start in range(0, len(genotypes), _KEY_BLOCK):
            first, *others = code[:, start : start + _KEY_BLOCK]
            spelt = _KEY_TABLES[0][first]  # (rows, 120)
            for table, column in zip(_KEY_TABLES[1:], others, strict=True):
                spelt |= table[column]
            spelt.min(axis=1, out=keys[start : start + _KEY_BLOCK])
        return keys

    def official_hash(self, genotypes: Genotypes) -> list[str]:
        """The graph hash by which the official table names its cells (`graph_util.hash_module` of nasbench).

        MD5 is computed one text at a time, so this takes a loop over the cells, unlike `keys`.
        """
        vertices = self.vertices(genotypes).tolist()
        return [_hash_module(row, n) for row, n in zip(genotypes.tolist(), vertices, strict=True)]

    def parse(self, texts: Sequence[str]) -> Genotypes:
        """Reads cells as `format` prints them: `input;conv3x3;maxpool3x3;output|0-1,0-2,1-3,2-3`.

        A text may name up to 7 vertices; those on no path from input to output are pruned.
        """
        raw = np.array([_read(text) for text in texts], dtype=np.int8).reshape(-1, _GENES)
        return self._checked(raw, lambda row: f"cell `{texts[row]}`")

    def from_bits(self, adjacency: Sequence[str], operations: Sequence[Sequence[str]]) -> Genotypes:
        """Reads cells as tables hold them, and prunes them.

        Args:
            adjacency: for each cell of n vertices its n(n-1)/2 bits, row by row (0,1)(0,2)...(n-2,n-1).
            operations: for each cell the n labels of `vocabulary`, from "input" to "output".

        Raises:
            InvalidArchitectureError: a row is not a cell of this space; the message says which and why.
        """
        vertices = np.fromiter(map(len, operations), dtype=np.int64, count=len(operations))
        bits = np.fromiter(map(len, adjacency), dtype=np.int64, count=len(adjacency))
        binary = np.fromiter((not text.strip("01") for text in adjacency), dtype=bool, count=len(adjacency))
        sized = (vertices >= 2) & (vertices <= MAX_VERTICES)
        _require(sized, lambda row: f"cell in row {row}: {_size_fault(len(operations[row]))}")
        due = vertices * (vertices - 1) // 2
        _require(
            (bits == due) & binary,
            lambda row: (
                f"cell in row {row}: adjacency `{adjacency[row]}` is not {due[row]} times 0 or 1 for its "
                f"{vertices[row]} vertices; give the bits above the diagonal row by row"
            ),
        )
        place, last = np.arange(MAX_VERTICES), vertices[:, None] - 1
        codes = {label: code for code, label in enumerate(self.vocabulary)}
        labels = np.full((len(vertices), MAX_VERTICES), ABSENT, dtype=np.int8)
        labels[place <= last] = [codes.get(label, ABSENT) for label in chain.from_iterable(operations)]
        interior = (place > 0) & (place < last)
        expected = np.where(place == 0, _INPUT, np.where(place == last, _OUTPUT, ABSENT))
        fits = np.where(interior, (labels >= 0) & (labels < len(OPERATIONS)), labels == expected)
        _require(
            np.all(fits, axis=1),
            lambda row: f"cell in row {row}: {_labels_fault(operations[row], OPERATIONS)}",
        )

        raw = np.zeros((len(vertices), _GENES), dtype=np.int8)
        raw[:, :_EDGES][last >= _TARGETS] = np.frombuffer("".join(adjacency).encode(), np.uint8) - ord("0")
        raw[:, _EDGES:] = np.where(interior, labels, ABSENT)[:, 1:-1]
        return self._checked(raw, lambda row: f"cell in row {row}")

    def to_bits(self, genotypes: Genotypes) -> tuple[list[str], list[tuple[str, ...]]]:
        """Writes cells as tables hold them; `from_bits` reads them back."""
        vertices = self.vertices(genotypes)
        adjacency = np.empty(len(genotypes), dtype=object)
        for n in range(2, MAX_VERTICES + 1):
            bits = np.ascontiguousarray(genotypes[vertices == n][:, :_EDGES][:, n > _TARGETS] + ord("0"))
            adjacency[vertices == n] = bits.view(f"S{bits.shape[1]}")[:, 0].astype(str)
        different, which = np.unique(genotypes[:, _EDGES:], axis=0, return_inverse=True)
        labels = [("input", *(OPERATIONS[op] for op in row if op != ABSENT), "output") for row in different.tolist()]
        return adjacency.tolist(), [labels[row] for row in which.reshape(-1).tolist()]

    def format(self, genotypes: Genotypes) -> list[str]:
        """Prints every cell as its labels and edges, such as `input;conv3x3;output|0-1,1-2`."""
        return [
            f"{';'.join(['input', *(_SHORT[op] for op in row[_EDGES:] if op != ABSENT), 'output'])}|"
            f"{','.join(text for text, bit in zip(_EDGE_TEXTS, row, strict=False) if bit == 1)}"
            for row in genotypes.tolist()
        ]

    def architecture(self, genotype: NDArray[np.int8]) -> Architecture:
        """One cell as a graph; its key is the official hash."""
        ops = [OPERATIONS[op] for op in genotype[_EDGES:] if op != ABSENT]
        genes = np.flatnonzero(genotype[:_EDGES])
        (text,), (key,) = self.format(genotype[None]), self.official_hash(genotype[None])
        return Architecture(("input", *ops, "output"), tuple(_PAIRS[gene] for gene in genes), text, key)

    def encode(self, genotypes: Genotypes) -> GraphBatch:
        """The cells as graphs of as many vertices as the largest of them has."""
        vertices = self.vertices(genotypes)
        labels = np.full((len(genotypes), MAX_VERTICES), PADDING, dtype=np.int8)
        labels[:, 0] = _INPUT
        labels[:, 1:-1] = genotypes[:, _EDGES:]
        labels[np.arange(len(genotypes)), vertices - 1] = _OUTPUT
        V = int(vertices.max(initial=2))
        return GraphBatch(labels[:, :V], _adjacency(genotypes)[:, :V, :V], self.vocabulary)

    def enumerate(self) -> Genotypes:
        """All cells in the authors' order: by number of vertices, then edges, then operations.

        Of isomorphic cells the first one stands for all, as in the official table. The cells are computed
        once per process, and the array is read-only.
        """
        return _cells()

    def decisions(self) -> tuple[int, ...]:
        """The 21 bits of a raw row of 7 vertices and its 5 operations."""
        return (2,) * _EDGES + (len(OPERATIONS),) * _INTERIOR

    def from_decisions(self, choices: NDArray[np.int8]) -> tuple[Genotypes, NDArray[np.bool_]]:
        """Prunes raw rows of 7 vertices; many rows spell one cell, and about a quarter of random rows none."""
        cells = self.prune(choices)
        return cells, self.valid(cells)

    def to_decisions(self, genotypes: Genotypes) -> NDArray[np.int8]:
        """The cells as raw rows of 7 vertices: the output moves to the last one, what is absent stays unconnected."""
        adjacency = _adjacency(genotypes)
        rows, output = np.arange(len(genotypes)), self.vertices(genotypes) - 1
        to_output = adjacency[rows, :, output]
        adjacency[rows, :, output] = False
        adjacency[:, :, -1] = to_output
        ops = np.maximum(genotypes[:, _EDGES:], 0)
        return np.hstack([adjacency[:, _SOURCES, _TARGETS].astype(np.int8), ops])

    def vertices(self, genotypes: Genotypes) -> NDArray[np.int64]:
        """(n,) number of vertices of every row, input and output included."""
        interior: NDArray[np.int64] = (genotypes[:, _EDGES:] != ABSENT).sum(axis=1, dtype=np.int64)
        return interior + 2

    def prune(self, raw: Genotypes) -> Genotypes:
        """Drops the vertices on no path from input to output; the others keep their order and close up.

        Raw rows are laid out as genotypes. One whose input does not reach its output comes back without any
        edge; `valid` tells which results are cells of this space.
        """
        adjacency = _adjacency(raw)
        rows = np.arange(len(raw))
        reached, reaching = np.zeros((2, len(raw), MAX_VERTICES), dtype=bool)
        reached[:, 0] = True
        reaching[rows, self.vertices(raw) - 1] = True
        # Edges lead to later vertices only, so one pass in each direction is the whole closure.
        for v in range(1, MAX_VERTICES):
            reached[:, v] = (reached[:, :v] & adjacency[:, :v, v]).any(axis=1)
        for v in range(MAX_VERTICES - 2, -1, -1):
            reaching[:, v] |= (reaching[:, v + 1 :] & adjacency[:, v, v + 1 :]).any(axis=1)
        kept = reached & reaching

        order = np.argsort(~kept, axis=1, kind="stable")
        adjacency &= kept[:, :, None] & kept[:, None, :]
        adjacency = adjacency[rows[:, None, None], order[:, :, None], order[:, None, :]]
        labels = np.full((len(raw), MAX_VERTICES), ABSENT, dtype=np.int8)
        labels[:, 1:-1] = np.where(kept[:, 1:-1], raw[:, _EDGES:], ABSENT)
        labels = np.take_along_axis(labels, order, axis=1)
        return np.hstack([adjacency[:, _SOURCES, _TARGETS].astype(np.int8), labels[:, 1:-1]])

    def valid(self, pruned: Genotypes) -> NDArray[np.bool_]:
        """(n,) whether a row that `prune` returned is a cell: input connected to output, 9 edges at most."""
        edges: NDArray[np.int64] = pruned[:, :_EDGES].sum(axis=1, dtype=np.int64)
        return (edges > 0) & (edges <= MAX_EDGES)

    def _checked(self, raw: Genotypes, name: Callable[[int], str]) -> Genotypes:
        """Prunes, and refuses the first row that is not a cell by its name."""
        cells = self.prune(raw)

        def fault(row: int) -> str:
            edges = np.count_nonzero(cells[row, :_EDGES])
            if edges == 0:
                return f"{name(row)}: no path leads from its input to its output; add the missing edges"
            return f"{name(row)}: {edges} edges lie on paths from input to output; keep at most {MAX_EDGES}"

        _require(self.valid(cells), fault)
        return cells


def _adjacency(cells: Genotypes) -> NDArray[np.bool_]:
    """(n, 7, 7) whether vertex i feeds vertex j."""
    adjacency = np.zeros((len(cells), MAX_VERTICES, MAX_VERTICES), dtype=bool)
    adjacency[:, _SOURCES, _TARGETS] = cells[:, :_EDGES] == 1
    return adjacency


def _rewired_or_redrawn(parents: Genotypes, rng: np.random.Generator) -> Genotypes:
    """Raw children by the rule "rewire"."""
    children = parents.copy()
    rewire = rng.random(len(parents)) < 0.5

    edge = _pick(parents[:, :_EDGES] == 1, rng)
    free = _free_sources(parents, _TARGETS[edge])
    source = _pick(free, rng)
    rows = np.flatnonzero(rewire & free.any(axis=1))
    children[rows, edge[rows]] = 0
    children[rows, _GENE[source, _TARGETS[edge]][rows]] = 1

    exists = parents[:, _EDGES:] != ABSENT
    vertex = _pick(exists, rng)
    operation = rng.integers(len(OPERATIONS), size=len(parents), dtype=np.int8)
    rows = np.flatnonzero(~rewire & exists.any(axis=1))
    children[rows, _EDGES + vertex[rows]] = operation[rows]
    return children


def _added_and_removed(parents: Genotypes, rng: np.random.Generator) -> Genotypes:
    """Raw children by the rule "add-remove"."""
    raw, present = _raw(parents, rng)
    has_interior = present[:, 1:-1].any(axis=1)
    redraw = (rng.random(len(parents)) < 0.5) & has_interior
    vertex = _pick(present[:, 1:-1], rng)
    operation = rng.integers(len(OPERATIONS), size=len(parents), dtype=np.int8)
    rows = np.flatnonzero(redraw)
    raw[rows, _EDGES + vertex[rows]] = operation[rows]

    edges = raw[:, :_EDGES] == 1
    removed, added = _pick(edges, rng), _pick(~edges, rng)
    source, target = _SOURCES[added], _TARGETS[added]
    place = np.arange(MAX_VERTICES)
    before = _pick(present & (place < source[:, None]), rng)
    behind = _pick(present & (place > target[:, None]), rng)
    everyone = np.arange(len(parents))
    rows = np.flatnonzero(~redraw)
    raw[rows, removed[rows]] = 0
    raw[rows, added[rows]] = 1
    rows = np.flatnonzero(~redraw & ~present[everyone, source])
    raw[rows, _GENE[before[rows], source[rows]]] = 1
    rows = np.flatnonzero(~redraw & ~present[everyone, target])
    raw[rows, _GENE[target[rows], behind[rows]]] = 1
    return raw


def _flipped(parents: Genotypes, rng: np.random.Generator) -> Genotypes:
    """Raw children by the rule "flip"."""
    raw, _ = _raw(parents, rng)
    raw[:, :_EDGES] ^= rng.random((len(raw), _EDGES)) < 1 / MAX_VERTICES
    redraw = rng.random((len(raw), _INTERIOR)) < 1 / _INTERIOR
    steps = rng.integers(1, len(OPERATIONS), size=redraw.shape, dtype=np.int8)
    raw[:, _EDGES:] = (raw[:, _EDGES:] + redraw * steps) % len(OPERATIONS)
    return raw


def _raw(cells: Genotypes, rng: np.random.Generator) -> tuple[Genotypes, NDArray[np.bool_]]:
    """Cells spread over raw rows of 7 vertices.

    Returns:
        (n, 26) rows that prune to the cells, and (n, 7) which of their vertices the cells have. The interior vertices
        take random places in their order; those that a cell lacks have random operations and no edge.
    """
    interior = (cells[:, _EDGES:] != ABSENT).sum(axis=1)
    rank = rng.random((len(cells), _INTERIOR)).argsort(axis=1).argsort(axis=1)
    present = np.ones((len(cells), MAX_VERTICES), dtype=bool)
    present[:, 1:-1] = rank < interior[:, None]
    origin = np.where(present, present.cumsum(axis=1) - 1, MAX_VERTICES)  # of every place; 7 where it is empty
    edges = np.zeros((len(cells), MAX_VERTICES + 1, MAX_VERTICES + 1), dtype=np.int8)
    edges[:, :-1, :-1] = _adjacency(cells)
    raw = rng.integers(len(OPERATIONS), size=(len(cells), _GENES), dtype=np.int8)
    raw[:, :_EDGES] = edges[np.arange(len(cells))[:, None], origin[:, _SOURCES], origin[:, _TARGETS]]
    taken = np.take_along_axis(cells, _EDGES - 1 + np.minimum(origin[:, 1:-1], _INTERIOR), axis=1)
    raw[:, _EDGES:] = np.where(present[:, 1:-1], taken, raw[:, _EDGES:])
    return raw, present


def _rewirings(cell: NDArray[np.int8]) -> list[Genotypes]:
    """Raw rows: every edge from every other source that it can have."""
    edges = np.flatnonzero(cell[:_EDGES])
    which, source = np.nonzero(_free_sources(np.tile(cell, (len(edges), 1)), _TARGETS[edges]))
    rewired = np.tile(cell, (len(which), 1))
    rows = np.arange(len(which))
    rewired[rows, edges[which]] = 0
    rewired[rows, _GENE[source, _TARGETS[edges[which]]]] = 1
    return [rewired]


def _redrawings(cell: NDArray[np.int8]) -> Genotypes:
    """Raw rows: every interior vertex with every operation."""
    genes = np.repeat(_EDGES + np.flatnonzero(cell[_EDGES:] != ABSENT), len(OPERATIONS))
    redrawn = np.tile(cell, (len(genes), 1))
    redrawn[np.arange(len(genes)), genes] = np.arange(len(genes)) % len(OPERATIONS)
    return redrawn


def _toggles(cell: NDArray[np.int8]) -> list[Genotypes]:
    """Raw rows: every edge between the cell's vertices flipped, and every vertex that can be put between two."""
    vertices = int(np.count_nonzero(cell[_EDGES:] != ABSENT)) + 2
    inside = np.flatnonzero(vertices > _TARGETS)
    toggled = np.tile(cell, (len(inside), 1))
    toggled[np.arange(len(inside)), inside] ^= 1
    if vertices == MAX_VERTICES:
        return [toggled]
    # the new vertex stands right before the later of its two: other places give isomorphic cells
    inserted = []
    for source, target in zip(_SOURCES[inside], _TARGETS[inside], strict=True):
        moved = np.arange(vertices) + (np.arange(vertices) >= target)
        row = np.zeros(_GENES, dtype=np.int8)
        row[_GENE[moved[_SOURCES[inside]], moved[_TARGETS[inside]]]] = cell[inside]
        row[[_GENE[source, target], _GENE[target, target + 1]]] = 1
        row[_EDGES:] = np.insert(cell[_EDGES:-1], target - 1, 0)
        inserted += [row] * len(OPERATIONS)
    grown = np.array(inserted)
    places = np.repeat(_EDGES + _TARGETS[inside] - 1, len(OPERATIONS))
    grown[np.arange(len(grown)), places] = np.tile(np.arange(len(OPERATIONS)), len(inside))
    return [toggled, grown]


def _free_sources(cells: Genotypes, targets: NDArray[np.integer]) -> NDArray[np.bool_]:
    """(n, 7) the vertices before each row's target that do not feed it."""
    feeds = np.take_along_axis(cells, _GENE.T[targets], axis=1) == 1
    free: NDArray[np.bool_] = (np.arange(MAX_VERTICES) < targets[:, None]) & ~feeds
    return free


def _pick(mask: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.intp]:
    """(n,) for every row a random column where the mask is true; meaningless in a row without one."""
    column: NDArray[np.intp] = np.where(mask, rng.random(mask.shape), -1.0).argmax(axis=1)
    return column


def _key_tables() -> NDArray[np.uint64]:
    """(4, 256, 120) what every value of every byte of `keys`' code adds to the number, for every order.

    The number's bits: 0-24 whether interior vertex a feeds b, at 5a + b; 25-29 input feeds a; 30-34 a feeds
    output; 35 input feeds output; from 36 on two bits an operation, ABSENT as 3.
    """
    to = np.array(list(permutations(range(_INTERIOR))))
    i, j = np.triu_indices(_INTERIOR, 1)
    direct, unused = np.full((2, len(to), 1), [[[35]], [[63]]])
    ops = [36 + 2 * to, 37 + 2 * to]
    places = np.hstack([5 * to[:, i] + to[:, j], 25 + to, 30 + to, direct, *ops, unused]).astype(np.uint64)
    worth = (np.uint64(1) << places).reshape(len(to), 4, 8)
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    return np.ascontiguousarray((worth @ bits.T.astype(np.uint64)).transpose(1, 2, 0))


_KEY_TABLES = _key_tables()


@lru_cache(maxsize=1)
def _cells() -> Genotypes:
    cells = np.concatenate([_cells_of(vertices) for vertices in range(2, MAX_VERTICES + 1)])
    cells.flags.writeable = False
    return cells


def _cells_of(vertices: int) -> Genotypes:
    """All cells of so many vertices.

    Isomorphs are dropped first among the graphs without operations and then among the labelled ones: the
    first graph of a class takes every labelling, so the cells that remain are the first of their classes.
    """
    space = NASBench101()
    pairs = [(i, j) for j in range(vertices) for i in range(j)]
    codes = np.arange(1 << len(pairs), dtype=np.int64)
    codes = codes[np.bitwise_count(codes) <= MAX_EDGES]
    graphs = np.zeros((len(codes), _GENES), dtype=np.int8)
    graphs[:, _GENE[tuple(np.transpose(pairs))]] = codes[:, None] >> np.arange(len(pairs)) & 1
    graphs[:, _EDGES + vertices - 2 :] = ABSENT
    graphs = space.prune(graphs)
    graphs = graphs[space.valid(graphs) & (space.vertices(graphs) == vertices)]
    graphs = _without_isomorphs(graphs)

    worth = len(OPERATIONS) ** np.arange(vertices - 3, -1, -1)
    labellings = np.arange(len(OPERATIONS) ** (vertices - 2))[:, None] // worth % len(OPERATIONS)
    cells = np.repeat(graphs, len(labellings), axis=0)
    cells[:, _EDGES : _EDGES + vertices - 2] = np.tile(labellings, (len(graphs), 1))
    return _without_isomorphs(cells)


def _without_isomorphs(cells: Genotypes) -> Genotypes:
    return cells[distinct(NASBench101().keys(cells), np.empty(0, dtype=np.uint64))]


def _hash_module(genes: list[int], vertices: int) -> str:
    """The official hash of one genotype."""
    sources: list[list[int]] = [[] for _ in range(vertices)]
    targets: list[list[int]] = [[] for _ in range(vertices)]
    for (i, j), bit in zip(_PAIRS, genes, strict=False):
        if bit:
            sources[j].append(i)
            targets[i].append(j)
    labels = [-1, *genes[_EDGES : _EDGES + vertices - 2], -2]
    V = range(vertices)
    hashes = [_md5(str((len(targets[v]), len(sources[v]), labels[v]))) for v in V]
    for _ in V:
        before = ["".join(sorted([hashes[u] for u in sources[v]])) for v in V]
        after = ["".join(sorted([hashes[u] for u in targets[v]])) for v in V]
        hashes = [_md5(f"{before[v]}|{after[v]}|{hashes[v]}") for v in V]
    return _md5(str(sorted(hashes)))


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _require(holds: NDArray[np.bool_], fault: Callable[[int], str]) -> None:
    """Raises InvalidArchitectureError with the fault of the first row where the rule does not hold."""
    if not holds.all():
        raise InvalidArchitectureError(fault(int(np.argmin(holds))))


def _read(text: str) -> list[int]:
    """The raw row of one text."""
    labels_text, bar, edges_text = text.partition("|")
    labels = labels_text.split(";")
    edges = edges_text.split(",") if edges_text else []
    fault = None if bar else f"it is not `vertices|edges`; write it as `{_EXAMPLE}`"
    fault = fault or _size_fault(len(labels)) or _labels_fault(labels, _SHORT)
    fault = fault or _edges_fault(edges, len(labels))
    if fault:
        raise InvalidArchitectureError(f"cell `{text}`: {fault}")
    ops = [_SHORT.index(label) for label in labels[1:-1]]
    return [*(int(edge in edges) for edge in _EDGE_TEXTS), *ops, *[ABSENT] * (_INTERIOR - len(ops))]


def _size_fault(vertices: int) -> str | None:
    if 2 <= vertices <= MAX_VERTICES:
        return None
    return f"it has {vertices} vertices; give it 2 to {MAX_VERTICES}, input and output included"


def _labels_fault(labels: Sequence[str], operations: Sequence[str]) -> str | None:
    if labels[0] != "input" or labels[-1] != "output":
        return f"vertices run from `{labels[0]}` to `{labels[-1]}`; begin with `input` and end with `output`"
    for label in labels[1:-1]:
        if label not in operations:
            return f"`{label}` is not an operation; use one of {', '.join(operations)}"
    return None


def _edges_fault(edges: Sequence[str], vertices: int) -> str | None:
    possible = [edge for edge, target in zip(_EDGE_TEXTS, _TARGETS, strict=True) if target < vertices]
    for edge in edges:
        if edge not in possible:
            return (
                f"`{edge}` is not an edge from an earlier to a later of its vertices 0 to {vertices - 1}; "
                f"use one of {', '.join(possible)}"
            )
        if edges.count(edge) > 1:
            return f"edge `{edge}` is given {edges.count(edge)} times; give it once"
    return None
