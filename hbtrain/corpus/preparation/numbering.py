"""One number for each query or passage, in whatever languages: tables of several languages aligned by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.preparation.components import Components
from hbtrain.corpus.preparation.keys import KeyIndex
from hbtrain.corpus.preparation.numbers import (
    NumberWriter,
    blocks,
    count,
    filled,
    mapped,
    numbered,
    places,
    sorted_blocks,
)
from hbtrain.corpus.preparation.tables import Table


class Incomplete(NamedTuple):
    """Numbers that some tables lack.

    Attributes:
        total: how many.
        lacks: a table that lacks the first.
        has: a table that has it.
        item: its item there.
    """

    total: int
    lacks: int
    has: int
    item: int


class Numbering:
    """The numbers of one side, on disk.

    Items are numbered as they come in the first table; those that only later tables have follow.
    """

    def __init__(self, folder: Path, tables: Sequence[Table]) -> None:
        self.index = KeyIndex(folder / "index")
        self._folder = folder
        self._tables = tables

    @classmethod
    def build(cls, tables: Sequence[Table], folder: Path) -> Numbering:
        """Number the items of `tables`, one a language, in `folder`, which is made."""
        folder.mkdir()
        first = tables[0]
        length = len(first)
        index = KeyIndex.build(numbered(first.keys), length, folder / "index")
        for code, table in enumerate(tables):
            if code and not _same(first.keys, table.keys):
                length, index = _extend(index, length, table, folder, code)
        (folder / "length").write_text(str(length))
        for code, table in enumerate(tables):
            numbers = folder / f"numbers.{code}"
            if length == len(table) and not numbers.exists() and not table.shares_texts:
                continue  # item i has number i and row i
            _scatter(table, numbers if numbers.exists() else None, length, folder / f"rows.{code}")
        return cls(folder, tables)

    def __len__(self) -> int:
        """Numbers given."""
        return int((self._folder / "length").read_text())

    def rows(self, code: int) -> Path | None:
        """The file of each number's row in the column of the code-th table, -1 for none; None: the number itself."""
        path = self._folder / f"rows.{code}"
        return path if path.exists() else None

    def patterns(self) -> PatternFile | None:
        """Which tables have each number; None: all have all."""
        return PatternFile(self, self._folder / "patterns", len(self._tables)) if self._partial() else None

    def find_complete(self, keys: Int64s) -> Int64s:
        """int64 [n]: the number of each key's digest, -1 where some table lacks it."""
        numbers = self.index.find(keys)
        for code in self._partial():
            rows = mapped(self._folder / f"rows.{code}")
            known = numbers >= 0
            numbers[known] = np.where(rows[numbers[known]] >= 0, numbers[known], -1)
        return numbers

    def incomplete(self) -> Incomplete | None:
        """What some tables lack; None: all have all."""
        partial = self._partial()
        if not partial:
            return None
        lacking, first = 0, None
        for part in places(len(self)):
            absent = np.zeros(part.stop - part.start, bool)
            for code in partial:
                absent |= mapped(self._folder / f"rows.{code}")[part] < 0
            lacking += int(absent.sum())
            if first is None and absent.any():
                first = part.start + int(np.argmax(absent))
        assert first is not None
        rows = [first if (path := self.rows(x)) is None else int(mapped(path)[first]) for x in range(len(self._tables))]
        lacks, has = (next(x for x, row in enumerate(rows) if (row < 0) is absent) for absent in (True, False))
        numbers = self._folder / f"numbers.{has}"
        item = (
            next(int(i[n == first][0]) for n, i in numbered(numbers) if (n == first).any())
            if numbers.exists()
            else first
        )
        return Incomplete(lacking, lacks, has, item)

    def identities(self, folder: Path) -> Components | None:
        """Numbers that stand for one thing because they share a text; None: there are none."""
        shared = [code for code, table in enumerate(self._tables) if table.shares_texts]
        if not shared:
            return None
        components = Components(folder / "components", len(self))
        for code in shared:
            rows = self.rows(code)
            if rows is not None:
                components.link_equal(
                    sorted_blocks(_present(rows), len(self), len(self._tables[code]), folder / "sorting")
                )
        return components

    def _partial(self) -> list[int]:
        """The tables that lack some numbers."""
        return [x for x, table in enumerate(self._tables) if self.rows(x) is not None and self._lacks(x, table)]

    def _lacks(self, code: int, table: Table) -> bool:
        if not table.shares_texts:
            return len(table) < len(self)
        return any(bool((block < 0).any()) for block in blocks(self._folder / f"rows.{code}"))


class PatternFile:
    """For each number, the tables that have it, as bits."""

    def __init__(self, numbering: Numbering, path: Path, tables: int) -> None:
        self._path = path
        bits = filled(path, len(numbering), 0)
        for code in range(tables):
            rows = numbering.rows(code)
            for part in places(len(numbering)):
                there = np.ones(part.stop - part.start, bool) if rows is None else mapped(rows)[part] >= 0
                bits[part] |= there.astype(np.int64) << code

    def of(self, numbers: Int64s) -> Int64s:
        """int64 [n]: the bits of each number."""
        return np.asarray(mapped(self._path)[numbers], np.int64)


def _same(a: Path, b: Path) -> bool:
    return count(a) == count(b) and all(np.array_equal(x, y) for x, y in zip(blocks(a), blocks(b), strict=True))


def _extend(index: KeyIndex, length: int, table: Table, folder: Path, code: int) -> tuple[int, KeyIndex]:
    """Number the items of another table; returns the numbers given so far, and the index with them."""
    numbers, added = NumberWriter(folder / f"numbers.{code}"), NumberWriter(folder / "added")
    before = length
    for keys in blocks(table.keys):
        found = index.find(keys)
        unknown = found < 0
        found[unknown] = np.arange(length, length + int(unknown.sum()))
        length += int(unknown.sum())
        numbers.extend(found)
        added.extend(keys[unknown])
    numbers.close()
    added.close()
    if length == before:
        return length, index

    def pairs() -> Iterator[tuple[Int64s, Int64s]]:
        yield from index.pairs()
        for keys, items in numbered(folder / "added"):
            yield keys, items + before

    other = KeyIndex.build(pairs(), length, folder / "index.next")
    return length, other.moved(folder / "index")


def _scatter(table: Table, numbers: Path | None, length: int, path: Path) -> None:
    rows = filled(path, length, -1)
    for _, items in numbered(table.keys):
        at = items if numbers is None else np.asarray(mapped(numbers)[items], np.int64)
        rows[at] = table.rows_of(items)


def _present(rows: Path) -> Iterator[tuple[Int64s, Int64s]]:
    for block, numbers in numbered(rows):
        there = block >= 0
        yield block[there], numbers[there]
