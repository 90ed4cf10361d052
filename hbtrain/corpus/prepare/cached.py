"""Parallel JSON lines that `data.sources` names become a corpus in the cache, through the stages of `hbtrain prepare`.

A file for training is taken as it is given, where `hbtrain prepare parallel` examines it and stores equal texts once:

- **Who is who.** Rows share a query if they have one `id`, and a passage if they have one `passage_id`; equal texts
  under different ids are different. Two questions under one id keep their texts, and never meet in a batch. (Prepared:
  equal texts are one as well, and a second question under an id is a bad row.)
- **Negatives.** A negative is known by its text in the language it is asked for: one that is, letter by letter, a
  passage of the file in some language is that passage. (Prepared: it is the passage that has its texts in all
  languages, so one that shares a single language with a passage is another.)
- **Texts** stand in the order of the rows, as often as they come; equal negatives are stored once.
- Any number of languages will do, and the first bad row is an error.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.prepare.database import Database
from hbtrain.corpus.prepare.stages import Preparation
from hbtrain.corpus.prepare.staging import Staging
from hbtrain.corpus.readers.items import PairItem, Part, TextItem, TextSide
from hbtrain.errors import DataError
from hbtrain.formats.inputs import Position
from hbtrain.formats.parallel import read_rows


class GivenRows:
    """The rows of a file, read once: texts and pairs in one part."""

    kind = "parallel"
    content_keys = True  # those of negatives are; a row's own are numbers, which never come again
    complete = False

    def __init__(self, path: Path) -> None:
        self.inputs: Sequence[str] = [str(path)]
        self.options: dict[str, Any] = {}
        self.sentences = False  # known from the first row on
        self._path = path

    def parts(self) -> Sequence[Part]:
        """All rows."""
        return [Part("of all rows", lambda drops: self._items())]

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
        """None beside those in the part."""
        return iter(())

    def _items(self) -> Iterator[TextItem | PairItem]:
        number = -1
        for number, row in enumerate(read_rows(self._path)):
            sentence = row.passage is row.query
            if not number:
                self.sentences = sentence
            if sentence != self.sentences:
                raise DataError(
                    f"{self._path}: row {row.id!r} differs from those before it: text, or query and passage, not both"
                )
            position, key = Position(str(self._path), number + 1, "row"), str(number)
            yield from _texts("query", key, row.query, position)
            if not sentence:
                yield from _texts("passage", key, row.passage, position)
            negatives = [json.dumps(negative, ensure_ascii=False, sort_keys=True) for negative in row.negatives]
            for own, negative in zip(negatives, row.negatives, strict=True):
                yield from _texts("query" if sentence else "passage", own, negative, position)
            yield PairItem(key, key, negatives, position, row.id, row.passage_id)
        if number < 0:
            raise DataError(f"source {self._path} holds no rows")


def build_cached(path: Path, folder: Path) -> None:
    """Make the corpus of a file of parallel JSON lines in `folder`, which is empty.

    Raises:
        DataError: a broken file, with the line, or one without rows.
        OSError: the folder cannot be written.
    """
    staging = Staging.begun(folder / "stages")
    with Database(staging.folder) as database:
        preparation = Preparation(GivenRows(path), staging, database, as_given=True)
        manifest = preparation.run()
        preparation.collect(folder)
    shutil.rmtree(staging.folder)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"texts_by_row": True}), encoding="utf-8")


def _texts(side: TextSide, key: str, texts: dict[str, str], position: Position) -> Iterator[TextItem]:
    for language, text in texts.items():
        yield TextItem(side, language, key, text, position)
