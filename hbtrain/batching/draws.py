"""Which stream each step draws from, and how far every stream has advanced by then.

A draw depends on (seed, step) alone. Where a stream stands at a step is a count over all steps before, so the draws
are tabulated, a few bytes a step, in blocks that are made when a step is first asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from hbtrain.corpus.conflicts import Int64s

BLOCK = 1 << 14


@dataclass(frozen=True)
class _Block:
    streams: Int64s
    occurrences: Int64s


class DrawTable:
    """Random access to (stream, occurrence) of any step.

    `draw(steps)` maps int64 [n] steps to int64 [n] stream numbers in [0, streams).
    """

    def __init__(self, streams: int, draw: Callable[[Int64s], Int64s]) -> None:
        self._draw = draw
        self._blocks: list[_Block] = []
        self._advanced = np.zeros(streams, np.int64)

    def at(self, step: int) -> tuple[int, int]:
        """The stream that `step` draws from, and how many steps before it drew from the same stream."""
        block, place = divmod(step, BLOCK)
        self._reach(block)
        return int(self._blocks[block].streams[place]), int(self._blocks[block].occurrences[place])

    def streams(self, start: int, stop: int) -> Int64s:
        """int64 [stop - start]: the stream that each step of [start, stop) draws from."""
        if stop <= start:
            return np.empty(0, np.int64)
        first, last = start // BLOCK, (stop - 1) // BLOCK
        self._reach(last)
        drawn = np.concatenate([block.streams for block in self._blocks[first : last + 1]])
        return drawn[start - first * BLOCK : stop - first * BLOCK].astype(np.int64)

    def _reach(self, block: int) -> None:
        while len(self._blocks) <= block:
            self._append()

    def _append(self) -> None:
        first = len(self._blocks) * BLOCK
        streams = self._draw(np.arange(first, first + BLOCK, dtype=np.int64))
        occurrences = np.empty(BLOCK, np.int64)
        by_stream = np.argsort(streams, kind="stable")
        numbers, starts, counts = np.unique(streams[by_stream], return_index=True, return_counts=True)
        within = np.arange(BLOCK) - np.repeat(starts, counts)
        occurrences[by_stream] = within + np.repeat(self._advanced[numbers], counts)
        self._advanced[numbers] += counts
        self._blocks.append(_Block(streams.astype(np.int32), occurrences.astype(np.int32)))
