"""Look-up in a benchmark table: a CSV or Parquet file with one row per architecture."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bonas_core.errors import InvalidArchitectureError, TableError, first_line
from bonas_core.evaluators.base import EvaluationContext, Outcome
from bonas_core.spaces.architecture import Architecture
from bonas_core.spaces.base import Genotypes, Keys, SearchSpace
from bonas_core.spaces.pool import PoolSpace

ARCHITECTURE_COLUMNS = ("architecture", "arch_str")
"""The first of these that a table has holds the architectures as text."""
INDEX_COLUMNS = ("index", "arch_index")
"""The first of these that a table has holds the official index; otherwise rows are counted."""
GRAPH_COLUMNS = ("adjacency", "ops")
"""Instead of texts, the bits above the diagonal row by row, and the labels as a list or with commas between them."""
OBJECTIVE_METADATA = b"bonas.objective"
"""Key of a Parquet schema's metadata under which a JSON names the table's objectives in full: `name`, `description`,
and under `columns` descriptions of single columns."""

_Read = TypeVar("_Read")


@runtime_checkable
class GraphSpace(Protocol):
    """What a space offers beside the members of `SearchSpace` if tables may hold its architectures as graphs."""

    def from_bits(self, adjacency: Sequence[str], operations: Sequence[Sequence[str]]) -> Genotypes:
        """Reads the columns `adjacency` and `ops` of a table.

        Raises:
            InvalidArchitectureError: a row is not an architecture of the space; the message says which and why.
        """


class TableEvaluator:
    """A benchmark table as an evaluator; a table that lacks architectures of the space closes the space to its own.

    Args:
        space: the space of the architectures.
        table: path of a CSV or Parquet file.
        objective: column to optimise. A `*` in its name stands for the number of a training run: each evaluation then
            gives one of these columns, drawn by the seed of its trial, and their mean as the metric `mean`.
        test: column to report as the metric `test`, or None.
        unit: `percent` or `fraction`: what the columns hold, stated once here.
        direction: `maximise` or `minimise`.

    Raises:
        TableError: the file cannot be read, lacks a column, repeats an architecture, or holds a value that is not a
            number or not of the unit.
    """

    def __init__(
        self,
        space: SearchSpace,
        table: str | None,
        objective: str,
        test: str | None = None,
        unit: str = "percent",
        direction: str = "maximise",
    ) -> None:
        if not table:
            raise TableError(
                "setting `evaluator.table` is empty, a table search needs a file; "
                "give it with --set evaluator.table=PATH"
            )
        path = Path(table).expanduser()
        runs = _runs(path, objective) if "*" in objective else [objective]
        columns = runs if test is None else [*runs, test]
        required = [(column,) for column in columns]
        if isinstance(space, GraphSpace) and holds_graphs(path):
            frame = read_table(path, required, [INDEX_COLUMNS])
            genotypes, keys = parse_graphs(space, path)
        else:
            frame = read_table(path, [ARCHITECTURE_COLUMNS, *required], [INDEX_COLUMNS])
            genotypes, keys = parse_architectures(space, frame.iloc[:, 0].tolist(), path)
        for column in dict.fromkeys(columns):
            check_values(frame, column, unit, path)
        index = next((frame[name] for name in INDEX_COLUMNS if name in frame), pd.Series(np.arange(len(frame))))
        if not pd.api.types.is_integer_dtype(index):
            raise TableError(f"table `{path}`: column `{index.name}` does not hold whole numbers; correct or drop it")
        self.objective = _objective(path, objective)
        self.unit = unit
        self.direction = direction
        self.fingerprint = hashlib.sha256(
            f"{file_digest(path)}|{objective}|{test}|{unit}|{direction}".encode()
        ).hexdigest()
        self.space: SearchSpace = space if len(frame) == space.size else PoolSpace(space, genotypes)
        self._runs = frame[runs].to_numpy(dtype=np.float64)
        self._test = None if test is None else frame[test].to_numpy(dtype=np.float64)
        self._index = index.to_numpy()
        self._order = np.argsort(keys)
        self._keys = keys[self._order]

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        """Looks one architecture up; where the table has several runs of it, the trial's seed draws one of them."""
        key = self.space.keys(self.space.parse([architecture.text]))[0]
        place = min(int(np.searchsorted(self._keys, key)), len(self._keys) - 1)
        if self._keys[place] != key:
            raise TableError(
                f"architecture `{architecture.text}` is not in the table; search the part of the space that is"
            )
        row = self._order[place]
        metrics = {"index": float(self._index[row])}
        if self._test is not None:
            metrics["test"] = float(self._test[row])
        runs = self._runs[row]
        if len(runs) == 1:
            return Outcome(float(runs[0]), metrics)
        drawn = np.random.default_rng(context.seed).integers(len(runs))
        return Outcome(float(runs[drawn]), {**metrics, "mean": float(runs.mean())})

    def objectives(self) -> list[float]:
        """The objective of every architecture in the table; the mean of its runs where each evaluation draws one."""
        values: list[float] = self._runs.mean(axis=1).tolist()
        return values


def _objective(path: Path, column: str) -> str:
    """The objective in full, as the table's metadata names it."""
    try:
        metadata = pq.read_schema(path).metadata or {} if _is_parquet(path) else {}
        named: dict[str, Any] = {"name": path.stem}
        if OBJECTIVE_METADATA in metadata:
            named = json.loads(metadata[OBJECTIVE_METADATA])
        name, description = named["name"], named.get("columns", {}).get(column) or named.get("description")
    except (ValueError, TypeError, KeyError, AttributeError):
        raise TableError(
            f"table `{path}`: its metadata `{OBJECTIVE_METADATA.decode()}` is not a JSON mapping with a `name`; "
            "write the table again"
        ) from None
    return f"{name}: {column}, {description}" if description else f"{name}: {column}"


def _runs(path: Path, objective: str) -> list[str]:
    """Columns of single training runs, in the order of their numbers."""
    pattern = re.compile(r"(\d+)".join(map(re.escape, objective.split("*"))))
    found = [(match.groups(), name) for name in column_names(path) if (match := pattern.fullmatch(name))]
    if len(found) < 2:
        raise TableError(
            f"table `{path}` has {len(found)} columns `{objective}`, with a number for `*`; name the one column to use"
        )
    return [name for _, name in sorted(found, key=lambda pair: tuple(map(int, pair[0])))]


def _is_parquet(path: Path) -> bool:
    return path.suffix.lower() in (".parquet", ".pq")


def column_names(path: Path) -> list[str]:
    """Names of the columns of a CSV or Parquet file.

    Raises:
        TableError: the file is missing or damaged.
    """

    def names() -> list[str]:
        return list(pq.read_schema(path).names if _is_parquet(path) else pd.read_csv(path, nrows=0).columns)

    return _readable(path, names)


def holds_graphs(path: Path) -> bool:
    """Whether a table holds its architectures as graphs and not as texts."""
    names = column_names(path)
    return all(name in names for name in GRAPH_COLUMNS) and not any(name in names for name in ARCHITECTURE_COLUMNS)


def _readable(path: Path, read: Callable[[], _Read]) -> _Read:
    """What a function reads from a table.

    Raises:
        TableError: the file is missing or damaged.
    """
    if not path.is_file():
        raise TableError(f"table `{path}` does not exist; give the file with --set evaluator.table=PATH")
    try:
        return read()
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = first_line(error)
        raise TableError(f"table `{path}` cannot be read ({reason}); it must be a whole CSV or Parquet file") from None


def read_table(path: Path, required: Sequence[Sequence[str]], optional: Sequence[Sequence[str]] = ()) -> pd.DataFrame:
    """Reads columns of a CSV or Parquet file, each given by the names it may have; the required ones come first.

    Raises:
        TableError: the file is missing, damaged or empty, or a required column is absent.
    """
    available = column_names(path)
    chosen = []
    for alternatives in required:
        found = [name for name in alternatives if name in available]
        if not found:
            wanted = "` or `".join(alternatives)
            raise TableError(f"table `{path}` has no column `{wanted}`; it has {', '.join(available)}")
        chosen.append(found[0])
    chosen += [next(n for n in names if n in available) for names in optional if any(n in available for n in names)]
    chosen = list(dict.fromkeys(chosen))

    def columns() -> pd.DataFrame:
        if _is_parquet(path):
            read: pd.DataFrame = pq.ParquetFile(path).read(columns=chosen).to_pandas()
            return read
        return pd.read_csv(path, usecols=chosen)

    frame = _readable(path, columns)
    if frame.empty:
        raise TableError(f"table `{path}` has no rows; give one with a row per architecture")
    return frame.loc[:, chosen]


def parse_architectures(space: SearchSpace, texts: list[str], path: Path) -> tuple[Genotypes, Keys]:
    """Genotypes and keys of a table's rows, which must be distinct.

    Raises:
        TableError: a text is not of the space, or two rows are the same architecture.
    """
    missing = next((row for row, text in enumerate(texts) if not isinstance(text, str)), None)
    if missing is not None:
        raise TableError(f"table `{path}`, row {missing}: the architecture is empty; every row needs one")
    try:
        genotypes = space.parse(texts)
    except InvalidArchitectureError as error:
        raise TableError(f"table `{path}`: {error}") from None
    return genotypes, distinct_keys(space, genotypes, path)


def parse_graphs(space: SearchSpace, path: Path) -> tuple[Genotypes, Keys]:
    """Genotypes and keys of the rows of a table with the columns `adjacency` and `ops`, which must be distinct.

    Raises:
        TableError: a row is not an architecture of the space, or two rows are the same one.
    """
    assert isinstance(space, GraphSpace)
    adjacency, ops = read_graphs(path)
    try:
        genotypes = space.from_bits(adjacency, ops)
    except InvalidArchitectureError as error:
        raise TableError(f"table `{path}`: {error}") from None
    return genotypes, distinct_keys(space, genotypes, path)


def distinct_keys(space: SearchSpace, genotypes: Genotypes, path: Path) -> Keys:
    """The keys of a table's rows.

    Raises:
        TableError: two rows are the same architecture.
    """
    keys = space.keys(genotypes)
    order = np.argsort(keys, kind="stable")
    again = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    if len(again):
        repeated = order[again].min()
        rows = np.flatnonzero(keys == keys[repeated])
        raise TableError(
            f"table `{path}`: architecture `{space.format(genotypes[repeated][None])[0]}` stands in rows {rows[0]} "
            f"and {rows[1]}; keep one row per architecture"
        )
    return keys


def read_whole(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """All columns of a table, or those named, as they are stored; graphs in a CSV are texts.

    Raises:
        TableError: the file is missing or damaged.
    """

    def whole() -> pa.Table:
        if _is_parquet(path):
            return pq.ParquetFile(path).read(columns=columns)
        frame = pd.read_csv(
            path, usecols=None if columns is None else list(columns), dtype=dict.fromkeys(GRAPH_COLUMNS, str)
        )
        return pa.Table.from_pandas(frame, preserve_index=False)

    return _readable(path, whole)


def read_graphs(path: Path) -> tuple[list[str], list[tuple[str, ...]]]:
    """The columns `adjacency` and `ops` of a table, in which equal values are one object: few of them differ.

    Raises:
        TableError: the file cannot be read, or the columns do not hold texts and lists of texts.
    """
    table = read_whole(path, GRAPH_COLUMNS)
    for name in GRAPH_COLUMNS:
        empty = np.flatnonzero(pc.is_null(table[name]).to_numpy())
        if len(empty):
            raise TableError(f"table `{path}`, row {empty[0]}: `{name}` is empty; every row needs one")
    bits, labels = (table[name].combine_chunks() for name in GRAPH_COLUMNS)
    if not _is_text(bits.type):
        raise TableError(f"table `{path}`: column `adjacency` does not hold texts of 0 and 1; write it so")
    if _is_text(labels.type):
        texts, codes = _encoded(labels)
        different = [tuple(text.split(",")) for text in texts]
    elif (pa.types.is_list(labels.type) or pa.types.is_large_list(labels.type)) and _is_text(labels.type.value_type):
        different, codes = _encoded_lists(labels)
    else:
        raise TableError(f"table `{path}`: column `ops` holds neither texts nor lists of them; write it so")
    texts, places = _encoded(bits)
    return [texts[place] for place in places.tolist()], [different[code] for code in codes.tolist()]


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _encoded(texts: pa.Array) -> tuple[list[str], NDArray[np.int64]]:
    """The different texts of a column, and (n,) which of them every row holds."""
    encoded = texts if pa.types.is_dictionary(texts.type) else texts.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _encoded_lists(lists: pa.Array) -> tuple[list[tuple[str, ...]], NDArray[np.int64]]:
    """The different lists of texts of a column, and (n,) which of them every row holds."""
    labels, codes = _encoded(lists.flatten().fill_null(""))
    lengths = pc.list_value_length(lists).to_numpy().astype(np.int64)
    ends = np.cumsum(lengths)
    # lists that begin alike get one number, one position after the other
    group = np.zeros(len(lengths), dtype=np.int64)
    for position in range(int(lengths.max(initial=0))):
        has = lengths > position
        label = np.zeros(len(lengths), dtype=np.int64)
        label[has] = 1 + codes[(ends - lengths)[has] + position]
        group = np.unique(group * (len(labels) + 1) + label, return_inverse=True)[1]
    _, first, inverse = np.unique(group, return_index=True, return_inverse=True)
    different = [
        tuple(labels[code] for code in codes[ends[row] - lengths[row] : ends[row]].tolist()) for row in first.tolist()
    ]
    return different, inverse


def check_values(frame: pd.DataFrame, column: str, unit: str, path: Path) -> None:
    """Checks that a column holds finite numbers of the unit.

    Raises:
        TableError: it does not; the message names the first row at fault.
    """
    if not pd.api.types.is_numeric_dtype(frame[column]):
        raise TableError(f"table `{path}`: column `{column}` does not hold numbers; name another column")
    values = frame[column].to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        raise TableError(
            f"table `{path}`, row {bad[0]}: `{column}` is {values[bad[0]]}; every row needs a finite number"
        )
    limit = 100.0 if unit == "percent" else 1.0
    bad = np.flatnonzero((values < 0) | (values > limit))
    if len(bad):
        remedy = "set evaluator.unit=percent" if unit == "fraction" else "name a column of accuracies"
        raise TableError(f"table `{path}`, row {bad[0]}: `{column}` is {values[bad[0]]}, not a {unit}; {remedy}")
    if unit == "percent" and values.max() <= 1:
        raise TableError(f"table `{path}`: no `{column}` exceeds 1, so it holds fractions; set evaluator.unit=fraction")


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
