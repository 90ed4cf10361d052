"""A file or folder in S3-compatible storage, used like a `pathlib.Path`.

An object appears when it has been written whole, and replaces the one before at that moment; a folder is nothing but
the beginning that its files' names share. Access is pyarrow's, as it is Ray Train's, so one URI serves both. Keys come
from the environment or the machine's role, and never stand in the URI.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from hbtrain.errors import StorageError

SCHEME = "s3"
OPTIONS = ("endpoint_override", "region", "scheme")
"""What may stand after the `?` of a URI."""

PASSING = (
    "INTERNAL_FAILURE",
    "NETWORK_CONNECTION",
    "REQUEST_TIMEOUT",
    "SERVICE_UNAVAILABLE",
    "SLOW_DOWN",
    "THROTTLING",
)
"""Errors of S3 that pass, as the AWS SDK calls them; it has tried again for some seconds before it reports one."""

_AWS = re.compile(r"AWS Error (?P<code>\S+) during \S+ operation: (?P<text>.*)", re.DOTALL)
_REQUEST_ID = re.compile(r"\s*\(Request ID: [^)]*\)")


class RemoteError(OSError):
    """The storage does not answer, or refuses; `strerror` says why in one line, `filename` is the URI."""

    @property
    def may_pass(self) -> bool:
        """Whether the same may succeed in a while: nobody answered, or somebody who was not up to it."""
        return any(f"({code})" in (self.strerror or "") for code in PASSING)


@dataclass(frozen=True)
class RemotePath:
    """An object or a folder; what it raises is OSError, as of a Path: FileNotFoundError, else RemoteError.

    Attributes:
        bucket: its name.
        key: path within the bucket, without slashes at its ends; empty for the bucket itself.
        options: what follows the `?` of the URI, or empty.
    """

    bucket: str
    key: str
    options: str = ""

    @classmethod
    def parse(cls, uri: str) -> RemotePath:
        """The place that `uri` names: `s3://bucket/path[?endpoint_override=host:port&scheme=http&region=...]`.

        Raises:
            StorageError: another scheme, no bucket, an unknown option, or keys in the URI.
        """
        parts = urlsplit(uri, allow_fragments=False)
        if parts.scheme != SCHEME:
            raise StorageError(f"{uri!r}: remote storage is s3://bucket/path, and nothing else; or give a folder")
        if "@" in parts.netloc:
            raise StorageError(
                "a storage URI holds keys before its @; leave them out and set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or give the machine a role"
            )
        if not parts.netloc:
            raise StorageError(f"{uri!r} names no bucket; write s3://bucket/path")
        for name, _ in parse_qsl(parts.query, keep_blank_values=True):
            if name not in OPTIONS:
                raise StorageError(f"option {name!r} of a storage URI is not known; there are {', '.join(OPTIONS)}")
        key = "/".join(part for part in parts.path.split("/") if part)
        if ".." in key.split("/"):
            raise StorageError(f"{uri!r}: a path in storage has no '..'")
        return cls(parts.netloc, key, parts.query)

    def __str__(self) -> str:
        uri = f"{SCHEME}://{self.bucket}" + (f"/{self.key}" if self.key else "")
        return f"{uri}?{self.options}" if self.options else uri

    def __truediv__(self, name: str) -> RemotePath:
        return replace(self, key=f"{self.key}/{name}" if self.key else name)

    @property
    def name(self) -> str:
        """The last part."""
        return self.key.rsplit("/", 1)[-1]

    @property
    def parent(self) -> RemotePath:
        """The folder that it is in."""
        return replace(self, key=self.key.rpartition("/")[0])

    @property
    def address(self) -> str:
        """`s3://bucket/key`, without options, as other programs take it."""
        return str(replace(self, options=""))

    def exists(self) -> bool:
        """Whether there is such an object, or one below it."""
        return self._kind() != "NotFound"

    def is_file(self) -> bool:
        """Whether there is such an object."""
        return self._kind() == "File"

    def is_dir(self) -> bool:
        """Whether there is an object below it."""
        return self._kind() == "Directory"

    def size(self) -> int:
        """Bytes of an object."""
        with self._telling():
            info = self._filesystem().get_file_info(self._path)
        if not info.is_file:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(self))
        return int(info.size)

    def version(self) -> str:
        """What changes whenever the object does: its ETag."""
        with self._telling(), self._filesystem().open_input_file(self._path) as stream:
            return str(stream.metadata()["ETag"].decode().strip('"'))

    def read_bytes(self) -> bytes:
        """An object's content."""
        with self.open() as stream, self._telling():
            return bytes(stream.read())

    def read_text(self, encoding: str = "utf-8") -> str:
        """An object's content."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Make, or replace, the object."""
        with self.open("wb") as stream:
            stream.write(content)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Make, or replace, the object."""
        self.write_bytes(text.encode(encoding))

    @contextmanager
    def open(self, mode: str = "rb") -> Iterator[Any]:
        """A stream of bytes, `rb` or `wb`; what is written appears at the end."""
        with self._telling():
            files = self._filesystem()
            act = files.open_input_stream if mode == "rb" else files.open_output_stream
            with act(self._path, compression=None) as stream:  # by itself it would unpack and pack what ends in .gz
                yield stream

    def children(self) -> dict[str, bool]:
        """{name: whether it is a folder} of what is directly in this folder; empty where there is no such folder."""
        return {info.base_name: not info.is_file for info in self._listing(recursive=False)}

    def files(self) -> dict[str, tuple[int, int]]:
        """{path below this folder: (bytes, nanoseconds of its last change)} of all files in it, at any depth."""
        start = len(self._path) + 1
        return {i.path[start:]: (i.size, i.mtime_ns or 0) for i in self._listing(recursive=True) if i.is_file}

    def unlink(self, missing_ok: bool = False) -> None:
        """Delete an object."""
        try:
            with self._telling():
                self._filesystem().delete_file(self._path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Delete a folder with all in it, if it is there."""
        with self._telling():
            try:
                self._filesystem().delete_dir(self._path)
            except FileNotFoundError:
                return

    @property
    def _path(self) -> str:
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    def _kind(self) -> str:
        with self._telling():
            return str(self._filesystem().get_file_info(self._path).type.name)

    def _listing(self, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        with self._telling():
            selector = FileSelector(self._path, allow_not_found=True, recursive=recursive)
            return list(self._filesystem().get_file_info(selector))

    def _filesystem(self) -> Any:
        return _filesystem(self.bucket, self.options)

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """pyarrow's errors, as those of a Path with the URI and a reason of one line."""
        try:
            yield
        except FileNotFoundError as error:
            if error.filename is not None:
                raise
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(self)) from error
        except OSError as error:
            if error.errno is not None:  # of this machine's disk, or told already
                raise
            raise RemoteError(errno.EIO, _reason(error), str(self)) from error


@lru_cache(maxsize=64)
def _filesystem(bucket: str, options: str) -> Any:
    """pyarrow's access to a bucket; making it may ask for the bucket's region."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem

    uri = str(RemotePath(bucket, "", options))
    try:
        return FileSystem.from_uri(uri)[0]
    except ArrowInvalid as error:
        raise StorageError(f"{uri!r} is no URI of storage: {error}") from error


def _reason(error: OSError) -> str:
    """What a storage's error says, in one line, without the operation and its number."""
    text = _REQUEST_ID.sub("", " ".join(str(error).split()))
    found = _AWS.search(text)
    return f"{found['text'].rstrip('. ')} ({found['code']})" if found else text
