"""A file or folder in S3-compatible storage, used like a `pathlib.Path`.

An object appears, or replaces the one before, when it has been written whole. A folder is only the prefix that its
files' keys share. Storage is accessed through pyarrow, as by Ray Train, so one URI serves both. Access keys come from
the environment or the machine's role, and are never part of the URI.
"""

from __future__ import annotations

import errno
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, urlsplit

from hbtrain.errors import StorageError

SCHEME = "s3"
OPTIONS = ("endpoint_override", "region", "scheme")  # what may stand after the `?` of a URI

THROTTLING = ("SLOW_DOWN", "THROTTLING", "SERVICE_UNAVAILABLE", "HTTP 429", "HTTP 503")
"""Errors by which S3 asks for fewer requests. A request whose answer has no body, as of HEAD, has only the number."""

PASSING = (*THROTTLING, "INTERNAL_FAILURE", "NETWORK_CONNECTION", "REQUEST_TIMEOUT", "HTTP 500", "HTTP 502", "HTTP 504")
"""Errors of S3 that may be over soon, by the AWS SDK's names; it has retried for some seconds before it reports one."""

WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Seconds to wait before a throttled request is made again; up to half of it less, so that processes do not meet."""

_AWS = re.compile(
    r"AWS Error (?P<code>\S+)(?: \(HTTP status (?P<status>\d+)\))? during \S+ operation: (?P<text>.*)", re.DOTALL
)

COPY_BYTES = 5 * 10**9  # the most that S3 copies in one request
READ_BYTES = 16 * 2**20
_REQUEST_ID = re.compile(r"\s*\(Request ID: [^)]*\)")


class RemoteError(OSError):
    """The storage does not answer, or refuses a request; `strerror` says why in one line, `filename` is the URI."""

    @property
    def may_pass(self) -> bool:
        """Whether the same request may succeed later: the storage did not answer, or was overloaded."""
        return self._is_of(PASSING)

    @property
    def is_throttling(self) -> bool:
        """Whether the storage asks for fewer requests."""
        return self._is_of(THROTTLING)

    def _is_of(self, codes: Sequence[str]) -> bool:
        return any(f"({code})" in (self.strerror or "") for code in codes)


T = TypeVar("T")


def unthrottled(act: Callable[[], T]) -> T:
    """What `act` returns; it is called again, after a longer wait each time, while storage asks for fewer requests."""
    for wait_s in WAITS_S:
        try:
            return act()
        except RemoteError as error:
            if not error.is_throttling:
                raise
        time.sleep(wait_s * random.uniform(0.5, 1.0))
    return act()


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
        info = self._request(lambda files: files.get_file_info(self._path))
        if not info.is_file:
            raise FileNotFoundError(errno.ENOENT, "there is no such object", str(self))
        return int(info.size)

    def version(self) -> str:
        """The object's ETag, which changes with its content."""

        def etag(files: Any) -> str:
            with files.open_input_file(self._path) as stream:
                return str(stream.metadata()["ETag"].decode().strip('"'))

        return self._request(etag)

    def read_bytes(self) -> bytes:
        def read() -> bytes:
            with self.open() as stream:
                return bytes(stream.read())

        return unthrottled(read)

    def read_text(self, encoding: str = "utf-8") -> str:
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        def write() -> None:
            with self.open("wb") as stream:
                stream.write(content)

        unthrottled(write)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        self.write_bytes(text.encode(encoding))

    @contextmanager
    def open(self, mode: str = "rb") -> Iterator[Any]:
        """A stream of bytes, by `mode` `rb` or `wb`; a written object appears when the block ends.

        What is read or written in parts is for the caller to repeat where storage is overloaded; see `unthrottled`.
        """
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
            self._request(lambda files: files.delete_file(self._path))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_tree(self) -> None:
        """Delete a folder with everything in it, if it is there."""
        with suppress(FileNotFoundError):
            self._request(lambda files: files.delete_dir(self._path))

    @property
    def _path(self) -> str:
        return f"{self.bucket}/{self.key}" if self.key else self.bucket

    def _kind(self) -> str:
        return str(self._request(lambda files: files.get_file_info(self._path)).type.name)

    def _listing(self, recursive: bool) -> list[Any]:
        from pyarrow.fs import FileSelector

        selector = FileSelector(self._path, allow_not_found=True, recursive=recursive)
        return list(self._request(lambda files: files.get_file_info(selector)))

    def _request(self, act: Callable[[Any], T]) -> T:
        """What `act` returns of pyarrow's file system; made again where storage asks for fewer requests."""

        def request() -> T:
            with self._errors_of_storage():
                return act(self._filesystem())

        return unthrottled(request)

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

    # Small objects are then written by one request, not by the three of an upload in parts.
    uri = str(RemotePath(bucket, "", "&".join([*filter(None, [options]), "allow_delayed_open=true"])))
    try:
        return FileSystem.from_uri(uri)[0]
    except ArrowInvalid as error:
        uri = str(RemotePath(bucket, "", options))
        raise StorageError(f"{uri!r} is no URI of storage: {error}") from error


def _reason(error: OSError) -> str:
    """The message of a storage's error in one line, without the names and numbers of AWS requests."""
    text = _REQUEST_ID.sub("", " ".join(str(error).split()))
    found = _AWS.search(text)
    if not found:
        return text
    code = f"HTTP {found['status']}" if found["status"] else found["code"]
    return f"{found['text'].rstrip('. ')} ({code})"
