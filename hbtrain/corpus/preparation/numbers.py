"""Numbers on disk, written one after the other and read in blocks. Raw int64, little endian."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from hbtrain.corpus.conflicts import Int64s

BLOCK = 1 << 16
"""Numbers handled at one time."""


class NumberWriter:
    """Appends numbers to a file."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("wb")
        self._buffer = array("q")

    def append(self, number: int) -> None:
        """Add one."""
        self._buffer.append(number)
        if len(self._buffer) >= 4096:
            self._flush()

    def extend(self, numbers: Int64s) -> None:
        """Add many."""
        self._flush()
        self._stream.write(np.ascontiguousarray(numbers, "<i8").tobytes())

    def close(self) -> None:
        """Write what is left."""
        self._flush()
        self._stream.close()

    def _flush(self) -> None:
        if self._buffer:
            if sys.byteorder == "big":
                self._buffer.byteswap()
            self._stream.write(self._buffer.tobytes())
            del self._buffer[:]


def count(path: Path) -> int:
    """Numbers in a file."""
    return path.stat().st_size // 8


def blocks(path: Path, size: int | None = None) -> Iterator[Int64s]:
    """The numbers of a file, some at one time; read, not mapped, so that memory stays flat."""
    with path.open("rb") as stream:
        while len(block := np.fromfile(stream, "<i8", size or BLOCK)):
            yield block.astype(np.int64, copy=False)


def places(length: int) -> Iterator[slice]:
    """[0, length) in blocks."""
    return (slice(start, min(start + BLOCK, length)) for start in range(0, length, BLOCK))


def save_npy(parts: Iterable[Int64s], path: Path, length: int, bound: int) -> None:
    """Write numbers as a `.npy` file [length], in four bytes where all are below `bound` < 2**31, else in eight."""
    dtype = np.dtype("<i4" if bound < 2**31 else "<i8")
    with path.open("wb") as stream:
        header = {"descr": dtype.str, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(part.astype(dtype).tobytes())


def numbered(path: Path) -> Iterator[tuple[Int64s, Int64s]]:
    """(numbers of a file, their places in it), in blocks."""
    start = 0
    for block in blocks(path):
        yield block, np.arange(start, start + len(block), dtype=np.int64)
        start += len(block)
