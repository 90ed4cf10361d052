"""Counts over all planned steps: kinds, sources, languages, ordered pairs, epochs.

The draws of all steps (which source, kind and language a batch has) are counted as they are. Where each row of a batch
draws its own pair of languages, pairs are the expected number, given those draws: a row's pair is one of those that it
offers, by weight, so no row needs to be looked at.

Shapes: S sources, L training languages, T parts of the steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hbtrain.batching import BatchPlan
from hbtrain.batching.availability import Availability, Floats
from hbtrain.batching.batch import colliding
from hbtrain.batching.catalogue import shares_at
from hbtrain.batching.permutation import permute
from hbtrain.config.batching import KINDS, Kind
from hbtrain.corpus.conflicts import Int64s, SourceIndex

PARTS = 25  # into so many parts the steps are divided, to show how the share of each kind changes


@dataclass(frozen=True)
class StreamUse:
    """How a source is used for batches of one kind, and of one language or pair of languages if batches have one."""

    source: str
    kind: Kind
    languages: tuple[str, ...]  # of the pair, if all pairs of a batch have the same languages, else none
    rows: int  # rows that have these languages
    batches: int  # in all steps
    epochs: float  # how many times each row is used, on average
    largest_cluster: int  # the most rows that are linked by shared queries or passages
    batches_per_epoch: int  # in a larger cluster than this, some rows meet in a batch


@dataclass(frozen=True)
class Counts:
    """The content of `steps` batches of `batch_size` pairs."""

    steps: int  # how many were counted, from step 0
    batch_size: int  # pairs of a batch
    kinds: dict[Kind, int]  # {kind: batches}
    expected_kinds: dict[Kind, float]  # {kind: expected batches, from alpha or the mixture}
    part_starts: Int64s  # int64 [T + 1], the first step of each part, and the end of the last
    kinds_by_part: dict[Kind, Floats]  # {kind: float64 [T]}, share of a kind among the batches of each part
    sources: tuple[str, ...]  # names of the S sources
    source_rows: Int64s  # int64 [S], rows of each source
    languages: tuple[str, ...]  # the L training languages
    pairs: dict[Kind, Floats]  # {kind: float64 [S, L, L]}, pairs by source, query language and passage language
    query_rows: Int64s  # int64 [S, L], rows that have the query in a language
    passage_rows: Int64s  # int64 [S, L]
    streams: tuple[StreamUse, ...]  # every stream that can be drawn from

    @property
    def total_pairs(self) -> int:
        return self.steps * self.batch_size

    @property
    def all_pairs(self) -> Floats:
        """float64 [S, L, L]: `pairs`, summed over kinds."""
        return np.asarray(np.sum(list(self.pairs.values()), axis=0))

    @property
    def language_shares(self) -> Floats:
        """float64 [L]: each language's share of all queries and passages; sums to 1."""
        pairs = self.all_pairs.sum(axis=0)
        return np.asarray((pairs.sum(axis=0) + pairs.sum(axis=1)) / (2 * self.total_pairs))

    @property
    def passes(self) -> Floats:
        """float64 [S, L]: how often each query or passage of a source in a language is used, on average; NaN: none."""
        return self._passes(self.all_pairs, self.query_rows, self.passage_rows)

    @property
    def language_passes(self) -> Floats:
        """float64 [L]: how often each query or passage in a language is used, on average over all sources."""
        pairs = self.all_pairs.sum(axis=0)
        return self._passes(pairs, self.query_rows.sum(axis=0), self.passage_rows.sum(axis=0))

    @property
    def epochs(self) -> float:
        """How often each row of the sources is used, on average."""
        return float(self.total_pairs / self.source_rows.sum())

    def _passes(self, pairs: Floats, query_rows: Int64s, passage_rows: Int64s) -> Floats:
        texts = (query_rows + passage_rows).astype(np.float64)
        texts[texts == 0] = np.nan
        return np.asarray((pairs.sum(axis=-1) + pairs.sum(axis=-2)) / texts)


def count(plan: BatchPlan, sources: list[SourceIndex], steps: int) -> Counts:
    """Count the first `steps` steps of a plan over `sources`."""
    offers, size, languages = plan.catalogue.offers, plan.batching.global_batch_size, plan.languages
    draws = plan.draws(0, steps)
    batches = np.bincount(draws, minlength=len(offers))
    place = {source.name: i for i, source in enumerate(sources)}
    kinds: dict[Kind, int] = {offer.kind: 0 for offer in offers}
    pairs = {kind: np.zeros((len(sources), len(languages), len(languages))) for kind in kinds}
    streams = []
    for number, (offer, drawn) in enumerate(zip(offers, batches.tolist(), strict=True)):
        name = offer.availability.source.name
        kinds[offer.kind] += drawn
        if drawn and offer.pair is not None:
            pairs[offer.kind][place[name]][offer.pair] += drawn * size
        elif drawn:
            pairs[offer.kind][place[name]] += drawn * size * offer.pair_shares
        classes = plan.stream(number).classes
        streams.append(
            StreamUse(
                source=name,
                kind=offer.kind,
                languages=offer.languages,
                rows=offer.rows,
                batches=drawn,
                epochs=drawn * size / offer.rows,
                largest_cluster=max(one.size for one in classes),
                batches_per_epoch=offer.rows // size,
            )
        )
    part_starts = np.linspace(0, steps, min(PARTS, steps) + 1).astype(np.int64)
    texts = [Availability(source, languages).text_rows() for source in sources]
    return Counts(
        steps=steps,
        batch_size=size,
        kinds=kinds,
        expected_kinds=_expected(plan, kinds, steps),
        part_starts=part_starts,
        kinds_by_part={
            kind: np.add.reduceat(np.isin(draws, _numbers(plan, kind)).astype(np.float64), part_starts[:-1])
            / np.diff(part_starts)
            for kind in kinds
        },
        sources=tuple(place),
        source_rows=np.array([source.rows for source in sources], np.int64),
        languages=languages,
        pairs=pairs,
        query_rows=np.stack([query for query, _ in texts]),
        passage_rows=np.stack([passage for _, passage in texts]),
        streams=tuple(streams),
    )


def _expected(plan: BatchPlan, kinds: dict[Kind, int], steps: int) -> dict[Kind, float]:
    shares = shares_at(plan.batching, np.arange(steps, dtype=np.int64)).sum(axis=1)
    return {kind: float(shares[KINDS.index(kind)]) for kind in kinds}


def _numbers(plan: BatchPlan, kind: Kind) -> list[int]:
    return [number for number, offer in enumerate(plan.catalogue.offers) if offer.kind == kind]


@dataclass
class Collisions:
    """Pairs that collide in sampled batches of one source: they share a query or a passage with another pair."""

    batches: int = 0  # how many were looked at
    pairs: int = 0  # in these batches
    # pairs that collide, which cannot be avoided where more rows are linked than there are batches; the loss masks them
    left: int = 0
    # pairs that would collide in as many batches of a plain shuffle of all (row, query language, passage language) of
    # the same source, kind and languages
    shuffled: int = 0


def collisions(plan: BatchPlan, steps: Int64s) -> dict[str, Collisions]:
    """{source: collisions} in the batches of `steps` (int64 [n])."""
    found: dict[str, Collisions] = {}
    for step, number in zip(steps.tolist(), map(int, _draws(plan, steps)), strict=True):
        batch = plan.batch(step)
        one = found.setdefault(batch.source, Collisions())
        one.batches += 1
        one.pairs += len(batch)
        one.left += int(batch.collisions().sum())
        rows = _shuffled_rows(plan, number, step)
        source = plan.catalogue.offers[number].availability.source
        one.shuffled += int(colliding(source.query_ids_of(rows), source.passage_ids_of(rows)).sum())
    return found


def _draws(plan: BatchPlan, steps: Int64s) -> Int64s:
    return plan.draws(0, int(steps.max()) + 1)[steps] if len(steps) else steps


def _shuffled_rows(plan: BatchPlan, number: int, step: int) -> Int64s:
    """int64 [B]: rows of a batch of a plain shuffle of the pairs that `step` draws from.

    In the shuffle each row stands as often as it offers pairs of languages. It is drawn as if every row stood as often
    as the one that offers the most, and what does not exist is skipped.
    """
    stream, size = plan.stream(number), plan.batching.global_batch_size
    offer = plan.catalogue.offers[number]
    most = 1 if offer.pair is not None else int(offer.table.pairs_per_pattern.max())
    found: list[Int64s] = []
    start = 0
    while sum(map(len, found)) < size:
        positions = np.arange(start, min(start + size, stream.rows * most), dtype=np.int64)
        shuffled = permute(positions, stream.rows * most, (plan.seed, "plain shuffle", step))
        places, pair = np.divmod(shuffled, most)
        rows = places if stream.order is None else np.asarray(stream.order[places], np.int64)
        if offer.pair is None:
            rows = rows[pair < offer.table.pairs_per_pattern[offer.availability.source.patterns_of(rows)]]
        found.append(rows)
        start += size
    return np.concatenate(found)[:size]
