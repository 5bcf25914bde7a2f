"""The record of a search: Parquet parts that are only ever added, each whole or absent, and idempotent to write.

The proposals of round 3, from trial 40 on, are one part, `round-000003-000040.parquet`; a finished trial is another,
`trial-000042.parquet`. The row of a finished trial stands in for its proposal. `compact` replaces many parts by one
without changing what is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bonas_core.errors import StoreError
from bonas_core.storage import make_folder, write_table
from bonas_core.trials import Trial, TrialState

SCHEMA_VERSION = 1
_TIME = pa.timestamp("us", tz="UTC")
SCHEMA = pa.schema(
    [
        pa.field("trial", pa.int64(), nullable=False),
        pa.field("round", pa.int64(), nullable=False),
        pa.field("key", pa.string(), nullable=False),
        pa.field("architecture", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("objective", pa.float64()),
        pa.field("metrics", pa.map_(pa.string(), pa.float64())),
        pa.field("sampler", pa.string()),
        pa.field("acquisition", pa.float64()),
        pa.field("predicted_mean", pa.float64()),
        pa.field("predicted_std", pa.float64()),
        pa.field("incumbent", pa.float64()),
        pa.field("predictor_version", pa.string()),
        pa.field("seed", pa.int64()),
        pa.field("epochs", pa.int64()),
        pa.field("params", pa.int64()),
        pa.field("cost_s", pa.float64()),
        pa.field("device", pa.string()),
        pa.field("attempt", pa.int64()),
        pa.field("error", pa.string()),
        pa.field("surrogate_s", pa.float64()),
        pa.field("proposed_at", _TIME),
        pa.field("started_at", _TIME),
        pa.field("finished_at", _TIME),
    ],
    metadata={"bonas.history.schema_version": str(SCHEMA_VERSION)},
)

_COMPACT_AT = 200  # parts: reading takes half a second per thousand


class TrialHistory:
    """The trials of one search, in a folder.

    Args:
        location: the folder of Parquet parts, `<store>/<search id>/trials`; it is made by the first write.

    Example:
        >>> import tempfile
        >>> history = TrialHistory(tempfile.mkdtemp())
        >>> history.propose([Trial(0, 0, "key", "cell")])
        >>> history.finish(Trial(0, 0, "key", "cell", TrialState.DONE, objective=0.9))
        >>> [(trial.state.value, trial.objective) for trial in history.trials()]
        [('DONE', 0.9)]
    """

    def __init__(self, location: str | Path) -> None:
        self.location = Path(location)

    def propose(self, trials: Sequence[Trial]) -> None:
        """Adds proposals of one round; a round may take several calls."""
        self._write(f"round-{trials[0].round:06d}-{trials[0].trial:06d}", trials)

    def finish(self, trial: Trial) -> None:
        """Adds the result of one trial."""
        self._write(f"trial-{trial.trial:06d}", [trial])

    def trials(self) -> list[Trial]:
        """Every trial in the order of its number, in the last state recorded.

        Raises:
            StoreError: a part cannot be read or is of another version.
        """
        return [_trial(row) for row in self._read().to_pylist()]

    def to_pandas(self) -> pd.DataFrame:
        """The same as a data frame, one column a field of `Trial`."""
        frame: pd.DataFrame = self._read().to_pandas()
        return frame.assign(metrics=pd.Series([dict(pairs or {}) for pairs in frame["metrics"]], dtype=object))

    def compact(self) -> None:
        """Merges all parts into one; a kill in between leaves rows twice, which reading tolerates."""
        parts = self._parts()
        table = self._read()
        if len(parts) < 2 or not len(table):
            return
        name = f"compacted-{len(table):06d}-{sum(s == TrialState.PROPOSED for s in table['state'].to_pylist()):06d}"
        self._write_table(name, table)
        for part in parts:
            if part.stem != name:
                part.unlink(missing_ok=True)

    def compact_if_large(self) -> None:
        """Compacts once there are so many parts that reading them would take noticeable time."""
        if len(self._parts()) > _COMPACT_AT:
            self.compact()

    def _parts(self) -> list[Path]:
        return sorted(path for path in self.location.glob("*.parquet") if not path.name.startswith("."))

    def _read(self) -> pa.Table:
        parts = self._parts()
        while True:
            try:
                tables = [_read_part(path) for path in parts]
                break
            except FileNotFoundError as error:  # the writer has compacted: its new part holds what is gone
                if self._parts() == parts:
                    raise StoreError(f"history part `{error.filename}` cannot be opened; remove it") from None
                parts = self._parts()
        if not tables:
            return SCHEMA.empty_table()
        table = pa.concat_tables(tables)
        # one row per trial: a finished one wins over its proposal, wherever it stands
        open_last = [state == TrialState.PROPOSED for state in table["state"].to_pylist()]
        rows: dict[int, int] = {}
        for row, (trial, is_open) in enumerate(zip(table["trial"].to_pylist(), open_last, strict=True)):
            if trial not in rows or not is_open:
                rows[trial] = row
        return table.take(pa.array([rows[trial] for trial in sorted(rows)], type=pa.int64()))

    def _write(self, name: str, trials: Iterable[Trial]) -> None:
        columns: dict[str, list[Any]] = {column: [] for column in SCHEMA.names}
        for trial in trials:
            for column in SCHEMA.names:
                columns[column].append(getattr(trial, column))
        columns["metrics"] = [list(metrics.items()) for metrics in columns["metrics"]]
        columns["state"] = [str(state) for state in columns["state"]]
        self._write_table(name, pa.Table.from_pydict(columns, schema=SCHEMA))

    def _write_table(self, name: str, table: pa.Table) -> None:
        write_table(make_folder(self.location) / f"{name}.parquet", table.replace_schema_metadata(SCHEMA.metadata))


def _read_part(path: Path) -> pa.Table:
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file).read()
        version = (table.schema.metadata or {}).get(b"bonas.history.schema_version", b"none").decode()
        if version != str(SCHEMA_VERSION):
            raise StoreError(
                f"history part `{path}` has schema version {version}, this release reads {SCHEMA_VERSION}; upgrade"
            )
        return table.select(SCHEMA.names).cast(SCHEMA)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0]
        raise StoreError(
            f"history part `{path}` cannot be read ({reason}); move it away, its trials will be redone"
        ) from None


def _trial(row: dict[str, Any]) -> Trial:
    metrics = dict(row.pop("metrics") or [])
    return Trial(**{**row, "state": TrialState(row["state"]), "metrics": metrics})
