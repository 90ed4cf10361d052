"""Numbers on disk, read and written at any place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.preparation.numbers import NumberWriter, blocks, count, places

WINDOW = 1 << 18
"""Numbers that are mapped at one time: 2 MiB."""


class NumberArray:
    """An array in a file, of which no more than a window is ever in the process's memory, whatever its length.

    The places asked for are looked up in ascending order, window by window: pages of a mapped file stay in resident
    memory until it is unmapped, and places without order touch all of them.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def filled(cls, path: Path, length: int, value: int) -> NumberArray:
        """A new file of `length` equal numbers."""
        writer = NumberWriter(path)
        for part in places(length):
            writer.extend(np.full(part.stop - part.start, value, np.int64))
        writer.close()
        return cls(path)

    def __len__(self) -> int:
        return count(self._path)

    def blocks(self) -> Iterator[Int64s]:
        """All numbers, in blocks of `BLOCK`."""
        return blocks(self._path)

    def get(self, at: Int64s) -> Int64s:
        """int64 [n]: the numbers at places `at` (int64 [n])."""
        found = np.empty(len(at), np.int64)
        for asked, window, inside in self._windows(at, "r"):
            found[asked] = window[inside]
        return found

    def put(self, at: Int64s, numbers: Int64s | int) -> None:
        """Write numbers (int64 [n], or one for all) at places `at` (int64 [n]); of two at one place the last."""
        values = np.broadcast_to(np.asarray(numbers, np.int64), at.shape)
        for asked, window, inside in self._windows(at, "r+"):
            window[inside] = values[asked]

    def count_up(self, at: Int64s) -> None:
        """Add 1 at each of the places `at` (int64 [n]), once more for each time it is named."""
        for _, window, inside in self._windows(at, "r+"):
            np.add(window, np.bincount(inside, minlength=len(window)), out=window)

    def _windows(self, at: Int64s, mode: Any) -> Iterator[tuple[Int64s, Any, Int64s]]:
        """(which of `at`, a mapped window of the array, their places in it), over all windows that `at` touches."""
        order = np.argsort(at, kind="stable")
        ascending = at[order]
        done = 0
        while done < len(ascending):
            start = int(ascending[done]) // WINDOW * WINDOW
            length = min(WINDOW, len(self) - start)
            stop = int(np.searchsorted(ascending, start + length))
            window = np.memmap(self._path, "<i8", mode, offset=8 * start, shape=(length,))
            yield order[done:stop], window, ascending[done:stop] - start
            del window
            done = stop
