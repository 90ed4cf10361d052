"""Preparing batches for a rank: from the plan to token ids, on a thread that runs ahead of the device."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from hbtrain.batching import BatchPlan, GlobalBatch, shard_sizes
from hbtrain.batching.switching import Switcher
from hbtrain.config import Config
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.source import Source
from hbtrain.modeling.features import Features, is_padded, moved, pinned, token_counts
from hbtrain.modeling.loss_inputs import Owners, PairIds, References, Sizes
from hbtrain.modeling.tokens import Tokenizes
from hbtrain.training.chunks import (
    Chunk,
    Cut,
    batches_within,
    chunked,
    chunks_within,
    padded_tokens,
    with_packed_batches,
)

CPU = torch.device("cpu")

AHEAD = 4  # steps that are prepared in advance

BUCKET_ROWS = 16
MOST_BUCKETS = 4
"""On CPUs without gradient cache, each side is embedded in batches of similar length, at least `BUCKET_ROWS` rows each
on every rank, and at most `MOST_BUCKETS` of them. Static embeddings use one batch: they have no padding to save, and
each batch costs a gradient of the size of the vocabulary."""

PASS_TOKENS = 65_536
"""On GPUs without gradient cache, each side is embedded in as few batches of similar length as keep each within so many
tokens, padding included. A batch costs the host some 10 ms, whatever its size: to launch 1,200 kernels forwards and
backwards through 12 layers. With 65,536 tokens the GPU has work for 20 ms even if the network is as small as e5-small,
for 80 ms if it is XLM-R base; more and smaller batches save less padding than they cost, larger ones save nothing.
Packed batches have texts of all sides, and as many tokens, on CPUs as well: they have no padding to save."""


@dataclass(frozen=True)
class Work:
    """A rank's part of one step, ready for the device."""

    batch: GlobalBatch  # the global batch
    sizes: Sizes  # pairs and hard negatives of every rank
    # token features of this rank's queries, passages and, where there are any in the batch, negatives
    sides: Sequence[Features | None]
    chunks: list[Chunk]  # the same texts, cut into parts that are embedded one after the other
    ids: PairIds | None  # ids of all pairs and candidates, where some are equal; else None
    tokens: int  # tokens of this rank, without padding
    computed_tokens: int  # tokens of this rank with the padding that is computed
    owners: Owners | None = None  # of what pairs bring along
    references: References | None = None  # guide and teacher
    cut: Cut | None = None  # how this rank has cut its texts, where ranks are yet to agree on it

    def to(self, device: torch.device) -> Work:
        """A copy with chunks and ids on a device; the sides, which are not needed there, stay on the CPU."""
        if device.type == "cpu":
            return self
        ids = self.ids
        if ids is not None:
            ids = PairIds(**moved(pinned(vars(ids), device), device))
        return replace(self, chunks=[chunk.to(device) for chunk in self.chunks], ids=ids)

    def tensors(self) -> Iterator[Tensor]:
        """What `to` copies."""
        for chunk in self.chunks:
            yield from chunk.positions
            for batch in chunk.batches:
                yield from batch.values()
        if self.ids is not None:
            yield from (self.ids.query_B, self.ids.candidate_C)


class Feed:
    """Prepares the work of one rank."""

    def __init__(
        self,
        plan: BatchPlan,
        corpus: ParallelCorpus,
        encoder: Tokenizes,
        config: Config,
        rank: int,
        world_size: int,
        switcher: Switcher | None = None,
        device: torch.device = CPU,
    ) -> None:
        """The feed of a rank that computes on `device`; `switcher` is that of the configuration, which is read where
        none is given."""
        self._plan = plan
        self._corpus = corpus
        self._encoder = encoder
        self._training = config.training
        self._hard_negatives = config.loss.hard_negatives
        self._rank = rank
        self._world_size = world_size
        self._switcher = Switcher.from_config(config) if switcher is None else switcher
        # A network whose batches are padded; bags of tokens are not.
        self._is_padded = is_padded(encoder.tokenize(["."], "query"))
        self._packs = encoder.packs
        self._by_tokens = device.type != "cpu"
        self.agrees = world_size > 1 and self._differs_by_rank(config)
        """Whether the ranks must agree how to cut their texts, as it depends on what only each of them has read."""

    def _differs_by_rank(self, config: Config) -> bool:
        if config.training.chunk_tokens is not None:
            return True
        pairs, negatives = -(-config.batching.global_batch_size // self._world_size), config.loss.hard_negatives
        texts = pairs * (2 + negatives if self._packs else max(1, negatives))  # that are cut together
        longest = max(config.encoder.max_query_tokens, config.encoder.max_passage_tokens)
        by_tokens = (self._by_tokens or self._packs) and self._is_padded and config.training.chunks == 1
        return by_tokens and texts * longest > PASS_TOKENS

    def work(self, step: int) -> Work:
        """This rank's part of `step`, cut into chunks as the configuration says."""
        batch = self._plan.batch(step)
        shard = batch.shard(self._rank, self._world_size)
        source = self._corpus.sources[batch.source]
        pairs = shard_sizes(len(batch), self._world_size)
        negatives = self._negative_sizes(source, batch, pairs)
        first, queries = sum(pairs[: self._rank]), source.texts("query", shard.rows, shard.query_languages)
        passages = source.texts("passage", shard.rows, shard.passage_languages)
        sides: list[Features | None] = [
            self._encoder.tokenize(self._switcher.of_batch(shard, "query", queries, first), "query"),
            self._encoder.tokenize(self._switcher.of_batch(shard, "passage", passages, first), "passage"),
        ]
        if sum(negatives):
            texts = source.negatives(shard.rows, shard.passage_languages, self._hard_negatives, step)
            texts = self._switcher.of_batch(shard, "negative", texts, sum(negatives[: self._rank]))
            sides.append(self._encoder.tokenize(texts, "passage") if texts else None)
        sizes = Sizes(pairs, negatives)
        cut = self._cut(sides, sizes)
        chunks = self._chunks(sides, cut)
        tokens = sum(int(token_counts(side).sum()) for side in sides if side is not None)
        ids = self._ids(source, batch)
        computed = sum(map(padded_tokens, chunks))
        return Work(batch, sizes, sides, chunks, ids, tokens, computed, cut=cut if self.agrees else None)

    def agreed(self, work: Work, cut: Cut) -> Work:
        """The work, cut as the ranks have agreed."""
        chunks = work.chunks if cut == work.cut else self._chunks(work.sides, cut)
        return replace(work, chunks=chunks, computed_tokens=sum(map(padded_tokens, chunks)), cut=None)

    def steps(self, start: int, stop: int) -> Generator[Work]:
        """The work of steps [start, stop), prepared by a background thread, whose errors are raised at their step."""
        ready: queue.Queue[Work | BaseException] = queue.Queue(AHEAD)
        stopped = threading.Event()
        thread = threading.Thread(target=self._fill, args=(start, stop, ready, stopped), name="feed", daemon=True)
        thread.start()
        try:
            for _ in range(start, stop):
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            while thread.is_alive():  # make room in the queue, so that a waiting thread sees that it is to stop
                while not ready.empty():
                    ready.get_nowait()
                thread.join(0.01)

    def _fill(self, start: int, stop: int, ready: queue.Queue[Work | BaseException], stopped: threading.Event) -> None:
        try:
            for step in range(start, stop):
                if stopped.is_set():
                    return
                ready.put(self.work(step))
        except BaseException as error:
            ready.put(error)

    def _negative_sizes(self, source: Source, batch: GlobalBatch, pairs: Sequence[int]) -> list[int]:
        """Hard negatives of every rank, counted from the corpus by each rank alike, so nothing is communicated."""
        if not self._hard_negatives:
            return [0] * len(pairs)
        counts = source.negative_counts(batch.rows, batch.passage_languages).clip(max=self._hard_negatives)
        return [int(part.sum()) for part in np.split(counts, np.cumsum(pairs)[:-1])]

    def _ids(self, source: Source, batch: GlobalBatch) -> PairIds | None:
        candidates = batch.passage_ids
        collide = bool(batch.collisions().any())
        if self._hard_negatives:
            limit = self._hard_negatives
            negatives = source.negative_ids(batch.rows, batch.passage_languages, limit, batch.step)
            collide = collide or bool(np.isin(negatives, batch.passage_ids).any())
            candidates = np.concatenate([candidates, negatives])
        return PairIds(torch.from_numpy(batch.query_ids), torch.from_numpy(candidates)) if collide else None

    def _cut(self, sides: Sequence[Features | None], sizes: Sizes) -> Cut:
        """How this rank cuts its texts, if no other needs more chunks or batches."""
        fewest, whole = min(sizes.pairs), (1,) * len(sides)
        if self._training.chunk_tokens is not None:
            return Cut(chunks_within(sides, self._training.chunk_tokens, fewest, self._packs), whole)
        if self._training.chunks > 1 or not self._is_padded:
            return Cut(min(self._training.chunks, fewest), whole)
        if self._packs:
            tokens = sum(int(token_counts(side).sum()) for side in sides if side is not None)
            return Cut(1, (min(fewest, -(-tokens // PASS_TOKENS)),) * len(sides))
        if self._by_tokens:
            counts = (1 if side is None else batches_within(token_counts(side), PASS_TOKENS) for side in sides)
            return Cut(1, tuple(counts))
        return Cut(1, (min(MOST_BUCKETS, max(1, fewest // BUCKET_ROWS)),) * len(sides))

    def _chunks(self, sides: Sequence[Features | None], cut: Cut) -> list[Chunk]:
        chunks = chunked(sides, *cut, self._packs)
        if not self._packs:
            return chunks
        return [with_packed_batches(chunk, cut.batches[0], self._encoder.pack) for chunk in chunks]
