"""Numbers on disk: written one after the other, read in blocks, sorted in blocks. Raw int64, little endian."""

from __future__ import annotations

import shutil
import sys
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from hbtrain.corpus.conflicts import Int64s

BLOCK = 1 << 16
"""Numbers handled at one time."""
MOST_BUCKETS = 256
"""Files that sorting keeps open."""


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


def mapped(path: Path, mode: Any = "r") -> Any:
    """The numbers of a file, int64 [n], memory-mapped; an empty array for an empty file."""
    return np.memmap(path, "<i8", mode) if count(path) else np.zeros(0, np.int64)


def filled(path: Path, length: int, value: int) -> Any:
    """A new file of `length` equal numbers, memory-mapped to be written to."""
    with path.open("wb") as stream:
        for start in range(0, length, BLOCK):
            stream.write(np.full(min(BLOCK, length - start), value, "<i8").tobytes())
    return mapped(path, "r+")


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


def sorted_blocks(
    pairs: Iterable[tuple[Int64s, Int64s]], length: int, bound: int, folder: Path
) -> Iterator[tuple[Int64s, Int64s]]:
    """(keys, values) in ascending order of keys, values of one key in their order, all of one key in one block.

    Pairs are dealt to files by ranges of keys, and each of these is sorted in memory: a block is small where keys are
    spread evenly over [0, bound).

    Args:
        pairs: (keys int64 [n], values int64 [n]), in blocks.
        length: of all pairs, or more.
        bound: every key is in [0, bound).
        folder: for the files, if there are any; it must not exist, and is gone in the end.
    """
    buckets = min(MOST_BUCKETS, -(-length // BLOCK)) or 1
    if buckets == 1:
        yield from _sorted(list(pairs))
        return
    width = min(-(-bound // buckets) or 1, 2**63 - 1)
    folder.mkdir()
    streams: list[BinaryIO] = [(folder / str(number)).open("wb") for number in range(buckets)]
    try:
        for keys, values in pairs:
            bucket = np.minimum(keys // width, buckets - 1)
            order = np.argsort(bucket, kind="stable")
            ends = np.searchsorted(bucket[order], np.arange(buckets), side="right").tolist()
            both = np.stack([keys, values], axis=1)[order].astype("<i8")
            for stream, start, end in zip(streams, [0, *ends], ends, strict=False):
                if end > start:
                    stream.write(both[start:end].tobytes())
    finally:
        for stream in streams:
            stream.close()
    for number in range(buckets):
        both = np.fromfile(folder / str(number), "<i8").astype(np.int64).reshape(-1, 2)
        (folder / str(number)).unlink()
        yield from _sorted([(both[:, 0], both[:, 1])])
    shutil.rmtree(folder)


def _sorted(pairs: Sequence[tuple[Int64s, Int64s]]) -> Iterator[tuple[Int64s, Int64s]]:
    if not sum(len(keys) for keys, _ in pairs):
        return
    keys, values = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    order = np.argsort(keys, kind="stable")
    yield keys[order], values[order]


def numbered(path: Path) -> Iterator[tuple[Int64s, Int64s]]:
    """(numbers of a file, their places in it), in blocks."""
    start = 0
    for block in blocks(path):
        yield block, np.arange(start, start + len(block), dtype=np.int64)
        start += len(block)
