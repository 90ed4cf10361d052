"""One shard of an exact ranking: a range of a store's files. How shards are put together: `partial`.

Shapes: Q queries, N candidates of the whole pool, D dimensions, P (query, relevant candidate) pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from hbtrain.retrieval.pairs import Pairs
from hbtrain.retrieval.partial import Blocks, Partial, merge, partial_counts, relevant_scores
from hbtrain.retrieval.scores import Floats
from hbtrain.retrieval.store import EmbeddingStore
from hbtrain.retrieval.top import Int64s


class RankShard:
    """What a worker holds: some neighbouring files of a store."""

    def __init__(self, folder: str, files: range, languages: Int64s, threads: int | None = None) -> None:
        """Args:
        folder: of a finished store.
        files: neighbouring shards of the store.
        languages: language codes [N] of the whole pool.
        threads: None: as many as torch uses.

        Raises:
            StorageError: the store cannot be read.
        """
        self._store = EmbeddingStore(Path(folder))
        self._files = files
        self._languages = languages
        self._blocks = Blocks(threads=threads)

    def relevant_scores(self, q_QD: Floats, pairs: Pairs) -> Floats:
        """[P] scores of the pairs whose candidates are here, NaN for the others."""
        scores_P = np.full(len(pairs.query), np.nan, np.float32)
        for first, p_RD in self._vectors():
            here = relevant_scores(q_QD, p_RD, pairs, first, self._blocks.threads)
            np.copyto(scores_P, here, where=~np.isnan(here))
        return scores_P

    def counts(self, q_QD: Floats, pairs: Pairs, scores_P: Floats, depth: int) -> Partial:
        """What these candidates add to the ranks, and the `depth` best of them in each language."""
        parts = []
        for first, p_RD in self._vectors():
            codes = self._languages[first : first + len(p_RD)]
            parts.append(partial_counts(q_QD, p_RD, codes, pairs, scores_P, first, depth, self._blocks))
        return merge(parts, depth)

    def _vectors(self) -> Iterator[tuple[int, Floats]]:
        """Each file's place in the pool, and its vectors."""
        for file in self._files:
            yield self._store.manifest.shards[file].start, np.asarray(self._store.shard(file), np.float32)
