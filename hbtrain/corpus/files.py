"""Input files, plain or gzip, here or remote: lines with their places, JSON lines, a whole JSON document.

A path is a local one or a URL that pyarrow or fsspec knows: `s3://`, `gs://`, `hf://`, `https://`, `file://`. What
follows the `?` of a URL is how to get there, and no part of a name.
"""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

from hbtrain.errors import ConfigError, DataError
from hbtrain.storage import RemotePath

ARROW_SCHEMES = ("s3", "gs", "gcs")
"""Read by pyarrow itself; fsspec would need a package for each."""
GCS_LIMIT = "retry_limit_seconds"
"""Option of a `gs://` URL."""
GIVE_UP_S = 30
CHANGED = ("ETag", "etag", "blob_id", "mtime", "LastModified", "Last-Modified", "last_modified", "created")
"""What remote places call that which changes with a file's content, the surest first."""
BUFFER_BYTES = 1 << 16
"""Read at one time."""
DEPTH = 4
"""Levels of a folder in which files are looked for."""


class Place(NamedTuple):
    """Where something stands in an input, for messages: `en.tsv line 7`."""

    file: str
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.file} {self.unit} {self.number}"


def is_remote(path: str | Path) -> bool:
    """Whether a path is a URL."""
    return "://" in str(path)


def named(path: str) -> str:
    """A path as its name is looked at: a URL without its query."""
    return path.partition("?")[0] if is_remote(path) else path


@contextmanager
def open_plain(path: str | Path) -> Iterator[BinaryIO]:
    """The bytes of a file as they are.

    Raises:
        DataError: it cannot be read.
        ConfigError: a URL of a kind that is not known here.
    """
    try:
        if is_remote(path):
            filesystem, inside = remote(str(path))
            with _told(path):
                opened = filesystem.open(inside, "rb")
            with opened as stream:
                yield stream
        else:
            with Path(path).open("rb") as stream:
                yield stream
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise
        raise DataError(f"cannot read {path}: {_reason(error)}") from error


@contextmanager
def open_unzipped(path: str | Path) -> Iterator[BinaryIO]:
    """The bytes of a file, unzipped if it is a gzip file.

    Raises:
        DataError: it cannot be read, or is a gzip file that breaks off.
    """
    try:
        with open_plain(path) as plain, _unzipped(plain, str(path)) as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a broken gzip file: {error}; fetch it again") from error


def raw_lines(path: str | Path) -> Iterator[tuple[bytes, Place]]:
    """The lines of a file, unzipped, with their ends.

    Raises:
        DataError: the file cannot be read, or is a gzip file that breaks off.
    """
    number = 0
    try:
        with open_plain(path) as plain, _unzipped(plain, str(path)) as stream:
            for number, line in enumerate(stream, 1):
                yield line, Place(str(path), number)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a broken gzip file after line {number}: {error}; fetch it again") from error


def decoded(line: bytes, place: Place) -> str:
    """A line as text without its end; a byte-order mark in front is dropped.

    Raises:
        DataError: it is not UTF-8.
    """
    try:
        return line.decode("utf-8-sig" if place.number == 1 else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{place} is not UTF-8 at byte {error.start}") from error


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: JSON may hold halves of surrogate pairs, such as "\\ud800"."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def numbered_lines(path: str | Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not blank, without their ends, each with its place for messages.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    for line, place in raw_lines(path):
        text = decoded(line, place)
        if text.strip():
            yield text, str(place)


def json_lines(path: str | Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a JSON-lines file, each with its place for messages.

    Raises:
        DataError: the file cannot be read, or a line is not an object.
    """
    for line, place in numbered_lines(path):
        yield json_object(line, place), place


def json_object(line: str, place: object) -> dict[str, Any]:
    """The object that a line holds.

    Raises:
        DataError: it is none.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise DataError(f"{place} must be an object, not {type(record).__name__}")
    return record


def json_document(path: str | Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        DataError: the file cannot be read, or is none.
    """
    with open_unzipped(path) as stream:
        raw = stream.read()
    try:
        document = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; fetch it again") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} is not an object at the top, but {type(document).__name__}")
    return cast(dict[str, Any], document)


def list_files(folder: str) -> list[str]:
    """The files of a folder and some levels below it, sorted; each path begins with `folder`, a query comes last.

    Raises:
        DataError: it is not a folder, or cannot be read.
    """
    try:
        if is_remote(folder):
            query = folder.removeprefix(named(folder))
            paths = [f"{named(folder).rstrip('/')}/{x}{query}" for x in _remote_names(folder)]
        else:
            root = Path(folder)
            deep = (path for level in range(DEPTH) for path in root.glob("*/" * level + "*"))
            paths = [str(path) for path in deep if path.is_file()]
            if not root.is_dir():
                raise DataError(f"{folder} is not a folder")
    except OSError as error:
        raise DataError(f"cannot read {folder}: {_reason(error)}") from error
    if not paths:
        raise DataError(f"{folder} holds no files")
    return sorted(paths)


def file_state(path: str) -> dict[str, int | str | None]:
    """What tells a file from what it was before: `bytes` as it is stored, and what changes with its content as
    `changed`: nanoseconds of its last change, or what a remote place says of it (an ETag or a time); None: it says
    nothing.

    Raises:
        DataError: it is not there.
    """
    try:
        if path.startswith("s3://"):
            at = RemotePath.parse(path)
            return {"bytes": at.size(), "changed": at.version()}
        if is_remote(path):
            filesystem, inside = remote(path)
            with _told(path):
                info = filesystem.info(inside)
            changed = next((str(info[key]) for key in CHANGED if info.get(key)), None)
            return {"bytes": info.get("size"), "changed": changed}
        stat = Path(path).stat()
        return {"bytes": stat.st_size, "changed": stat.st_mtime_ns}
    except OSError as error:
        raise DataError(f"cannot read {path}: {_reason(error)}") from error


def remote(url: str) -> tuple[Any, str]:
    """A file system with fsspec's methods, and the path of `url` in it.

    Raises:
        ConfigError: nobody here knows that kind of URL.
        StorageError: an S3 URI with keys, or with an option that is not known.
    """
    scheme = url.partition("://")[0]
    if scheme == "s3":
        RemotePath.parse(url)
    try:
        if scheme in ARROW_SCHEMES:
            from fsspec.implementations.arrow import ArrowFSWrapper
            from pyarrow.fs import FileSystem

            filesystem, inside = FileSystem.from_uri(_patient(url))
            return ArrowFSWrapper(filesystem), inside
        from fsspec.core import url_to_fs

        return cast(tuple[Any, str], url_to_fs(url))
    except (ImportError, ValueError) as error:
        raise ConfigError(f"{url}: {scheme}:// cannot be read here: {error}") from error


def _remote_names(folder: str) -> list[str]:
    """The files of a folder and some levels below it, by their paths in it."""
    filesystem, inside = remote(folder)
    inside = inside.rstrip("/")
    with _told(folder):
        if named(folder).partition("://")[0] in ARROW_SCHEMES:
            from pyarrow.fs import FileSelector, FileType

            # In one go: what Google's storage lists level by level lacks folders that are nothing but part of a name.
            listed = filesystem.fs.get_file_info(FileSelector(inside, recursive=True))
            found = [info.path for info in listed if info.type == FileType.File]
        else:
            found = filesystem.find(inside, maxdepth=DEPTH)
    names = [str(path)[len(inside) + 1 :] for path in found]
    return [name for name in names if name.count("/") < DEPTH]


def _patient(url: str) -> str:
    """With a limit to how often Google's storage is asked again: its own is a quarter of an hour."""
    if url.startswith("s3://") or GCS_LIMIT in url:
        return url
    return f"{url}{'&' if '?' in url else '?'}{GCS_LIMIT}={GIVE_UP_S}"


@contextmanager
def _unzipped(plain: BinaryIO, path: str) -> Iterator[BinaryIO]:
    buffered = io.BufferedReader(_Reading(plain, path), BUFFER_BYTES)
    if buffered.peek(2)[:2] == b"\x1f\x8b" or named(path).endswith(".gz"):
        with gzip.GzipFile(fileobj=buffered, mode="rb") as stream:
            yield cast(BinaryIO, stream)
    else:
        yield buffered


class _Reading(io.RawIOBase):
    """A stream of which nothing is asked but to be read on: some remote ones can do no more."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self._stream = stream
        self._path = path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, but for the end of the stream."""
        done = 0
        with _told(self._path):
            while done < len(buffer) and (part := self._stream.read(len(buffer) - done)):
                buffer[done : done + len(part)] = part
                done += len(part)
        return done


@contextmanager
def _told(path: str | Path) -> Iterator[None]:
    """The libraries behind URLs raise what they like; here it is OSError, or said in one line."""
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        raise DataError(f"cannot read {path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    """What an exception says, in one line."""
    return " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
