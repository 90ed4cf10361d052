"""What a worker does with its shard, a range of a store's files: search it, or count in it for exact ranks.

**Exact search** (`Flat`) does not use FAISS, which leaves open which of equally good candidates it returns and rounds
by the shape of its operands. `top_scores` scores one file of the store after another, on a GPU in parts that fit there:
a file's scores come from the same products whatever shard it is in and whatever the memory, so any number of shards
gives the same bits and the same order of ties.

**Approximate search**: the index names candidates, and they are scored anew in fp32 from the store. So scores of all
indices mean the same, results of shards can be merged although their indices were trained apart, and of equal scores
the first in the pool comes first.

**Exact ranks**: `shard_counts` says how the counts of shards are added up.

Shapes: Q queries, N candidates of the whole pool, R rows of a file, D dimensions, K results, P (query, relevant
candidate) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hbtrain.modeling.devices import Device, free_bytes
from hbtrain.modeling.encoder import Similarity
from hbtrain.retrieval.counting import Pairs
from hbtrain.retrieval.device_counts import count_on, relevant_scores_on
from hbtrain.retrieval.faiss_index import EXACT, sample_size
from hbtrain.retrieval.faiss_placement import PlacedIndex, build
from hbtrain.retrieval.quantizing import Quantizer
from hbtrain.retrieval.scores import Floats, for_inner_products
from hbtrain.retrieval.shard_counts import Blocks, ShardCounts, count_in_shard, relevant_scores, sum_counts
from hbtrain.retrieval.store import EmbeddingStore
from hbtrain.retrieval.top import NONE, DevicePool, Int64s, Top, merge_top

RESCORED_FLOATS = 16_777_216  # numbers of embeddings that are read at one time to be scored anew: 64 MiB


class ShardIndex:
    """Searches a shard. An index is built at the first search."""

    def __init__(
        self,
        folder: str,
        files: range,
        factory: str,
        parameters: str = "",
        seed: int = 0,
        similarity: Similarity = "cosine",
        device: Device = "cpu",
        copies: Sequence[Device] = (),
    ) -> None:
        """Args:
        folder: of a finished store.
        files: neighbouring shards of the store.
        factory: an `index_factory` string that `check_factory` has let pass.
        parameters: of the search, such as `nprobe=16`.
        seed: of the sample that the index is trained on.
        similarity: how vectors are compared.
        device: where it is built and searched; FAISS stays on the CPU where it cannot use a GPU.
        copies: further GPUs that search an index of FAISS.

        Raises:
            StorageError: the store cannot be read.
        """
        self._store = EmbeddingStore(Path(folder))
        self._files = files
        self._factory = factory
        self._parameters = parameters
        self._seed = seed
        self._device = device
        self._similarity: Similarity = similarity
        self._copies = copies
        self._held: dict[int, DevicePool] = {}  # {number of a file: its vectors} that stay on the device
        self._room: int | None = None  # bytes that may still stay there
        self._index: PlacedIndex | None = None
        self._note: str | None = None  # why the index was built on the CPU although there is a GPU
        ranges = self._store.manifest.shards
        self._rows = range(ranges[files.start].start, ranges[files.stop - 1].stop)

    def nearest(self, q_QD: Floats, k: int) -> Top:
        """The `k` best candidates of the shard, or all if it has fewer."""
        if self._factory == EXACT:
            return self.exact(q_QD, k)
        k = min(k, len(self._rows))
        if self._index is None:
            how = self._factory, self._parameters, self._similarity
            index, self._note = build(*how, self._blocks, self._sample(), self._device)
            self._index = PlacedIndex(index, self._parameters, [self._device, *self._copies])
        return self._rescored(q_QD, self._index.search(np.ascontiguousarray(q_QD), k))

    def device(self) -> tuple[str, str | None]:
        """(`gpu` or `cpu`, what is to say about it) of the index that was searched last; see `PlacedIndex`."""
        return ("cpu", None) if self._index is None else (self._index.device, self._index.note or self._note)

    def exact(self, q_QD: Floats, k: int) -> Top:
        """The `k` best candidates of the shard, found by scoring all of them."""
        return self._best(q_QD, k, self._pool)

    def _best(self, q_QD: Floats, k: int, pool: Callable[[int], DevicePool]) -> Top:
        q_QD = for_inner_products(q_QD, "query", self._similarity)
        best = Top(np.zeros((len(q_QD), 0), np.float32), np.zeros((len(q_QD), 0), np.int64))
        for file in self._files:
            p_RD = pool(file)
            scores, places = p_RD.best(q_QD, [slice(0, len(p_RD))], k)
            best = merge_top([best, Top(scores, places + self._store.manifest.shards[file].start)], k)
        return best

    def _pool(self, file: int) -> DevicePool:
        """The vectors of a file on the device, where they stay if they are in its first half."""
        import torch

        if self._room is None:
            self._room = (free_bytes(torch.device(self._device)) or 0) // 2
        if (pool := self._held.get(file)) is None:
            pool = self._moved(np.asarray(self._store.shard(file), np.float32))
            if pool.on_device and pool.bytes <= self._room:
                self._held[file], self._room = pool, self._room - pool.bytes
        return pool

    def _moved(self, p_RD: Floats) -> DevicePool:
        import torch

        return DevicePool(self._passages(p_RD), torch.device(self._device))

    def _passages(self, p_RD: Floats) -> Floats:
        return for_inner_products(p_RD, "passage", self._similarity)

    def _blocks(self) -> Iterator[Floats]:
        for file in self._files:
            yield self._store.shard(file).astype(np.float32)

    def _sample(self) -> Floats:
        """Vectors to train the index on, drawn at random."""
        wanted = max(1, sample_size(self._factory, self._store.manifest.dimension))
        drawn = np.random.default_rng(self._seed).choice(
            len(self._rows), min(wanted, len(self._rows)), replace=False, shuffle=False
        )
        return self._store.take(self._rows.start + np.sort(drawn))

    def _rescored(self, q_QD: Floats, places_QK: npt.NDArray[np.int64]) -> Top:
        """What the index found, scored anew in fp32 and sorted."""
        q_QD = for_inner_products(q_QD, "query", self._similarity)
        scores_QK = np.empty(places_QK.shape, np.float32)
        found_QK = places_QK >= 0
        places_QK = np.where(found_QK, places_QK + self._rows.start, NONE)
        rows = max(1, RESCORED_FLOATS // max(1, places_QK.shape[1] * q_QD.shape[1]))
        for start in range(0, len(q_QD), rows):
            at = slice(start, start + rows)
            p_RD = self._store.take(np.where(found_QK[at], places_QK[at], self._rows.start).ravel())
            p_QKD = self._passages(p_RD).reshape(*found_QK[at].shape, -1)
            scores_QK[at] = np.einsum("qkd,qd->qk", p_QKD, q_QD[at])
        scores_QK[~found_QK] = -np.inf
        return merge_top([Top(scores_QK, places_QK)], places_QK.shape[1])


class QuantizedShard(ShardIndex):
    """Searches the quantized vectors of a shard exactly; `exact` searches the full ones."""

    def __init__(
        self,
        folder: str,
        files: range,
        quantizer: Quantizer,
        similarity: Similarity = "cosine",
        device: Device = "cpu",
    ) -> None:
        super().__init__(folder, files, EXACT, similarity=similarity, device=device)
        self._quantizer = quantizer

    def nearest(self, q_QD: Floats, k: int) -> Top:
        """The `k` best candidates of the shard for queries as the quantizer gives them."""
        return self._best(
            q_QD, k, lambda file: self._moved(self._quantizer.passages(np.asarray(self._store.shard(file), np.float32)))
        )


def split(files: int, shards: int) -> list[range]:
    """`files` in `shards` neighbouring groups that differ by one at most; no group is empty."""
    shards = min(files, shards)
    bounds = [files * shard // shards for shard in range(shards + 1)]
    return [range(a, b) for a, b in pairwise(bounds)]


class RankShard:
    """Counts in a shard for exact ranks: the steps of `shard_counts`, over the files of the shard."""

    def __init__(
        self,
        folder: str,
        files: range,
        languages: Int64s,
        threads: int | None = None,
        similarity: Similarity = "cosine",
        quantizer: Quantizer | None = None,
        device: Device = "cpu",
    ) -> None:
        """Args:
        folder: of a finished store.
        files: neighbouring shards of the store.
        languages: language codes [N] of the whole pool.
        threads: that compute scores; None: as many as torch uses.
        similarity: how vectors are compared; the queries of all steps come as `for_inner_products` gives them.
        quantizer: of the candidates; the queries come as it gives them, but where they are compared in full.
        device: where it counts: by the rule of `device_counts` on a GPU.

        Raises:
            StorageError: the store cannot be read.
        """
        self._store = EmbeddingStore(Path(folder))
        self._files = files
        self._languages = languages
        self._blocks = Blocks(threads=threads)
        self._similarity: Similarity = similarity
        self._quantizer = quantizer
        self._device = device

    def device(self) -> str:
        """`gpu` or `cpu`: where it counts."""
        return "cpu" if self._device == "cpu" else "gpu"

    def relevant_scores(self, q_QD: Floats, pairs: Pairs) -> Floats:
        """[P] scores of the pairs whose candidates are in the shard, NaN for the others."""
        import torch

        scores_P = np.full(len(pairs.query), np.nan, np.float32)
        for first, p_RD in self._vectors(self._quantizer):
            if self._device == "cpu":
                here = relevant_scores(q_QD, p_RD, pairs, first, self._blocks.threads)
            else:
                here = relevant_scores_on(torch.device(self._device), q_QD, p_RD, pairs, first)
            np.copyto(scores_P, here, where=~np.isnan(here))
        return scores_P

    def counts(self, q_QD: Floats, pairs: Pairs, scores_P: Floats, depth: int, in_full: bool = False) -> ShardCounts:
        """How many of the shard's candidates rank ahead, and the `depth` best of them in each language; `in_full`: by
        vectors that are not quantized."""
        import torch

        vectors = partial(self._vectors, None if in_full else self._quantizer)
        if self._device != "cpu" and len(q_QD):
            where = torch.device(self._device)
            return count_on(where, q_QD, vectors, self._languages, pairs, scores_P, depth)
        parts = []
        for first, p_RD in vectors():
            codes = self._languages[first : first + len(p_RD)]
            parts.append(count_in_shard(q_QD, p_RD, codes, pairs, scores_P, first, depth, self._blocks))
        return sum_counts(parts, depth)

    def _vectors(self, quantizer: Quantizer | None) -> Iterator[tuple[int, Floats]]:
        """(place of its first row in the pool, vectors [R, D]) of each file."""
        for file in self._files:
            p_RD = np.asarray(self._store.shard(file), np.float32)
            p_RD = p_RD if quantizer is None else quantizer.passages(p_RD)
            yield self._store.manifest.shards[file].start, for_inner_products(p_RD, "passage", self._similarity)
