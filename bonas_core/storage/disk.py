"""The few operations on the local disk that stores are written with."""

from __future__ import annotations

import os
from pathlib import Path


class Disk:
    """Every change to a local store is one of these; tests put a disk in its place that fails (`bonas_core.testing`).

    Raises:
        OSError: as the operating system does.
    """

    def make_folder(self, path: Path) -> None:
        """Makes a folder and its parents, unless it is there."""
        path.mkdir(parents=True, exist_ok=True)

    def create(self, path: Path) -> int:
        """Makes a new file and returns its descriptor."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)

    def write(self, descriptor: int, data: bytes) -> None:
        """Writes all of `data`."""
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]

    def sync(self, descriptor: int) -> None:
        """Makes the content of a file outlive a loss of power."""
        os.fsync(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        """Gives a file another name, in one step; a file of that name is replaced."""
        os.replace(source, target)

    def sync_folder(self, folder: Path) -> None:
        """Makes renames within a folder outlive a loss of power."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Removes a file; one that is not there is no error."""
        path.unlink(missing_ok=True)


_disk = Disk()


def disk() -> Disk:
    """The disk in use."""
    return _disk


def use_disk(other: Disk) -> Disk:
    """Puts another disk in place, for tests, and returns the one before."""
    global _disk
    before, _disk = _disk, other
    return before
