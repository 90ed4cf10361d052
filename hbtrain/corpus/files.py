"""Input files, plain or gzip: lines with their places, JSON lines, a whole JSON document.

A path is a local one or a URL (`locations`).
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

from hbtrain.corpus.locations import errors_in_words, is_remote, named, reason, remote
from hbtrain.errors import DataError

BUFFER_BYTES = 1 << 16
"""Read at one time."""


class Place(NamedTuple):
    """Where something stands in an input, for messages: `en.tsv line 7`."""

    file: str
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.file} {self.unit} {self.number}"


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
            with errors_in_words(path):
                opened = filesystem.open(inside, "rb")
            with opened as stream:
                yield stream
        else:
            with Path(path).open("rb") as stream:
                yield stream
    except OSError as error:
        if isinstance(error, gzip.BadGzipFile):
            raise
        raise DataError(f"cannot read {path}: {reason(error)}") from error


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
        with errors_in_words(self._path):
            while done < len(buffer) and (part := self._stream.read(len(buffer) - done)):
                buffer[done : done + len(part)] = part
                done += len(part)
        return done
