"""GlobalBatch: what all workers together train on in one step."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hbtrain.config.batching import Kind
from hbtrain.corpus.conflicts import Int64s
from hbtrain.errors import ConfigError


@dataclass(frozen=True)
class GlobalBatch:
    """B pairs (query, passage) of one source, or a rank's part of them."""

    step: int
    kind: Kind
    source: str
    rows: Int64s  # int64 [B], row in the source
    languages: tuple[str, ...]  # the training languages
    query_codes: Int64s  # int64 [B], the query's language as an index into `languages`
    passage_codes: Int64s  # int64 [B], the passage's language as an index into `languages`
    query_ids: Int64s  # int64 [B]; equal numbers mark the same query, in whatever language
    passage_ids: Int64s  # int64 [B]; equal numbers mark the same passage, in whatever language

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def query_languages(self) -> list[str]:
        return [self.languages[code] for code in self.query_codes.tolist()]

    @property
    def passage_languages(self) -> list[str]:
        return [self.languages[code] for code in self.passage_codes.tolist()]

    def shard(self, rank: int, world_size: int) -> GlobalBatch:
        """The pairs of one rank: a contiguous part of the batch, of the size that `shard_sizes` gives."""
        sizes = shard_sizes(len(self), world_size)
        start = sum(sizes[:rank])
        part = slice(start, start + sizes[rank])
        return replace(
            self,
            rows=self.rows[part],
            query_codes=self.query_codes[part],
            passage_codes=self.passage_codes[part],
            query_ids=self.query_ids[part],
            passage_ids=self.passage_ids[part],
        )

    def collisions(self) -> npt.NDArray[np.bool_]:
        """bool [B]: pairs whose query or passage occurs in another pair of the batch."""
        return colliding(self.query_ids, self.passage_ids)


def colliding(query_ids: Int64s, passage_ids: Int64s) -> npt.NDArray[np.bool_]:
    """bool [B]: the pairs whose query or passage occurs in another pair, by their ids (int64 [B] each)."""
    repeated = np.zeros(len(query_ids), bool)
    for ids in (query_ids, passage_ids):
        _, code, count = np.unique(ids, return_inverse=True, return_counts=True)
        repeated |= count[code] > 1
    return repeated


def shard_sizes(batch_size: int, world_size: int) -> list[int]:
    """How many pairs of a batch each rank has; the first `batch_size % world_size` ranks have one more than the others.

    Raises:
        ConfigError: there are more ranks than pairs.
    """
    if world_size > batch_size:
        raise ConfigError(
            f"batching.global_batch_size = {batch_size} is smaller than resources.workers = {world_size}; "
            "every worker needs at least one pair"
        )
    least, more = divmod(batch_size, world_size)
    return [least + (rank < more) for rank in range(world_size)]
