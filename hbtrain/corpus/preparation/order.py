"""The order that keeps conflicting rows apart, as `hbtrain.corpus.conflicts` lays it out, for any number of rows.

Kept on disk: some numbers for each query and passage. Rows only pass through.

Shapes: R rows, Q queries, P passages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from hbtrain.corpus.conflicts import Int64s, SizeClass
from hbtrain.corpus.preparation.components import Components
from hbtrain.corpus.preparation.number_array import NumberArray
from hbtrain.corpus.preparation.numbers import NumberWriter, save_npy
from hbtrain.corpus.preparation.sorting import sorted_blocks

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
    size = NumberArray.filled(folder / "sizes", queries, 0)
    for query, _ in rows():
        size.count_up(components.of(query))
    found: Counter[int] = Counter()
    for block in size.blocks():
        sizes, counts = np.unique(block, return_counts=True)
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
            yield first_of_passage.get(passage), np.arange(done, done + len(query), dtype=np.int64)
            done += len(query)

    ordered = sorted_blocks(keyed(), length, length, folder / "sorting")
    save_npy((numbers for _, numbers in ordered), target, length, length)
    return tuple(classes)


def _cluster_starts(size: NumberArray, classes: list[SizeClass], folder: Path) -> NumberArray:
    """int64 [Q]: the place in the order at which the cluster of each smallest query begins."""
    path = folder / "starts"
    writer = NumberWriter(path)
    free = {one.size: one.start for one in classes}
    for sizes in size.blocks():
        starts = np.zeros(len(sizes), np.int64)
        for one in np.unique(sizes[sizes > 0]).tolist():
            at = np.flatnonzero(sizes == one)
            starts[at] = free[one] + one * np.arange(len(at))
            free[one] += one * len(at)
        writer.extend(starts)
    writer.close()
    return NumberArray(path)


def _passage_starts(
    rows: RowBlocks, components: Components, first: NumberArray, shape: tuple[int, int, int], folder: Path
) -> NumberArray:
    """int64 [P]: the place at which each passage's rows begin; in a cluster, passages stand in the order of ids."""
    length, queries, passages = shape
    rows_of = NumberArray.filled(folder / "rows", passages, 0)
    for _, passage in rows():
        rows_of.count_up(passage)

    def keyed() -> Iterator[tuple[Int64s, Int64s]]:
        done = 0
        for many in rows_of.blocks():
            used = done + np.flatnonzero(many)
            yield first.get(components.of(queries + used)), used
            done += len(many)

    starts, done = NumberArray.filled(folder / "passage_starts", passages, 0), 0
    for _, used in sorted_blocks(keyed(), passages, length, folder / "passages"):
        many = rows_of.get(used)
        starts.put(used, done + np.cumsum(many) - many)
        done += int(many.sum())
    return starts
