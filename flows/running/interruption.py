"""Interruption by Ctrl-C and SIGTERM, so that neither is ever lost.

Python raises KeyboardInterrupt wherever the process happens to be, and where that is a destructor or a callback of a
library it is printed and forgotten. So the request is noted too, and a search looks at the note between its steps.
"""

from __future__ import annotations

import signal
from threading import Event
from typing import NoReturn

_requested = Event()


def install() -> None:
    """Lets SIGINT and SIGTERM interrupt this process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def raise_if_requested() -> None:
    """Raises KeyboardInterrupt if an interruption was requested, once."""
    if _requested.is_set():
        _requested.clear()
        raise KeyboardInterrupt


def _interrupt(number: int, frame: object) -> NoReturn:
    _requested.set()
    raise KeyboardInterrupt
