"""Feeding: from the plan's batches to token ids, one thread ahead of the device."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hbtrain.batching import BatchPlan, GlobalBatch, shard_sizes
from hbtrain.corpus import ParallelCorpus
from hbtrain.modeling.embedding import token_count
from hbtrain.modeling.encoder import Encoder
from hbtrain.modeling.loss import PairIds

AHEAD = 4
"""Steps prepared before they are asked for."""

Features = dict[str, Tensor]


@dataclass(frozen=True)
class Work:
    """A rank's part of one step, ready for the device.

    Attributes:
        batch: the global batch.
        sizes: pairs of every rank.
        queries, passages: token features of this rank's pairs.
        ids: identities of all pairs, where some are shared; else None.
        tokens: tokens of this rank without padding.
    """

    batch: GlobalBatch
    sizes: list[int]
    queries: Features
    passages: Features
    ids: PairIds | None
    tokens: int

    def to(self, device: torch.device) -> Work:
        """The same on a device."""
        if device.type == "cpu":
            return self

        def moved(x: Tensor) -> Tensor:
            return x.to(device, non_blocking=True)

        ids = None if self.ids is None else PairIds(moved(self.ids.query_B), moved(self.ids.passage_B))
        queries = {name: moved(x) for name, x in self.queries.items()}
        passages = {name: moved(x) for name, x in self.passages.items()}
        return Work(self.batch, self.sizes, queries, passages, ids, self.tokens)


class Feed:
    """Prepares the work of one rank."""

    def __init__(self, plan: BatchPlan, corpus: ParallelCorpus, encoder: Encoder, rank: int, world_size: int) -> None:
        self._plan = plan
        self._corpus = corpus
        self._encoder = encoder
        self._rank = rank
        self._world_size = world_size

    def work(self, step: int) -> Work:
        """The rank's part of `step`."""
        batch = self._plan.batch(step)
        shard = batch.shard(self._rank, self._world_size)
        source = self._corpus.sources[batch.source]
        queries = self._encoder.tokenize(source.texts("query", shard.rows, shard.query_languages), "query")
        passages = self._encoder.tokenize(source.texts("passage", shard.rows, shard.passage_languages), "passage")
        ids = None
        if batch.collisions().any():
            ids = PairIds(torch.from_numpy(batch.query_ids), torch.from_numpy(batch.passage_ids))
        sizes = shard_sizes(len(batch), self._world_size)
        return Work(batch, sizes, queries, passages, ids, token_count(queries) + token_count(passages))

    def steps(self, start: int, stop: int) -> Iterator[Work]:
        """The work of steps [start, stop), prepared by a thread in the background.

        An error of the thread is raised here, at the step it belongs to.
        """
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
            while thread.is_alive():  # make room, so that a waiting thread sees that it is no longer wanted
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
