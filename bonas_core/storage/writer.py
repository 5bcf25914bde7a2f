"""One writer per search.

In a folder, the operating system's lock on `.lock` is held: it is free as soon as its holder ends, in whatever way. In
S3 the writer holds a lease (`lease.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bonas_core.errors import StoreError
from bonas_core.storage.files import write_whole
from bonas_core.storage.lease import leased, live_lease, refusal, this_process
from bonas_core.storage.s3 import S3Path


@contextmanager
def single_writer(folder: Path | S3Path) -> Iterator[None]:
    """Holds the right to write to a search.

    Raises:
        SearchLockedError: another process holds it; the message says which.
    """
    with leased(folder) if isinstance(folder, S3Path) else _locked(folder):
        yield


def is_locked(folder: Path | S3Path) -> bool:
    """Whether a live process is writing to a search; asking changes nothing."""
    if isinstance(folder, S3Path):
        return live_lease(folder) is not None
    if not (folder / ".lock").exists():
        return False
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except OSError:
        return False  # not ours to lock: then nobody can be writing through this mount either
    lock.release()
    return False


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0.5)  # `is_locked` of another process holds it for a moment
    except Timeout:
        raise refusal(folder, folder / ".holder.json") from None
    except OSError as error:
        raise StoreError(f"search folder `{folder}` cannot be locked: {error.strerror}; make it writable") from None
    try:
        write_whole(folder / ".holder.json", this_process())
        yield
    finally:
        lock.release()
