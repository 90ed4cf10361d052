"""What the batch plan needs of a source: how many rows, in which languages, and which must not be in one batch.

Two rows conflict when they share a query or a passage: in a batch, the passage of one would be a false negative of the
other. Rows that are linked by conflicts form a cluster. The rows are ordered cluster by cluster, large ones first; the
batch plan deals this order out to its batches like cards, so that the rows of a cluster land in different batches.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SizeClass:
    """`clusters` clusters of `size` rows each; they fill `size * clusters` positions of the order from `start` on."""

    size: int
    clusters: int
    start: int


@dataclass(frozen=True)
class SourceIndex:
    """The rows of a source without their texts.

    A row's availability pattern says which languages its query has, and which its passage; there are few patterns (P)
    for many rows. L is the number of languages. Arrays may be memory-mapped.
    """

    name: str
    rows: int
    languages: tuple[str, ...]
    query_patterns: Bools  # bool [P, L]: pattern p has the query in language l
    passage_patterns: Bools  # bool [P, L]: pattern p has the passage in language l
    pattern_counts: Int64s  # int64 [P]: rows of each pattern
    pattern_of_row: npt.NDArray[np.integer[Any]] | None = None
    """int [rows]: the pattern of each row; None: every row has pattern 0."""
    query_ids: Int64s | None = None  # int64 or int32 [rows]: equal numbers mark the same query; None: all differ
    passage_ids: Int64s | None = None  # int64 or int32 [rows]: equal numbers mark the same passage; None: all differ
    order: Int64s | None = None
    """int64 or int32 [rows]: row numbers in the order of `cluster_order`; None: the rows stand in that order."""
    classes: tuple[SizeClass, ...] | None = None  # cluster sizes along `order`; None: no two rows conflict
    sentences: bool = False
    """Parallel sentences: query and passage of a row are the same text, so its only pairs are cross-lingual."""

    @classmethod
    def complete(cls, name: str, rows: int, languages: tuple[str, ...]) -> SourceIndex:
        """An index of rows that have every language on both sides and never conflict."""
        full = np.ones((1, len(languages)), bool)
        return cls(name, rows, languages, full, full, np.array([rows], np.int64))

    @cached_property
    def size_classes(self) -> tuple[SizeClass, ...]:
        return (SizeClass(1, self.rows, 0),) if self.classes is None else self.classes

    def query_ids_of(self, rows: Int64s) -> Int64s:
        """int64 [B]: equal numbers mark the same query (in whatever language)."""
        return rows if self.query_ids is None else np.asarray(self.query_ids[rows], np.int64)

    def passage_ids_of(self, rows: Int64s) -> Int64s:
        """int64 [B]: equal numbers mark the same passage (in whatever language)."""
        return rows if self.passage_ids is None else np.asarray(self.passage_ids[rows], np.int64)

    def patterns_of(self, rows: Int64s) -> Int64s:
        """int64 [B]: the availability pattern of each row."""
        if self.pattern_of_row is None:
            return np.zeros(len(rows), np.int64)
        return self.pattern_of_row[rows].astype(np.int64)


class Components:
    """Connected components of a graph with nodes 0 to n - 1, to which edges are added in blocks.

    A component is named by its smallest node. Memory: four bytes a node (eight from 2**31 nodes on), and some for each
    edge of the current block.

    Attributes:
        linked: whether any two nodes are in one component.
    """

    def __init__(self, nodes: int) -> None:
        self._parent = np.arange(nodes, dtype=np.int32 if nodes < 2**31 else np.int64)
        self.linked = False

    def link(self, a: Int64s, b: Int64s) -> None:
        """Add the edges from node a[i] to node b[i], for all i (int64 [n], int64 [n])."""
        left, right = self.of(a), self.of(b)
        apart = left != right
        if not apart.any():
            return
        self.linked = True
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        nodes, code = np.unique(np.concatenate([left[apart], right[apart]]), return_inverse=True)
        first, second = np.split(code, 2)
        graph = coo_array((np.ones(len(first), np.int8), (first, second)), shape=(len(nodes), len(nodes)))
        parts, label = connected_components(graph, directed=False)
        smallest = np.full(parts, np.iinfo(np.int64).max)
        np.minimum.at(smallest, label, nodes)
        self._parent[nodes] = smallest[label]  # never upwards, so that no circle arises

    def of(self, nodes: Int64s) -> Int64s:
        """int64 [n]: the smallest node of each one's component."""
        parents = roots = self._parent[nodes]
        while not np.array_equal(above := self._parent[roots], roots):
            roots = above
        if roots is not parents:
            self._parent[nodes] = roots  # shorter ways for those who ask next
        return roots.astype(np.int64)


def clusters(query_ids: Int64s, passage_ids: Int64s) -> Int64s:
    """int64 [n]: the cluster of each row, by its query id and passage id (int64 [n] each, any numbers).

    Rows that are linked by equal ids have the same number; clusters are numbered in the order of their smallest query
    id.
    """
    queries, query_codes = np.unique(query_ids, return_inverse=True)
    passages, passage_codes = np.unique(passage_ids, return_inverse=True)
    if len(queries) == len(query_ids) and len(passages) == len(query_ids):
        return np.arange(len(query_ids), dtype=np.int64)
    # Queries and passages are the nodes, a row is an edge between its two; queries come first and name the component.
    components = Components(len(queries) + len(passages))
    components.link(query_codes, len(queries) + passage_codes)
    return np.unique(components.of(query_codes), return_inverse=True)[1].astype(np.int64)


def cluster_order(rows: Int64s, cluster: Int64s, tie_breaker: Int64s) -> tuple[Int64s, tuple[SizeClass, ...]]:
    """Order rows (int64 [m]) cluster by cluster, larger clusters first; the size classes are those along the order.

    Rows of a cluster with equal values in `tie_breaker` stand together, so that they are kept apart even where the
    cluster has more rows than there are batches. Both `cluster` and `tie_breaker` are int64 [m].
    """
    if not len(rows):
        return rows, ()
    _, code, size = np.unique(cluster, return_inverse=True, return_counts=True)
    order = np.lexsort((rows, tie_breaker, code, -size[code]))
    sizes, counts = np.unique(size, return_counts=True)
    return rows[order], size_classes(sizes[::-1].tolist(), counts[::-1].tolist())


def size_classes(sizes: list[int], counts: list[int]) -> tuple[SizeClass, ...]:
    """The size classes of `counts[i]` clusters of `sizes[i]` rows each; sizes must descend."""
    classes, start = [], 0
    for size, count in zip(sizes, counts, strict=True):
        classes.append(SizeClass(size, count, start))
        start += size * count
    return tuple(classes)
