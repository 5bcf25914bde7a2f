"""Prepared tables: Parquet files with a digest of their content and a description in the metadata."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bonas_core.errors import TableError, first_line
from bonas_core.evaluators.table import OBJECTIVE_METADATA
from bonas_core.storage import make_folder, write_table

_METADATA = b"bonas.table"


def write(
    target: Path, table: pa.Table, described: Mapping[str, Any], objective: Mapping[str, Any] | None = None
) -> None:
    """Writes a prepared table.

    Args:
        target: path of the file; its folder is made.
        table: the columns.
        described: what `read` gives back: the source, its digest and whatever a check needs, as JSON values.
        objective: names the table's objectives in full, as `TableEvaluator` reads it.
    """
    metadata = {_METADATA: json.dumps({**described, "content": digest(table)}).encode()}
    if objective is not None:
        metadata[OBJECTIVE_METADATA] = json.dumps(objective).encode()
    make_folder(target.parent)
    write_table(target, table.replace_schema_metadata(metadata), compression="zstd")


def read(target: Path, command: str) -> tuple[pa.Table, dict[str, Any]]:
    """Reads a prepared table and its description, and checks them against the digest.

    Args:
        target: path of the file.
        command: the command that writes it, for messages.

    Raises:
        TableError: it is missing, damaged, or not what was written.
    """
    if not target.is_file():
        raise TableError(f"table `{target}` does not exist; write it with `{command}`")
    try:
        table = pq.ParquetFile(target).read()
    except (pa.ArrowException, OSError) as error:
        reason = first_line(error)
        raise TableError(f"table `{target}` cannot be read ({reason}); prepare it again") from None
    try:
        described: dict[str, Any] = json.loads((table.schema.metadata or {})[_METADATA])
        intact = described["content"] == digest(table)
    except (KeyError, ValueError, TypeError):
        raise TableError(f"table `{target}` was not written by `bonas data prepare`; prepare it again") from None
    if not intact:
        raise TableError(f"table `{target}` has changed since it was prepared; prepare it again")
    return table, described


def digest(table: pa.Table) -> str:
    """Computes SHA-256 of the names and values of all columns, whatever their order and the file's compression."""
    found = hashlib.sha256()
    for name in sorted(table.column_names):
        column = table[name].combine_chunks()
        found.update(f"{name} {len(column)}\n".encode())
        _update(found, column)
    return found.hexdigest()


def _update(found: Any, column: pa.Array) -> None:
    """Puts the values of a column into a hash."""
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        found.update(np.diff(column.offsets.to_numpy()).tobytes())
        _update(found, column.flatten())
    elif pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        found.update(np.asarray(column.is_null()).tobytes())
        found.update(column.fill_null(0).to_numpy(zero_copy_only=False).tobytes())
    else:
        encoded = column.dictionary_encode(null_encoding="encode")
        found.update("\n".join(map(repr, encoded.dictionary.to_pylist())).encode())
        found.update(encoded.indices.to_numpy().tobytes())
