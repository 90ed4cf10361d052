"""A source: parallel rows on disk, whose texts are read by row, language and side (query or passage).

Its folder was made by `hbtrain prepare`, or, from parallel JSON lines, in the cache when they were first opened
(`hbtrain.corpus.prepare.cached`). Queries and passages are numbered. A row gives the numbers of its two
(`query_of_row.npy`, `passage_of_row.npy`; absent where they are the row's own), and `place.<side>.<language>.npy` gives
the row of the text column in which a number's text is (absent where it is that number). Negatives are passage numbers.
`passage_scores.npy` (absent where the source gives none) has the score of each row's own passage by another model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hbtrain.corpus.cache import built, content_digest, read_manifest
from hbtrain.corpus.columns import CHUNK, TextTable, load_array
from hbtrain.corpus.conflicts import Int64s, SizeClass, SourceIndex
from hbtrain.corpus.negatives import Negatives
from hbtrain.corpus.prepared import read_prepared
from hbtrain.errors import DataError, shown
from hbtrain.formats.languages import LANGUAGE

Side = Literal["query", "passage"]
FORMAT = 4
"""Version of the folders in the cache; it is part of their names, so folders of other versions are left alone."""


class Source:
    """Memory-mapped rows of one parallel source.

    Attributes:
        name: what the batch plan and reports call it.
        index: what the batch plan needs of it.
        data_set: where its raw data come from, if the catalogue names them (see `hbtrain.corpus.data_sets`).
    """

    def __init__(self, folder: Path, name: str, manifest: Mapping[str, Any]) -> None:
        self.name = name
        self.data_set: Mapping[str, Any] | None = manifest.get("data_set")
        self._folder = folder
        self._sentences: bool = manifest["sentences"]
        self._tables: dict[str, TextTable | None] = {}
        for language in {*manifest["languages"], *(x for texts in manifest["texts"].values() for x in texts)}:
            if not LANGUAGE.fullmatch(language):
                raise DataError(f"source {name}: its manifest names a language {shown(language)}; prepare it again")
        self._negatives = Negatives(folder, manifest["negatives_per_row"], lambda x: self._table("passage", x))
        self._numbers = {side: load_array(folder, f"{side}_of_row") for side in ("query", "passage")}
        self._scores = load_array(folder, "passage_scores")
        # Negatives may have languages that no row has.
        self._passage_languages = sorted(manifest["texts"].get("passage", manifest["texts"]["query"]))
        self._texts_by_row = "texts_by_row" in manifest
        distinct = manifest["distinct"]
        classes = manifest["classes"]
        self.index = SourceIndex(
            name=name,
            rows=manifest["rows"],
            languages=tuple(manifest["languages"]),
            query_patterns=np.array(manifest["query_patterns"], bool),
            passage_patterns=np.array(manifest["passage_patterns"], bool),
            pattern_counts=np.array(manifest["pattern_counts"], np.int64),
            pattern_of_row=load_array(folder, "pattern_of_row"),
            query_ids=None if distinct["query"] else self._ids("query"),
            passage_ids=None if distinct["passage"] else self._ids("passage"),
            order=load_array(folder, "order"),
            classes=None if classes is None else tuple(SizeClass(*c) for c in classes),
            sentences=manifest["sentences"],
        )

    @classmethod
    def from_jsonl(cls, path: Path, name: str, cache: Path) -> Source:
        """Open a file of parallel JSON lines (plain or gzip); its folder in the cache is made when it is not there.

        Raises:
            DataError: missing, empty or broken file, with the line.
            StorageError: the cache cannot be written.
        """
        folder = cache / "sources" / f"{content_digest(path, cache)}-v{FORMAT}"
        built(folder, lambda temporary: _build(path, temporary))
        return cls(folder, name, read_manifest(folder))

    @classmethod
    def from_prepared(cls, folder: Path, name: str) -> Source:
        """Open a corpus of `hbtrain prepare`.

        Raises:
            DataError: see `hbtrain.corpus.prepared.read_prepared`.
        """
        return cls(folder, name, read_prepared(folder))

    def texts(self, side: Side, rows: Int64s, languages: Sequence[str]) -> list[str]:
        """The text of each row (int64 [B]) in its language ([B]).

        Raises:
            DataError: a row has no text in that language.
        """
        found: list[str | None] = [None] * len(rows)
        wanted = np.asarray(languages)
        for language in dict.fromkeys(languages):
            places = np.flatnonzero(wanted == language)
            for place, text in zip(places.tolist(), self._texts(side, language, rows[places]), strict=True):
                found[place] = text
        for row, language, text in zip(rows, languages, found, strict=True):
            if text is None:
                raise DataError(f"source {self.name} row {row} has no {side} in {language}")
        return [text for text in found if text is not None]

    def numbers(self, side: Side, rows: Int64s) -> Int64s:
        """int64 [B]: the number of each row's query or passage; rows that share a stored text have the same."""
        numbers = self._numbers["query" if self._sentences else side]
        return rows if numbers is None else np.asarray(numbers[rows], np.int64)

    def numbered_texts(self, side: Side, language: str, numbers: Int64s) -> list[str | None]:
        """The queries or passages of these numbers (int64 [B]) in a language; None where there is none."""
        table = self._table(side, language)
        return [None] * len(numbers) if table is None else table.get(numbers)

    def has(self, side: Side, language: str, numbers: Int64s) -> npt.NDArray[np.bool_]:
        """bool [B]: whether the queries or passages of these numbers (int64 [B]) have a text in a language."""
        table = self._table(side, language)
        return np.zeros(len(numbers), bool) if table is None else table.has(numbers)

    def scores(self, rows: Int64s) -> npt.NDArray[np.float64]:
        """float64 [B]: the score that the source gives the own passage of each row; not a number: it gives none."""
        return np.full(len(rows), np.nan) if self._scores is None else np.asarray(self._scores[rows])

    @property
    def has_negatives(self) -> bool:
        """Whether any row has a hard negative."""
        return self._negatives.has_any

    def rows_without_scores(self) -> int:
        """How many rows have hard negatives, and no scores of these and of their own passage."""
        found = 0
        for rows in self._row_blocks() if self.has_negatives else ():
            _, owners = self._negatives.of_rows(rows)
            found += int(np.isnan(self.scores(rows))[np.unique(owners)].sum())
        return found

    def negatives_without(self, language: str) -> int:
        """How many hard negatives of all rows have no text in a language."""
        numbers = (self._negatives.of_rows(rows)[0] for rows in self._row_blocks())
        return sum(int((~self.has("passage", language, block)).sum()) for block in numbers)

    def negative_counts(self, rows: Int64s, languages: Sequence[str]) -> Int64s:
        """int64 [B]: how many negatives each row (int64 [B]) has in its language ([B])."""
        return self._negatives.counts(rows, languages)

    def negatives(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> list[str]:
        """Up to `limit` negatives of each row in its language: min(limit, count) texts a row, row after row ([M]).

        They follow each other in the row's list of negatives, which is taken as a circle, from entry `turn * limit` on;
        so all are used as `turn` is counted up from 0. The same arguments give the same texts.

        Args:
            rows: int64 [B].
            languages: [B], one for each row.
            limit: the most texts for a row.
            turn: 0 or more.
        """
        return self._negatives.texts(rows, languages, limit, turn)

    def negative_ids(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> Int64s:
        """int64 [M]: an id for each text that `negatives` gives for these arguments, to compare with passage ids.

        A text that equals, letter by letter, a passage of this source in any language has that passage's id as in
        `index.passage_ids_of` (that of the first row, where the passage has several). Any other text has a number
        below zero, which no passage has; equal texts have equal numbers.
        """
        return self._negatives.ids(rows, languages, limit, turn)

    def negative_numbers(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> tuple[Int64s, Int64s]:
        """The passage numbers of the texts that `negatives` gives for these arguments (int64 [M]); and for each, the
        index of its row in `rows` (int64 [M])."""
        return self._negatives.chosen(rows, languages, limit, turn)

    def negative_scores(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> npt.NDArray[np.float64]:
        """float64 [M]: the scores that the source gives the texts that `negatives` gives for these arguments."""
        return self._negatives.scores(rows, languages, limit, turn)

    def every_text(self) -> Iterator[str]:
        """All texts of all languages: first queries, then passages.

        Of parallel JSON lines they are the rows' texts as often as they occur, in the order of the rows and without
        negatives; of a prepared corpus, each text that is stored, once.
        """
        for side in ("query",) if self._sentences else ("query", "passage"):
            if self._texts_by_row:
                yield from (text for _, _, text in self._side(side))
                continue
            for language in self.index.languages:
                table = self._table(side, language)
                if table is not None:
                    yield from table.every_text()

    def queries(self) -> Iterator[tuple[int, str, str]]:
        """(row, language, text) of every query, language by language."""
        return self._side("query")

    def passages(self) -> Iterator[tuple[int, str, str]]:
        """(row, language, text) of every passage, language by language."""
        return self._side("passage")

    def records(self) -> Iterator[dict[str, Any]]:
        """The rows in the form of parallel JSON lines; their ids are the numbers of `index`."""
        for rows in self._row_blocks():
            query_ids, passage_ids = self.index.query_ids_of(rows).tolist(), self.index.passage_ids_of(rows).tolist()
            texts = {
                side: {
                    language: self._texts(side, language, rows)
                    for language in self.index.languages
                    if self._table(side, language) is not None
                }
                for side in ("query", "passage")
            }
            negatives, scores = self._negatives_of(rows), self._scores_of(rows)
            for at in range(len(rows)):
                query, passage = (_of_place(columns, at) for columns in texts.values())
                sides = {"text": query} if self._sentences else {"query": query, "passage": passage}
                own: dict[str, Any] = {"negatives": negatives[at]} if negatives[at] else {}
                own |= {"scores": scores[at]} if scores and not np.isnan(scores[at][0]) else {}
                yield {"id": str(query_ids[at]), **sides, "passage_id": str(passage_ids[at]), **own}

    def _negatives_of(self, rows: Int64s) -> list[list[dict[str, str]]]:
        """For each row, {language: text} of each of its negatives."""
        found: list[list[dict[str, str]]] = [[] for _ in rows]
        numbers, owners = self._negatives.of_rows(rows)
        columns = {x: table.get(numbers) for x in self._passage_languages if (table := self._table("passage", x))}
        for place, owner in enumerate(owners.tolist()):
            found[owner].append(_of_place(columns, place))
        return found

    def _scores_of(self, rows: Int64s) -> list[list[float]]:
        """For each row, the scores of its passage and of each of its negatives; empty if the source gives none."""
        if self._scores is None:
            return []
        found = [[score] for score in self.scores(rows).tolist()]
        _, owners = self._negatives.of_rows(rows)
        for owner, score in zip(owners.tolist(), self._negatives.scores_of_rows(rows).tolist(), strict=True):
            found[owner].append(score)
        return found

    def _side(self, side: str) -> Iterator[tuple[int, str, str]]:
        for language in self.index.languages:
            if self._table(side, language) is None:
                continue
            for rows in self._row_blocks():
                for row, text in zip(rows.tolist(), self._texts(side, language, rows), strict=True):
                    if text is not None:
                        yield row, language, text

    def _row_blocks(self) -> Iterator[Int64s]:
        """The numbers of all rows, `CHUNK` at one time."""
        for start in range(0, self.index.rows, CHUNK):
            yield np.arange(start, min(start + CHUNK, self.index.rows))

    def _texts(self, side: str, language: str, rows: Int64s) -> list[str | None]:
        table = self._table(side, language)
        if table is None:
            raise DataError(f"source {self.name} has no {side} in {language}")
        numbers = self._numbers["query" if self._sentences else side]
        return table.get(rows if numbers is None else numbers[rows])

    def _table(self, side: str, language: str) -> TextTable | None:
        """The texts of a side in a language; None where the source has none."""
        name = "query" if self._sentences else side
        key = f"{name}.{language}"
        if key not in self._tables:
            there = (self._folder / f"{key}.arrow").exists()
            self._tables[key] = TextTable(self._folder, name, language) if there else None
        return self._tables[key]

    def _ids(self, side: str) -> Any:
        ids = load_array(self._folder, f"{side}_ids")
        return self._numbers[side] if ids is None else ids


def _build(path: Path, folder: Path) -> None:
    from hbtrain.corpus.prepare.cached import build_cached  # DuckDB is needed where something is built

    build_cached(path, folder)


def _of_place(columns: Mapping[str, Sequence[str | None]], place: int) -> dict[str, str]:
    """{language: text} of one row of the columns of several languages."""
    return {language: text for language, column in columns.items() if (text := column[place]) is not None}
