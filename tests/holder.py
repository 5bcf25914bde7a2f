"""A process that holds the right to write to a search."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from bonas_core.storage import Location

_HOLD = """
import sys
from bonas_core.storage import single_writer, store_folder
with single_writer(store_folder(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holding(folder: Location) -> subprocess.Popen[str]:
    """Starts one, which ends when its input closes; it holds the search when this returns."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process
