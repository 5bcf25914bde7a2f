"""The engine of all benchmarks: independent jobs over all cores, one row each, into one Parquet file.

Rows are written as they end; a benchmark that was stopped goes on with those that are missing.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.progress import Progress

from bonas_core.children import end_with_parent
from bonas_core.errors import StoreError
from bonas_core.storage import write_table

_WRITE_EVERY_S = 2.0
"""Seconds between writings of the rows: what a kill may cost at most, beside the jobs that it cut off."""


class Job(Protocol):
    """One unit of a benchmark; picklable."""

    def execute(self) -> dict[str, Any]:
        """Does the work, in a process of its own, and returns one row."""


def run_all(jobs: Mapping[str, Job], path: Path, processes: int) -> pd.DataFrame:
    """Runs the jobs whose rows are not in `path` yet.

    Args:
        jobs: by a digest that is equal for jobs that would give the same row.
        path: Parquet file of the rows, each with its `digest`; rows of other jobs stay in it.
        processes: how many jobs run at a time.

    Returns:
        a row per job, in the order of `jobs`.

    Raises:
        StoreError: `path` holds something else, or cannot be written.
    """
    rows = {row["digest"]: row for row in _stored(path)}
    missing = [digest for digest in jobs if digest not in rows]
    if missing:
        _run_missing(jobs, missing, rows, path, processes)
        write_table(path, pa.Table.from_pylist(list(rows.values())))
    return pd.DataFrame([rows[digest] for digest in jobs])


def _run_missing(
    jobs: Mapping[str, Job], missing: list[str], rows: dict[str, dict[str, Any]], path: Path, processes: int
) -> None:
    console, others = Console(stderr=True), set(active_children())
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")  # for the processes to come: they share the cores among them
    with (
        Progress(console=console, transient=True, disable=not console.is_terminal) as progress,
        # a job that outlived a killed benchmark would run beside its repeat
        ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=end_with_parent) as pool,
    ):
        try:  # from the first job on: leaving the pool by an exception would wait for those that run
            bar = progress.add_task("jobs", total=len(jobs), completed=len(jobs) - len(missing))
            futures = {pool.submit(_execute, jobs[digest]): digest for digest in missing}
            written = time.monotonic()
            for future in as_completed(futures):
                rows[futures[future]] = {**future.result(), "digest": futures[future]}
                if time.monotonic() - written > _WRITE_EVERY_S:
                    write_table(path, pa.Table.from_pylist(list(rows.values())))
                    written = time.monotonic()
                progress.advance(bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(active_children()) - others:
                process.terminate()  # their jobs may take hours
            if rows:
                write_table(path, pa.Table.from_pylist(list(rows.values())))
            raise


def _execute(job: Job) -> dict[str, Any]:
    return job.execute()


def _stored(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        rows: list[dict[str, Any]] = pq.ParquetFile(path).read().to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"benchmark results `{path}` cannot be read ({error}); move the file away to start anew"
        ) from None
    return [row for row in rows if "digest" in row]
