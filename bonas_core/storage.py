"""Files that appear whole or not at all, and one writer per search."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from bonas_core.errors import SearchLockedError, StoreError

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def write_whole(path: Path, data: bytes) -> None:
    """Writes a file so that a reader, now or after a crash, finds all of it or nothing.

    Raises:
        StoreError: the file cannot be written.
    """
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise StoreError(f"`{path}` cannot be written: {error.strerror}; make its folder writable") from None
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        Path(temporary).unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        raise StoreError(f"`{path}` cannot be written: {error.strerror}; free space or choose another store") from None
    sync_folder(path.parent)


def write_table(path: Path, table: pa.Table, compression: str = "snappy") -> None:
    """Writes a Parquet file, whole or not at all."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression=compression)
    write_whole(path, buffer.getvalue())


def remove_unfinished(folder: Path) -> None:
    """Removes what `write_whole` had not finished writing in a folder and below when its process was killed."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Makes renames within a folder outlive a loss of power."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> Path:
    """Makes a folder and its parents.

    Raises:
        StoreError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"store folder `{path}` cannot be made: {error.strerror}; choose another with --store"
        ) from None
    check_writable(path)
    return path


def check_writable(folder: Path) -> None:
    """Checks, without writing, that a folder can be made or written to.

    Raises:
        StoreError: it cannot.
    """
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise StoreError(f"store folder `{folder}`: `{nearest}` is a file; choose another with --store")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreError(f"store folder `{folder}` is not writable; choose another with --store")


def store_folder(store: str | Path) -> Path:
    """The folder that a store's path or `file://` URI names.

    Raises:
        StoreError: the URI has a scheme that stores cannot have.
    """
    text = str(store)
    if "://" not in text:
        return Path(text).expanduser().absolute()
    parts = urlsplit(text)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise StoreError(f"store `{text}`: only folders and file:// URIs can be stores; name a folder")
    return Path(unquote(parts.path))


def check_id(search_id: str) -> str:
    """Returns a search id that is safe as a folder name.

    Raises:
        StoreError: it is not.
    """
    if not _ID.fullmatch(search_id) or ".." in search_id:
        raise StoreError(
            f"search id `{search_id}`: an id is 1 to 100 letters, digits, `.`, `_` or `-` and starts with a letter or "
            "digit; choose another with --id"
        )
    return search_id


@contextmanager
def single_writer(folder: Path) -> Iterator[None]:
    """Holds the right to write to a search; the operating system frees it when the process ends in any way.

    Raises:
        SearchLockedError: another process holds it; the message says which.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0.5)  # `is_locked` of another process holds it for a moment
    except Timeout:
        who = _holder(folder)
        raise SearchLockedError(
            f"search `{folder.name}` is being written by {who}; "
            f"wait for it, or stop it and run `bonas resume {folder.name}`"
        ) from None
    except OSError as error:
        raise StoreError(f"search folder `{folder}` cannot be locked: {error.strerror}; make it writable") from None
    try:
        holder = {"pid": os.getpid(), "host": socket.gethostname()}
        write_whole(folder / ".holder.json", json.dumps(holder).encode())
        yield
    finally:
        lock.release()


def is_locked(folder: Path) -> bool:
    """Whether a live process is writing to a search; asking changes nothing."""
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


def _holder(folder: Path) -> str:
    try:
        holder: dict[str, Any] = json.loads((folder / ".holder.json").read_text())
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
