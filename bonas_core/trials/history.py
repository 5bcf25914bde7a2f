"""The record of a search: Parquet parts that are only ever added, each whole or absent, and idempotent to write.

The proposals of round 3, from trial 40 on, are one part, `round-000003-000040.parquet`; a finished trial is another,
`trial-000042.parquet`. Of several rows of one trial, the first finished one counts, in the order of the parts' names,
else the first proposal; so a result stands in for its proposal, wherever both are.

Reading takes time by the part, so parts are merged as a search goes on: whenever there are 200 small ones, they become
one, together with those merged before that are not larger. A row is then rewritten ten times in a hundred thousand
trials, and there are never many parts. The merged part is written first and the others removed after, so a kill in
between leaves rows twice, which changes nothing.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bonas_core.errors import StoreError, first_line
from bonas_core.storage import (
    Location,
    make_folder,
    read_whole,
    remove_file,
    set_aside,
    store_folder,
    table_bytes,
    write_whole,
)
from bonas_core.trials import Trial, TrialState

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
_TYPES: dict[Any, pa.DataType] = {
    int: pa.int64(),
    float: pa.float64(),
    str: pa.string(),
    TrialState: pa.string(),
    datetime: pa.timestamp("us", tz="UTC"),
    Mapping[str, float]: pa.map_(pa.string(), pa.float64()),
}
_REQUIRED = ("trial", "round", "key", "architecture", "state")


def _column(name: str, hint: Any) -> pa.Field:
    """The column of a field of `Trial`, of a type or of that type or None."""
    kind = hint if hint in _TYPES else next(kind for kind in get_args(hint) if kind in _TYPES)
    return pa.field(name, _TYPES[kind], nullable=name not in _REQUIRED)


_HINTS = get_type_hints(Trial)
SCHEMA = pa.schema(
    [_column(field.name, _HINTS[field.name]) for field in fields(Trial)],
    metadata={"bonas.history.schema_version": str(SCHEMA_VERSION)},
)
"""The fields of `Trial`, in their order."""

_LATER = ("images_per_second",)  # columns that parts of older releases lack
_COMPACT_AT = 200
_LARGEST = 1 << 30  # bytes of a part, packed and unpacked: it may have been made by somebody else
_MOST_TRIALS = 10_000_000
_STORED = [state.value for state in TrialState if state is not TrialState.RUNNING]
_MERGED = re.compile(r"compacted-\d+-(\d+)-[0-9a-f]{8}")


class DamagedPartError(StoreError):
    """A part of a history is not whole: the disk or a copy of it lost something."""


class TrialHistory:
    """The trials of one search, in a folder.

    Args:
        location: of the Parquet parts, `<store>/<search id>/trials`, as a path or URI; it is made by the first write.

    Example:
        >>> import tempfile
        >>> history = TrialHistory(tempfile.mkdtemp())
        >>> history.propose([Trial(0, 0, "key", "cell")])
        >>> history.finish(Trial(0, 0, "key", "cell", TrialState.DONE, objective=0.9))
        >>> [(trial.state.value, trial.objective) for trial in history.trials()]
        [('DONE', 0.9)]
    """

    def __init__(self, location: str | Location) -> None:
        self.location = store_folder(location)
        self._is_made = False
        self._small: set[str] | None = None  # names of parts that were never merged, once they have been looked for

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
        return _trials(self.table())

    def recover(self) -> tuple[list[Trial], list[Location]]:
        """The same for the one writer of a search: damaged parts are set aside, as `<name>.corrupt`.

        Returns:
            the trials, and where the damaged parts are now; the trials in them are proposals again, or missing.
        """
        damaged: list[Location] = []
        table = self._read(self.parts(), damaged)
        return _trials(table), [set_aside(part) for part in damaged]

    def table(self) -> pa.Table:
        """The same as a table of `SCHEMA`."""
        return self._read(self.parts())

    def to_pandas(self) -> pd.DataFrame:
        """The same as a data frame, one column a field of `Trial`."""
        import pandas as pd

        frame: pd.DataFrame = self.table().to_pandas()
        return frame.assign(metrics=pd.Series([dict(pairs or {}) for pairs in frame["metrics"]], dtype=object))

    def parts(self) -> list[Location]:
        """The files that are read, by name."""
        found: list[Location] = [path for path in self.location.glob("*.parquet") if not path.name.startswith(".")]
        return sorted(found, key=lambda path: path.name)

    def compact(self) -> None:
        """Merges all parts into one."""
        self._merge(self.parts())

    def compact_if_large(self) -> None:
        """Merges the small parts once there are many of them; for the one writer of a search."""
        if self._small is None:
            self._small = {part.name for part in self.parts() if not _MERGED.fullmatch(part.stem)}
        if len(self._small) <= _COMPACT_AT:
            return
        parts = self.parts()
        merged = {part: int(match[1]) for part in parts if (match := _MERGED.fullmatch(part.stem))}
        chosen: list[Location] = [part for part in parts if part not in merged]
        rows = len(chosen)
        for part in sorted(merged, key=lambda part: (merged[part], part.name)):
            if merged[part] > rows:
                break
            chosen.append(part)
            rows += merged[part]
        self._merge(sorted(chosen, key=lambda part: part.name))
        self._small = set()

    def _merge(self, parts: list[Location]) -> None:
        if len(parts) < 2:
            return
        table = self._read(parts)
        if not len(table):
            return
        data = table_bytes(table.replace_schema_metadata(SCHEMA.metadata))
        digest = hashlib.sha256(data).hexdigest()[:8]
        name = f"compacted-{table['trial'][0].as_py():06d}-{len(table):06d}-{digest}.parquet"
        write_whole(self.location / name, data)
        for part in parts:
            if part.name != name:
                remove_file(part)

    def _read(self, parts: list[Location], damaged: list[Location] | None = None) -> pa.Table:
        while True:
            tables = []
            try:
                for part in parts:
                    try:
                        tables.append(read_part(part))
                    except DamagedPartError:
                        if damaged is None:
                            raise
                        damaged.append(part)
                break
            except FileNotFoundError as error:  # the writer has compacted: its new part holds what is gone
                again = self.parts()
                if again == parts:
                    raise StoreError(f"history part `{error.filename}` cannot be opened; remove it") from None
                parts = again
        if not tables:
            return SCHEMA.empty_table()
        table = pa.concat_tables(tables)
        trials, is_open = table["trial"].to_numpy(), pc.equal(table["state"], str(TrialState.PROPOSED)).to_numpy()
        order = np.lexsort((is_open, trials))  # stable: rows that are alike stay in the order of the parts
        _, first = np.unique(trials[order], return_index=True)
        return table.take(pa.array(order[first])).combine_chunks()

    def _write(self, name: str, trials: Sequence[Trial]) -> None:
        columns: dict[str, list[Any]] = {
            column: [getattr(trial, column) for trial in trials] for column in SCHEMA.names
        }
        columns["metrics"] = [list(metrics.items()) for metrics in columns["metrics"]]
        columns["state"] = [str(state) for state in columns["state"]]
        if not self._is_made:
            make_folder(self.location)
            self._is_made = True
        part = f"{name}.parquet"
        write_whole(self.location / part, table_bytes(pa.Table.from_pydict(columns, schema=SCHEMA)))
        if self._small is not None:
            self._small.add(part)


def read_part(path: Location) -> pa.Table:
    """The rows of one part.

    Raises:
        FileNotFoundError: it is not there.
        DamagedPartError: it is not whole.
        StoreError: it is something else.
    """
    data = read_whole(path, _LARGEST)
    try:
        file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        size = _unpacked(data, file.metadata)
        if size > _LARGEST or file.metadata.num_rows > _LARGEST // 100:
            raise StoreError(f"history part `{path}` unpacks to {size} bytes, more than a search has; remove it")
        version = (file.schema_arrow.metadata or {}).get(b"bonas.history.schema_version", b"none").decode()
        if version != str(SCHEMA_VERSION):
            raise StoreError(
                f"history part `{path}` has schema version {version}, this release reads {SCHEMA_VERSION}; upgrade"
            )
        table = file.read(use_threads=len(data) > 1 << 20)  # threads cost more than a small part
        for name in _LATER:
            if name not in table.schema.names:
                table = table.append_column(SCHEMA.field(name), pa.nulls(len(table), SCHEMA.field(name).type))
        if not table.schema.equals(SCHEMA):
            table = table.select(SCHEMA.names).cast(SCHEMA)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DamagedPartError(
            f"history part `{path}` cannot be read ({reason}); resume the search: it sets the part aside and does its "
            "trials again"
        ) from None
    fault = _fault(table)
    if fault:
        raise StoreError(f"history part `{path}` was not written by a search: {fault}; remove it")
    return table


def _unpacked(data: bytes, metadata: pq.FileMetaData) -> int:
    """About as many bytes as a part takes in memory: a text that a million rows share is stored once."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    size = sum(int(group.total_byte_size) for group in groups)
    if size * metadata.num_rows <= _LARGEST:
        return size
    texts = [field.name for field in SCHEMA if field.type == pa.string()]
    file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=texts)
    known = [name for name in texts if name in file.schema_arrow.names]
    for column in file.read(columns=known).columns:
        for chunk in column.chunks:
            if isinstance(chunk, pa.DictionaryArray):
                lengths = pc.fill_null(pc.binary_length(chunk.dictionary), 0).to_numpy(zero_copy_only=False)
                size += int(lengths[chunk.indices.drop_null().to_numpy()].sum())
    return size


def _fault(table: pa.Table) -> str | None:
    """What no search would have written."""
    trials = table["trial"].to_numpy()
    if len(trials) and not (trials.min() >= 0 and trials.max() < _MOST_TRIALS):
        return f"a trial has the number {trials.max() if trials.min() >= 0 else trials.min()}"
    foreign = set(pc.unique(table["state"]).to_pylist()) - set(_STORED)
    if foreign:
        return f"a trial is in state `{min(foreign)[:80]}`"
    for name in ("sampler", "seed", "attempt", "surrogate_s"):
        if table[name].null_count:
            return f"a trial has no `{name}`"
    if pc.any(pc.is_nan(table["objective"])).as_py():
        return "an objective is not a number"
    return None


def _trials(table: pa.Table) -> list[Trial]:
    try:
        columns = {name: table[name].to_pylist() for name in SCHEMA.names}
    except (pa.ArrowException, ValueError, OverflowError) as error:
        raise StoreError(
            f"a history holds what no search writes ({first_line(error)[:200]}); `bonas store check` may tell "
            "which part, remove it"
        ) from None
    columns["state"] = [TrialState(state) for state in columns["state"]]
    columns["metrics"] = [{sys.intern(name): figure for name, figure in pairs or ()} for pairs in columns["metrics"]]
    for name in ("sampler", "predictor_version", "device"):  # the same few texts, kept once
        known: dict[str | None, str | None] = {}
        columns[name] = [known.setdefault(text, text) for text in columns[name]]
    return [Trial(*row) for row in zip(*columns.values(), strict=True)]
