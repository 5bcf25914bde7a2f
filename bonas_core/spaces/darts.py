"""Cells of the NASNet space in the notations of others: DARTS genotypes and NAS-Bench-301 configurations.

DARTS (Liu et al., ICLR 2019) writes `Genotype(normal=[(operation, source), ...], normal_concat=[...], reduce=...,
reduce_concat=...)`, two terms a block. NAS-Bench-301 (Zela et al., ICLR 2022) numbers the edges from every earlier
source to every block of DARTS's four and gives operations to two of each block's: its cells have two different sources
a block and no `none`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from itertools import combinations

from bonas_core.errors import InvalidArchitectureError, first_line
from bonas_core.spaces.nasnet import Cell, Term

_FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")
_PREFIX = "NetworkSelectorDatasetInfo:darts:"
_BLOCKS = 4  # of NAS-Bench-301
_EXAMPLE = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('skip_connect', 1), ...], normal_concat=[2, 3, 4, 5], reduce=[...], "
    "reduce_concat=[2, 3, 4, 5])"
)


def write_genotype(cells: Sequence[Cell]) -> str:
    """A DARTS genotype as Python text; one cell stands at both positions.

    Example:
        >>> write_genotype([Cell(((("skip_connect", 0), ("none", 1)),), (2,))])  # doctest: +ELLIPSIS
        "Genotype(normal=[('skip_connect', 0), ('none', 1)], normal_concat=[2], reduce=[('skip_connect', 0), ..."
    """
    normal, reduce = cells[0], cells[-1]
    values = (
        [term for block in normal.blocks for term in block],
        list(normal.concat),
        [term for block in reduce.blocks for term in block],
        list(reduce.concat),
    )
    return "Genotype(" + ", ".join(f"{name}={value!r}" for name, value in zip(_FIELDS, values, strict=True)) + ")"


def read_genotype(text: str) -> tuple[Cell, Cell]:
    """The normal and the reduction cell of a DARTS genotype as Python prints or spells it; nothing is executed.

    Raises:
        InvalidArchitectureError: it is not such a text.
    """
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call):
            raise ValueError("it is not a call of Genotype")
        fields = dict(zip(_FIELDS, call.args, strict=False)) | {str(word.arg): word.value for word in call.keywords}
        if set(fields) != set(_FIELDS):
            raise ValueError(f"its fields are {', '.join(fields) or 'none'}, not {', '.join(_FIELDS)}")
        normal, reduce = (_cell(_terms(fields[name]), _numbers(fields[f"{name}_concat"])) for name in _FIELDS[::2])
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError) as error:
        reason = first_line(error)
        raise InvalidArchitectureError(f"genotype `{text[:200]}`: {reason}; write it as `{_EXAMPLE}`") from None
    return normal, reduce


def write_configuration(cells: Sequence[Cell]) -> dict[str, str]:
    """The part of a NAS-Bench-301 configuration that says what the cells are.

    Raises:
        InvalidArchitectureError: the benchmark has no such cells.
    """
    configuration = {}
    for name, cell in zip(("normal", "reduce"), (cells[0], cells[-1]), strict=True):
        if len(cell.blocks) != _BLOCKS:
            raise InvalidArchitectureError(
                f"{name} cell: NAS-Bench-301 has cells of {_BLOCKS} blocks, this one has {len(cell.blocks)}; use the "
                "space nasnet or nasnet-two-cells"
            )
        for number, block in enumerate(cell.blocks):
            if len({source for _, source in block}) != 2 or any(operation == "none" for operation, _ in block):
                raise InvalidArchitectureError(
                    f"{name} cell: block {number} is {block}, NAS-Bench-301 has two different sources a block and no "
                    "none; change that block"
                )
            if number > 0:
                sources = sorted(source for _, source in block)
                configuration[f"{_PREFIX}inputs_node_{name}_{number + 2}"] = "_".join(map(str, sources))
            for operation, source in block:
                configuration[f"{_PREFIX}edge_{name}_{_first_edge(number) + source}"] = operation
    return configuration


def read_configuration(configuration: Mapping[str, object]) -> tuple[Cell, Cell]:
    """The normal and the reduction cell of a NAS-Bench-301 configuration; its other entries are ignored.

    Raises:
        InvalidArchitectureError: an entry is missing or wrong.
    """
    cells = []
    for name in ("normal", "reduce"):
        blocks = []
        for number in range(_BLOCKS):
            entry = f"{_PREFIX}inputs_node_{name}_{number + 2}"
            inputs = "0_1" if number == 0 else str(configuration.get(entry))
            known = {f"{a}_{b}": (a, b) for a, b in combinations(range(number + 2), 2)}
            if inputs not in known:
                raise InvalidArchitectureError(
                    f"configuration: `{entry}` is `{inputs}`; give it one of {', '.join(known)}"
                )
            blocks.append(tuple(_edge(configuration, name, number, source) for source in known[inputs]))
        cells.append(Cell(tuple(blocks), tuple(range(2, _BLOCKS + 2))))
    return cells[0], cells[1]


def _edge(configuration: Mapping[str, object], name: str, number: int, source: int) -> Term:
    entry = f"{_PREFIX}edge_{name}_{_first_edge(number) + source}"
    operation = configuration.get(entry)
    if not isinstance(operation, str):
        raise InvalidArchitectureError(
            f"configuration: `{entry}` is missing, block {number} has source {source}; give that edge an operation"
        )
    return operation, source


def _first_edge(block: int) -> int:
    """Number of the edge from source 0 to a block."""
    return block * (block + 3) // 2


def _cell(terms: Sequence[Term], concat: Sequence[int]) -> Cell:
    if len(terms) % 2:
        raise ValueError(f"a cell has {len(terms)} terms, which is not two a block")
    return Cell(tuple(tuple(terms[t : t + 2]) for t in range(0, len(terms), 2)), tuple(concat))


def _terms(node: ast.expr) -> list[Term]:
    found = ast.literal_eval(node)
    if not isinstance(found, list | tuple):
        raise ValueError("terms are not a list")
    for term in found:
        if not (
            isinstance(term, tuple | list) and len(term) == 2 and isinstance(term[0], str) and type(term[1]) is int
        ):
            raise ValueError(f"{term!r} is not a pair of operation and source")
    return [(term[0], term[1]) for term in found]


def _numbers(node: ast.expr) -> list[int]:
    """A list of numbers, or a range as DARTS writes it."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "range":
        bounds = [ast.literal_eval(bound) for bound in node.args]
        if not bounds or any(type(bound) is not int or not 0 <= bound <= 1000 for bound in bounds):
            raise ValueError("the bounds of a range are not small numbers")
        return list(range(*bounds))
    found = list(ast.literal_eval(node))
    if any(type(number) is not int for number in found):
        raise ValueError("a concatenation is not a list of numbers")
    return found
