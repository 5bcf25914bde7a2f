"""Objects of an S3 bucket by the names and methods of `pathlib.Path`, as far as stores need them.

A store is named `s3://bucket/prefix`. Endpoint, region and scheme come from the usual environment variables or from the
URI, keys never do, since a store's name is written down in many places:

    s3://bucket/prefix?endpoint_override=127.0.0.1:9000&scheme=http&region=us-east-1
    AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, AWS_REGION, AWS_DEFAULT_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY

Writing an object is atomic in S3, and what was written is seen by every read and listing after it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from bonas_core.errors import StoreError

_OPTIONS = ("endpoint_override", "scheme", "region")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_AWS_ERROR = re.compile(r"AWS Error (\w+).*? operation: (.*?)(?: \(Request ID.*)?$", re.DOTALL)


@dataclass(frozen=True, order=True)
class S3Path:
    """One object, or the objects below a prefix; it can be sent to other processes."""

    bucket: str
    key: str
    options: tuple[tuple[str, str], ...] = ()
    """What the URI says of endpoint, scheme and region."""

    @classmethod
    def from_uri(cls, uri: str) -> S3Path:
        """Reads `s3://bucket/prefix?option=value`.

        Raises:
            StoreError: it is not such a URI, or it holds keys.
        """
        parts = urlsplit(uri)
        if "@" in parts.netloc:
            raise StoreError(
                f"store `s3://...@{parts.netloc.rpartition('@')[2]}{parts.path}`: keys do not belong in its name; "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
            )
        options = tuple(parse_qsl(parts.query, keep_blank_values=True))
        for name, value in options:
            if name not in _OPTIONS or not value:
                raise StoreError(f"store option `{name}` is not known or empty; use {', '.join(_OPTIONS)}")
        key = unquote(parts.path).strip("/")
        if not _BUCKET.fullmatch(parts.netloc) or ".." in key.split("/") or parts.fragment:
            raise StoreError(f"store `{uri}` is not a bucket and a prefix; write it as s3://bucket/prefix")
        return cls(parts.netloc, key, options)

    def __str__(self) -> str:
        query = f"?{urlencode(self.options, safe=':/')}" if self.options else ""
        return f"s3://{self.bucket}/{self.key}{query}"

    def __truediv__(self, name: str) -> S3Path:
        return replace(self, key=f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition("/")[2]

    @property
    def stem(self) -> str:
        """The name without its last suffix."""
        return self.name.rpartition(".")[0] or self.name

    @property
    def parent(self) -> S3Path:
        """The prefix that it stands below."""
        return replace(self, key=self.key.rpartition("/")[0])

    @property
    def parents(self) -> list[S3Path]:
        """All prefixes that it stands below, the nearest first."""
        found = [self.parent]
        while found[-1].key:
            found.append(found[-1].parent)
        return found

    def exists(self) -> bool:
        """Whether it is an object or there are objects below it."""
        return self._kind() != "NotFound"

    def is_file(self) -> bool:
        """Whether it is an object."""
        return self._kind() == "File"

    def is_dir(self) -> bool:
        """Whether there are objects below it."""
        return self._kind() == "Directory"

    def is_symlink(self) -> bool:
        """False: S3 has no links."""
        return False

    def size(self) -> int:
        """Bytes of the object."""
        return int(self._info().size or 0)

    def read_bytes(self) -> bytes:
        """The content of the object.

        Raises:
            FileNotFoundError: there is none.
            StoreError: it cannot be read.
        """
        with self._asking("read"), self._files().open_input_file(self._path) as stream:
            return bytes(stream.read())

    def write_bytes(self, data: bytes) -> None:
        """Writes the object, whole or not at all."""
        with self._asking("written"):
            stream = self._files().open_output_stream(self._path)
            stream.write(data)
            stream.close()

    def mkdir(self) -> None:
        """Leaves a mark, so that a prefix without objects counts as a folder."""
        with self._asking("made"):
            self._files().create_dir(self._path, recursive=True)

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes the object."""
        try:
            with self._asking("removed"):
                self._files().delete_file(self._path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def rmtree(self) -> None:
        """Removes everything below it."""
        try:
            with self._asking("removed"):
                self._files().delete_dir(self._path)
        except FileNotFoundError:
            pass

    def rename(self, target: S3Path) -> None:
        """Gives the object another name: a copy, then a removal."""
        with self._asking("renamed"):
            self._files().move(self._path, target._path)

    def iterdir(self) -> Iterator[S3Path]:
        """What stands directly below it, by name."""
        return iter([self / info.base_name for info in self._below(recursive=False)])

    def glob(self, pattern: str) -> Iterator[S3Path]:
        """What stands below it and matches, part by part."""
        wanted = pattern.split("/")
        found = []
        for info in self._below(recursive=len(wanted) > 1):
            parts = info.path.removeprefix(self._path).strip("/").split("/")
            if len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted)):
                found.append(self / "/".join(parts))
        return iter(found)

    def changed(self) -> dict[str, datetime]:
        """When the objects directly below it were written last, by the server's clock."""
        return {info.base_name: info.mtime for info in self._below(recursive=False) if info.mtime is not None}

    def check_bucket(self) -> None:
        """Raises StoreError unless the bucket is there and may be looked at."""
        if replace(self, key="")._kind() == "NotFound":
            raise StoreError(f"bucket `{self.bucket}` does not exist; make it, or name another with --store")

    @property
    def _path(self) -> str:
        return f"{self.bucket}/{self.key}".rstrip("/")

    def _kind(self) -> str:
        return str(self._info().type.name)

    def _info(self) -> Any:
        with self._asking("looked at"):
            return self._files().get_file_info(self._path)

    def _below(self, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        with self._asking("listed"):
            selector = FileSelector(self._path, allow_not_found=True, recursive=recursive)
            return sorted(self._files().get_file_info(selector), key=lambda info: str(info.path))

    def _files(self) -> Any:
        options = dict(self.options)
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        scheme, _, host = endpoint.rpartition("://")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or ""
        host = options.get("endpoint_override", host.rstrip("/"))
        return _filesystem(
            host,
            options.get("scheme", scheme or "https"),
            options.get("region", region or ("us-east-1" if host else "")),
        )

    @contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turns what goes wrong into one line."""
        try:
            yield
        except FileNotFoundError:
            raise FileNotFoundError(2, "No such object", str(self)) from None
        except OSError as error:
            match = _AWS_ERROR.search(str(error))
            reason = f"{match[1]}: {match[2]}" if match else str(error)
            reason = " ".join(reason.split())[:200]
            raise StoreError(f"`{self}` cannot be {what} ({reason}); check bucket, endpoint and keys") from None


@lru_cache(maxsize=16)
def _filesystem(endpoint: str, scheme: str, region: str) -> Any:
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    # a small object is then one PUT, sent when it is closed, rather than a multipart upload
    return S3FileSystem(
        endpoint_override=endpoint or None,
        scheme=scheme,
        region=region or None,
        allow_delayed_open=True,
        background_writes=False,
        connect_timeout=5,
        request_timeout=30,
        retry_strategy=AwsStandardS3RetryStrategy(max_attempts=3),
    )
