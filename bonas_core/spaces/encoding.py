"""Architectures as one padded batch of labelled graphs with the global vertex (paper section 3.1, Figure 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch_geometric.data import Batch

PADDING = -1
"""Label of a vertex that only fills up a batch of graphs of different sizes."""
GLOBAL = "global"
"""Label of the vertex that every other vertex feeds, and whose features are the embedding of the graph."""


@dataclass(frozen=True)
class GraphBatch:
    """B labelled graphs of at most V vertices each, padded to the same size.

    Example:
        >>> import numpy as np
        >>> edge = np.array([[[False, True], [False, False]]])
        >>> chain = GraphBatch(np.array([[0, 1]], dtype=np.int8), edge, ("in", "out"))
        >>> with_global_vertex(chain).labels.tolist()
        [[2, 0, 1]]
    """

    labels: NDArray[np.int8]
    """(B, V) index of every vertex's label in `vocabulary`, or PADDING."""
    adjacency: NDArray[np.bool_]
    """(B, V, V), or (1, V, V) where all graphs share their edges: `[b, i, j]` says that i feeds j."""
    vocabulary: tuple[str, ...]
    """The labels, in one-hot order."""

    def __post_init__(self) -> None:
        B, V = self.labels.shape
        if self.adjacency.shape not in {(B, V, V), (1, V, V)}:
            raise ValueError(f"adjacency has shape {self.adjacency.shape}; labels of shape {(B, V)} need {(B, V, V)}")

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | NDArray[np.integer]) -> GraphBatch:
        """The graphs of these rows."""
        adjacency = self.adjacency if self.adjacency.shape[0] == 1 else self.adjacency[rows]
        return GraphBatch(self.labels[rows], adjacency, self.vocabulary)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """(B, V) true for vertices that exist, false for padding."""
        return np.asarray(self.labels != PADDING)

    def padded_to(self, vertices: int) -> GraphBatch:
        """The same graphs, padded to `vertices` vertices at least."""
        extra = vertices - self.labels.shape[1]
        if extra <= 0:
            return self
        labels = np.pad(self.labels, ((0, 0), (0, extra)), constant_values=PADDING)
        return GraphBatch(labels, np.pad(self.adjacency, ((0, 0), (0, extra), (0, extra))), self.vocabulary)

    def to_pyg(self) -> Batch:
        """The batch as a torch-geometric `Batch`: `x` holds labels, `edge_index` the edges source to target.

        Padding is dropped, so vertex counts differ between graphs; `ptr` tells where each begins.
        """
        import torch
        from torch_geometric.data import Batch, Data

        mask = self.mask
        sizes = mask.sum(axis=1)
        position = np.cumsum(mask.ravel()).reshape(mask.shape) - 1  # index of a vertex among the kept ones
        graph, source, target = np.nonzero(np.broadcast_to(self.adjacency, (len(self), *self.adjacency.shape[1:])))
        edges = np.stack([position[graph, source], position[graph, target]])
        batch = Batch(
            x=torch.from_numpy(self.labels[mask].astype(np.int64)),
            edge_index=torch.from_numpy(edges),
            batch=torch.from_numpy(np.repeat(np.arange(len(self)), sizes)),
            ptr=torch.from_numpy(np.concatenate([[0], np.cumsum(sizes)])),
        )
        batch._data_cls = Data
        return batch


def with_global_vertex(graphs: GraphBatch) -> GraphBatch:
    """Adds the global vertex in front of every graph: all vertices that exist feed it, and it feeds none.

    It stands first so that padding, which comes last, never moves it.
    """
    B, V = graphs.labels.shape
    labels = np.empty((B, V + 1), dtype=np.int8)
    labels[:, 0] = len(graphs.vocabulary)
    labels[:, 1:] = graphs.labels
    shared = graphs.adjacency.shape[0] == 1 and bool(graphs.mask.all())
    adjacency = np.zeros((1 if shared else B, V + 1, V + 1), dtype=bool)
    adjacency[:, 1:, 1:] = graphs.adjacency
    adjacency[:, 1:, 0] = graphs.mask[:1] if shared else graphs.mask
    return GraphBatch(labels, adjacency, (*graphs.vocabulary, GLOBAL))
