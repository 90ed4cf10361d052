"""Input files by path or URL, plain or gzip: bytes, lines and JSON with their positions; what is done with bad rows."""

from __future__ import annotations

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

from hbtrain import storage
from hbtrain.errors import DataError
from hbtrain.formats.locations import below, errors_in_words, file_state, is_remote, named, reason, remote, remote_files

BUFFER_BYTES = 1 << 16  # size of the buffer through which a file is read
COPY_BYTES = 1 << 22  # size of the blocks in which a remote file is copied
PARALLEL_COPIES = 8  # how many files of a remote folder are copied at the same time
NOT_UNICODE = "a text that is not Unicode: it holds half a surrogate pair"


class Position(NamedTuple):
    """Where something stands in an input file, for messages: `en.tsv line 7`. Lines are counted from 1."""

    file: str
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.file} {self.unit} {self.number}"


class BadRows(Protocol):
    """What readers call for a row that cannot be used. An implementation raises DataError, or counts and skips it."""

    def bad(self, position: Position, reason: str, detail: str = "") -> None:
        """Report a bad row.

        Args:
            position: of the row.
            reason: why it is bad, in words that are the same for all rows with that fault; rows are counted by it.
            detail: what is particular to this row, appended to `reason`.
        """


class _Refused:
    def bad(self, position: Position, reason: str, detail: str = "") -> None:
        raise DataError(f"{position}: {reason}{detail}")


class _Ignored:
    def bad(self, position: Position, reason: str, detail: str = "") -> None:
        pass


REFUSED: BadRows = _Refused()
"""The first bad row is a DataError: a benchmark that lacks some rows would give other scores under the same name."""
IGNORED: BadRows = _Ignored()  # bad rows are skipped: for looking through a file that is refused already


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


def raw_lines(path: str | Path) -> Iterator[tuple[bytes, Position]]:
    """The lines of a file, unzipped, with their ends.

    Raises:
        DataError: the file cannot be read, or is a gzip file that breaks off.
    """
    number = 0
    try:
        with open_plain(path) as plain, _unzipped(plain, str(path)) as stream:
            for number, line in enumerate(stream, 1):
                yield line, Position(str(path), number)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a broken gzip file after line {number}: {error}; fetch it again") from error


def numbered_lines(path: str | Path, rows: BadRows = REFUSED, blank: bool = False) -> Iterator[tuple[str, Position]]:
    """The lines of a file without their ends; with `blank` also those that are blank.

    Raises:
        DataError: the file cannot be read; `rows` refuses a line that is not UTF-8.
    """
    for line, position in raw_lines(path):
        try:
            text = decoded(line)
        except UnicodeDecodeError as error:
            rows.bad(position, "not UTF-8", f" at byte {error.start}")
            continue
        if blank or text.strip():
            yield text, position


def text_lines(path: str, rows: BadRows) -> Iterator[tuple[str, str, Position]]:
    """(id, text, position) of each line of a file whose lines are: id, tab, text. Further tabs belong to the text.

    Raises:
        DataError: as `numbered_lines`, or `rows` refuses a line without id or tab.
    """
    for line, position in numbered_lines(path, rows):
        key, tab, text = line.partition("\t")
        if tab and key.strip():
            yield key.strip(), text, position
        else:
            rows.bad(position, "a row with too few columns", ": id, tab, text is expected")


def json_lines(path: str, rows: BadRows, bad: str = "not a JSON object") -> Iterator[tuple[dict[str, Any], Position]]:
    """The JSON objects of a file, one a line, with their positions. Blank lines are skipped.

    Args:
        path: of the file.
        rows: told of lines that hold no JSON object.
        bad: the reason it is given.

    Raises:
        DataError: the file cannot be read, or `rows` refuses such a line.
    """
    for line, position in raw_lines(path):
        try:
            text = decoded(line)
            if not text.strip():
                continue
            record = json.loads(text)
        except (ValueError, RecursionError) as error:
            rows.bad(position, bad, f": {json_problem(error, line)}")
        else:
            if isinstance(record, dict):
                yield record, position
            else:
                rows.bad(position, bad, f": must be an object, not {type(record).__name__}")


def decoded(line: bytes) -> str:
    """A line as text without its end, and without the byte-order mark in front that files from Windows have, also where
    several were joined. Raises UnicodeDecodeError.
    """
    return line.decode("utf-8-sig").rstrip("\r\n")


def json_problem(error: Exception, text: str | bytes) -> str:
    """What is wrong with the JSON in `text`, by the error that reading it raised (ValueError or RecursionError)."""
    if isinstance(error, UnicodeDecodeError):
        return f"is not UTF-8 at byte {error.start}"
    if isinstance(error, RecursionError):
        return "is nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"is not JSON: {error.msg} at column {error.colno}"
    # Python reads no integer of more than 4,300 digits, as that would take long.
    digits = max(
        re.findall(r"\d+", text if isinstance(text, str) else text.decode(errors="replace")), key=len, default=""
    )
    return f"holds a number of {len(digits):,} digits, {digits[:20]}..., which no reader takes"


def identifier(value: object) -> str | None:
    """An id as text without blanks around it, from a text or a whole number, also one written as 3.0; None: no id."""
    number = whole_number(value)
    text = value if isinstance(value, str) else None if number is None else str(number)
    return text.strip() or None if text is not None else None


def whole_number(value: object) -> int | None:
    """The whole number that a JSON value is, also one written as 3.0, as some tools do with all numbers; None: none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):  # above 2**53, neighbouring numbers are the same float
        return int(value) if value.is_integer() and abs(value) <= 2**53 else None
    return value


def is_unicode(text: str) -> bool:
    """Whether a text can be written as UTF-8: JSON may hold halves of surrogate pairs, such as "\\ud800"."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def local_copy(path: str, cache: str | None = None, notify: Callable[[str], None] | None = None) -> Path:
    """The path of a file or folder on this machine: its own, or that of its copy in the cache (`storage.local_copy`).

    A copy is made again when the names, sizes or times at the URL have changed, as far as the server tells them. Of a
    folder, the files that `list_files` finds are copied.

    Raises:
        DataError: there is no such file or folder, or it cannot be read.
        ConfigError: a URL of a kind that is not known here.
        StorageError: the cache cannot be written.
    """
    if not is_remote(path) or path.startswith(("s3://", "file://")):
        return storage.local_copy(storage.place(path), cache, notify)
    filesystem, inside = remote(path)
    filesystem.invalidate_cache()  # of listings, which may be older than what is there
    try:
        with errors_in_words(path):
            is_file = filesystem.info(inside)["type"] == "file"
        files = {"": file_state(path)} if is_file else remote_files(path)
    except OSError as error:
        raise DataError(f"cannot fetch {path}: {reason(error)}") from error

    def fetch(to: Path) -> None:
        def one(name: str) -> None:
            try:
                file = storage.inside(to, name) if name else to
            except ValueError as error:
                raise DataError(f"cannot fetch {path}: {error}") from error
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("wb") as copy:
                for block in _blocks(below(path, name) if name else path):
                    copy.write(block)

        with ThreadPoolExecutor(PARALLEL_COPIES) as pool:
            for _ in pool.map(one, files):
                pass

    size = sum(int(state["bytes"] or 0) for state in files.values())
    name = PurePosixPath(named(path).partition("://")[2]).name
    return storage.cached_copy(path, name, size, json.dumps(sorted(files.items())), fetch, cache, notify)


def _blocks(path: str) -> Iterator[bytes]:
    """The bytes of a file in blocks. Errors of reading become DataError here, so that those of writing stand apart."""
    with open_plain(path) as plain:
        stream = _Reading(plain, path)
        while block := stream.read(COPY_BYTES):
            yield block


@contextmanager
def _unzipped(plain: BinaryIO, path: str) -> Iterator[BinaryIO]:
    buffered = io.BufferedReader(_Reading(plain, path), BUFFER_BYTES)
    if buffered.peek(2)[:2] == b"\x1f\x8b" or named(path).endswith(".gz"):
        with gzip.GzipFile(fileobj=buffered, mode="rb") as stream:
            yield cast(BinaryIO, stream)
    else:
        yield buffered


class _Reading(io.RawIOBase):
    """A stream that is only read from front to back, since some remote streams can neither seek nor tell."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self._stream = stream
        self._path = path

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill the whole buffer, unless the stream ends before."""
        done = 0
        with errors_in_words(self._path):
            while done < len(buffer) and (part := self._stream.read(len(buffer) - done)):
                buffer[done : done + len(part)] = part
                done += len(part)
        return done
