"""What tests of `hbtrain prepare` share: a prepared corpus held against rows computed with dicts."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers.by_id import JudgedReader
from hbtrain.corpus.source import Source
from hbtrain.formats.judged import find_miracl, find_mr_tydi


class Row(NamedTuple):
    """A row as it should be; ids are compared as to which rows share them."""

    query: dict[str, str]
    passage: dict[str, str]
    negatives: tuple[dict[str, str], ...] = ()
    query_id: object = None
    passage_id: object = None


def miracl_reader(folder, languages=None, split="train", negatives=True) -> JudgedReader:
    """MIRACL in a folder, as `hbtrain prepare miracl` reads it."""
    return JudgedReader(find_miracl(folder, split, by="topics"), languages, negatives)


def mr_tydi_reader(folder, languages=None, split="train", negatives=True) -> JudgedReader:
    """Mr. TyDi in a folder, as `hbtrain prepare mr-tydi` reads it."""
    return JudgedReader(find_mr_tydi(folder, split), languages, negatives)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for one example, in memory where there is such a place: an example makes and removes many files."""
    memory = Path("/dev/shm")
    return tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None)


def prepared(reader, folder: Path, skip: bool = False) -> Source:
    """The source that `reader` gives."""
    return Source.from_prepared(prepare(reader, folder, skip).folder, "source")


def check_rows(source: Source, expected: Sequence[Row], all_languages: Sequence[str] = ("de", "en", "zh")) -> None:
    """Assert that the source has these rows in this order, with exactly the languages they have, and these ids."""
    index = source.index
    assert index.rows == len(expected)
    patterns = index.patterns_of(np.arange(index.rows))
    for number, row in enumerate(expected):
        at = np.array([number])
        for side, texts, table in (
            ("query", row.query, index.query_patterns),
            ("passage", row.passage, index.passage_patterns),
        ):
            has = {x for x, there in zip(index.languages, table[patterns[number]], strict=True) if there}
            assert has == set(texts), (number, side)
            for language, text in texts.items():
                assert source.texts(side, at, [language]) == [text], (number, side, language)
        for language in all_languages:
            own = [negative[language] for negative in row.negatives if language in negative]
            assert source.negative_counts(at, [language]).tolist() == [len(own)]
            assert source.negatives(at, [language], len(own) + 1, 0) == own
    assert index.pattern_counts.sum() == len(expected)
    rows = np.arange(index.rows)
    same(index.query_ids_of(rows), [row.query_id for row in expected])
    same(index.passage_ids_of(rows), [row.passage_id for row in expected])
    check_order(source)


def same(found: np.ndarray, expected: Sequence[object]) -> None:
    """Assert that two lists of ids divide the rows in the same way."""
    pairs = set(zip(found.tolist(), expected, strict=True))
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)


def check_order(source: Source) -> None:
    """Assert that the order holds every row once, and clusters as rows are linked by their ids."""
    index = source.index
    rows = np.arange(index.rows)
    order = rows if index.order is None else np.asarray(index.order, np.int64)
    assert sorted(order.tolist()) == rows.tolist()
    cluster_of: dict[object, set[int]] = {}
    clusters = {row: {row} for row in rows.tolist()}
    for side, ids in (("q", index.query_ids_of(rows)), ("p", index.passage_ids_of(rows))):
        for row, number in enumerate(ids.tolist()):
            other = cluster_of.setdefault((side, number), clusters[row])
            if other is not clusters[row]:
                other |= clusters[row]
                for member in list(clusters[row]):
                    clusters[member] = other
                for key, members in cluster_of.items():
                    if members & other:
                        cluster_of[key] = other
    place = 0
    for one in index.size_classes:
        assert one.start == place
        for _ in range(one.clusters):
            members = set(order[place : place + one.size].tolist())
            assert members == clusters[min(members)]
            place += one.size
    assert place == index.rows
    assert [one.size for one in index.size_classes] == sorted({len(c) for c in clusters.values()}, reverse=True)
