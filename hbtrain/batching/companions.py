"""Translations that the pairs of a batch bring along: passages, and queries, of their rows in other languages.

Which languages these are is drawn uniformly among those that the row has, without drawing any twice. A draw is a pure
function of (seed, step, place of the pair in the global batch), so all ranks know what each of them brings along. A
batch whose words are switched brings along translations as they are written.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from hbtrain.batching.availability import Bools
from hbtrain.batching.batch import GlobalBatch
from hbtrain.batching.permutation import key_of, uniform
from hbtrain.corpus.conflicts import Int64s, SourceIndex


class Companions(NamedTuple):
    """Translations that the pairs of a global batch bring along, pair after pair."""

    owners: Int64s  # int64 [K], the place in the batch of the pair that brings each along
    codes: Int64s  # int64 [K], its language as an index into the batch's `languages`


def translated_passages(batch: GlobalBatch, source: SourceIndex, count: int, seed: int) -> Companions:
    """Up to `count` translations of each pair's passage, in other languages than the passage's.

    Args:
        batch: a global batch.
        source: the index of its source.
        count: the most for a pair; one whose row has fewer brings all of them along.
        seed: of the draws.
    """
    there = _languages_of_rows(source.passage_patterns, batch, source)
    return _drawn(batch, source, there, batch.passage_codes, count, key_of(seed, "translated passages"))


def translated_queries(batch: GlobalBatch, source: SourceIndex, seed: int) -> Companions:
    """A translation of each pair's query, in another language than the query's; none where the row has no other.

    For the arguments see `translated_passages`.
    """
    there = _languages_of_rows(source.query_patterns, batch, source)
    return _drawn(batch, source, there, batch.query_codes, 1, key_of(seed, "translated queries"))


def _languages_of_rows(patterns: Bools, batch: GlobalBatch, source: SourceIndex) -> Bools:
    """bool [B, L]: in which of the training languages the row of each pair has its text, by the source's patterns."""
    column = {language: i for i, language in enumerate(source.languages)}
    of_rows = patterns[source.patterns_of(batch.rows)]
    there = np.zeros((len(batch), len(batch.languages)), bool)
    for code, language in enumerate(batch.languages):
        if language in column:
            there[:, code] = of_rows[:, column[language]]
    return there


def _drawn(
    batch: GlobalBatch, source: SourceIndex, there: Bools, own_codes: Int64s, count: int, key: np.uint64
) -> Companions:
    places = np.arange(len(batch))
    there[places, own_codes] = False
    if source.sentences:  # of these, query and passage are translations of each other, which are there already
        there[places, batch.query_codes] = there[places, batch.passage_codes] = False
    languages = len(batch.languages)
    counters = (np.uint64(batch.step) << np.uint64(32)) + np.arange(len(batch) * languages, dtype=np.uint64)
    ranked = np.where(there, uniform(key, counters).reshape(len(batch), languages), 2.0).argsort(axis=1)
    chosen = np.arange(languages) < np.minimum(there.sum(axis=1), count)[:, None]
    return Companions(np.nonzero(chosen)[0].astype(np.int64), ranked[chosen].astype(np.int64))
