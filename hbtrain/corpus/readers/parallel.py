"""Parallel JSON lines, one file or several, as `data.sources` takes them directly (`hbtrain.corpus.jsonl`)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.files import Place, raw_lines
from hbtrain.corpus.jsonl import ParallelRow, parse_row
from hbtrain.corpus.readers.inline import InlineReader
from hbtrain.errors import DataError


class ParallelReader(InlineReader):
    """Rows of JSON-lines files, plain or gzip."""

    kind = "parallel"

    def __init__(self, files: Sequence[str]) -> None:
        self.inputs = list(files)
        self.options: dict[str, Any] = {}
        first = next(self._all(Drops.silent()), None)
        self.sentences = first is not None and first[0].passage is first[0].query

    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Place]]:
        """The rows of all files."""
        for row, place in self._all(drops):
            if (row.passage is row.query) == self.sentences:
                yield row, place
            else:
                drops.bad(place, "a row of another form: text, or query and passage, not both")

    def _all(self, drops: Drops) -> Iterator[tuple[ParallelRow, Place]]:
        for file in self.inputs:
            for line, place in raw_lines(file):
                if not line.strip():
                    continue
                try:
                    yield parse_row(line, str(place)), place
                except DataError as error:
                    drops.bad(place, "not a row", f": {str(error).removeprefix(f'{place}').lstrip(': ')}")
