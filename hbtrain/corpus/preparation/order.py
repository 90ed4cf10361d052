"""The order that keeps conflicting rows apart, as `hbtrain.corpus.conflicts` lays it out, for any number of rows.

Kept on disk, mapped: some numbers for each query and passage. Rows only pass through.

Shapes: R rows, Q queries, P passages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.conflicts import Int64s, SizeClass
from hbtrain.corpus.preparation.components import Components
from hbtrain.corpus.preparation.numbers import filled, places, save_npy, sorted_blocks

RowBlocks = Callable[[], Iterator[tuple[Int64s, Int64s]]]
"""(query ids, passage ids) of all rows, in blocks; in [0, Q) and [0, P)."""


def write_order(
    rows: RowBlocks, length: int, queries: int, passages: int, folder: Path, target: Path
) -> tuple[SizeClass, ...] | None:
    """Write the order of `length` rows to `target`; equal to `cluster_order`, with clusters by their first query id.

    Args:
        rows: ids of all rows.
        length: R.
        queries: Q.
        passages: P.
        folder: for what is needed meanwhile; it is made.
        target: a `.npy` file [R]; not written where no two rows conflict.

    Returns:
        the size classes; None where no two rows conflict.
    """
    folder.mkdir()
    components = Components(folder / "components", queries + passages)
    for query, passage in rows():
        components.link(query, queries + passage)
    # The smallest node of a component is a query, since queries come first.
    size = filled(folder / "sizes", queries, 0)
    for query, _ in rows():
        np.add.at(size, components.of(query), 1)
    found: Counter[int] = Counter()
    for part in places(queries):
        sizes, counts = np.unique(size[part], return_counts=True)
        found.update(dict(zip(sizes.tolist(), counts.tolist(), strict=True)))
    found.pop(0, None)
    if set(found) == {1}:
        return None
    classes, start = [], 0
    for one in sorted(found, reverse=True):
        classes.append(SizeClass(one, found[one], start))
        start += one * found[one]
    first = _cluster_starts(size, classes, folder)
    first_of_passage = _passage_starts(rows, components, first, (length, queries, passages), folder)

    def keyed() -> Iterator[tuple[Int64s, Int64s]]:
        done = 0
        for query, passage in rows():
            yield np.asarray(first_of_passage[passage], np.int64), np.arange(done, done + len(query), dtype=np.int64)
            done += len(query)

    ordered = sorted_blocks(keyed(), length, length, folder / "sorting")
    save_npy((numbers for _, numbers in ordered), target, length, length)
    return tuple(classes)


def _cluster_starts(size: Int64s, classes: list[SizeClass], folder: Path) -> Any:
    """int64 [Q]: the place in the order at which the cluster of each smallest query begins."""
    starts = filled(folder / "starts", len(size), 0)
    free = {one.size: one.start for one in classes}
    for part in places(len(size)):
        for one in np.unique(size[part]).tolist():
            if one:
                at = part.start + np.flatnonzero(size[part] == one)
                starts[at] = free[one] + one * np.arange(len(at))
                free[one] += one * len(at)
    return starts


def _passage_starts(
    rows: RowBlocks, components: Components, first: Int64s, shape: tuple[int, int, int], folder: Path
) -> Any:
    """int64 [P]: the place at which each passage's rows begin; in a cluster, passages stand in the order of ids."""
    length, queries, passages = shape
    rows_of = filled(folder / "rows", passages, 0)
    for _, passage in rows():
        np.add.at(rows_of, passage, 1)

    def keyed() -> Iterator[tuple[Int64s, Int64s]]:
        for part in places(passages):
            used = part.start + np.flatnonzero(rows_of[part])
            yield np.asarray(first[components.of(queries + used)], np.int64), used

    starts, done = filled(folder / "passage_starts", passages, 0), 0
    for _, used in sorted_blocks(keyed(), passages, length, folder / "passages"):
        many = np.asarray(rows_of[used], np.int64)
        starts[used] = done + np.cumsum(many) - many
        done += int(many.sum())
    return starts
