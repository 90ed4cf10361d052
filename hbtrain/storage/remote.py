"""A file or folder in S3-compatible storage, used like a `pathlib.Path`.

An object appears, or replaces the one before, when it has been written whole. A folder is only the prefix that its
files' keys share. Storage is accessed through pyarrow, as by Ray Train, so one URI serves both. Access keys come from
the environment or the machine's role, and are never part of the URI.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from hbtrain.errors import StorageError

SCHEME = "s3"
OPTIONS = ("endpoint_override", "region", "scheme")  # what may stand after the `?` of a URI

PASSING = (
    "INTERNAL_FAILURE",
    "NETWORK_CONNECTION",
    "REQUEST_TIMEOUT",
    "SERVICE_UNAVAILABLE",
    "SLOW_DOWN",
    "THROTTLING",
)
"""Errors of S3 that may be over soon, by the AWS SDK's names; it has retried for some seconds before it reports one."""

COPY_BYTES = 5 * 10**9  # the most that S3 copies in one request
READ_BYTES = 16 * 2**20

_AWS = re.compile(r"AWS Error (?P<code>\S+) during \S+ operation: (?P<text>.*)", re.DOTALL)
_REQUEST_ID = re.compile(r"\s*\(Request ID: [^)]*\)")


class RemoteError(OSError):
    """The storage does not answer, or refuses a request; `strerror` says why in one line, `filename` is the URI."""

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later: the storage did not answer, or was overloaded."""
        return any(f"({code})" in (self.strerror or "") for code in PASSING)


@dataclass(frozen=True)
class RemotePath:
    """An object or a folder in a bucket. Its methods raise FileNotFoundError or RemoteError, both of them OSErrors."""

    bucket: str  # its name
    key: str  # path within the bucket, without slashes at its ends; empty for the bucket itself
    options: str = ""  # what follows the `?` of the URI, or empty

    @classmethod
    def parse(cls, uri: str) -> RemotePath:
        """The path of a URI `s3://bucket/path[?endpoint_override=host:port&scheme=http&region=...]`.

        The path is taken as it is written, as the tools of S3 do: `%20` is no blank, a blank is one.

        Raises:
            StorageError: another scheme, no bucket, an unknown option, control characters or keys in the URI.
        """
        if any(character < " " or character == "\x7f" for character in uri):
            raise StorageError(f"{uri!r} holds a control character; name the folder without it")
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
        return self.key.rsplit("/", 1)[-1]

    @property
    def parent(self) -> RemotePath:
        return replace(self, key=self.key.rpartition("/")[0])

    @property
    def uri(self) -> str:
        """The whole URI with all special characters of the path written as `%` and digits, as pyarrow reads it."""
        return str(replace(self, key=quote(self.key)))

    @property
    def address(self) -> str:
        """`s3://bucket/key`: the URI without options, as other programs take it."""
        return str(replace(self, options=""))

    def exists(self) -> bool:
        """Whether there is such an object, or a folder of that name."""
        return self._kind() != "NotFound"

    def is_file(self) -> bool:
        return self._kind() == "File"

    def is_dir(self) -> bool:
        """Whether any object's key begins with this one and a slash."""
        return self._kind() == "Directory"

    def size(self) -> int:
        """The object's size in bytes."""
        with self._errors_of_storage():
            info = self._filesystem().get_file_info(self._path)
        if not info.is_file:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(self))
        return int(info.size)

    def version(self) -> str:
        """The object's ETag, which changes with its content."""
        with self._errors_of_storage(), self._filesystem().open_input_file(self._path) as stream:
            return str(stream.metadata()["ETag"].decode().strip('"'))

    def read_bytes(self) -> bytes:
        with self.open() as stream, self._errors_of_storage():
            return bytes(stream.read())

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        with self.open("wb") as stream:
            stream.write(content)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        self.write_bytes(text.encode(encoding))

    @contextmanager
    def open(self, mode: str = "rb") -> Iterator[Any]:
        """A stream of bytes, by `mode` `rb` or `wb`; a written object appears when the block ends."""
        with self._errors_of_storage():
            files = self._filesystem()
            act = files.open_input_stream if mode == "rb" else files.open_output_stream
            with act(self._path, compression=None) as stream:  # by default, names in .gz would be decompressed
                yield stream

    def copy(self, to: RemotePath) -> None:
        """Copy the object to another key of the bucket, in the storage itself as far as that takes objects so large."""
        if self.size() > COPY_BYTES:
            with self.open() as read, to.open("wb") as write:
                shutil.copyfileobj(read, write, READ_BYTES)
            return
        with self._errors_of_storage():
            self._filesystem().copy_file(self._path, to._path)

    def children(self) -> dict[str, bool]:
        """{name: whether it is a folder} of the entries of this folder; empty where there is no such folder."""
        return {info.base_name: not info.is_file for info in self._listing(recursive=False)}

    def files(self) -> dict[str, tuple[int, int]]:
        """{path below this folder: (bytes, nanoseconds of its last change)} of all files in it, at any depth."""
        start = len(self._path) + 1
        return {i.path[start:]: (i.size, i.mtime_ns or 0) for i in self._listing(recursive=True) if i.is_file}

    def unlink(self, missing_ok: bool = False) -> None:
        try:
            with self._errors_of_storage():
                self._filesystem().delete_file(self._path)
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Delete a folder with everything in it, if it is there."""
        with self._errors_of_storage():
            try:
                self._filesystem().delete_dir(self._path)
            except FileNotFoundError:
                return

    @property
    def _path(self) -> str:
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    def _kind(self) -> str:
        with self._errors_of_storage():
            return str(self._filesystem().get_file_info(self._path).type.name)

    def _listing(self, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        with self._errors_of_storage():
            selector = FileSelector(self._path, allow_not_found=True, recursive=recursive)
            return list(self._filesystem().get_file_info(selector))

    def _filesystem(self) -> Any:
        return _filesystem(self.bucket, self.options)

    @contextmanager
    def _errors_of_storage(self) -> Iterator[None]:
        """Turn pyarrow's errors into FileNotFoundError or RemoteError, with the URI and a reason of one line."""
        try:
            yield
        except FileNotFoundError as error:
            if error.filename is not None:
                raise
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(self)) from error
        except OSError as error:
            if error.errno is not None:  # an error of this machine's disk, or one that was turned before
                raise
            raise RemoteError(errno.EIO, _reason(error), str(self)) from error


@lru_cache(maxsize=64)
def _filesystem(bucket: str, options: str) -> Any:
    """pyarrow's file system of a bucket; to make it, the bucket's region may be requested."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem

    uri = str(RemotePath(bucket, "", options))
    try:
        return FileSystem.from_uri(uri)[0]
    except ArrowInvalid as error:
        raise StorageError(f"{uri!r} is no URI of storage: {error}") from error


def _reason(error: OSError) -> str:
    """The message of a storage's error in one line, without the names and numbers of AWS requests."""
    text = _REQUEST_ID.sub("", " ".join(str(error).split()))
    found = _AWS.search(text)
    return f"{found['text'].rstrip('. ')} ({found['code']})" if found else text
