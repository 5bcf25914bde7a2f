"""Look-up in a benchmark table: a CSV or Parquet file with one row per architecture."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bonas_core.architecture import Architecture
from bonas_core.errors import InvalidArchitectureError, TableError
from bonas_core.evaluators.base import EvaluationContext, Outcome
from bonas_core.spaces.base import SearchSpace
from bonas_core.spaces.pool import PoolSpace

ARCHITECTURE_COLUMNS = ("architecture", "arch_str")
"""The first of these that a table has holds the architectures as text."""
INDEX_COLUMNS = ("index", "arch_index")
"""The first of these that a table has holds the official index; otherwise rows are counted."""


class TableEvaluator:
    """A benchmark table as an evaluator; a table that lacks architectures of the space closes the space to its own.

    Args:
        space: the space of the architectures.
        table: path of a CSV or Parquet file.
        objective: column to optimise.
        test: column to report as the metric `test`, or None.
        unit: `percent` or `fraction`: what the columns hold, stated once here.
        direction: `maximise` or `minimise`.

    Raises:
        TableError: the file cannot be read, lacks a column, repeats an architecture, or holds a value that is not a
        number
            or not of the unit.
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
        columns = [objective] if test is None else [objective, test]
        frame = read_table(path, [ARCHITECTURE_COLUMNS, *((column,) for column in columns)], [INDEX_COLUMNS])
        genotypes, keys = parse_architectures(space, frame.iloc[:, 0].tolist(), path)
        for column in dict.fromkeys(columns):
            check_values(frame, column, unit, path)
        index = next((frame[name] for name in INDEX_COLUMNS if name in frame), pd.Series(np.arange(len(frame))))
        if not pd.api.types.is_integer_dtype(index):
            raise TableError(f"table `{path}`: column `{index.name}` does not hold whole numbers; correct or drop it")
        self.objective = f"{path.stem}: {objective}"
        self.unit = unit
        self.direction = direction
        self.fingerprint = hashlib.sha256(
            f"{file_digest(path)}|{objective}|{test}|{unit}|{direction}".encode()
        ).hexdigest()
        self.space: SearchSpace = space if len(frame) == space.size else PoolSpace(space, genotypes)
        self._objective = frame[objective].to_numpy(dtype=np.float64)
        self._test = None if test is None else frame[test].to_numpy(dtype=np.float64)
        self._index = index.to_numpy()
        self._rows = dict(zip(keys.tolist(), range(len(keys)), strict=True))

    def evaluate(self, architecture: Architecture, context: EvaluationContext) -> Outcome:
        row = self._rows.get(int(self.space.keys(self.space.parse([architecture.text]))[0]))
        if row is None:
            raise TableError(
                f"architecture `{architecture.text}` is not in the table; search the part of the space that is"
            )
        metrics = {"index": float(self._index[row])}
        if self._test is not None:
            metrics["test"] = float(self._test[row])
        return Outcome(float(self._objective[row]), metrics)

    def objectives(self) -> list[float]:
        """The objective of every architecture in the table."""
        return [float(value) for value in self._objective]


def read_table(path: Path, required: Sequence[Sequence[str]], optional: Sequence[Sequence[str]] = ()) -> pd.DataFrame:
    """Reads columns of a CSV or Parquet file, each given by the names it may have; the required ones come first.

    Raises:
        TableError: the file is missing, damaged or empty, or a required column is absent.
    """
    if not path.is_file():
        raise TableError(f"table `{path}` does not exist; give the file with --set evaluator.table=PATH")
    is_parquet = path.suffix.lower() in (".parquet", ".pq")
    try:
        available = pq.read_schema(path).names if is_parquet else pd.read_csv(path, nrows=0).columns.tolist()
        chosen = []
        for alternatives in required:
            found = [name for name in alternatives if name in available]
            if not found:
                wanted = "` or `".join(alternatives)
                raise TableError(f"table `{path}` has no column `{wanted}`; it has {', '.join(available)}")
            chosen.append(found[0])
        chosen += [next(n for n in names if n in available) for names in optional if any(n in available for n in names)]
        chosen = list(dict.fromkeys(chosen))
        if is_parquet:
            frame: pd.DataFrame = pq.ParquetFile(path).read(columns=chosen).to_pandas()
        else:
            frame = pd.read_csv(path, usecols=chosen)
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TableError(f"table `{path}` cannot be read ({reason}); it must be a whole CSV or Parquet file") from None
    if frame.empty:
        raise TableError(f"table `{path}` has no rows; give one with a row per architecture")
    return frame.loc[:, chosen]


def parse_architectures(space: SearchSpace, texts: list[str], path: Path) -> tuple[np.ndarray, np.ndarray]:
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
    keys = space.keys(genotypes)
    _, first, counts = np.unique(keys, return_index=True, return_counts=True)
    if (counts > 1).any():
        repeated = first[counts > 1].min()
        rows = np.flatnonzero(keys == keys[repeated])
        raise TableError(
            f"table `{path}`: architecture `{texts[repeated]}` stands in rows {rows[0]} and {rows[1]}; "
            "keep one row per architecture"
        )
    return genotypes, keys


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
