"""Everything that a corpus says of its rows, in their order, through the public way to read it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from hbtrain import ParallelCorpus

SHOWN = 3
"""Rows of each source that are recorded as they are, for people; all of them are in the digest."""


def read_back(path: str) -> dict[str, Any]:
    """What is recorded of a source, given as `data.sources` names it."""
    corpus = ParallelCorpus.open([path])
    (source,) = corpus.sources.values()
    rows = all_rows(source)
    return {
        "name": source.name,
        "languages": list(corpus.languages),
        "rows": len(rows),
        "digest of rows": digest(rows),
        "digest of negatives by turns": digest(negatives_by_turns(source)),
        "digest of every_text": digest(corpus.every_text()),
        "first rows": rows[:SHOWN],
    }


def records(path: str) -> str:
    """Digest of a prepared corpus as `hbtrain mine` and `hbtrain translate` write its rows."""
    (source,) = ParallelCorpus.open([path]).sources.values()
    return digest(source.records())


def digest(values: Iterable[Any]) -> str:
    """SHA-256 of values of JSON, one after the other."""
    found = hashlib.sha256()
    for value in values:
        found.update(json.dumps(value, ensure_ascii=False, sort_keys=True).encode() + b"\n")
    return found.hexdigest()


def all_rows(source: Any) -> list[dict[str, Any]]:
    """The rows of a source: texts by language and side, negatives by language, and who is the same as whom.

    Numbers of queries and passages are the corpus's own affair; what counts is which rows share them. So `same_query`
    and `same_passage` are the first row that has the same one. Of a negative, `id` is the first row whose passage it
    is, or, for one that is no row's passage, -1, -2, ... in the order of their first appearance.
    """
    at = np.arange(source.index.rows)
    rows: list[dict[str, Any]] = [{"query": {}, "passage": {}, "negatives": {}} for _ in at]
    for side, texts in (("query", source.queries()), ("passage", source.passages())):
        for row, language, text in texts:
            rows[row][side][language] = text
    passage_ids = source.index.passage_ids_of(at).tolist()
    for key, ids in (("same_query", source.index.query_ids_of(at).tolist()), ("same_passage", passage_ids)):
        for row, first in zip(rows, first_places(ids), strict=True):
            row[key] = first
    names = dict(zip(passage_ids, first_places(passage_ids), strict=True))
    elsewhere = 0
    for language in source.index.languages:
        counts = source.negative_counts(at, [language] * len(at))
        texts = iter(source.negatives(at, [language] * len(at), max(1, counts.max()), 0))
        ids = iter(source.negative_ids(at, [language] * len(at), max(1, counts.max()), 0).tolist())
        for row, count in zip(rows, counts.tolist(), strict=True):
            own = []
            for _ in range(count):
                number = next(ids)
                if number not in names:
                    elsewhere -= 1
                    names[number] = elsewhere
                own.append({"text": next(texts), "id": names[number]})
            if own:
                row["negatives"][language] = own
        assert next(texts, None) is None and next(ids, None) is None
    assert_texts_agree(source, rows)
    return rows


def negatives_by_turns(source: Any) -> Iterator[list[str]]:
    """As training asks for them: two negatives a row, those whose turn it is."""
    at = np.arange(source.index.rows)
    for language in source.index.languages:
        for turn in range(3):
            yield source.negatives(at, [language] * len(at), 2, turn)


def first_places(ids: list[int]) -> list[int]:
    """For each id the place of the first that is equal."""
    first: dict[int, int] = {}
    return [first.setdefault(number, place) for place, number in enumerate(ids)]


def assert_texts_agree(source: Any, rows: list[dict[str, Any]]) -> None:
    """Training asks for texts by row and language, and knows from the index what is there: the same as when listed."""
    patterns = source.index.patterns_of(np.arange(len(rows)))
    for side, there in (("query", source.index.query_patterns), ("passage", source.index.passage_patterns)):
        pairs = [(number, x) for number, row in enumerate(rows) for x in row[side]]
        numbers, languages = np.array([number for number, _ in pairs]), [x for _, x in pairs]
        assert source.texts(side, numbers, languages) == [rows[number][side][x] for number, x in pairs]
        for number, row in enumerate(rows):
            has = [x for x, present in zip(source.index.languages, there[patterns[number]], strict=True) if present]
            assert has == sorted(row[side]), (side, number)
