"""A stream: the rows of one source for one kind of batch, dealt out to batches without replacement.

How an epoch is dealt, for a stream of n rows and batches of B rows, with K = n // B batches:

- Rows are ordered cluster by cluster (rows that share a query or a passage, see `corpus.conflicts`), larger clusters
  first; the clusters of one size are shuffled by a keyed permutation of the epoch. Where there are clusters of several
  sizes, and rows will be left over, the order begins at a cluster drawn for the epoch and goes round: else the rows
  left over were always of the smallest clusters. Call this order c.
- Batch b is c[b], c[b + K], c[b + 2K], ..., as cards are dealt. Two rows of one cluster are less than K apart in c
  unless the cluster has more than K rows, so they are never in one batch; and a cluster with more rows than the epoch
  has batches cannot be kept apart by any order.
- The batches of the epoch come in a keyed order. The n mod B rows that are in no batch differ from epoch to epoch.

A batch costs O(B) time wherever it stands in the stream, and no memory that grows with n.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hbtrain.batching.permutation import key_of, permute
from hbtrain.corpus.conflicts import Int64s, SizeClass


@dataclass(frozen=True)
class Stream:
    """Rows of one source for one kind of batch."""

    key: str  # of its keyed permutations; equal keys and rows give equal batches
    rows: int
    order: Int64s | None  # int64 [rows], row numbers cluster by cluster; None: rows are in that order themselves
    classes: tuple[SizeClass, ...]  # cluster sizes along `order`

    def batch(self, number: int, batch_size: int) -> Int64s:
        """int64 [batch_size]: the row numbers of the stream's `number`-th batch, counted through all epochs."""
        epoch_batches = self.rows // batch_size
        epoch, within = divmod(number, epoch_batches)
        dealt = permute(np.array([within], np.int64), epoch_batches, (self.key, epoch, "batches"))
        places = dealt + np.arange(batch_size, dtype=np.int64) * epoch_batches
        if self.rows % batch_size and len(self.classes) > 1:
            places = (places + self._begin(epoch)) % self.rows
        places = self._shuffled(places, epoch)
        # Shuffle within the batch as well: else the first rank would always have the rows of the large clusters.
        places = places[permute(np.arange(batch_size, dtype=np.int64), batch_size, (self.key, number, "within"))]
        return places if self.order is None else np.asarray(self.order[places], np.int64)

    @cached_property
    def _starts(self) -> Int64s:
        return np.array([c.start for c in self.classes], np.int64)

    def _begin(self, epoch: int) -> int:
        """Where an epoch begins in the order of clusters: with that of a row that is drawn, so that none is cut."""
        drawn = int(key_of(self.key, epoch, "begin") % np.uint64(self.rows))
        one = self.classes[int(np.searchsorted(self._starts, drawn, side="right")) - 1]
        return drawn - (drawn - one.start) % one.size

    def _shuffled(self, places: Int64s, epoch: int) -> Int64s:
        """Map indices in the epoch's order c to indices in `order`, by shuffling the clusters of each size class."""
        out = np.empty_like(places)
        class_of = np.searchsorted(self._starts, places, side="right") - 1
        for number in np.unique(class_of).tolist():
            one = self.classes[number]
            mine = class_of == number
            cluster, offset = np.divmod(places[mine] - one.start, one.size)
            cluster = permute(cluster, one.clusters, (self.key, epoch, one.size))
            # Rotated by epoch, so that the rows that are in no batch are not always the last of their clusters.
            offset = (offset + int(key_of(self.key, epoch, one.size, "turn") % np.uint64(one.size))) % one.size
            out[mine] = one.start + cluster * one.size + offset
        return out
