"""The batch plan: the global batch of a step as a pure function of (configuration, seed, step).

Every rank computes the same plan without communication, a run resumes at any step from one integer, and the stream of
batches does not depend on the number of workers. The kinds and how they are drawn follow arXiv 2408.10536, section 3:
a batch is monolingual (X-X) with probability alpha and cross-lingual (X-Y) otherwise; a mixture has other kinds beside.

A step first draws the stream of rows that its batch comes from, which depends on (seed, step) only. How many batches
that stream has given before is a count over all earlier steps, so the draws are tabulated (`DrawTable`): eight bytes a
step, in blocks that are made when one of their steps is first asked for.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from hbtrain.batching.batch import GlobalBatch
from hbtrain.batching.catalogue import Catalogue, shares_at
from hbtrain.batching.offers import Offer
from hbtrain.batching.permutation import key_of, uniform
from hbtrain.batching.stream import Stream
from hbtrain.config import Config
from hbtrain.config.batching import KINDS, BatchingConfig, Kind
from hbtrain.corpus.conflicts import Int64s, SourceIndex
from hbtrain.corpus.parallel import ParallelCorpus


class BatchPlan:
    """Random access to the global batch of any step; imports neither torch nor ray."""

    def __init__(
        self,
        sources: Sequence[SourceIndex],
        batching: BatchingConfig,
        languages: Sequence[str] | None = None,
        seed: int = 0,
    ) -> None:
        """A plan over `sources`, in the training `languages` (None: all they have), checked as by `Catalogue.build`."""
        self.batching = batching
        self.seed = seed
        self.catalogue = Catalogue.build(sources, batching, languages)
        self._streams: dict[int, Stream] = {}
        self._keys = {what: key_of(seed, what) for what in ("kind", "stream", "languages")}
        self._draws = DrawTable(len(self.catalogue.offers), self._draw)

    @classmethod
    def from_config(cls, config: Config) -> BatchPlan:
        """The plan of a configuration; opens its sources, as `ParallelCorpus.from_config` does."""
        return cls.over(ParallelCorpus.from_config(config), config)

    @classmethod
    def over(cls, corpus: ParallelCorpus, config: Config) -> BatchPlan:
        indices = [source.index for source in corpus.sources.values()]
        return cls(indices, config.batching, config.data.languages, config.seed)

    @property
    def languages(self) -> tuple[str, ...]:
        return self.catalogue.languages

    def batch(self, step: int) -> GlobalBatch:
        """The global batch of `step` (0 or more), of `batching.global_batch_size` pairs."""
        if step < 0:
            raise ValueError(f"step {step} is negative")
        number, occurrence = self._draws.at(step)
        offer = self.catalogue.offers[number]
        rows = self.stream(number).batch(occurrence, self.batching.global_batch_size)
        query_codes, passage_codes = self._languages(offer, rows, step)
        source = offer.availability.source
        return GlobalBatch(
            step=step,
            kind=offer.kind,
            source=source.name,
            rows=rows,
            languages=self.languages,
            query_codes=query_codes,
            passage_codes=passage_codes,
            query_ids=source.query_ids_of(rows),
            passage_ids=source.passage_ids_of(rows),
        )

    def only(self, kind: Kind) -> BatchPlan:
        """What this plan would be with batches of `kind` alone, which must be one of its kinds."""
        plan = copy.copy(self)
        plan._draws = DrawTable(len(self.catalogue.offers), partial(self._draw_within, kind))
        return plan

    def fingerprint(self, start: int, stop: int) -> str:
        """Hex digest of the batches of steps [start, stop); equal on any machine and for any world size."""
        digest = hashlib.sha256()
        for step in range(start, stop):
            batch = self.batch(step)
            digest.update(f"{step}\0{batch.kind}\0{batch.source}\0{','.join(batch.languages)}\0".encode())
            for numbers in (batch.rows, batch.query_codes, batch.passage_codes):
                digest.update(numbers.astype("<i8").tobytes())
        return digest.hexdigest()

    def draws(self, start: int, stop: int) -> Int64s:
        """int64 [stop - start]: the index in `catalogue.offers` of the offer that each step of [start, stop) draws."""
        return self._draws.streams(start, stop)

    def stream(self, number: int) -> Stream:
        if number not in self._streams:
            self._streams[number] = self.catalogue.offers[number].stream(self.seed)
        return self._streams[number]

    def _draw(self, steps: Int64s) -> Int64s:
        """int64 [n]: the offer that each step draws. One uniform number decides the kind, another the offer within it.

        Both numbers are the same for every alpha and mixture, and kinds divide [0, 1) in a fixed order, so runs that
        differ only in these share the order of their data as far as possible.
        """
        ends = shares_at(self.batching, steps).cumsum(axis=0)
        ends[ends == ends[-1]] = 1.0  # where the last kind that has a share ends, whatever the sum was rounded to
        kinds = (uniform(self._keys["kind"], steps) >= ends).sum(axis=0)
        drawn = np.empty(len(steps), np.int64)
        for number in np.unique(kinds).tolist():
            of_kind = kinds == number
            drawn[of_kind] = self._draw_within(KINDS[number], steps[of_kind])
        return drawn

    def _draw_within(self, kind: Kind, steps: Int64s) -> Int64s:
        """int64 [n]: the offer of `kind` that each step draws."""
        return self.catalogue.pick(kind, uniform(self._keys["stream"], steps))

    def _languages(self, offer: Offer, rows: Int64s, step: int) -> tuple[Int64s, Int64s]:
        if offer.pair is not None:
            return np.full(len(rows), offer.pair[0], np.int64), np.full(len(rows), offer.pair[1], np.int64)
        # A counter for each pair; no two steps have the same, as batches have fewer than 2**32 pairs.
        counters = (np.uint64(step) << np.uint64(32)) + np.arange(len(rows), dtype=np.uint64)
        return offer.table.draw(offer.availability.source.patterns_of(rows), uniform(self._keys["languages"], counters))


BLOCK = 1 << 14  # steps whose draws are tabulated at one time


class DrawTable:
    """For any step, the stream that it draws from, and how many earlier steps drew from that stream."""

    def __init__(self, streams: int, draw: Callable[[Int64s], Int64s]) -> None:
        """`draw` maps steps (int64 [n]) to numbers of streams (int64 [n]), which are below `streams`."""
        self._draw = draw
        self._blocks: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]] = []  # streams, occurrences
        self._advanced = np.zeros(streams, np.int64)

    def at(self, step: int) -> tuple[int, int]:
        """(stream that `step` draws from, how many earlier steps drew from the same stream)."""
        block, offset = divmod(step, BLOCK)
        self._reach(block)
        streams, occurrences = self._blocks[block]
        return int(streams[offset]), int(occurrences[offset])

    def streams(self, start: int, stop: int) -> Int64s:
        """int64 [stop - start]: the stream that each step of [start, stop) draws from."""
        if stop <= start:
            return np.empty(0, np.int64)
        first, last = start // BLOCK, (stop - 1) // BLOCK
        self._reach(last)
        drawn = np.concatenate([streams for streams, _ in self._blocks[first : last + 1]])
        return drawn[start - first * BLOCK : stop - first * BLOCK].astype(np.int64)

    def _reach(self, block: int) -> None:
        while len(self._blocks) <= block:
            self._append()

    def _append(self) -> None:
        first = len(self._blocks) * BLOCK
        streams = self._draw(np.arange(first, first + BLOCK, dtype=np.int64))
        occurrences = np.empty(BLOCK, np.int64)
        by_stream = np.argsort(streams, kind="stable")
        numbers, starts, counts = np.unique(streams[by_stream], return_index=True, return_counts=True)
        within = np.arange(BLOCK) - np.repeat(starts, counts)
        occurrences[by_stream] = within + np.repeat(self._advanced[numbers], counts)
        self._advanced[numbers] += counts
        self._blocks.append((streams.astype(np.int32), occurrences.astype(np.int32)))
