from __future__ import annotations

import signal
import subprocess
import sys

import pytest

PARENT = """
import subprocess, sys
from bonas_core.children import end_with_this_process
child = subprocess.Popen([sys.executable, "-c", "import signal; print('there', flush=True); signal.pause()"])
end_with_this_process(child.pid)
sys.stdin.readline()
"""


@pytest.mark.parametrize("killed", [True, False])
def test_a_process_of_others_ends_with_this_one_however_that_ends(killed: bool) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "there\n"
    if killed:
        parent.send_signal(signal.SIGKILL)
    # the child has the other end of this pipe, too: it closes when both are gone
    assert parent.communicate("\n" if not killed else None, timeout=60)[0] == ""
    assert parent.returncode == (-signal.SIGKILL if killed else 0)
