"""Path encoding: which sequences of operations lead from the input of a graph to its output.

It is the encoding of White et al. 2021, "BANANAS".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bonas_core.spaces.encoding import GraphBatch

ENDS = ("input", "output")
"""Labels of vertices that are no operation; they stand at the ends of paths."""


def path_encoding(graphs: GraphBatch, longest: int, shortest: int = 0, counts: bool = False) -> NDArray[np.float32]:
    """One column for every sequence of `shortest` to `longest` operations.

    Paths run from the vertices that nothing feeds to those that feed nothing. Columns are ordered by length, and within
    one length by the operations' places in the vocabulary, the first operation counting most: the first columns are the
    shortest paths. With k operations there are k^l columns of length l; for the cells of NAS-Bench-101 that
    makes 364 in all, and 40 up to length 3, where the paper truncates.

    NAS-Bench-201 has the same four paths in every cell, of 1, 2, 2 and 3 edges, and `none` counts as an operation on
    them, as in NASLib: 5 + 25 + 125 = 155 columns.

    Args:
        graphs: B acyclic graphs; inner vertices are operations.
        longest: operations of the longest sequences told apart; paths with more leave no trace.
        shortest: operations of the shortest sequences told apart.
        counts: number of paths that spell a sequence, rather than whether there is one.

    Returns:
        (B, columns)

    Example:
        >>> edges = np.triu(np.ones((1, 4, 4), dtype=bool), 1)
        >>> graphs = GraphBatch(np.array([[2, 0, 1, 3]], dtype=np.int8), edges, ("a", "b", "input", "output"))
        >>> path_encoding(graphs, longest=2).astype(int).tolist()  # (), a, b, aa, ab, ba, bb
        [[1, 1, 1, 0, 1, 0, 0]]
    """
    operations = [code for code, label in enumerate(graphs.vocabulary) if label not in ENDS]
    spelt = (graphs.labels[:, :, None] == np.array(operations, dtype=np.int8)).astype(np.float32)  # (B, V, k)
    is_operation = spelt.any(axis=2)
    B, V = graphs.labels.shape
    fed = np.broadcast_to(graphs.adjacency.any(axis=1), (B, V))
    feeds = np.broadcast_to(graphs.adjacency.any(axis=2), (B, V))
    source, sink = graphs.mask & ~fed, graphs.mask & ~feeds
    onward = graphs.adjacency.transpose(0, 2, 1).astype(np.float32)

    ending = (sink & is_operation).astype(np.float32)
    arriving_end = (sink & ~is_operation).astype(np.float32)
    # (B, V, k^l): number of paths from a source to this vertex, the vertex included, that spell each sequence
    words = (source & ~is_operation).astype(np.float32)[:, :, None]
    columns = []
    for length in range(longest + 1):
        arriving = onward @ words
        if length >= shortest:
            ended = np.einsum("bv,bvs->bs", arriving_end, arriving) + np.einsum("bv,bvs->bs", ending, words)
            columns.append(ended if counts else (ended > 0).astype(np.float32))
        if length < longest:
            words = (arriving[:, :, :, None] * spelt[:, :, None, :]).reshape(B, V, words.shape[2] * len(operations))
            if length == 0:
                words += spelt * source[:, :, None]
    return np.concatenate(columns, axis=1)
