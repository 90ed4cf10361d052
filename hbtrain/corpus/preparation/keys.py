"""Which number a key has: digests of keys in ascending order on disk, with a number for each."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.preparation.numbers import NumberWriter, blocks, count
from hbtrain.corpus.preparation.sorting import sorted_blocks

KEYS = 2**63
"""Digests are below this."""


class KeyIndex:
    """Finds numbers by key; nothing of it stays in memory between two calls."""

    def __init__(self, folder: Path) -> None:
        self._keys, self._numbers = folder / "keys", folder / "numbers"

    @classmethod
    def build(cls, pairs: Iterable[tuple[Int64s, Int64s]], length: int, folder: Path) -> KeyIndex:
        """The index of (key, number) pairs; where a key comes twice, its first number stands.

        Args:
            pairs: digests int64 [n] with their numbers int64 [n], in blocks.
            length: of all pairs.
            folder: where it is kept; replaced if it is there.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        index = cls(folder)
        keys, numbers = NumberWriter(index._keys), NumberWriter(index._numbers)
        for sorted_keys, sorted_numbers in sorted_blocks(pairs, length, KEYS, folder / "sorting"):
            first = np.diff(sorted_keys, prepend=-1) != 0
            keys.extend(sorted_keys[first])
            numbers.extend(sorted_numbers[first])
        keys.close()
        numbers.close()
        return index

    def __len__(self) -> int:
        return count(self._keys)

    def pairs(self) -> Iterator[tuple[Int64s, Int64s]]:
        """(keys, numbers), in blocks."""
        return zip(blocks(self._keys), blocks(self._numbers), strict=True)

    def moved(self, folder: Path) -> KeyIndex:
        """The same in another folder, which it replaces."""
        shutil.rmtree(folder, ignore_errors=True)
        self._keys.parent.rename(folder)
        return KeyIndex(folder)

    def find(self, wanted: Int64s) -> Int64s:
        """int64 [n]: the number of each digest (int64 [n]), -1 where there is none."""
        found = np.full(len(wanted), -1, np.int64)
        order = np.argsort(wanted)
        ascending = wanted[order]
        for keys, numbers in self.pairs():
            start = int(np.searchsorted(ascending, keys[0], side="left"))
            stop = int(np.searchsorted(ascending, keys[-1], side="right"))
            asked = ascending[start:stop]
            if len(asked):
                at = np.searchsorted(keys, asked)
                found[order[start:stop]] = np.where(keys[at] == asked, numbers[at], -1)
        return found
