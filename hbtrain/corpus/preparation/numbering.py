"""One number for each query or passage, in whatever languages: tables of several languages aligned by key."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.preparation.components import Components
from hbtrain.corpus.preparation.keys import KeyIndex
from hbtrain.corpus.preparation.number_array import NumberArray
from hbtrain.corpus.preparation.numbers import NumberWriter, blocks, count, numbered
from hbtrain.corpus.preparation.sorting import sorted_blocks
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
        return PatternFile(self, self._folder / "patterns", len(self._tables)) if self._partial else None

    def find_complete(self, keys: Int64s) -> Int64s:
        """int64 [n]: the number of each key's digest, -1 where some table lacks it."""
        numbers = self.index.find(keys)
        for code in self._partial:
            rows = NumberArray(self._folder / f"rows.{code}")
            known = numbers >= 0
            numbers[known] = np.where(rows.get(numbers[known]) >= 0, numbers[known], -1)
        return numbers

    def incomplete(self) -> Incomplete | None:
        """What some tables lack; None: all have all."""
        if not self._partial:
            return None
        lacking, done, first = 0, 0, None
        for rows in zip(*(blocks(self._folder / f"rows.{code}") for code in self._partial), strict=True):
            absent = np.any([block < 0 for block in rows], axis=0)
            if first is None and absent.any():
                first = done + int(np.argmax(absent))
            lacking += int(absent.sum())
            done += len(absent)
        assert first is not None
        lacked = [self._is_lacked(code, first) for code in range(len(self._tables))]
        lacks, has = lacked.index(True), lacked.index(False)
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

    @cached_property
    def _partial(self) -> list[int]:
        """The tables that lack some numbers."""
        return [x for x, table in enumerate(self._tables) if self.rows(x) is not None and self._lacks(x, table)]

    def _is_lacked(self, code: int, number: int) -> bool:
        rows = self.rows(code)
        return rows is not None and int(NumberArray(rows).get(np.array([number]))[0]) < 0

    def _lacks(self, code: int, table: Table) -> bool:
        if not table.shares_texts:
            return len(table) < len(self)
        return any(bool((block < 0).any()) for block in blocks(self._folder / f"rows.{code}"))


class PatternFile:
    """For each number, the tables that have it, as bits."""

    def __init__(self, numbering: Numbering, path: Path, tables: int) -> None:
        files = {code: rows for code in range(tables) if (rows := numbering.rows(code)) is not None}
        always = (1 << tables) - 1 - sum(1 << code for code in files)
        writer = NumberWriter(path)
        for parts in zip(*map(blocks, files.values()), strict=True):
            there = [(rows >= 0).astype(np.int64) << code for code, rows in zip(files, parts, strict=True)]
            writer.extend(always | np.bitwise_or.reduce(there))
        writer.close()
        self._bits = NumberArray(path)

    def of(self, numbers: Int64s) -> Int64s:
        """int64 [n]: the bits of each number."""
        return self._bits.get(numbers)


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
    rows = NumberArray.filled(path, length, -1)
    at = (items for _, items in numbered(table.keys)) if numbers is None else blocks(numbers)
    for numbers_here, rows_here in zip(at, table.rows(), strict=True):
        rows.put(numbers_here, rows_here)


def _present(rows: Path) -> Iterator[tuple[Int64s, Int64s]]:
    for block, numbers in numbered(rows):
        there = block >= 0
        yield block[there], numbers[there]
