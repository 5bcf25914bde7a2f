"""The plan of a benchmark: what it is asked to run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from bonas_core.errors import SettingsError
from bonas_core.storage import make_folder


@dataclass(frozen=True)
class Plan:
    """The command line of a benchmark."""

    folder: Path
    """Folder of rows, tables and figures."""
    space: str = "nasbench201"
    """A space, or a preset."""
    seeds: range = range(50)
    """Seeds of the repeats; of a benchmark of predictors, the numbers of the splits."""
    methods: tuple[str, ...] | None = None
    """Names of methods; None: those that the benchmark runs by default."""
    processes: int = 1
    overrides: tuple[str, ...] = ()
    """Settings on top of each method's, as `name=value`."""

    @property
    def rows(self) -> Path:
        """The Parquet file with a row per job."""
        return self.folder / "runs.parquet"

    def choose(self, known: Iterable[str], default: Iterable[str] = ()) -> tuple[str, ...]:
        """Chooses the methods to run among those that a benchmark knows; where none are named, its default or all.

        Raises:
            SettingsError: a method is unknown.
        """
        known = tuple(known)
        for method in self.methods or ():
            if method not in known:
                raise SettingsError(f"--methods: `{method}` is unknown here; use some of {', '.join(known)}")
        return tuple(self.methods or default or known)

    def make_folder(self) -> None:
        """Makes the folder.

        Raises:
            StoreError: it cannot be made or written to.
        """
        make_folder(self.folder, "--out")

    @property
    def repeats(self) -> str:
        """Says the seeds in words."""
        first, last = self.seeds[0], self.seeds[-1]
        return f"seed {first}" if first == last else f"seeds {first} to {last}"
