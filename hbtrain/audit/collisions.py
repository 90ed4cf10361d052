"""Pairs that are each other's false negatives: how many the plan leaves, how many a plain shuffle would have had."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hbtrain.batching import BatchPlan
from hbtrain.batching.batch import colliding
from hbtrain.batching.permutation import permute
from hbtrain.corpus.conflicts import Int64s


@dataclass
class Collisions:
    """Of sampled batches of one source.

    Attributes:
        batches: that were looked at.
        pairs: in them.
        left: pairs that share a query or a passage with another pair of their batch, which cannot be avoided where
            more rows are linked than there are batches; the loss masks them.
        shuffled: the same in as many batches of a plain shuffle of what was drawn from: all (row, query language,
            passage language) of the same source, kind and languages, however they are linked.
    """

    batches: int = 0
    pairs: int = 0
    left: int = 0
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

    Each row has as many cards in the pack as it offers pairs. The pack is drawn as if each had as many as the most,
    and the cards that do not exist are passed over.
    """
    stream, size = plan.stream(number), plan.batching.global_batch_size
    offer = plan.catalogue.offers[number]
    most = 1 if offer.pair is not None else int(offer.table.pairs_per_pattern.max())
    found: list[Int64s] = []
    start = 0
    while sum(map(len, found)) < size:
        cards = np.arange(start, min(start + size, stream.rows * most), dtype=np.int64)
        places, card = np.divmod(permute(cards, stream.rows * most, (plan.seed, "plain shuffle", step)), most)
        rows = places if stream.order is None else np.asarray(stream.order[places], np.int64)
        if offer.pair is None:
            rows = rows[card < offer.table.pairs_per_pattern[offer.availability.source.patterns_of(rows)]]
        found.append(rows)
        start += size
    return np.concatenate(found)[:size]
