"""A file of parallel JSON lines in `data.sources` becomes a corpus in the cache, by the stages of `hbtrain prepare`.

The file is taken as it is given, where `hbtrain prepare parallel` examines it and stores equal texts once:

- **Ids.** Rows share a query if they have the same `id`, and a passage if they have the same `passage_id`; equal texts
  under different ids are different. Two queries under one id keep their texts, and are never in one batch. (Prepared:
  equal texts are the same as well, and a second query under an id is a bad row.)
- **Negatives.** A negative is identified by its text in the language it is asked for: if it equals, letter by letter, a
  passage of the file in some language, it is that passage. (Prepared: it is the passage whose texts are the same in all
  languages; one that shares only one language's text with a passage is another.)
- **Texts** are stored in the order of the rows, as often as they occur; equal negatives are stored once.
- There may be any number of languages, and the first bad row is an error.
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


class ParallelFile:
    """A `Reader` of one file, which it goes through once: texts and pairs are given in one part."""

    kind = "parallel"
    content_keys = True  # keys of negatives are made of texts; those of rows are row numbers, which are not repeated
    complete = False

    def __init__(self, path: Path) -> None:
        self.inputs: Sequence[str] = [str(path)]
        self.options: dict[str, Any] = {}
        self.sentences = False  # known from the first row on
        self._path = path

    def parts(self) -> Sequence[Part]:
        return [Part("of all rows", lambda drops: self._items())]

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
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
            yield PairItem(key, key, negatives, position, row.id, row.passage_id, row.scores)
        if number < 0:
            raise DataError(f"source {self._path} holds no rows")


def build_cached(path: Path, folder: Path) -> None:
    """Make the corpus of a file of parallel JSON lines in the empty folder `folder`.

    Raises:
        DataError: the file is broken (the message says where), or has no rows.
        OSError: the folder cannot be written.
    """
    staging = Staging.begun(folder / "stages")
    with Database(staging.folder) as database:
        preparation = Preparation(ParallelFile(path), staging, database, as_given=True)
        manifest = preparation.run()
        preparation.collect(folder)
    shutil.rmtree(staging.folder)
    (folder / "manifest.json").write_text(json.dumps(manifest | {"texts_by_row": True}), encoding="utf-8")


def _texts(side: TextSide, key: str, texts: dict[str, str], position: Position) -> Iterator[TextItem]:
    for language, text in texts.items():
        yield TextItem(side, language, key, text, position)
