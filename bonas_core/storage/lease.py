"""The lease that the one writer of a search holds in S3.

S3 has no locks, and pyarrow does not offer its conditional writes. A lease is an object below `.writers/` that its
holder writes anew every 15 seconds. Whoever wants to write puts a lease of its own first and then lists them all. What
was put is seen by every later listing, so of two who try at once at least one sees the other; who sees another live
lease withdraws its own. A lease that was not renewed for 60 seconds, by the server's clock, is dead. Its holder, should
it only have been asleep, refuses to write after 45.
"""

from __future__ import annotations

import json
import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

from bonas_core.errors import SearchLockedError, StoreError
from bonas_core.storage.s3 import S3Path

LEASE_S = 60.0
"""Seconds after which a lease in S3 that was not renewed is dead."""
_RENEW_S = 15.0
_TRUSTED_S = 45.0  # how long a holder relies on its own lease: less than others wait
_ATTEMPTS = 4
_LEASES = ".writers"


def this_process() -> bytes:
    """Describes this process as the holder of a search, as JSON."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}).encode()


def refusal(folder: Path | S3Path, holder: Path | S3Path) -> SearchLockedError:
    """Makes the error of whoever wants to write to a search that another process holds.

    Args:
        folder: of the search.
        holder: the file in which the other describes itself.
    """
    who = "another process"
    with suppress(OSError, ValueError, KeyError, TypeError, StoreError, RecursionError):
        told = json.loads(holder.read_bytes())
        who = f"process {told['pid']} on {told['host']} since {told['since']}"
        who = "".join(letter for letter in who if letter.isprintable())
    return SearchLockedError(
        f"search `{folder.name}` is being written by {who[:200]}; "
        f"wait for it, or stop it and run `bonas resume {folder.name}`"
    )


@contextmanager
def leased(folder: S3Path) -> Iterator[None]:
    """Holds the lease of a search.

    Raises:
        SearchLockedError: another process holds it; the message says which.
    """
    lease = _acquired(folder)
    stop = threading.Event()
    renewing = threading.Thread(target=lease.keep, args=(stop,), name="lease", daemon=True)
    renewing.start()
    _held[folder] = lease
    try:
        yield
    finally:
        del _held[folder]
        stop.set()
        renewing.join()
        with suppress(StoreError):  # it dies by itself
            lease.place.unlink(missing_ok=True)


class _Lease:
    def __init__(self, place: S3Path) -> None:
        self.place = place
        self._content = this_process()
        self.renew()

    def renew(self) -> None:
        begun = _clock()
        self.place.write_bytes(self._content)
        self._renewed = begun

    def keep(self, stop: threading.Event) -> None:
        while not stop.wait(_RENEW_S) and self.is_trusted():
            with suppress(StoreError):  # tried again; while it fails, time runs out for `is_trusted`
                self.renew()

    def is_trusted(self) -> bool:
        return _clock() - self._renewed < _TRUSTED_S


_held: dict[S3Path, _Lease] = {}


def check_lease(path: S3Path) -> None:
    """Raises SearchLockedError if this process held a search that `path` belongs to and can no longer be sure of it."""
    for folder in path.parents if _held else ():
        lease = _held.get(folder)
        if lease is not None and not lease.is_trusted():
            raise SearchLockedError(
                f"search `{folder.name}`: this process could not renew its lease in time, another may be writing; "
                f"run `bonas resume {folder.name}`"
            )


def _acquired(folder: S3Path) -> _Lease:
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(random.uniform(0.1, 0.5))  # two that saw each other
        lease = _Lease(folder / _LEASES / f"{uuid4().hex}.json")
        changed = (folder / _LEASES).changed()
        now = changed[lease.place.name]
        others = {name: when for name, when in changed.items() if name != lease.place.name}
        live = [name for name, when in others.items() if now - when < timedelta(seconds=LEASE_S)]
        if not live:
            for name in others:
                (folder / _LEASES / name).unlink(missing_ok=True)
            return lease
        refused = refusal(folder, folder / _LEASES / live[0])
        lease.place.unlink(missing_ok=True)
        if any(now - others[name] > timedelta(seconds=2) for name in live):
            break  # not one that is only trying, too
    raise refused


def live_lease(folder: S3Path) -> str | None:
    """Finds a lease of a search that is alive, by its name; None where there is none."""
    now = datetime.now(UTC)
    found = (folder / _LEASES).changed().items()
    return next((name for name, when in found if now - when < timedelta(seconds=LEASE_S)), None)


def _clock() -> float:
    """Seconds, those counted during which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
