"""Files that appear whole or not at all, in a local folder or in S3."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from bonas_core.errors import StoreError
from bonas_core.storage.disk import disk
from bonas_core.storage.lease import check_lease
from bonas_core.storage.s3 import S3Path

Location = Path | S3Path
"""A place in a store."""

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_LARGEST_DOCUMENT = 1 << 24  # bytes of a JSON file; ours are a few thousand
_DEEPEST_DOCUMENT = 32


def store_folder(store: str | Location) -> Location:
    """The place that a store's path, `file://` or `s3://` URI names.

    Raises:
        StoreError: the URI has a scheme that stores cannot have.
    """
    if isinstance(store, S3Path):
        return store
    text = str(store)
    if "://" not in text:
        return Path(text).expanduser().absolute()
    parts = urlsplit(text)
    if parts.scheme == "s3":
        return S3Path.from_uri(text)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        raise StoreError(f"store `{text}`: only folders, file:// and s3:// URIs can be stores; name a folder")
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


def write_whole(path: Location, data: bytes) -> None:
    """Writes a file so that a reader, now or after a crash, finds all of it or nothing.

    Raises:
        StoreError: the file cannot be written.
    """
    if isinstance(path, S3Path):
        check_lease(path)
        path.write_bytes(data)
        return
    try:
        with appearing(path) as temporary:
            try:
                descriptor = disk().create(temporary)
            except OSError as error:
                raise StoreError(f"`{path}` cannot be written: {error.strerror}; make its folder writable") from None
            try:
                disk().write(descriptor, data)
                disk().sync(descriptor)
            finally:
                os.close(descriptor)
    except OSError as error:
        raise StoreError(f"`{path}` cannot be written: {error.strerror}; free space or choose another store") from None


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A file that is to appear as a whole.

    The block writes to the path that it is given, and syncs that; the file gets its name when the block ends, and is
    removed if that raises.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}.tmp")
    try:
        yield temporary
        disk().rename(temporary, path)
        disk().sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            disk().remove(temporary)
        raise


def write_table(path: Location, table: pa.Table, compression: str = "snappy") -> None:
    """Writes a Parquet file, whole or not at all."""
    write_whole(path, table_bytes(table, compression))


def table_bytes(table: pa.Table, compression: str = "snappy") -> bytes:
    """A table as the content of a Parquet file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression=compression, write_page_checksum=True)
    return buffer.getvalue()


def read_whole(path: Location, largest: int) -> bytes:
    """The content of a file of a store.

    Args:
        path: the file.
        largest: bytes; a store may have been made by somebody else.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it is no ordinary file, larger than that, or cannot be read.
    """
    try:
        if isinstance(path, S3Path):
            size = path.size()
        else:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):
                raise StoreError(f"`{path}` is not an ordinary file; remove it")
            size = found.st_size
        if size > largest:
            raise StoreError(f"`{path}` has {size} bytes, more than the {largest} that such a file may have; remove it")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreError(f"`{path}` cannot be read: {error.strerror}; check its permissions") from None


def read_json(path: Location) -> dict[str, Any]:
    """The JSON object in a file of a store.

    Raises:
        FileNotFoundError: there is none.
        StoreError: it cannot be read or is no such file.
        ValueError: it is damaged, or nested deeper than anything that this project writes.
    """
    return parse_json(read_whole(path, _LARGEST_DOCUMENT))


def parse_json(data: bytes | str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        ValueError: it is none, or nested deeper than anything that this project writes.
    """
    try:
        value = json.loads(data)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("not a mapping")
    _check_depth(value, _DEEPEST_DOCUMENT)
    return value


def _check_depth(value: Any, left: int) -> None:
    if left == 0:
        raise ValueError("nested too deeply")
    for inner in value.values() if isinstance(value, dict) else value:
        if isinstance(inner, dict | list):
            _check_depth(inner, left - 1)


def remove_file(path: Location) -> None:
    """Removes a file; one that is not there is no error.

    Raises:
        StoreError: it cannot be removed.
    """
    if isinstance(path, S3Path):
        check_lease(path)
        path.unlink(missing_ok=True)
        return
    try:
        disk().remove(path)
    except OSError as error:
        raise StoreError(f"`{path}` cannot be removed: {error.strerror}; make its folder writable") from None


def remove_folder(folder: Location) -> None:
    """Removes a folder and all that is in it, as far as that is possible; what is left does no harm."""
    if isinstance(folder, S3Path):
        with suppress(StoreError):
            folder.rmtree()
        return
    shutil.rmtree(folder, ignore_errors=True)


def set_aside(path: Location) -> Location:
    """Renames a damaged file to `<name>.corrupt`, which nothing reads; returns where it is now.

    Raises:
        StoreError: it cannot be renamed.
    """
    aside = path.parent / f"{path.name}.corrupt"
    if isinstance(path, S3Path) and isinstance(aside, S3Path):
        check_lease(path)
        path.rename(aside)
    elif isinstance(path, Path) and isinstance(aside, Path):
        try:
            disk().rename(path, aside)
            disk().sync_folder(path.parent)
        except OSError as error:
            raise StoreError(f"`{path}` cannot be renamed: {error.strerror}; make its folder writable") from None
    return aside


def remove_unfinished(folder: Location) -> None:
    """Removes what `write_whole` had not finished writing in a folder and below when its process was killed."""
    for path in folder.rglob(".*.tmp") if isinstance(folder, Path) else ():  # S3 shows nothing that is unfinished
        remove_file(path)


def make_folder(path: Location, option: str = "--store") -> Location:
    """Makes a folder and its parents; in S3, where nothing has to be made, leaves a mark that it is there.

    Args:
        path: the folder.
        option: names another; for the error.

    Raises:
        StoreError: it cannot be made or written to.
    """
    if isinstance(path, S3Path):
        path.mkdir()
        return path
    return make_local_folder(path, option)


def make_local_folder(path: Path, option: str = "--store") -> Path:
    """Makes a folder on the disk, and its parents; see `make_folder`.

    Raises:
        StoreError: it cannot be made or written to.
    """
    try:
        disk().make_folder(path)
    except OSError as error:
        raise StoreError(f"folder `{path}` cannot be made: {error.strerror}; choose another with {option}") from None
    check_writable(path, option)
    return path


def check_writable(folder: Location, option: str = "--store") -> None:
    """Checks, without writing, that a folder can be made or written to; of S3, that its bucket is there.

    Args:
        folder: the folder.
        option: names another; for the error.

    Raises:
        StoreError: it cannot.
    """
    if isinstance(folder, S3Path):
        folder.check_bucket()
        return
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise StoreError(f"folder `{folder}`: `{nearest}` is a file; choose another with {option}")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise StoreError(f"folder `{folder}` is not writable; choose another with {option}")


def refuse_links(folder: Location) -> None:
    """Checks that everything in a folder of a store and below is an ordinary file or folder of its own.

    Raises:
        StoreError: something is a link, which could lead out of the store, or a device.
    """
    if isinstance(folder, S3Path):
        return
    stack = [folder]
    while stack:
        try:
            with os.scandir(stack.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        stack.append(Path(entry.path))
                    elif not entry.is_file(follow_symlinks=False):
                        kind = "a symbolic link" if entry.is_symlink() else "a device"
                        raise StoreError(f"`{entry.path}` is {kind}; stores hold files and folders only, remove it")
        except OSError as error:
            if error.errno != errno.ENOENT:  # removed by its writer in the meantime
                raise StoreError(f"store folder `{folder}` cannot be read: {error.strerror}; check it") from None


@contextmanager
def local_folder(folder: Location) -> Iterator[Path]:
    """A folder of a store as one on the disk: itself, or a copy of what stands directly in it."""
    if isinstance(folder, Path):
        yield folder
        return
    with TemporaryDirectory(prefix="bonas-") as copy:
        fetch(folder, Path(copy))
        yield Path(copy)


def fetch(folder: S3Path, into: Path) -> None:
    """Copies the objects directly below a prefix into a folder."""
    for path in folder.iterdir():
        if path.is_file():
            write_whole(into / path.name, path.read_bytes())


def send(folder: Path, to: S3Path) -> None:
    """Copies the finished files of a folder to below a prefix."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            write_whole(to / path.name, path.read_bytes())
