"""Hand-made features of NAS-Bench-101 cells: counts of paths, edges, degrees and operations.

None of them is an adjacency or a vertex label as graph networks see them, so a regression on them makes an
objective that is not of the family of the predictors that are to find its optimum.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from bonas_core.spaces.base import Genotypes
from bonas_core.spaces.nasbench101 import MAX_VERTICES, OPERATIONS, NASBench101

_OPS = len(OPERATIONS)
_INTERIOR = MAX_VERTICES - 2
_INPUT, _OUTPUT = _OPS, _OPS + 1
_PATH_STARTS = np.cumsum([0, *(_OPS**length for length in range(_INTERIOR + 1))])
"""First column of the paths through 0, 1, ... 5 interior vertices; the last entry is the number of columns."""
_PATHS = [path for length in range(_INTERIOR + 1) for path in combinations(range(1, MAX_VERTICES - 1), length)]

COUNT = int(_PATH_STARTS[-1]) + (_OPS + 1) ** 2 + 2 * _OPS + 2 + _OPS + 3
"""Number of features."""


def features(cells: Genotypes) -> NDArray[np.float32]:
    """(n, COUNT) the features of every cell.

    In this order: number of paths from input to output by their sequence of operations (364); number of edges by the
    labels of source (an operation or input) and target (an operation or output) (16); edges into and out of all
    vertices of an operation (6); edges out of the input and into the output (2); vertices of each operation (3);
    vertices, edges, and edges of the longest path (3).
    """
    graphs = NASBench101().encode(cells)
    adjacency, labels = np.zeros((len(cells), MAX_VERTICES, MAX_VERTICES), dtype=bool), np.full((len(cells), 7), -1)
    V = graphs.labels.shape[1]
    adjacency[:, :V, :V], labels[:, :V] = graphs.adjacency, graphs.labels
    rows, output = np.arange(len(cells)), (labels == _OUTPUT).argmax(axis=1)
    to_output = adjacency[rows, :, output]

    paths = np.zeros((len(cells), _PATH_STARTS[-1]), dtype=np.float32)
    longest = np.zeros(len(cells), dtype=np.float32)
    for path in _PATHS:
        steps = [0, *path]
        there = to_output[:, steps[-1]].copy()
        for source, target in zip(steps, path, strict=False):
            there &= adjacency[:, source, target] & (output > target)
        code = np.zeros(len(cells), dtype=np.int64)
        for vertex in path:
            code = code * _OPS + labels[:, vertex]
        found = np.flatnonzero(there)
        paths[found, _PATH_STARTS[len(path)] + code[found]] += 1
        longest[found] = np.maximum(longest[found], len(path) + 1)

    one_hot = (labels[:, :, None] == np.arange(_OPS + 2)).astype(np.float32)
    edges = adjacency.astype(np.float32)
    pairs = np.einsum("nia,nij,njb->nab", one_hot, edges, one_hot, optimize=True)
    into, out_of = pairs.sum(axis=1), pairs.sum(axis=2)
    parts = [
        paths,
        pairs[:, : _OPS + 1, [*range(_OPS), _OUTPUT]].reshape(len(cells), -1),
        into[:, :_OPS],
        out_of[:, :_OPS],
        out_of[:, [_INPUT]],
        into[:, [_OUTPUT]],
        one_hot.sum(axis=1)[:, :_OPS],
        (labels >= 0).sum(axis=1)[:, None],
        edges.sum(axis=(1, 2))[:, None],
        longest[:, None],
    ]
    return np.hstack(parts).astype(np.float32)
