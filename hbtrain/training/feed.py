"""Preparing batches for a rank: from the plan to token ids, on a thread that runs ahead of the device."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hbtrain.batching import BatchPlan, GlobalBatch, shard_sizes
from hbtrain.batching.switching import Switcher
from hbtrain.config import Config
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.encoder import Side
from hbtrain.modeling.features import Features, is_padded, moved, pinned, token_counts
from hbtrain.modeling.loss_inputs import Owners, PairIds, References, Sizes
from hbtrain.modeling.tokens import Tokenizes
from hbtrain.training.batch_texts import BatchTexts
from hbtrain.training.chunks import (
    Chunk,
    Cut,
    batches_within,
    chunked,
    chunks_within,
    padded_tokens,
    with_packed_batches,
)

if TYPE_CHECKING:
    from hbtrain.training.frozen_models import FrozenModels

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
    sizes: Sizes  # texts of every rank
    # token features of this rank's queries, passages and, where there are any in the batch, hard negatives, translated
    # passages and translated queries
    sides: Sequence[Features | None]
    chunks: list[Chunk]  # the same texts, cut into parts that are embedded one after the other
    ids: PairIds | None  # ids of all pairs and candidates, where some are equal; else None
    tokens: int  # tokens of this rank, without padding
    computed_tokens: int  # tokens of this rank with the padding that is computed
    owners: Owners | None = None  # which pairs brought texts along; None where the loss is the plain one
    references: References | None = None  # what guide and teacher say of this rank's texts; None: there are none
    cut: Cut | None = None  # how this rank has cut its texts, where ranks are yet to agree on it

    def to(self, device: torch.device) -> Work:
        """A copy with all that the loss needs on a device; the sides, which are not needed there, stay on the CPU."""
        if device.type == "cpu":
            return self
        references = self.references
        if references is not None:
            guide = on_device(references.guide, device)
            same = references.teacher is references.guide  # of one model, vectors are copied and gathered once
            references = References(guide, guide if same else on_device(references.teacher, device))
        return replace(
            self,
            chunks=[chunk.to(device) for chunk in self.chunks],
            ids=on_device(self.ids, device),
            owners=on_device(self.owners, device),
            references=references,
        )

    def tensors(self) -> Iterator[Tensor]:
        """What `to` copies."""
        for chunk in self.chunks:
            yield from chunk.positions
            for batch in chunk.batches:
                yield from batch.values()
        references = self.references or References()
        for some in (self.ids, self.owners, references.guide, references.teacher):
            if some is not None:
                yield from (x for x in vars(some).values() if x is not None)


def on_device(some: Any, device: torch.device) -> Any:
    """A copy on a device, for which the host does not wait, of a dataclass of tensors."""
    if some is None:
        return None
    return replace(some, **moved(pinned({k: x for k, x in vars(some).items() if x is not None}, device), device))


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
        self._loss = config.loss
        plain = config.loss.plain
        self._is_plain = config.loss.active_terms == plain.active_terms and all(
            value == getattr(plain, key) for key, value in config.loss if key != "terms"
        )
        self._rank = rank
        self._world_size = world_size
        self._switcher = Switcher.from_config(config) if switcher is None else switcher
        self.frozen: FrozenModels | None = None
        """Guide and teacher, prepared for the batches that are asked for; None: work has no references."""
        # A network whose batches are padded; bags of tokens are not.
        self._is_padded = is_padded(encoder.tokenize(["."], "query"))
        self._packs = encoder.packs
        self._by_tokens = device.type != "cpu"
        self.agrees = world_size > 1 and self._differs_by_rank(config)
        """Whether the ranks must agree how to cut their texts, as it depends on what only each of them has read."""

    def _differs_by_rank(self, config: Config) -> bool:
        if config.training.chunk_tokens is not None:
            return True
        pairs, loss = -(-config.batching.global_batch_size // self._world_size), config.loss
        sides = (1, 1, loss.hard_negatives, loss.translations, int(loss.needs_translated_queries))
        texts = pairs * (sum(sides) if self._packs else max(sides))  # that are cut together
        longest = max(config.encoder.max_query_tokens, config.encoder.max_passage_tokens)
        by_tokens = (self._by_tokens or self._packs) and self._is_padded and config.training.chunks == 1
        return by_tokens and texts * longest > PASS_TOKENS

    def work(self, step: int) -> Work:
        """This rank's part of `step`, cut into chunks as the configuration says."""
        batch = self._plan.batch(step)
        shard = batch.shard(self._rank, self._world_size)
        source = self._corpus.sources[batch.source]
        pairs = shard_sizes(len(batch), self._world_size)
        texts = BatchTexts.of(batch, source, self._loss, self._plan.seed)
        sizes, first = texts.sizes(pairs), sum(pairs[: self._rank])
        own = texts.of_pairs(first, first + len(shard))
        read = own.read(source)
        sides: list[Features | None] = [
            self._encoder.tokenize(self._switcher.of_batch(shard, "query", read["queries"], first), "query"),
            self._encoder.tokenize(self._switcher.of_batch(shard, "passage", read["passages"], first), "passage"),
        ]
        if sum(sizes.negatives):
            before = sum(sizes.negatives[: self._rank])
            negatives = self._switcher.of_batch(shard, "negative", read["negatives"], before)
            sides.append(self._tokenized(negatives, "passage"))
        if sum(sizes.translations):
            sides.append(self._tokenized(read["translations"], "passage"))
        if sum(sizes.queries):
            sides.append(self._tokenized(read["translated_queries"], "query"))
        cut = self._cut(sides, sizes)
        chunks = self._chunks(sides, cut)
        return Work(
            batch,
            sizes,
            sides,
            chunks,
            ids=texts.ids(batch, source, self._loss),
            tokens=sum(int(token_counts(side).sum()) for side in sides if side is not None),
            computed_tokens=sum(map(padded_tokens, chunks)),
            cut=cut if self.agrees else None,
            owners=None if self._is_plain else texts.owners(),
            references=None if self.frozen is None else self.frozen.references(shard, source, own, read, sizes),
        )

    def _tokenized(self, texts: list[str], side: Side) -> Features | None:
        return self._encoder.tokenize(texts, side) if texts else None

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
