"""`bonas up` in a home of its own, as a user runs it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_STOP_S = 120


@dataclass(frozen=True)
class LocalSite:
    """Servers and workers of one home."""

    home: Path
    prefect: str
    mlflow: str

    def run(self, *arguments: str) -> str:
        """Runs a `bonas` command that must succeed, and returns what it printed."""
        command = [sys.executable, "-m", "flows.command", *arguments]
        done = subprocess.run(command, cwd=self.home, env=_environment(self.home), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


@contextmanager
def running_site(home: Path) -> Iterator[LocalSite]:
    """Runs `bonas up` on free ports."""
    port, mlflow_port = _free_ports(2)
    command = [sys.executable, "-m", "flows.command", "up", "--port", str(port), "--mlflow-port", str(mlflow_port)]
    log = home / "up.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=home, env=_environment(home), stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert process.stdout is not None
        # it says where people look once everything answers, and ends if something does not
        if not any(line.startswith("start one") for line in process.stdout):
            pytest.fail(f"bonas up ended with code {process.wait()}: {log.read_text()[-2000:]}")
        yield LocalSite(home, f"http://127.0.0.1:{port}", f"http://127.0.0.1:{mlflow_port}")
    finally:
        process.terminate()
        process.wait(_STOP_S)


def _environment(home: Path) -> dict[str, str]:
    """This process's environment without servers and homes of other tests."""
    ours = ("PREFECT_", "MLFLOW_", "BONAS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "BONAS_HOME": str(home), "PYTHONPATH": str(_ROOT)}


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for found in sockets:
            found.bind(("127.0.0.1", 0))
        return [int(found.getsockname()[1]) for found in sockets]
