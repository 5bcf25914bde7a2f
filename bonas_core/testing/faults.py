"""Faults on purpose: a disk whose n-th operation fails, a process that dies at a named point, a part that is damaged.

In one process, where a death is an exception that nothing catches:

    with faulty_disk(7, Kind.CRASH_AFTER) as disk:
        run(problem, history)

A point has a name, the operation and the file, which may hold `*`. A real process, killed by a real signal:

    python -m bonas_core.testing.faults "rename trial-000003.parquet" kill-before flows.command search quickstart
"""

from __future__ import annotations

import errno
import os
import re
import runpy
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bonas_core.storage import Disk, use_disk

_TEMPORARY = re.compile(r"\.(.*)\.[0-9a-f]{8}\.tmp")


class Kind(StrEnum):
    """What goes wrong with an operation."""

    ERROR = "error"
    """It fails, and nothing has changed."""
    NO_SPACE = "no-space"
    """It fails since the disk is full."""
    SHORT_WRITE = "short-write"
    """Half of the data is written, then it fails."""
    CRASH_BEFORE = "crash-before"
    """The process dies in place of it."""
    CRASH_AFTER = "crash-after"
    """The process dies once it is done."""
    CRASH_WITHIN = "crash-within"
    """The process dies with half of the data written."""
    KILL_BEFORE = "kill-before"
    """As CRASH_BEFORE, by a real SIGKILL."""
    KILL_AFTER = "kill-after"
    """As CRASH_AFTER, by a real SIGKILL."""


EVERYWHERE = (Kind.ERROR, Kind.CRASH_BEFORE, Kind.CRASH_AFTER)
KINDS = {
    "make": EVERYWHERE,
    "create": (*EVERYWHERE, Kind.NO_SPACE),
    "write": (*EVERYWHERE, Kind.NO_SPACE, Kind.SHORT_WRITE, Kind.CRASH_WITHIN),
    "sync": (*EVERYWHERE, Kind.NO_SPACE),
    "rename": (*EVERYWHERE, Kind.NO_SPACE),
    "sync-folder": EVERYWHERE,
    "remove": EVERYWHERE,
}
"""The kinds of faults that an operation can have."""


class Crash(BaseException):
    """The process has died: it does nothing more, cleaning up included."""


class FaultyDisk(Disk):
    """A disk on which one operation fails.

    Args:
        at: number of the operation, counting from 0, or a pattern of its name; none fails if it is None. The first
            that matches fails.
        kind: how.
    """

    def __init__(self, at: int | str | None = None, kind: Kind = Kind.ERROR) -> None:
        self.points: list[str] = []
        """Names of the operations so far, such as `rename trial-000003.parquet`."""
        self.failed: str | None = None
        """The one that failed."""
        self._at = at
        self._kind = kind
        self._is_dead = False
        self._names: dict[int, str] = {}

    def make_folder(self, path: Path) -> None:
        """Makes a folder, unless this is the operation that fails: `make` and the folder's name."""
        self._perform("make", path.name, lambda: Disk.make_folder(self, path))

    def create(self, path: Path) -> int:
        """Makes a new file, unless this is the operation that fails: `create` and the file's final name."""
        descriptor = -1

        def create() -> None:
            nonlocal descriptor
            descriptor = Disk.create(self, path)
            self._names[descriptor] = path.name

        self._perform("create", path.name, create)
        return descriptor

    def write(self, descriptor: int, data: bytes) -> None:
        """Writes data, only half or none of it if this is the operation that fails: `write` and the file's name."""
        half = data[: len(data) // 2]
        self._perform(
            "write",
            self._names[descriptor],
            lambda: Disk.write(self, descriptor, data),
            lambda: Disk.write(self, descriptor, half),
        )

    def sync(self, descriptor: int) -> None:
        """Syncs a file, unless this is the operation that fails: `sync` and the file's name."""
        self._perform("sync", self._names[descriptor], lambda: Disk.sync(self, descriptor))

    def rename(self, source: Path, target: Path) -> None:
        """Renames a file, unless this is the operation that fails: `rename` and the new name."""
        self._perform("rename", target.name, lambda: Disk.rename(self, source, target))

    def sync_folder(self, folder: Path) -> None:
        """Syncs a folder, unless this is the operation that fails: `sync-folder` and the folder's name."""
        self._perform("sync-folder", folder.name, lambda: Disk.sync_folder(self, folder))

    def remove(self, path: Path) -> None:
        """Removes a file, unless this is the operation that fails: `remove` and the file's name."""
        self._perform("remove", path.name, lambda: Disk.remove(self, path))

    def _perform(
        self, operation: str, name: str, action: Callable[[], None], half: Callable[[], None] = lambda: None
    ) -> None:
        if self._is_dead:
            raise Crash
        match = _TEMPORARY.fullmatch(name)
        point = f"{operation} {match[1] if match else name}"
        number = len(self.points)
        self.points.append(point)
        wanted = number == self._at if isinstance(self._at, int) else fnmatchcase(point, self._at or "")
        if self.failed is not None or not wanted:
            action()
            return
        self.failed = point
        if self._kind in (Kind.SHORT_WRITE, Kind.CRASH_WITHIN):
            half()
        if self._kind in (Kind.CRASH_AFTER, Kind.KILL_AFTER):
            action()
        if self._kind in (Kind.KILL_BEFORE, Kind.KILL_AFTER):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._kind in (Kind.CRASH_BEFORE, Kind.CRASH_AFTER, Kind.CRASH_WITHIN):
            self._is_dead = True
            raise Crash
        number = errno.ENOSPC if self._kind is Kind.NO_SPACE else errno.EIO
        raise OSError(number, os.strerror(number))


@contextmanager
def faulty_disk(at: int | str | None = None, kind: Kind = Kind.ERROR) -> Iterator[FaultyDisk]:
    """Puts a disk in place on which one operation fails."""
    disk = FaultyDisk(at, kind)
    before = use_disk(disk)
    try:
        yield disk
    finally:
        use_disk(before)


def damage(path: Path, how: str) -> None:
    """Damages a Parquet file behind everyone's back.

    Args:
        path: the file.
        how: `empty`, `truncate` (half of it is lost), `flip` (a bit of a value) or `junk` (as long, but noise).
    """
    data = path.read_bytes()
    if how == "flip":  # of a value: page headers have statistics, which have no checksum and are not read either
        column = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0).column(0)
        start = column.dictionary_page_offset if column.has_dictionary_page else column.data_page_offset
        place = start + column.total_compressed_size - 1
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
    else:
        changed = {"empty": b"", "truncate": data[: len(data) // 2], "junk": bytes(len(data))}[how]
    path.write_bytes(changed)


def main() -> None:
    """Runs a module in this process, on a disk that fails at a point."""
    if len(sys.argv) < 4 or sys.argv[2] not in list(Kind):
        sys.exit(f'usage: python -m {__spec__.name} "OPERATION FILE" {"|".join(Kind)} MODULE [ARGUMENT ...]')
    _, point, kind, module, *arguments = sys.argv
    sys.argv = [module, *arguments]
    with faulty_disk(point, Kind(kind)):
        runpy.run_module(module, run_name="__main__")


if __name__ == "__main__":
    main()
