"""Sources whose rows have their texts in them: what JSON lines, tables and datasets share.

Keys are made of the texts in all languages, so that equal queries and passages are stored once, under one number.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

from hbtrain.corpus.drops import NOT_UNICODE, Drops
from hbtrain.corpus.files import Place, is_unicode
from hbtrain.corpus.jsonl import ParallelRow
from hbtrain.corpus.readers.items import IdItem, PairItem, Part, TextItem, TextSide


class InlineReader(ABC):
    """A reader of rows; it goes through the source twice, for texts and for pairs."""

    kind: str
    options: dict[str, Any]
    inputs: Sequence[str]
    content_keys = True
    complete = False
    sentences = False

    @abstractmethod
    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Place]]:
        """The rows with their places; a row whose id is empty has none."""

    def parts(self) -> Sequence[Part]:
        """All texts in one part."""
        return [Part("of all rows", self._texts)]

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
        """One for each row."""
        for row, place in self._good_rows(Drops.silent()):
            yield PairItem(
                _key(row.query),
                _key(row.passage),
                [_key(negative) for negative in row.negatives],
                place,
                row.id or None,
                row.passage_id or None,
            )

    def _good_rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Place]]:
        """The rows that can be written."""
        for row, place in self.rows(drops):
            texts = [text for one in (row.query, row.passage, *row.negatives) for text in one.values()]
            if all(map(is_unicode, (row.id, row.passage_id, *texts))):
                yield row, place
            else:
                drops.bad(place, NOT_UNICODE)

    def _texts(self, drops: Drops) -> Iterator[TextItem | IdItem]:
        for row, place in self._good_rows(drops):
            if row.id:
                yield IdItem(row.id, _key(row.query))
            yield from _items("query", row.query, place)
            if not self.sentences:
                yield from _items("passage", row.passage, place)
            # Sentences are queries and passages in one; so are the negatives of one.
            for negative in row.negatives:
                yield from _items("query" if self.sentences else "passage", negative, place)


def _items(side: TextSide, texts: dict[str, str], place: Place) -> Iterator[TextItem]:
    key = _key(texts)
    for language, text in texts.items():
        yield TextItem(side, language, key, text, place)


def _key(texts: dict[str, str]) -> str:
    return json.dumps(texts, ensure_ascii=False, sort_keys=True)
