"""Pairs of numbers sorted on disk, in blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.preparation.numbers import BLOCK, blocks, count

MOST_BUCKETS = 256
"""Files that sorting keeps open."""


def sorted_blocks(
    pairs: Iterable[tuple[Int64s, Int64s]], length: int, bound: int, folder: Path
) -> Iterator[tuple[Int64s, Int64s]]:
    """(keys, values) in ascending order of keys, values of one key in their order, all of one key in one block.

    Pairs are dealt to files by ranges of keys; what a file holds is sorted in memory, or dealt out again if it is much.
    So a block is small unless many pairs have one key.

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
    paths = [folder / str(number) for number in range(buckets)]
    _deal(pairs, width, paths)
    for number, path in enumerate(paths):
        there = count(path) // 2
        if there <= 2 * BLOCK or width == 1:
            yield from _sorted(list(_pairs_of(path)))
        else:
            low = number * width
            above = ((keys - low, values) for keys, values in _pairs_of(path))
            for keys, values in sorted_blocks(above, there, width, folder / f"{number}.sorting"):
                yield keys + low, values
        path.unlink()
    folder.rmdir()


def _deal(pairs: Iterable[tuple[Int64s, Int64s]], width: int, paths: Sequence[Path]) -> None:
    """Write each pair to the file of its key's range, of which the i-th begins at i * `width`."""
    with ExitStack() as stack:
        streams = [stack.enter_context(path.open("wb")) for path in paths]
        for keys, values in pairs:
            bucket = np.minimum(keys // width, len(paths) - 1)
            order = np.argsort(bucket, kind="stable")
            ends = np.searchsorted(bucket[order], np.arange(len(paths)), side="right").tolist()
            both = np.stack([keys, values], axis=1)[order].astype("<i8")
            for stream, start, end in zip(streams, [0, *ends], ends, strict=False):
                if end > start:
                    stream.write(both[start:end].tobytes())


def _pairs_of(path: Path) -> Iterator[tuple[Int64s, Int64s]]:
    for block in blocks(path, 2 * BLOCK):
        yield block[::2], block[1::2]


def _sorted(pairs: Sequence[tuple[Int64s, Int64s]]) -> Iterator[tuple[Int64s, Int64s]]:
    if not sum(len(keys) for keys, _ in pairs):
        return
    keys, values = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
    order = np.argsort(keys, kind="stable")
    yield keys[order], values[order]
