"""Which rows must not meet in a batch, and the order that keeps them apart.

Two rows conflict when they share a query or a passage: in a batch, one would be the other's false negative. Rows that
are linked by conflicts form a cluster. `cluster_order` lays clusters out one after the other, large ones first; the
batch plan deals this order out to its batches like cards, so that the rows of a cluster land in different batches.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SizeClass:
    """`clusters` clusters of `size` rows each; they fill `size * clusters` places of the order from `start`."""

    size: int
    clusters: int
    start: int


def clusters(query_ids: Int64s, passage_ids: Int64s) -> Int64s:
    """The cluster of each row: rows linked by equal query ids or equal passage ids share a number.

    Args:
        query_ids: int64 [n], any numbers.
        passage_ids: int64 [n], any numbers.

    Returns:
        int64 [n], numbered from 0.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    n = len(query_ids)
    queries, query_codes = np.unique(query_ids, return_inverse=True)
    passages, passage_codes = np.unique(passage_ids, return_inverse=True)
    if len(queries) == n and len(passages) == n:
        return np.arange(n, dtype=np.int64)
    # Queries and passages are the nodes, a row is an edge between its two.
    nodes = len(queries) + len(passages)
    graph = coo_array((np.ones(n, np.int8), (query_codes, len(queries) + passage_codes)), shape=(nodes, nodes))
    _, label = connected_components(graph, directed=False)
    return np.asarray(label[query_codes], np.int64)


def cluster_order(rows: Int64s, cluster: Int64s, tie_breaker: Int64s) -> tuple[Int64s, tuple[SizeClass, ...]]:
    """Rows laid out cluster by cluster, larger clusters first, with the table of cluster sizes.

    Args:
        rows: int64 [m], row numbers.
        cluster: int64 [m], the cluster of each of them.
        tie_breaker: int64 [m]; within a cluster, rows with equal values stand together, so that even in a cluster
            too large to be kept apart as a whole, those rows are.

    Returns:
        int64 [m], `rows` in their new order, and the size classes in the same order.
    """
    if not len(rows):
        return rows, ()
    _, code, size = np.unique(cluster, return_inverse=True, return_counts=True)
    order = np.lexsort((rows, tie_breaker, code, -size[code]))
    sizes, counts = np.unique(size, return_counts=True)
    classes, start = [], 0
    for one, count in zip(sizes[::-1].tolist(), counts[::-1].tolist(), strict=True):
        classes.append(SizeClass(one, count, start))
        start += one * count
    return rows[order], tuple(classes)
