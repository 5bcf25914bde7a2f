"""Turns a table of NAS-Bench-201 into a checked Parquet file that presets find by themselves.

The source is any CSV or Parquet file with a column `arch_str` (or `architecture`) and columns of accuracies;
README.md shows how to export one from the official NATS-Bench or NAS-Bench-201 file.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from bonas_core.errors import TableError
from bonas_core.evaluators.table import (
    ARCHITECTURE_COLUMNS,
    INDEX_COLUMNS,
    check_values,
    file_digest,
    parse_architectures,
    read_table,
)
from bonas_core.spaces.nasbench201 import NASBench201
from data import prepared

SOURCE = (
    "a CSV or Parquet with arch_str and accuracies; data/nasbench201/README.md says how to export the official file"
)
_COMMAND = "bonas data prepare nasbench201 --source PATH"


def prepare(source: Path, target: Path) -> str:
    """Checks a source table and writes it, with its own and the source's digest in the metadata.

    Raises:
        TableError: the source cannot be used; nothing is written then.
    """
    frame = _everything(source)
    text_column = next(name for name in ARCHITECTURE_COLUMNS if name in frame)
    genotypes, _ = parse_architectures(NASBench201(), frame[text_column].tolist(), source)
    if len(genotypes) != NASBench201.size:
        raise TableError(
            f"table `{source}` has {len(genotypes)} of the {NASBench201.size} cells; prepare takes whole tables, "
            "a part can be searched with --set evaluator.table=PATH"
        )
    index_column = next((name for name in INDEX_COLUMNS if name in frame), None)
    index = frame[index_column] if index_column else pd.Series(range(len(frame)))
    if sorted(index.tolist()) != list(range(len(frame))):
        raise TableError(
            f"table `{source}`: `{index_column}` is not 0 to {len(frame) - 1}, each once; correct or drop it"
        )
    chosen = pd.DataFrame({"index": index.astype("int64"), "architecture": frame[text_column]})
    units: dict[str, str] = {}
    for column in frame.select_dtypes("number").columns.difference([*INDEX_COLUMNS]):
        unit = _unit(frame, column, source)
        if unit is not None:
            chosen[column] = frame[column].astype("float64")
            units[column] = unit
    if not units:
        raise TableError(f"table `{source}` has no complete column of accuracies; give one in percent or as fractions")
    table = pa.Table.from_pandas(chosen.sort_values("index"), preserve_index=False)
    described = {"source": source.name, "sha256": file_digest(source), "units": units}
    prepared.write(target, table, described)
    return f"{target}\n{_summary(described)}"


def check(target: Path) -> str:
    """Checks a prepared table against its digest and the rules of the space.

    Raises:
        TableError: it is missing or not what was written.
    """
    table, described = prepared.read(target, _COMMAND)
    frame = table.to_pandas()
    parse_architectures(NASBench201(), frame["architecture"].tolist(), target)
    for column, unit in described["units"].items():
        check_values(frame, column, unit, target)
    return f"{target}: {len(frame)} cells, as prepared\n{_summary(described)}"


def _everything(path: Path) -> pd.DataFrame:
    """Reads all columns of a table that has one of architectures."""
    read_table(path, [ARCHITECTURE_COLUMNS])
    if path.suffix.lower() in (".parquet", ".pq"):
        frame: pd.DataFrame = pq.ParquetFile(path).read().to_pandas()
        return frame
    return pd.read_csv(path)


def _unit(frame: pd.DataFrame, column: str, path: Path) -> str | None:
    """Finds the unit of a column, `percent` or `fraction`; None where it does not hold an accuracy of every cell."""
    if "loss" in column.lower():
        return None  # small losses would pass for accuracies
    for unit in ("fraction", "percent"):
        try:
            check_values(frame, column, unit, path)
        except TableError:
            continue
        return unit
    return None


def _summary(described: Mapping[str, object]) -> str:
    units = described["units"]
    assert isinstance(units, dict)
    columns = "".join(f"\n  {name} ({unit})" for name, unit in units.items())
    return f"from {described['source']}, sha256 {described['sha256']}\ncolumns:{columns}"
