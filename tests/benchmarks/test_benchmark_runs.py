"""The engine of benchmarks: what is in its file is never run again nor lost."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bonas_core.errors import StoreError
from flows.benchmarks.runs import run_all


@dataclass(frozen=True)
class Note:
    """A job that leaves a line in a file each time that it runs."""

    name: str
    log: Path

    def execute(self) -> dict[str, Any]:
        if self.name == "broken":
            raise ValueError("broken")
        with self.log.open("a") as file:
            file.write(f"{self.name}\n")
        return {"name": self.name}


def jobs(log: Path, *names: str) -> dict[str, Note]:
    return {f"digest of {name}": Note(name, log) for name in names}


def test_rows_of_other_jobs_stay_and_are_not_run_again(tmp_path: Path) -> None:
    log, path = tmp_path / "log", tmp_path / "runs.parquet"
    run_all(jobs(log, "a", "b"), path, 1)
    asked = run_all(jobs(log, "c"), path, 1)
    assert list(asked["name"]) == ["c"]
    assert list(pd.read_parquet(path)["name"]) == ["a", "b", "c"]
    assert list(run_all(jobs(log, "c", "a"), path, 1)["name"]) == ["c", "a"]
    assert log.read_text().split() == ["a", "b", "c"]


def test_what_has_ended_before_an_error_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    with pytest.raises(ValueError, match="broken"):
        run_all(jobs(tmp_path / "log", "a", "broken", "c"), path, 1)
    assert "a" in list(pd.read_parquet(path)["name"])


@dataclass(frozen=True)
class Stay:
    """A job that names its process and stays until that is ended."""

    fifo: Path

    def execute(self) -> dict[str, Any]:
        self.fifo.write_text(str(os.getpid()))
        threading.Event().wait()
        raise AssertionError


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_benchmark_that_is_stopped_ends_at_once_and_leaves_no_job_behind(number: int, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # a suite that a shell runs in the background is told to ignore SIGINT, and so are its children
    code = "import sys, pathlib; from tests.benchmarks.test_benchmark_runs import *; "
    code += "signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "run_all({'a': Stay(pathlib.Path(sys.argv[1]))}, pathlib.Path(sys.argv[2]), 1)"
    command = [sys.executable, "-c", code, str(fifo), str(tmp_path / "runs.parquet")]
    benchmark = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    job = int(fifo.read_text())  # waits until the job runs
    descriptor = os.pidfd_open(job)
    benchmark.send_signal(number)
    benchmark.wait(60)
    ended, _, _ = select.select([descriptor], [], [], 60)
    assert ended


def test_a_benchmark_that_is_stopped_while_it_hands_out_its_jobs_ends_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    started: list[int] = []
    submit = ProcessPoolExecutor.submit

    def interrupted(pool: ProcessPoolExecutor, *job: Any) -> None:
        submit(pool, *job)
        started.append(os.pidfd_open(int(fifo.read_text())))  # waits until the job runs
        raise KeyboardInterrupt

    monkeypatch.setattr(ProcessPoolExecutor, "submit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_all({"a": Stay(fifo)}, tmp_path / "runs.parquet", 1)
    assert select.select(started, [], [], 60)[0] == started


def test_a_file_that_is_no_parquet_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    path.write_bytes(b"mine")
    with pytest.raises(StoreError, match="move the file away"):
        run_all(jobs(tmp_path / "log", "a"), path, 1)
    assert path.read_bytes() == b"mine"
