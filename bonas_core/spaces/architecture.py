"""An architecture: a directed acyclic graph whose vertices carry operation labels."""

from __future__ import annotations

from dataclasses import dataclass

from bonas_core.errors import InvalidArchitectureError


@dataclass(frozen=True)
class Architecture:
    """One architecture of a search space, independent of how the space stores it.

    Example:
        >>> Architecture(("input", "conv", "output"), ((0, 1), (1, 2)), "conv", "conv").vertices
        3
    """

    operations: tuple[str, ...]
    """The label of every vertex, in topological order: the input first, the output last."""
    edges: tuple[tuple[int, int], ...]
    """Pairs (i, j) with i < j: vertex i feeds vertex j."""
    text: str
    """The architecture as its space prints it; `SearchSpace.parse` reads it back."""
    key: str
    """Canonical identity: equal exactly for architectures that the space holds to be the same."""

    def __post_init__(self) -> None:
        for i, j in self.edges:
            if not 0 <= i < j < len(self.operations):
                raise InvalidArchitectureError(
                    f"architecture `{self.text}`: edge {i}->{j} must lead from an earlier to a later of its "
                    f"{len(self.operations)} vertices; order the vertices topologically"
                )

    @property
    def vertices(self) -> int:
        """Number of vertices, input and output included."""
        return len(self.operations)
