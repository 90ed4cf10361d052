"""Files of benchmarks, plain or gzip: lines, JSON lines, a whole JSON document, and where they are in a folder."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from hbtrain.errors import DataError

DEPTH = 3
"""Folders below a benchmark's own in which its files are looked for."""


def numbered_lines(path: Path) -> Iterator[tuple[str, str]]:
    """The lines of a file that are not blank, without their ends, each with its place for messages.

    Raises:
        DataError: the file cannot be read, or is not UTF-8.
    """
    with _opened(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{path} line {number} is not UTF-8 at byte {error.start}") from error
            if text.strip():
                yield text, f"{path} line {number}"


def json_lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects of a JSON-lines file, each with its place for messages.

    Raises:
        DataError: the file cannot be read, or a line is not an object.
    """
    for line, place in numbered_lines(path):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise DataError(f"{place} must be an object, not {type(record).__name__}")
        yield record, place


def json_document(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds.

    Raises:
        DataError: the file cannot be read, or is none.
    """
    with _opened(path) as stream:
        raw = stream.read()
    try:
        document = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; fetch it again") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} is not an object at the top, but {type(document).__name__}")
    return cast(dict[str, Any], document)


def found_below(folder: Path, pattern: str) -> list[Path]:
    """What matches a glob pattern in a folder or some levels below it, in the order of names."""
    return sorted(path for depth in range(DEPTH + 1) for path in folder.glob("*/" * depth + pattern))


def one_of(folder: Path, names: Sequence[str], what: str) -> Path:
    """The one file of those names (each also with .gz) in a folder.

    Raises:
        DataError: there is none, or more than one.
    """
    there = [folder / name for stem in names for name in (stem, f"{stem}.gz") if (folder / name).is_file()]
    if not there:
        raise DataError(f"{folder} has no {what}: {' or '.join(names)} is expected there, plain or .gz")
    if len(there) > 1:
        raise DataError(f"{folder} holds both {there[0].name} and {there[1].name}; remove one")
    return there[0]


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as probe:
            zipped = probe.read(2) == b"\x1f\x8b" or path.name.endswith(".gz")
        with cast(BinaryIO, gzip.open(path, "rb")) if zipped else path.open("rb") as stream:
            yield stream
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a broken gzip file: {error}; fetch it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
