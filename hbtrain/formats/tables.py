"""Tables as records: CSV, TSV, Parquet, Arrow and JSON lines, by the endings of their names, and Hugging Face datasets.

CSV has quotes as in RFC 4180, and texts may hold line ends; TSV has neither. Both begin with a line of column names.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from hbtrain.errors import ConfigError, DataError, shown
from hbtrain.formats.inputs import BadRows, Position, json_lines, open_plain, raw_lines
from hbtrain.formats.locations import is_remote, named
from hbtrain.storage import expand_home

BATCH_ROWS = 1024
LISTED_CHARACTERS = 400  # how much of the names of all columns a message gives
ALSO_READ = ("answers", "is_impossible")
"""Columns that records have wherever the table has them: they may say that a question has no answer."""
Record = Mapping[str, Any]
Records = Iterator[tuple[Record, Position]]
Reading = Callable[[str, Sequence[str], BadRows], Records]


def table_reading(file: str) -> Reading:
    """The function that reads a table of this name.

    It is called with the file, the columns that records must have, and what is told of bad rows. It raises DataError
    where the file cannot be read or lacks a column.

    Raises:
        ConfigError: the name has no ending of a table.
    """
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


def read_table(
    file: str,
    needed: Sequence[Sequence[str]],
    others: Sequence[str] | None,
    rows: BadRows,
    bad: str = "not a JSON object",
) -> Records:
    """The records of a Parquet file, or of a file of JSON lines, plain or gzip.

    Args:
        file: path or URL; what does not end in `.parquet` is JSON lines.
        needed: columns of which a Parquet file must have at least one of each group; a record has those that are there.
        others: columns that a Parquet file may have; None: whatever it has.
        rows: told of bad rows.
        bad: the reason it is given for a line that is no JSON object.

    Raises:
        DataError: the file cannot be read, or has none of a needed group; or `rows` refuses a row.
    """

    def chosen(there: Sequence[str]) -> list[str]:
        for group in needed:
            if not set(group) & set(there):
                _check_names(file, group[-1:], there)
        known = there if others is None else others
        return [name for name in dict.fromkeys([*(x for group in needed for x in group), *known]) if name in there]

    is_parquet = named(str(file)).endswith(".parquet")
    return _parquet_records(file, chosen, rows) if is_parquet else json_lines(file, rows, bad)


class HuggingFaceSplit:
    """A split of a Hugging Face dataset (saved to disk, a folder of data files, or a name on the hub), which `datasets`
    keeps memory-mapped.

    Attributes:
        fingerprint: of the content, as `datasets` computes it.
    """

    def __init__(
        self, name: str, columns: Sequence[str], split: str, config: str | None = None, revision: str | None = None
    ) -> None:
        """Opens the dataset; one on the hub is downloaded to the cache of `datasets`.

        Args:
            name: a folder, or a name on the hub.
            columns: that `records` gives.
            split: such as `train`.
            config: name of the dataset's configuration, where it has several.
            revision: branch, tag or commit of a dataset on the hub.

        Raises:
            DataError: there is no such dataset, split or column.
        """
        self._name = name
        data = _load(name, split, config, revision)
        for column in columns:
            if column not in data.column_names:
                raise DataError(f"dataset {name} has no column {column!r}; it has {', '.join(data.column_names)}")
        self.fingerprint: str = data._fingerprint
        self._data = data.select_columns(_with_others(columns, data.column_names)).with_format(None)

    def records(self) -> Records:
        """The rows of the split, counted from 0. Raises DataError at a text that is not UTF-8."""
        for start in range(0, len(self._data), BATCH_ROWS):
            try:
                batch = self._data[start : start + BATCH_ROWS]
            except UnicodeDecodeError as error:
                rows = f"rows {start} to {min(start + BATCH_ROWS, len(self._data)) - 1}"
                raise DataError(f"dataset {self._name}: a text in {rows} is not UTF-8; mend it") from error
            for offset, values in enumerate(zip(*batch.values(), strict=True)):
                yield dict(zip(batch, values, strict=True)), Position(self._name, start + offset, "row")


def _csv(file: str, names: Sequence[str], rows: BadRows) -> Records:
    csv.field_size_limit(sys.maxsize)
    lines = _Lines(file)
    parsed = (
        csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
        if named(file).removesuffix(".gz").endswith(".tsv")
        else csv.reader(lines, strict=True)
    )
    header = _header(file, parsed, lines)
    _check_names(file, names, header)
    while True:
        start = Position(file, lines.read + 1)
        lines.broken = None
        try:
            row = next(parsed, None)
        except csv.Error as error:
            rows.bad(start, "no row of a table", f": {error}{_span(start, lines)}")
            continue
        if row is None:
            return
        if lines.broken is not None:
            rows.bad(lines.broken, "not UTF-8")
        elif len(row) != len(header):
            if row:
                detail = f": {len(row)}, the header has {len(header)}{_span(start, lines)}"
                rows.bad(start, "a row with too few or too many columns", detail)
        else:
            yield dict(zip(header, row, strict=True)), start


def _header(file: str, rows: Iterator[list[str]], lines: _Lines) -> list[str]:
    try:
        header = next(rows, [])
    except csv.Error as error:
        raise DataError(f"{file} line 1: no line of column names: {error}{_span(Position(file, 1), lines)}") from error
    if lines.broken is not None:
        raise DataError(f"{lines.broken} is not UTF-8; column names are expected")
    return header


def _span(start: Position, lines: _Lines) -> str:
    """A hint, where a record has several lines: one without a closing quotation mark takes all that follow with it."""
    number = lines.read - start.number + 1
    return f"; it spans {number:,} lines, to line {lines.read}: is a quotation mark not closed?" if number > 1 else ""


class _Lines:
    """The lines of a file for `csv.reader`; `broken` is the position of the last line that is not UTF-8."""

    def __init__(self, file: str) -> None:
        self._lines = raw_lines(file)
        self.read = 0
        self.broken: Position | None = None

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line, position = next(self._lines)
        self.read = position.number
        try:
            return line.decode("utf-8-sig" if position.number == 1 else "utf-8")
        except UnicodeDecodeError:
            self.broken = position  # the record is dropped when its end has been found
            return line.decode("utf-8", errors="replace")


def _json_lines(file: str, names: Sequence[str], rows: BadRows) -> Records:
    return json_lines(file, rows)


def _parquet(file: str, names: Sequence[str], rows: BadRows) -> Records:
    def chosen(there: Sequence[str]) -> list[str]:
        _check_names(file, names, there)
        return _with_others(names, there)

    return _parquet_records(file, chosen, rows)


def _parquet_records(file: str, chosen: Callable[[Sequence[str]], list[str]], rows: BadRows) -> Records:
    """The rows of a Parquet file, of the columns that `chosen` gives for those that are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_plain(file) as stream:
            _check_seekable(stream, file)
            table = pq.ParquetFile(stream if is_remote(file) else file)
            names = chosen(table.schema_arrow.names)
            yield from _batch_records(table.iter_batches(batch_size=BATCH_ROWS, columns=names), file, rows)
    except pa.ArrowException as error:
        raise DataError(f"{file} is not a whole Parquet file: {error}; fetch it again") from error


def _arrow(file: str, names: Sequence[str], rows: BadRows) -> Records:
    import pyarrow as pa

    try:
        with open_plain(file) as stream:
            _check_seekable(stream, file)
            magic = stream.read(6)
            stream.seek(0)
            table = pa.ipc.open_file(stream) if magic == b"ARROW1" else pa.ipc.open_stream(stream)
            _check_names(file, names, table.schema.names)
            names = _with_others(names, table.schema.names)
            batches = (
                (table.get_batch(i) for i in range(table.num_record_batches)) if magic == b"ARROW1" else iter(table)
            )
            yield from _batch_records((batch.select(names) for batch in batches), file, rows)
    except pa.ArrowException as error:
        raise DataError(f"{file} is not a whole Arrow file: {error}; fetch it again") from error


def _batch_records(batches: Iterable[Any], file: str, rows: BadRows) -> Records:
    """The rows of Arrow's record batches; one with a text that is not UTF-8 (unchecked by Arrow) is bad."""
    number = 0
    for batch in batches:
        try:
            records = batch.to_pylist()
        except UnicodeDecodeError:
            records = None
        for at in range(batch.num_rows):
            number += 1
            position = Position(file, number, "row")
            try:
                (record,) = batch.slice(at, 1).to_pylist() if records is None else (records[at],)
            except UnicodeDecodeError as error:
                rows.bad(position, "not UTF-8", f" at byte {error.start} of a text")
                continue
            yield record, position


def _check_seekable(stream: BinaryIO, file: str) -> None:
    try:
        stream.seek(0, io.SEEK_END)
        stream.seek(0)
    except ValueError as error:
        raise DataError(
            f"{file} comes without its length, and such a file is not read from the front; fetch it first"
        ) from error


def _with_others(names: Sequence[str], there: Sequence[str]) -> list[str]:
    return [*names, *(name for name in ALSO_READ if name in there and name not in names)]


def _check_names(file: str, names: Sequence[str], there: Sequence[str]) -> None:
    for name in names:
        if name not in there:
            listed = " ".join(", ".join(there).split()) or "none"
            listed = listed if len(listed) <= LISTED_CHARACTERS else f"{listed[:LISTED_CHARACTERS]}..."
            raise DataError(f"{file} has no column {name!r}; it has {listed}")
    if len(set(there)) < len(there):
        twice = next(name for name in there if list(there).count(name) > 1)
        raise DataError(f"{file} has two columns {shown(twice)}; rename one")


def _load(name: str, split: str, config: str | None, revision: str | None) -> Any:
    import datasets

    folder = expand_home(name)
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            found = datasets.load_from_disk(str(folder))
            if isinstance(found, datasets.DatasetDict):
                if split not in found:
                    raise DataError(f"dataset {name} has no split {split!r}; it has {', '.join(found)}")
                return found[split]
            return found
        return datasets.load_dataset(str(folder) if folder.exists() else name, config, split=split, revision=revision)
    except (OSError, ValueError, RuntimeError, KeyError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ if isinstance(error, datasets.exceptions.DatasetBuildError) else None
        reason = str(cause or error).strip().splitlines() or [type(cause or error).__name__]
        raise DataError(f"dataset {name}: cannot load split {split!r}: {reason[0]}") from error
