"""The rows of the source that is translated, in the form that the output will have."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbtrain.corpus import Source, source_path
from hbtrain.corpus.prepared import MANIFEST, read_prepared
from hbtrain.errors import DataError
from hbtrain.formats.parallel import ParallelRow, checked_row, read_records
from hbtrain.storage.files import file_digest

Record = dict[str, Any]  # a line of parallel JSON lines


@dataclass(frozen=True)
class RowSource:
    """The rows of a file of parallel JSON lines, or of a corpus of `hbtrain prepare`."""

    name: str  # as the user gave it
    path: Path  # of the file or folder on this machine
    digest: str  # hex SHA-256 of the file, or of the corpus's manifest

    @classmethod
    def open(cls, name: str) -> RowSource:
        """The source of a path, a URI of remote storage (copied into the cache), or a shipped name.

        Raises:
            DataError: it is not there, or cannot be read.
        """
        path = source_path(name)
        try:
            if path.is_dir():
                read_prepared(path)
            elif not path.exists():
                raise DataError(
                    f"source {name} does not exist; give parallel JSON lines, or a folder of hbtrain prepare"
                )
            return cls(name, path, _digest(path))
        except OSError as error:
            raise DataError(f"cannot read source {name}: {error.strerror or error}") from error

    def records(self) -> Iterator[Record]:
        """The rows in their order.

        Raises:
            DataError: the file is broken (the message says where); or, after the last row, it has changed since `open`.
        """
        try:
            yield from self._records()
            same = _digest(self.path) == self.digest
        except OSError as error:
            raise DataError(f"cannot read source {self.name}: {error.strerror or error}") from error
        if not same:
            raise DataError("the source changed while it was read")

    def _records(self) -> Iterator[Record]:
        if self.path.is_dir():
            yield from Source.from_prepared(self.path, self.path.name).records()
            return
        for record, place in read_records(self.path):
            row = _record(checked_row(record, place))
            yield row | {"source": record["source"]} if "source" in record else row


def sides(record: Record) -> Iterator[tuple[str, dict[str, str]]]:
    """(side, {language: text}) of the query, passage and negatives of a row, always in the same order."""
    for side in ("text", "query", "passage"):
        if side in record:
            yield side, record[side]
    for negative in record.get("negatives", ()):
        yield "negative", negative


def _digest(path: Path) -> str:
    return file_digest(path / MANIFEST if path.is_dir() else path)


def _record(row: ParallelRow) -> Record:
    record: Record = {"id": row.id}
    record |= {"text": dict(row.query)} if row.passage is row.query else {"query": row.query, "passage": row.passage}
    if row.passage_id != row.id:
        record["passage_id"] = row.passage_id
    if row.negatives:
        record["negatives"] = list(row.negatives)
    if row.domain is not None:
        record["domain"] = row.domain
    if row.scores:
        record["scores"] = list(row.scores)
    return record
