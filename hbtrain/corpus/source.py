"""A source: parallel rows on disk, texts by (row, language, side), built from JSON lines once."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from hbtrain.corpus.cache import built, content_digest, read_manifest
from hbtrain.corpus.columns import CHUNK, ColumnWriter, TextColumn
from hbtrain.corpus.conflicts import Int64s, SizeClass, cluster_order, clusters
from hbtrain.corpus.index import SourceIndex
from hbtrain.corpus.jsonl import ParallelRow, read_rows
from hbtrain.corpus.negatives import Negatives, NegativesWriter, digest_number
from hbtrain.errors import DataError

Side = Literal["query", "passage"]
FORMAT = 2
"""Version of the folder's layout; a new one makes new folders."""


class Source:
    """Memory-mapped rows of one parallel source.

    Attributes:
        name: what the plan and the reports call it.
        index: what the batch plan needs of it.
    """

    def __init__(self, folder: Path, name: str) -> None:
        manifest: dict[str, Any] = read_manifest(folder)
        self.name = name
        self._folder = folder
        self._sentences: bool = manifest["sentences"]
        self._columns: dict[str, TextColumn] = {}
        self._negatives = Negatives(folder, manifest["negative_languages"])
        classes = manifest["classes"]
        self.index = SourceIndex(
            name=name,
            rows=manifest["rows"],
            languages=tuple(manifest["languages"]),
            query_patterns=np.array(manifest["query_patterns"], bool),
            passage_patterns=np.array(manifest["passage_patterns"], bool),
            pattern_counts=np.array(manifest["pattern_counts"], np.int64),
            pattern_of_row=_array(folder, "pattern_of_row"),
            query_ids=_array(folder, "query_ids"),
            passage_ids=_array(folder, "passage_ids"),
            order=_array(folder, "order"),
            classes=None if classes is None else tuple(SizeClass(*c) for c in classes),
            sentences=manifest["sentences"],
        )

    @classmethod
    def from_jsonl(cls, path: Path, name: str, cache: Path) -> Source:
        """Open the source made from a parallel JSON-lines file (plain or gzip), building it on first sight.

        Raises:
            DataError: missing, empty or broken file, with the line.
            StorageError: the cache cannot be written.
        """
        folder = cache / "sources" / f"{content_digest(path, cache)}-v{FORMAT}"
        return cls(built(folder, lambda temporary: _build(read_rows(path), temporary, str(path))), name)

    def texts(self, side: Side, rows: Int64s, languages: Sequence[str]) -> list[str]:
        """The text of each (row, language); the two have one length.

        Raises:
            DataError: a row has no text in that language.
        """
        found: list[str | None] = [None] * len(rows)
        wanted = np.asarray(languages)
        for language in dict.fromkeys(languages):
            places = np.flatnonzero(wanted == language)
            for place, text in zip(places.tolist(), self._column(side, language).get(rows[places]), strict=True):
                found[place] = text
        for row, language, text in zip(rows, languages, found, strict=True):
            if text is None:
                raise DataError(f"source {self.name} row {row} has no {side} in {language}")
        return [text for text in found if text is not None]

    def negative_counts(self, rows: Int64s, languages: Sequence[str]) -> Int64s:
        """int64 [B]: how many negatives each row (int64 [B]) has in its language (of B)."""
        return self._negatives.counts(rows, languages)

    def negatives(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> list[str]:
        """Up to `limit` negatives of each row, in its language: min(limit, count) texts a row, row after row.

        They are consecutive in the row's list from place `turn * limit` on, cyclically, so that counting `turn` up
        goes through all of them. The same arguments give the same texts.

        Args:
            rows: int64 [B].
            languages: [B], one a row.
            limit: the most texts of a row.
            turn: from 0.
        """
        return self._negatives.texts(rows, languages, limit, turn)

    def negative_ids(self, rows: Int64s, languages: Sequence[str], limit: int, turn: int) -> Int64s:
        """int64 [M]: the identity of each text that `negatives` gives for these arguments.

        A text that is, letter by letter, a passage of this source in any language has that passage's id as in
        `index.passage_ids_of` (of the first such row, where it stands under several ids). Any other text has a number
        below zero, which no passage has; equal texts have equal numbers.
        """
        return self._negatives.ids(rows, languages, limit, turn)

    def every_text(self) -> Iterator[str]:
        """All texts, both sides, all languages, negatives left out; in the order of columns and rows."""
        for side in ("query",) if self._sentences else ("query", "passage"):
            for _, _, text in self._side(side):
                yield text

    def queries(self) -> Iterator[tuple[int, str, str]]:
        """(row, language, text) of every query, language by language."""
        return self._side("query")

    def passages(self) -> Iterator[tuple[int, str, str]]:
        """(row, language, text) of every passage, language by language."""
        return self._side("passage")

    def _side(self, side: str) -> Iterator[tuple[int, str, str]]:
        for language in self.index.languages:
            if not self._path(side, language).exists():
                continue
            column = self._column(side, language)
            for start in range(0, self.index.rows, CHUNK):
                rows = range(start, min(start + CHUNK, self.index.rows))
                for row, text in zip(rows, column.get(list(rows)), strict=True):
                    if text is not None:
                        yield row, language, text

    def _path(self, side: str, language: str) -> Path:
        return self._folder / f"{'query' if self._sentences else side}.{language}.arrow"

    def _column(self, side: str, language: str) -> TextColumn:
        path = self._path(side, language)
        column = self._columns.get(path.name)
        if column is None:
            if not path.exists():
                raise DataError(f"source {self.name} has no {side} in {language}")
            column = self._columns[path.name] = TextColumn(path)
        return column


def _array(folder: Path, name: str) -> Any:
    path = folder / f"{name}.npy"
    return np.load(path, mmap_mode="r") if path.exists() else None


def _build(rows: Iterator[ParallelRow], folder: Path, place: str) -> None:
    """Stream `rows` into `folder`: texts go to disk, a few numbers a row stay in memory until the end."""
    writer, negatives = ColumnWriter(folder), NegativesWriter(folder)
    languages: dict[str, int] = {}
    patterns: dict[tuple[int, int], int] = {}
    query_ids, passage_ids, pattern_of_row = array("q"), array("q"), array("I")
    sentences: bool | None = None
    for row in rows:
        form = row.passage is row.query
        sentences = form if sentences is None else sentences
        if form != sentences:
            raise DataError(
                f"{place}: row {row.id!r} differs from those before it: text, or query and passage, not both"
            )
        values = {f"query.{language}": text for language, text in row.query.items()}
        if not sentences:
            values |= {f"passage.{language}": text for language, text in row.passage.items()}
        writer.append(values)
        negatives.append(len(query_ids), row.negatives)
        key = (_bits(row.query, languages), _bits(row.passage, languages))
        pattern_of_row.append(patterns.setdefault(key, len(patterns)))
        query_ids.append(digest_number(row.id))
        passage_ids.append(digest_number(row.passage_id))
    writer.close()
    if not query_ids:
        raise DataError(f"source {place} holds no rows")
    manifest: dict[str, Any] = {"rows": len(query_ids), "sentences": sentences}
    manifest |= _save_patterns(folder, languages, patterns, pattern_of_row)
    manifest |= _save_conflicts(folder, np.array(query_ids, np.int64), np.array(passage_ids, np.int64))
    saved_ids = _array(folder, "passage_ids")
    manifest["negative_languages"] = negatives.close(
        sorted(folder.glob("query.*.arrow" if sentences else "passage.*.arrow")),
        lambda numbers: numbers if saved_ids is None else saved_ids[numbers],
        len(query_ids),
    )
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def _bits(texts: dict[str, str], languages: dict[str, int]) -> int:
    bits = 0
    for language in texts:
        bits |= 1 << languages.setdefault(language, len(languages))
    return bits


def _save_patterns(
    folder: Path, languages: dict[str, int], patterns: dict[tuple[int, int], int], pattern_of_row: array[int]
) -> dict[str, Any]:
    names = sorted(languages)
    codes = np.array(pattern_of_row, np.uint32)
    if len(patterns) > 1:
        np.save(folder / "pattern_of_row.npy", codes.astype(np.uint16) if len(patterns) < 2**16 else codes)
    return {
        "languages": names,
        "query_patterns": [[bool(query >> languages[name] & 1) for name in names] for query, _ in patterns],
        "passage_patterns": [[bool(passage >> languages[name] & 1) for name in names] for _, passage in patterns],
        "pattern_counts": np.bincount(codes, minlength=len(patterns)).tolist(),
    }


def _save_conflicts(folder: Path, query_ids: Int64s, passage_ids: Int64s) -> dict[str, Any]:
    for name, ids in (("query_ids", query_ids), ("passage_ids", passage_ids)):
        if len(np.unique(ids)) < len(ids):
            np.save(folder / f"{name}.npy", ids)
    cluster = clusters(query_ids, passage_ids)
    if len(np.unique(cluster)) == len(cluster):
        return {"classes": None}
    order, classes = cluster_order(np.arange(len(cluster), dtype=np.int64), cluster, passage_ids)
    np.save(folder / "order.npy", order)
    return {"classes": [(c.size, c.clusters, c.start) for c in classes]}
