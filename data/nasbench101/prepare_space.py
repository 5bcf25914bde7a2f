"""Prepares `nasbench101-space`: all 423,624 cells with their official hashes, to join them with tables of hashes.

Columns, in the order of the enumeration: `edges`, the 21 bits above the diagonal of the 7 x 7 matrix as a number, the
first one lowest; `operations`, two bits a vertex from vertex 1 on, 3 where the cell has none; `hash`, 16 bytes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from bonas_core.errors import TableError
from bonas_core.spaces.base import Genotypes
from bonas_core.spaces.nasbench101 import ABSENT, NASBench101
from data import prepared
from data.nasbench101.prepare import HASHES_CHECKED, check_hashes

SOURCE = None
_COMMAND = "bonas data prepare nasbench101-space"
_EDGES, _OPERATIONS, _NO_VERTEX = 21, 5, 3


def prepare(target: Path) -> str:
    """Enumerates the space, computes all hashes (about a minute) and writes the table."""
    space = NASBench101()
    cells = space.enumerate()
    hashes = pa.array([bytes.fromhex(text) for text in space.official_hash(cells)], pa.binary(16))
    table = pa.table({**_packed(cells), "hash": hashes})
    prepared.write(target, table, {"cells_by_vertices": _count(cells)})
    return f"{target}: {_summary(cells)}"


def check(target: Path) -> str:
    """Checks the table against its digest, the enumeration, and a sample of the hashes.

    Raises:
        TableError: it is missing or not what was written.
    """
    table, described = prepared.read(target, _COMMAND)
    cells = genotypes(table)
    if described.get("cells_by_vertices") != _count(cells) or not np.array_equal(cells, NASBench101().enumerate()):
        raise TableError(f"table `{target}` does not hold the cells of the space in their order; prepare it again")
    check_hashes(cells, [digest.hex() for digest in table["hash"].to_pylist()], f"table `{target}`")
    return f"{target}: {_summary(cells)}, as prepared; {HASHES_CHECKED} hashes computed again"


def genotypes(table: pa.Table) -> Genotypes:
    """Reads the cells of the table."""
    edges = table["edges"].to_numpy()[:, None] >> np.arange(_EDGES) & 1
    operations = table["operations"].to_numpy()[:, None] >> 2 * np.arange(_OPERATIONS) & 3
    return np.hstack([edges, np.where(operations == _NO_VERTEX, ABSENT, operations)]).astype(np.int8)


def _packed(cells: Genotypes) -> dict[str, pa.Array]:
    operations = np.where(cells[:, _EDGES:] == ABSENT, _NO_VERTEX, cells[:, _EDGES:]).astype(np.int64)
    return {
        "edges": pa.array((cells[:, :_EDGES].astype(np.int64) << np.arange(_EDGES)).sum(axis=1), pa.int32()),
        "operations": pa.array((operations << 2 * np.arange(_OPERATIONS)).sum(axis=1), pa.int16()),
    }


def _count(cells: Genotypes) -> dict[str, int]:
    vertices, counts = np.unique(NASBench101().vertices(cells), return_counts=True)
    return {str(n): int(count) for n, count in zip(vertices, counts, strict=True)}


def _summary(cells: Genotypes) -> str:
    sizes = ", ".join(f"{count} of {n}" for n, count in _count(cells).items())
    return f"{len(cells)} cells ({sizes} vertices)"
