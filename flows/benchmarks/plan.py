"""What a benchmark is asked to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Plan:
    """The command line of a benchmark."""

    folder: Path
    """Where rows, tables and figures are written."""
    space: str = "nasbench201"
    """A space, or a preset."""
    seeds: range = range(50)
    """Of the repeats; of a benchmark of predictors, the numbers of the splits."""
    methods: tuple[str, ...] | None = None
    """None: those that the benchmark runs by default."""
    processes: int = 1
    overrides: tuple[str, ...] = ()
    """Settings on top of each method's, as `name=value`."""

    @property
    def rows(self) -> Path:
        """The Parquet file with a row per job."""
        return self.folder / "runs.parquet"

    @property
    def repeats(self) -> str:
        """The seeds in words."""
        first, last = self.seeds[0], self.seeds[-1]
        return f"seed {first}" if first == last else f"seeds {first} to {last}"
