"""The rows of a source, as the output will hold them, and the texts in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbtrain.corpus import Source, source_path
from hbtrain.corpus.prepared import MANIFEST, read_prepared
from hbtrain.errors import DataError
from hbtrain.formats.parallel import ParallelRow, checked_row, read_records

Record = dict[str, Any]
"""A line of parallel JSON lines."""


@dataclass(frozen=True)
class RowSource:
    """Rows in a file of parallel JSON lines, or in a corpus of `hbtrain prepare`.

    Attributes:
        name: as the user gave it.
        path: the file or the folder.
        digest: of what it holds.
    """

    name: str
    path: Path
    digest: str

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
            DataError: a broken file, with the line; after the last row, that the source is not what it was when it
                was opened.
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
    """What each row has one text a language of: (side, {language: text}), in an order that is always the same."""
    for side in ("text", "query", "passage"):
        if side in record:
            yield side, record[side]
    for negative in record.get("negatives", ()):
        yield "negative", negative


def _digest(path: Path) -> str:
    with (path / MANIFEST if path.is_dir() else path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _record(row: ParallelRow) -> Record:
    record: Record = {"id": row.id}
    record |= {"text": dict(row.query)} if row.passage is row.query else {"query": row.query, "passage": row.passage}
    if row.passage_id != row.id:
        record["passage_id"] = row.passage_id
    if row.negatives:
        record["negatives"] = list(row.negatives)
    if row.domain is not None:
        record["domain"] = row.domain
    return record
