"""Tables by column mapping: CSV, TSV, Parquet, Arrow and JSON lines, by the ending of their names.

CSV has quotes as in RFC 4180, and a text may hold line ends; TSV has neither. Both begin with a line of column names.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.files import Place, decoded, json_object, open_plain, raw_lines
from hbtrain.corpus.locations import is_remote, named
from hbtrain.corpus.readers.mapping import Columns, MappedReader, Record
from hbtrain.errors import ConfigError, DataError

BATCH_ROWS = 1024


class ColumnReader(MappedReader):
    """Rows of tables, one after the other."""

    kind = "columns"

    def __init__(self, files: Sequence[str], columns: Columns) -> None:
        self.inputs = list(files)
        self.columns = columns
        self.options: dict[str, Any] = {"columns": columns.to_json()}
        for file in files:
            _reading(file)

    def records(self, drops: Drops) -> Iterator[tuple[Record, Place]]:
        """The records of all files."""
        for file in self.inputs:
            yield from _reading(file)(file, self.columns.names(), drops)


Reading = Callable[[str, list[str], Drops], Iterator[tuple[Record, Place]]]


def _reading(file: str) -> Reading:
    name = named(file).removesuffix(".gz")
    for ending, reading in (
        (".csv", _csv),
        (".tsv", _csv),
        (".parquet", _parquet),
        (".arrow", _arrow),
        (".jsonl", _json_lines),
    ):
        if name.endswith(ending):
            return reading
    raise ConfigError(f"{file}: must end in .csv, .tsv or .jsonl (each also with .gz), .parquet or .arrow")


def _csv(file: str, names: list[str], drops: Drops) -> Iterator[tuple[Record, Place]]:
    csv.field_size_limit(sys.maxsize)
    lines = _Lines(file)
    rows = (
        csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        if named(file).removesuffix(".gz").endswith(".tsv")
        else csv.reader(lines, strict=True)
    )
    header = _header(file, rows, lines)
    _check_names(file, names, header)
    while True:
        start = Place(file, lines.read + 1)
        lines.broken = None
        try:
            row = next(rows, None)
        except csv.Error as error:
            drops.bad(start, "no row of a table", f": {error}{_span(start, lines)}")
            continue
        if row is None:
            return
        if lines.broken is not None:
            drops.bad(lines.broken, "not UTF-8")
        elif len(row) != len(header):
            if row:
                detail = f": {len(row)}, the header has {len(header)}{_span(start, lines)}"
                drops.bad(start, "a row with too few or too many columns", detail)
        else:
            yield dict(zip(header, row, strict=True)), start


def _header(file: str, rows: Iterator[list[str]], lines: _Lines) -> list[str]:
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise DataError(f"{file} line 1: no line of column names: {error}{_span(Place(file, 1), lines)}") from error
    if lines.broken is not None:
        raise DataError(f"{lines.broken} is not UTF-8; column names are expected")
    return header


def _span(start: Place, lines: _Lines) -> str:
    """How far a record goes that has several lines: an unclosed quotation mark takes all that follow with it."""
    number = lines.read - start.number + 1
    return f"; it spans {number:,} lines, to line {lines.read}: is a quotation mark not closed?" if number > 1 else ""


class _Lines:
    """The lines of a file, with the place of the last that is not UTF-8."""

    def __init__(self, file: str) -> None:
        self._lines = raw_lines(file)
        self.read = 0
        self.broken: Place | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, place = next(self._lines)
        self.read = place.number
        try:
            return line.decode("utf-8-sig" if place.number == 1 else "utf-8")
        except UnicodeDecodeError:
            self.broken = place  # the record is dropped when its end has been found
            return line.decode("utf-8", errors="replace")


def _json_lines(file: str, names: list[str], drops: Drops) -> Iterator[tuple[Record, Place]]:
    for line, place in raw_lines(file):
        if not line.strip():
            continue
        try:
            yield json_object(decoded(line, place), place), place
        except DataError as error:
            drops.bad(place, "not a JSON object", f": {str(error).removeprefix(str(place)).strip()}")


def _parquet(file: str, names: list[str], drops: Drops) -> Iterator[tuple[Record, Place]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_plain(file) as stream:
            _check_seekable(stream, file)
            table = pq.ParquetFile(stream if is_remote(file) else file)
            _check_names(file, names, table.schema_arrow.names)
            number = 0
            for batch in table.iter_batches(batch_size=BATCH_ROWS, columns=names):
                for record in batch.to_pylist():
                    number += 1
                    yield record, Place(file, number, "row")
    except pa.ArrowException as error:
        raise DataError(f"{file} is not a whole Parquet file: {error}; fetch it again") from error


def _arrow(file: str, names: list[str], drops: Drops) -> Iterator[tuple[Record, Place]]:
    import pyarrow as pa

    try:
        with open_plain(file) as stream:
            _check_seekable(stream, file)
            magic = stream.read(6)
            stream.seek(0)
            table = pa.ipc.open_file(stream) if magic == b"ARROW1" else pa.ipc.open_stream(stream)
            _check_names(file, names, table.schema.names)
            batches = (
                (table.get_batch(i) for i in range(table.num_record_batches)) if magic == b"ARROW1" else iter(table)
            )
            number = 0
            for batch in batches:
                for record in batch.select(names).to_pylist():
                    number += 1
                    yield record, Place(file, number, "row")
    except pa.ArrowException as error:
        raise DataError(f"{file} is not a whole Arrow file: {error}; fetch it again") from error


def _check_seekable(stream: BinaryIO, file: str) -> None:
    try:
        stream.seek(0, io.SEEK_END)
        stream.seek(0)
    except ValueError as error:
        raise DataError(
            f"{file} comes without its length, and such a file is not read from the front; fetch it first"
        ) from error


def _check_names(file: str, names: Sequence[str], there: Sequence[str]) -> None:
    for name in names:
        if name not in there:
            raise DataError(f"{file} has no column {name!r}; it has {', '.join(there) or 'none'}")
    if len(set(there)) < len(there):
        twice = next(name for name in there if list(there).count(name) > 1)
        raise DataError(f"{file} has two columns {twice!r}; rename one")
