"""Turns the official file of NAS-Bench-101, or a Parquet of its cells, into a checked Parquet file.

The official `.tfrecord` gives every run and the means; a Parquet gives the columns that it has. README.md says where
to find the former and what columns the latter needs.
"""

from __future__ import annotations

import re
from array import array
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bonas_core.errors import InvalidArchitectureError, TableError
from bonas_core.evaluators.table import (
    check_values,
    distinct_keys,
    file_digest,
    parse_graphs,
    read_table,
)
from bonas_core.spaces.base import Genotypes
from bonas_core.spaces.nasbench101 import NASBench101
from data import prepared
from data.nasbench101.tfrecord import runs

SOURCE = (
    "the official .tfrecord, or a Parquet with hash, adjacency, ops and val_acc_108; see data/nasbench101/README.md"
)
HASHES_CHECKED = 1000
"""Number of cells, evenly spread over a table, whose official hash is computed: all would take a minute."""

_ACCURACY = re.compile(r"(val|test|train)_acc_(\d+)(?:_run(\d+))?")
_SPLITS = {"val": "validation", "test": "test", "train": "training"}


def prepare(source: Path, target: Path) -> str:
    """Checks a source and writes its table, with its own and the source's digest in the metadata.

    Raises:
        TableError: the source cannot be used; nothing is written then.
    """
    if source.suffix.lower() == ".tfrecord":
        table, described = _from_tfrecord(source)
    else:
        table, described = _from_parquet(source)
    return write(source, target, "nasbench101", table, described)


def write(source: Path, target: Path, name: str, table: pa.Table, columns: dict[str, str]) -> str:
    """Writes a table of cells under the name of a data set; says what is in it.

    Args:
        source: file that the table was read from.
        target: path of the prepared table.
        name: of the data set.
        table: the columns.
        columns: descriptions of its objectives.
    """
    described = {"source": source.name, "sha256": file_digest(source), "accuracies": columns}
    prepared.write(target, table, described, {"name": name, "columns": columns})
    return f"{target}: {table.num_rows} cells\n{_summary(described, table.num_rows)}"


def check(target: Path) -> str:
    """Checks a prepared table against its digest, the rules of the space, and a sample of the official hashes.

    Raises:
        TableError: it is missing or not what was written.
    """
    return check_as(target, "nasbench101")


def check_as(target: Path, name: str) -> str:
    """Checks the prepared table of one of the data sets that hold cells and accuracies."""
    table, described = prepared.read(target, f"bonas data prepare {name} --source PATH")
    genotypes, _ = parse_graphs(NASBench101(), target)
    check_hashes(genotypes, table["hash"].to_pylist(), f"table `{target}`")
    check_fractions(table, [column for column in described["accuracies"] if "*" not in column], target)
    return f"{target}: {table.num_rows} cells, as prepared\n{_summary(described, table.num_rows)}"


def check_hashes(genotypes: Genotypes, hashes: list[str], name: str) -> None:
    """Compares the official hash of a sample of cells with the one that a table gives.

    Raises:
        TableError: one is another.
    """
    rows = np.unique(np.linspace(0, len(genotypes) - 1, HASHES_CHECKED).astype(np.int64))
    for row, due in zip(rows.tolist(), NASBench101().official_hash(genotypes[rows]), strict=True):
        if hashes[row] != due:
            raise TableError(
                f"{name}, row {row}: the hash is `{hashes[row]}`, its cell has `{due}`; bring a table whose hashes "
                "and cells belong together"
            )


def check_fractions(table: pa.Table, columns: list[str], path: Path) -> None:
    """Checks that columns hold a fraction for every cell."""
    frame = table.select(columns).to_pandas()
    for column in columns:
        check_values(frame, column, "fraction", path)


def graph_columns(genotypes: Genotypes) -> dict[str, pa.Array]:
    """Makes the columns `adjacency` and `ops` of a table."""
    adjacency, ops = NASBench101().to_bits(genotypes)
    return {"adjacency": pa.array(adjacency, pa.string()), "ops": pa.array(ops, pa.list_(pa.string()))}


def read_cells(source: Path) -> tuple[Genotypes, pa.Table]:
    """Reads the cells and all columns of a Parquet file with `hash`, `adjacency` and `ops`.

    Raises:
        TableError: it is not one, holds what is no cell, a cell twice, or a hash that is another cell's.
    """
    if source.suffix.lower() not in (".parquet", ".pq"):
        raise TableError(f"source `{source}` is neither .tfrecord nor .parquet; give one of them ({SOURCE})")
    read_table(source, [("hash",), ("adjacency",), ("ops",)])
    genotypes, _ = parse_graphs(NASBench101(), source)
    table = pq.ParquetFile(source).read()
    check_hashes(genotypes, table["hash"].to_pylist(), f"table `{source}`")
    return genotypes, table


def from_parquet(source: Path, note: str) -> tuple[pa.Table, dict[str, str]]:
    """Reads the table of a Parquet file of cells, and what its accuracies are.

    Args:
        source: the file.
        note: added to the description of accuracies of which the name does not tell the run.
    """
    genotypes, table = read_cells(source)
    columns = [name for name in table.column_names if _ACCURACY.fullmatch(name)]
    if not columns:
        raise TableError(f"table `{source}` has no column of accuracies; name one val_acc_108 or test_acc_108")
    check_fractions(table, columns, source)
    kept = {name: table[name] for name in table.column_names if _is_number(table[name])}
    described = {}
    for column in columns:
        match = _ACCURACY.fullmatch(column)
        assert match is not None
        split, epochs, run = match.groups()
        described[column] = describe(split, int(epochs), f"run {run}" if run else note)
    everything = {**graph_columns(genotypes), "hash": table["hash"].cast(pa.string()), **kept}
    return pa.table(everything), described


def describe(split: str, epochs: int, note: str) -> str:
    """Describes an accuracy in full."""
    return f"CIFAR-10 {_SPLITS[split]} accuracy after {epochs} epochs, {note}"


def _from_parquet(source: Path) -> tuple[pa.Table, dict[str, str]]:
    return from_parquet(source, f"as in {source.name}")


def _is_number(column: pa.ChunkedArray) -> bool:
    complete = column.null_count == 0
    return complete and bool(pa.types.is_integer(column.type) or pa.types.is_floating(column.type))


def _from_tfrecord(source: Path) -> tuple[pa.Table, dict[str, str]]:
    """Reads the table of an official file: for every budget of epochs the means over the runs, and each run."""
    rows: dict[str, int] = {}
    graphs: list[tuple[str, str]] = []
    shared: dict[str, str] = {}  # few matrices and labellings differ
    cells, epochs, parameters = array("l"), array("l"), array("l")
    values = array("d")
    for run in runs(source):
        row = rows.setdefault(run.hash, len(rows))
        graph = (
            shared.setdefault(run.adjacency, run.adjacency),
            shared.setdefault(run.operations, run.operations),
        )
        if row == len(graphs):
            graphs.append(graph)
        elif graphs[row] != graph:
            raise TableError(f"tfrecord `{source}`: cell `{run.hash}` has two graphs; bring the official file")
        cells.append(row)
        epochs.append(run.epochs)
        parameters.append(run.parameters)
        values.extend((run.validation, run.test, run.seconds))
    genotypes = _cells(source, list(rows), graphs)
    count = len(rows)
    columns: dict[str, Any] = {**graph_columns(genotypes), "hash": pa.array(list(rows), pa.string())}
    described: dict[str, str] = {}
    cell, budget = np.array(cells), np.array(epochs)
    figures = np.array(values).reshape(-1, 3)
    first = np.zeros(count, dtype=np.int64)
    first[cell[::-1]] = np.array(parameters)[::-1]
    columns["params"] = first
    for b in np.unique(budget).tolist():
        per_run = _by_run(source, list(rows), b, cell[budget == b], figures[budget == b])
        repeats = per_run.shape[1]
        for index, split in enumerate(("val", "test")):
            columns[f"{split}_acc_{b}"] = per_run[:, :, index].mean(axis=1)
            described[f"{split}_acc_{b}"] = describe(split, b, f"mean of {repeats} runs")
        for index, split in enumerate(("val", "test")):
            for run_number in range(repeats):
                name = f"{split}_acc_{b}_run{run_number + 1}"
                columns[name] = per_run[:, run_number, index]
                described[name] = describe(split, b, f"run {run_number + 1} of {repeats}")
        columns[f"train_time_{b}_s"] = per_run[:, :, 2].mean(axis=1)
    table = pa.table(columns)
    check_fractions(table, list(described), source)
    # every column `..._run1` stands for the search that draws one run at every evaluation
    for column in [name for name in described if name.endswith("_run1")]:
        every = column.removesuffix("1") + "*"
        described[every] = described[column].replace("run 1 of", "at every evaluation a random one of") + " runs"
    return table, described


def _cells(source: Path, hashes: list[str], graphs: list[tuple[str, str]]) -> Genotypes:
    """Reads the genotypes of the official file's graphs."""
    upper: dict[tuple[str, int], str] = {}
    labels: dict[str, tuple[str, ...]] = {}
    adjacency, ops = [], []
    for row, (matrix, operations) in enumerate(graphs):
        named = labels.setdefault(operations, tuple(operations.split(",")))
        n = len(named)
        key = (matrix, n)
        if key not in upper:
            lines = [matrix[i * n : (i + 1) * n] for i in range(n)]
            if len(matrix) != n * n or any("1" in line[: i + 1] for i, line in enumerate(lines)):
                raise TableError(
                    f"tfrecord `{source}`, cell `{hashes[row]}`: `{matrix}` is not an upper-triangular matrix of its "
                    f"{n} vertices; bring the official file"
                )
            upper[key] = "".join(line[i + 1 :] for i, line in enumerate(lines))
        adjacency.append(upper[key])
        ops.append(named)
    space = NASBench101()
    try:
        genotypes = space.from_bits(adjacency, ops)
    except InvalidArchitectureError as error:
        raise TableError(f"tfrecord `{source}`: {error}") from None
    distinct_keys(space, genotypes, source)
    check_hashes(genotypes, hashes, f"tfrecord `{source}`")
    return genotypes


def _by_run(
    source: Path, hashes: list[str], epochs: int, cell: NDArray[np.int64], figures: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(cells, runs, figures) of one budget, the runs in the order of the file."""
    counts = np.bincount(cell, minlength=len(hashes))
    odd = np.flatnonzero(counts != counts.max())
    if len(odd):
        raise TableError(
            f"tfrecord `{source}`: cell `{hashes[odd[0]]}` has {counts[odd[0]]} runs of {epochs} epochs and another "
            f"{counts.max()}; bring the whole file"
        )
    return figures[np.argsort(cell, kind="stable")].reshape(len(hashes), -1, figures.shape[1])


def _summary(described: dict[str, Any], cells: int) -> str:
    compared = "all hashes" if cells <= HASHES_CHECKED else f"{HASHES_CHECKED} hashes, spread over the table,"
    columns = "".join(f"\n  {name}: {text}" for name, text in described["accuracies"].items())
    return f"from {described['source']}, sha256 {described['sha256']}\n{compared} compared with the cells{columns}"
