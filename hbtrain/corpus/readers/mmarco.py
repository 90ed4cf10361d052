"""mMARCO (arXiv 2108.13897): collections and queries of several languages, and MS MARCO's triples of ids.

A folder holds, some levels deep, `<language>_collection.tsv`, `<language>_queries.train.tsv` (languages by their
English names, as published, or by code) and `triples.train.ids.small.tsv`; or a folder for each language with
`collection.tsv` and `queries.tsv` or `queries.train.tsv`. Each is plain or .gz. Lines of texts are id, tab, text; a
triple is query, passage, and a passage that does not answer it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.files import raw_lines
from hbtrain.corpus.jsonl import LANGUAGE
from hbtrain.corpus.locations import list_files, named
from hbtrain.corpus.readers.inputs import chosen, one_each
from hbtrain.corpus.readers.items import PairItem, Part, TextItem, TextSide
from hbtrain.corpus.readers.text_lines import text_lines
from hbtrain.errors import DataError

CODES = {
    "arabic": "ar",
    "chinese": "zh",
    "dutch": "nl",
    "english": "en",
    "french": "fr",
    "german": "de",
    "hindi": "hi",
    "indonesian": "id",
    "italian": "it",
    "japanese": "ja",
    "portuguese": "pt",
    "russian": "ru",
    "spanish": "es",
    "vietnamese": "vi",
}
_TEXTS = re.compile(r"(?:.*/)?(?P<language>[A-Za-z-]+)[_/](?P<kind>collection|queries(?:\.train)?)\.tsv(?:\.gz)?")
_TRIPLES = re.compile(r"(?:.*/)?triples\.train\.ids(?:\.small)?\.tsv(?:\.gz)?")


class MmarcoReader:
    """The triples of a folder, in all languages whose texts it has."""

    kind = "mmarco"
    content_keys = False
    sentences = False

    def __init__(self, folder: str, languages: Sequence[str] | None = None, complete: bool = True) -> None:
        """Finds the files; `complete`: an id that some languages lack is bad.

        Raises:
            DataError: a file is missing, or there are two of one kind and language.
        """
        paths = list_files(folder)
        triples = [path for path in paths if _TRIPLES.fullmatch(named(path))]
        if len(triples) != 1:
            raise DataError(
                f"{folder} holds {'no' if not triples else len(triples)} triples.train.ids.small.tsv (plain or .gz); "
                "one is expected"
            )
        self._triples = triples[0]
        self._queries = chosen(_of(paths, folder, "queries"), languages, f"{folder} (queries)")
        self._passages = chosen(_of(paths, folder, "collection"), languages, f"{folder} (collections)")
        for language in sorted({*self._queries} ^ {*self._passages}):
            lacks = "collection" if language in self._queries else "queries"
            raise DataError(
                f"{folder} has no {lacks} in {language}, but the other kind; add the file, or give --languages"
            )
        self.complete = complete
        self.inputs: Sequence[str] = [*self._queries.values(), *self._passages.values(), self._triples]
        self.options: dict[str, Any] = {"languages": list(self._queries), "complete": complete}

    def parts(self) -> Sequence[Part]:
        """A part for each file of texts."""
        sides: tuple[tuple[TextSide, dict[str, str]], ...] = (("query", self._queries), ("passage", self._passages))
        return [
            Part(f"{side} {language}", partial(_texts, side, language, file))
            for side, files in sides
            for language, file in files.items()
        ]

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
        """One row for each triple."""
        for line, place in raw_lines(self._triples):
            columns = line.split()
            if len(columns) != 3:
                drops.bad(place, "a triple without three columns", f": it has {len(columns)}")
                continue
            try:
                query, passage, negative = (column.decode("ascii") for column in columns)
            except UnicodeDecodeError:
                drops.bad(place, "a triple whose ids are not in ASCII")
                continue
            yield PairItem(query, passage, (negative,), place)


def _of(paths: Sequence[str], folder: str, kind: str) -> dict[str, str]:
    found = []
    for path in paths:
        match = _TEXTS.fullmatch(named(path).removeprefix(named(folder).rstrip("/") + "/"))
        if match and match["kind"].startswith(kind):
            language = CODES.get(match["language"].lower(), match["language"])
            if LANGUAGE.fullmatch(language):
                found.append((language, path))
    if not found:
        raise DataError(
            f"{folder} holds no {kind}: files such as german_{kind}{'.train' * (kind == 'queries')}.tsv are expected"
        )
    return one_each(found)


def _texts(side: TextSide, language: str, file: str, drops: Drops) -> Iterator[TextItem]:
    for key, text, place in text_lines(file, drops):
        yield TextItem(side, language, key, text, place)
