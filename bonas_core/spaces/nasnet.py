"""The NASNet search space as DARTS has it (Zoph et al. 2018; Liu et al., ICLR 2019; BONAS paper, appendix A.2).

A cell has two inputs, source 0 the output of the cell before the previous one and source 1 that of the previous one,
and B blocks, sources 2 to B + 1 in their order. A block is the sum of two *terms*, each an operation on an earlier
source; the cell's output is the concatenation of all blocks. BONAS searches one cell that serves at normal and at
reduction positions; with two cells the first is the normal one.

A genotype holds four genes a block, (operation, source) of its two terms, block by block and cell by cell. The
operation `none` contributes zeros whatever it is applied to: its source is always stored as 0.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bonas_core.errors import InputError, InvalidArchitectureError, SettingsError
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import Genotypes, Keys, distinct
from bonas_core.spaces.encoding import GraphBatch

OPERATIONS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""The eight of appendix A.2, under the names that DARTS gave them."""
MAX_BLOCKS = 7
"""The most blocks of which one cell's canonical form still fits into a 64-bit key."""

Term = tuple[str, int]
"""An operation and the source that it is applied to."""

_REAL = len(OPERATIONS) - 1  # operations that are not none
_TRIES = 64  # mutations tried before a parent comes back unchanged
_ROWS = 16_384  # per pass of the canonical form, so that its intermediate arrays stay small
_TOP = np.iinfo(np.int64).max
_EXAMPLE = (
    "|sep_conv_3x3~0|sep_conv_3x3~1|+|sep_conv_3x3~0|skip_connect~2|+|max_pool_3x3~1|none~0|+|skip_connect~0"
    "|dil_conv_3x3~2|"
)


@dataclass(frozen=True)
class Cell:
    """One cell: of the space, or a published one with other operations, more terms, or another concatenation."""

    blocks: tuple[tuple[Term, ...], ...]
    """The terms of every block; sources count from 0, the older input, over 1, the newer, to the blocks."""
    concat: tuple[int, ...]
    """The sources that are concatenated into the output."""


class NASNet:
    """Cells of B blocks with two terms each; cells are the same if renaming blocks makes them so.

    Two cells that differ in the order of blocks or of the terms of a block, or in the source of a `none`, compute the
    same function up to the order of channels: they have equal keys. Keys of one cell are exact numbers of its canonical
    form. Those of two cells are hashed: different pairs agree with a chance of 2^-64.

    Args:
        blocks: B, from 1 to 7.
        cells: 1 for one cell at all positions, 2 for a normal and a reduction cell.

    Raises:
        SettingsError: there are no such cells.
    """

    encoding_version = 1
    positional = False
    size: int | None = None

    def __init__(self, blocks: int = 4, cells: int = 1) -> None:
        if not 1 <= blocks <= MAX_BLOCKS or cells not in (1, 2):
            raise SettingsError(
                f"space nasnet: {cells} cells of {blocks} blocks are none of its sizes; use 1 or 2 cells of 1 to "
                f"{MAX_BLOCKS} blocks"
            )
        self.blocks = blocks
        self.cells = cells
        self.name = "nasnet" + (f"-{blocks}-blocks" if blocks != 4 else "") + ("-two-cells" if cells == 2 else "")
        inputs = ("reduction-input", "reduction-older-input") if cells == 2 else ()
        self.vocabulary: tuple[str, ...] = (*OPERATIONS, "input", "older-input", "output", *inputs)
        self._sources = np.tile(np.repeat(np.arange(2, blocks + 2), 2), cells)
        """(terms,) number of sources that each term can have."""

    def sample(self, count: int, rng: np.random.Generator) -> Genotypes:
        """Draws operations and sources of all terms uniformly, until the cells are valid."""
        found = np.empty((0, self._genes), dtype=np.int8)
        while len(found) < count:
            terms = np.empty((count, len(self._sources), 2), dtype=np.int8)
            terms[..., 0] = rng.integers(len(OPERATIONS), size=terms.shape[:2])
            terms[..., 1] = rng.random(terms.shape[:2]) * self._sources
            drawn = _normal(terms)
            found = np.concatenate([found, drawn[self.valid(drawn)]])
        return found[:count]

    def mutate(self, parents: Genotypes, rng: np.random.Generator) -> Genotypes:
        """Draws the operation of one term anew or gives one term another source, with equal chance (paper section 3.3).

        An operation drawn anew may be the old one. A term that was `none` takes a random source with its operation. A
        child that is not valid is drawn again, at most 64 times; the parent comes back if none was.
        """
        children = parents.copy()
        rows = np.arange(len(parents))
        for _ in range(_TRIES):
            if not len(rows):
                break
            drawn = self._changed(parents[rows], rng)
            valid = self.valid(drawn)
            children[rows[valid]] = drawn[valid]
            rows = rows[~valid]
        return children

    def _changed(self, parents: Genotypes, rng: np.random.Generator) -> Genotypes:
        n, T = len(parents), len(self._sources)
        terms = self._terms(parents).copy()
        redraw = rng.random(n) < 0.5
        live = terms[..., 0] != 0
        # a valid cell has a term that is not none; one such term is rewired
        term = np.where(redraw, rng.integers(T, size=n), np.where(live, rng.random((n, T)), -1.0).argmax(axis=1))
        rows = np.arange(n)
        operation, source = terms[rows, term].T
        sources = self._sources[term]
        other = (source + 1 + (rng.random(n) * (sources - 1)).astype(np.int64)) % sources
        anew = (rng.random(n) * sources).astype(np.int64)
        terms[rows, term, 0] = np.where(redraw, rng.integers(len(OPERATIONS), size=n), operation)
        terms[rows, term, 1] = np.where(redraw, np.where(operation == 0, anew, source), other)
        return _normal(terms)

    def neighbours(self, genotype: NDArray[np.int8]) -> Genotypes:
        """The other valid cells that differ in the operation or in the source of one term.

        A `none` may become any operation on any source.
        """
        terms = self._terms(genotype[None])[0]
        operations = np.arange(len(OPERATIONS))
        changed = []
        for t, sources in enumerate(self._sources.tolist()):
            every = np.stack(np.meshgrid(operations, np.arange(sources), indexing="ij"), axis=-1).reshape(-1, 2)
            kept = (every == terms[t]).any(axis=1) | (every[:, 0] == 0) | bool(terms[t, 0] == 0)
            cells = np.tile(terms, (int(kept.sum()), 1, 1))
            cells[:, t] = every[kept]
            changed.append(_normal(cells))
        found = np.concatenate(changed)
        found = found[self.valid(found)]
        return found[distinct(self.keys(found), self.keys(genotype[None]))]

    def keys(self, genotypes: Genotypes) -> Keys:
        """The number of every canonical form."""
        numbers = self._canonical(genotypes).astype(np.uint64) @ _place_values(self.blocks)  # (n, cells)
        if self.cells == 1:
            return numbers[:, 0]
        # both steps are one-to-one: cells that differ in only one of the two never agree
        return _mixed(_mixed(numbers[:, 0] + _ODD) ^ numbers[:, 1])

    def canonical(self, genotypes: Genotypes) -> Genotypes:
        """The one genotype that stands for all those of equal key."""
        high, low = _PAIRS[self._canonical(genotypes)].transpose(3, 0, 1, 2)
        codes = np.stack([low, high], axis=-1)  # (n, cells, blocks, 2)
        terms = np.stack([(codes - 1) % _REAL + 1, (codes - 1) // _REAL], axis=-1)
        return np.where(codes[..., None] == 0, 0, terms).astype(np.int8).reshape(len(genotypes), -1)

    def valid(self, genotypes: Genotypes) -> NDArray[np.bool_]:
        """(n,) whether in every cell something leads from an input to the output."""
        terms = self._terms(genotypes).reshape(len(genotypes), self.cells, self.blocks, 2, 2)
        fed = np.ones((len(genotypes), self.cells, self.blocks + 2), dtype=bool)
        for block in range(self.blocks):
            operation, source = terms[:, :, block, :, 0], terms[:, :, block, :, 1]
            fed[:, :, 2 + block] = ((operation != 0) & np.take_along_axis(fed, source, axis=2)).any(axis=2)
        return np.asarray(np.all(np.any(fed[:, :, 2:], axis=2), axis=1))

    def parse(self, texts: Sequence[str]) -> Genotypes:
        """Reads cells as `format` prints them."""
        rows = [self.from_cells(read_cells(text, self._example()), f"cell `{text}`") for text in texts]
        return np.array(rows, dtype=np.int8).reshape(-1, self._genes)

    def format(self, genotypes: Genotypes) -> list[str]:
        """Prints every block as `|operation~source|operation~source|`, blocks joined by `+`, two cells by `;`."""
        return [
            ";".join("+".join(_block_text(block) for block in cell.blocks) for cell in self.to_cells(row))
            for row in genotypes
        ]

    def to_cells(self, genotype: NDArray[np.int8]) -> tuple[Cell, ...]:
        """The cells of one row: one, or the normal and the reduction cell."""
        terms = [(OPERATIONS[operation], source) for operation, source in genotype.reshape(-1, 2).tolist()]
        blocks = [tuple(terms[t : t + 2]) for t in range(0, len(terms), 2)]
        B = self.blocks
        concat = tuple(range(2, B + 2))
        return tuple(Cell(tuple(blocks[b : b + B]), concat) for b in range(0, len(blocks), B))

    def from_cells(self, cells: Sequence[Cell], what: str = "architecture") -> NDArray[np.int8]:
        """(genes,) the genotype of cells.

        Args:
            cells: as many as the space has.
            what: names them in messages.

        Raises:
            InvalidArchitectureError: they are not of this space; the message says which rule they break.
        """
        if len(cells) != self.cells:
            raise InvalidArchitectureError(
                f"{what}: has {len(cells)} cells, space {self.name} has {self.cells}; write it as `{self._example()}`"
            )
        for cell in cells:
            fault = self._fault(cell)
            if fault:
                raise InvalidArchitectureError(f"{what}: {fault}")
        genes = [
            [OPERATIONS.index(operation), source]
            for cell in cells
            for block in cell.blocks
            for operation, source in block
        ]
        genotype: NDArray[np.int8] = _normal(np.array(genes, dtype=np.int8).reshape(1, -1, 2))[0]
        if not self.valid(genotype[None])[0]:
            raise InvalidArchitectureError(
                f"{what}: nothing leads from the inputs of a cell to its output; put an operation other than none on "
                "source 0 or 1"
            )
        return genotype

    def architecture(self, genotype: NDArray[np.int8]) -> Architecture:
        """One row as a graph; its key is the text of the canonical form."""
        labels, adjacency = self._graphs(genotype[None])
        edges = tuple((int(i), int(j)) for i, j in np.argwhere(adjacency[0]))
        (text,), (key,) = self.format(genotype[None]), self.format(self.canonical(genotype[None]))
        return Architecture(tuple(self.vocabulary[label] for label in labels[0]), edges, text, key)

    def encode(self, genotypes: Genotypes) -> GraphBatch:
        """The canonical forms as graphs, equal for cells of equal key: the inputs, a vertex for every term, the output.

        A term on a block is fed by both terms of that block, and every term feeds the output; `none` is fed by nothing.
        Of two cells the inputs have labels of their own, and the output is shared.
        """
        labels, adjacency = self._graphs(self.canonical(genotypes))
        return GraphBatch(labels, adjacency, self.vocabulary)

    def enumerate(self) -> Genotypes:
        """Raises InputError, since there are too many cells to list."""
        raise InputError(f"space {self.name} is too large to enumerate; use method.sampler evolution or random")

    def decisions(self) -> tuple[int, ...]:
        """Source and operation of every term."""
        return tuple(choices for sources in self._sources.tolist() for choices in (sources, len(OPERATIONS)))

    def from_decisions(self, choices: NDArray[np.int8]) -> tuple[Genotypes, NDArray[np.bool_]]:
        """Turns the source and the operation of every term into genotypes, and says which of them are valid cells."""
        genotypes = _normal(self._terms(choices)[..., ::-1])
        return genotypes, self.valid(genotypes)

    def to_decisions(self, genotypes: Genotypes) -> NDArray[np.int8]:
        """Spells every term as its source and its operation, in this order."""
        return np.ascontiguousarray(self._terms(genotypes)[..., ::-1]).reshape(genotypes.shape)

    @property
    def _genes(self) -> int:
        return 2 * len(self._sources)

    def _terms(self, genotypes: Genotypes) -> Genotypes:
        """(n, terms, 2) the operation and the source of every term."""
        return genotypes.reshape(len(genotypes), -1, 2)

    def _canonical(self, genotypes: Genotypes) -> NDArray[np.int64]:
        """(n, cells, blocks) the pair of terms of every block in the canonical form."""
        cells = genotypes.reshape(-1, self.blocks, 2, 2)
        parts = [_smallest_spelling(cells[start : start + _ROWS]) for start in range(0, len(cells), _ROWS)]
        found = np.concatenate([np.empty((0, self.blocks), dtype=np.int64), *parts])
        return found.reshape(len(genotypes), self.cells, self.blocks)

    def _graphs(self, genotypes: Genotypes) -> tuple[NDArray[np.int8], NDArray[np.bool_]]:
        """Labels (n, V) and adjacency (n, V, V), vertices in the order of the rows' own terms."""
        n, T = len(genotypes), len(self._sources)
        terms = self._terms(genotypes)
        first = 2 * self.cells  # vertex of the first term
        vertices = first + T + 1
        labels = np.empty((n, vertices), dtype=np.int8)
        inputs = ("older-input", "input", "reduction-older-input", "reduction-input")[:first]
        labels[:, :first] = [self.vocabulary.index(label) for label in inputs]
        labels[:, first:-1] = terms[..., 0]
        labels[:, -1] = self.vocabulary.index("output")
        adjacency = np.zeros((n, vertices, vertices), dtype=bool)
        adjacency[:, first:-1, -1] = True
        cell = np.arange(T) // (2 * self.blocks)
        row, term = np.nonzero(terms[..., 0])
        source = terms[row, term, 1].astype(np.int64)
        for member in (0, 1):  # of the block that is the source
            vertex = first + cell[term] * 2 * self.blocks + 2 * (source - 2) + member
            adjacency[row, np.where(source < 2, 2 * cell[term] + source, vertex), first + term] = True
        return labels, adjacency

    def _example(self) -> str:
        groups = _EXAMPLE.split("+")
        cell = "+".join((groups + [groups[0]] * MAX_BLOCKS)[: self.blocks])
        return ";".join([cell] * self.cells)

    def _fault(self, cell: Cell) -> str | None:
        """The rule of the space that a cell breaks, and the remedy."""
        if len(cell.blocks) != self.blocks:
            return f"a cell has {len(cell.blocks)} blocks, in space {self.name} it has {self.blocks}; change the space"
        if sorted(cell.concat) != list(range(2, self.blocks + 2)):
            return f"it concatenates sources {list(cell.concat)}; cells of this space concatenate all blocks"
        for number, block in enumerate(cell.blocks):
            if len(block) != 2:
                return f"block {number} has {len(block)} terms; give it 2"
            for operation, source in block:
                if operation not in OPERATIONS:
                    return f"`{operation}` is not an operation; use one of {', '.join(OPERATIONS)}"
                if not 0 <= source < number + 2:
                    return f"block {number} has source {source}; its sources are 0 to {number + 1}"
        return None


FIVE_BLOCKS = partial(NASNet, 5)
SEVEN_BLOCKS = partial(NASNet, 7)
TWO_CELLS = partial(NASNet, 4, 2)
FIVE_BLOCKS_TWO_CELLS = partial(NASNet, 5, 2)
SEVEN_BLOCKS_TWO_CELLS = partial(NASNet, 7, 2)


def read_cells(text: str, example: str = _EXAMPLE) -> list[Cell]:
    """What a text spells, as far as it has the form of cells: any operations, any number of terms and blocks.

    Args:
        text: as `NASNet.format` prints cells; or as `format_cells` does.
        example: a text of the right form, for messages.

    Raises:
        InvalidArchitectureError: it has not that form.
    """
    cells = []
    for cell_text in text.strip().split(";"):
        blocks = []
        blocks_text, _, concat = cell_text.partition(">")
        for number, group in enumerate(blocks_text.split("+")):
            terms = []
            for item in group.strip().strip("|").split("|"):
                match = re.fullmatch(r"(\w+)~(\d{1,3})", item)
                if match is None:
                    raise InvalidArchitectureError(
                        f"cell `{text}`: `{item}` of block {number} is not `operation~source`; write it as `{example}`"
                    )
                terms.append((match[1], int(match[2])))
            blocks.append(tuple(terms))
        if concat and not re.fullmatch(r"\d{1,3}(,\d{1,3})*", concat):
            raise InvalidArchitectureError(
                f"cell `{text}`: `>{concat}` does not say which sources are concatenated; write them as `>2,3,5`"
            )
        sources = map(int, concat.split(",")) if concat else range(2, len(blocks) + 2)
        cells.append(Cell(tuple(blocks), tuple(sources)))
    return cells


def format_cells(cells: Sequence[Cell]) -> str:
    """Prints cells of any kind as `read_cells` reads them.

    The form is that in which a space prints its own, with `>2,3,5` behind a cell that does not concatenate all blocks.
    """
    texts = []
    for cell in cells:
        everything = cell.concat == tuple(range(2, len(cell.blocks) + 2))
        concat = "" if everything else ">" + ",".join(map(str, cell.concat))
        texts.append("+".join(map(_block_text, cell.blocks)) + concat)
    return ";".join(texts)


def cell_graph(cells: Sequence[Cell]) -> Architecture:
    """Cells of any kind as a graph like those of a space; its key is their text."""
    labels: list[str] = []
    edges: list[tuple[int, int]] = []
    outputs: list[int] = []
    for prefix, cell in zip(("", "reduction-"), cells, strict=False):
        feeding = [[len(labels)], [len(labels) + 1]]  # vertices of every source
        labels += [f"{prefix}older-input", f"{prefix}input"]
        for block in cell.blocks:
            vertices = range(len(labels), len(labels) + len(block))
            for vertex, (operation, source) in zip(vertices, block, strict=True):
                labels.append(operation)
                edges += [(origin, vertex) for origin in feeding[source] if operation != "none"]
            feeding.append(list(vertices))
        outputs += [vertex for source in cell.concat for vertex in feeding[source]]
    edges += [(vertex, len(labels)) for vertex in outputs]
    text = format_cells(cells)
    return Architecture((*labels, "output"), tuple(edges), text, text)


def _block_text(block: Sequence[Term]) -> str:
    return "|" + "|".join(f"{operation}~{source}" for operation, source in block) + "|"


def _normal(terms: NDArray[np.int8]) -> Genotypes:
    """Genotypes of (n, terms, 2) operations and sources, `none` with source 0."""
    normal = terms.copy()
    normal[..., 1][terms[..., 0] == 0] = 0
    return normal.reshape(len(terms), -1)


def _smallest_spelling(cells: NDArray[np.int8]) -> NDArray[np.int64]:
    """The lexicographically smallest of all spellings of cells, over the orders of blocks that put sources first.

    A term is spelt 0 if it is none, else 1 + 7 * source + operation - 1; a block is the number of its unordered pair of
    terms. Orders are grown block by block, all rows at once. A row keeps every partial order that spells the smallest
    so far; more than one remains only where blocks are alike up to who uses them. Of blocks that are alike and that
    no other block uses, any order gives the same cell: the first goes first.

    Args:
        cells: (n, B, 2, 2) operation and source of every term.

    Returns:
        (n, B) the pair of every block.
    """
    n, B = cells.shape[:2]
    operations, sources = cells[..., 0].astype(np.int64), cells[..., 1].astype(np.int64)
    live = operations != 0
    used = np.zeros((n, B + 2), dtype=bool)
    used[np.nonzero(live)[0], sources[live]] = True
    spelling = np.empty((n, B), dtype=np.int64)

    row = np.arange(n)
    place = np.full((n, B + 2), -1, dtype=np.int64)  # the new number of every source; -1 until it has one
    place[:, :2] = 0, 1
    for step in range(B):
        on = place[np.arange(len(row))[:, None, None], sources[row]]
        ready = ((on >= 0) | ~live[row]).all(axis=2) & (place[:, 2:] < 0)
        term = np.where(live[row], 1 + _REAL * on + operations[row] - 1, 0)
        high, low = term.max(axis=2), term.min(axis=2)
        pair = np.where(ready, high * (high + 1) // 2 + low, _TOP)
        first_state = np.flatnonzero(np.diff(row, prepend=-1))
        smallest = np.minimum.reduceat(pair.min(axis=1), first_state)
        spelling[:, step] = smallest
        chosen = pair == smallest[row][:, None]
        last = chosen & ~used[row, 2:]
        chosen &= ~last | (last.cumsum(axis=1) == 1)
        state, block = np.nonzero(chosen)
        row, place = row[state], place[state]
        place[np.arange(len(row)), 2 + block] = 2 + step
    return spelling


def _place_values(blocks: int) -> NDArray[np.uint64]:
    """(blocks,) what the pair of every block counts in the number of a canonical form."""
    terms = [1 + _REAL * (block + 2) for block in range(blocks)]
    pairs = [count * (count + 1) // 2 for count in terms]
    values = [1]
    for count in pairs[:-1]:
        values.append(values[-1] * count)
    assert values[-1] * pairs[-1] < 2**64
    return np.array(values, dtype=np.uint64)


_MOST_TERMS = 1 + _REAL * (MAX_BLOCKS + 1)
_PAIRS = np.stack(np.tril_indices(_MOST_TERMS), axis=-1)
"""(pairs, 2) the larger and the smaller term of every pair, in the order of their numbers."""

_ODD = np.uint64(0x9E3779B97F4A7C15)


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A one-to-one scrambling of 64-bit numbers (the finaliser of SplitMix64, Steele et al. 2014)."""
    mixed = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
