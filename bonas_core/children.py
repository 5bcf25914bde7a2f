"""What processes that we start owe the process that started them."""

from __future__ import annotations

import os
import subprocess
from multiprocessing import parent_process
from threading import Thread

_watchers: list[subprocess.Popen[bytes]] = []


def end_with_this_process(pid: int) -> None:
    """Ends a process that code of others has started, with SIGTERM, when this one ends, however that dies.

    A shell waits at a pipe whose other end is this process's alone, and which closes with it.
    """
    command = ["/bin/sh", "-c", 'read -r _; kill "$1"', "sh", str(pid)]
    pipe, silent = subprocess.PIPE, subprocess.DEVNULL
    # in a session of its own, so that Ctrl-C does not reach it; kept, so that the pipe stays open
    _watchers.append(subprocess.Popen(command, stdin=pipe, stdout=silent, stderr=silent, start_new_session=True))


def end_with_parent() -> None:
    """Ends this process, which `multiprocessing` started, when its parent does, however that dies."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    Thread(target=watch, daemon=True).start()
