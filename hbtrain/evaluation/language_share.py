"""Which languages stand in the first places of the pool of all languages. Shapes: Q queries, K places, L languages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hbtrain.evaluation.collection import Floats, Int64s

FIRST_PLACES = 10


def first_languages(places: Int64s, candidate_counts: Sequence[int]) -> Floats:
    """[Q, L] share of each language in the first ten candidates, or in all where there are fewer.

    Args:
        places: [Q, K] places in the pool, best first; -1 after the last.
        candidate_counts: candidates of the L languages, in the order of the pool.
    """
    first = places[:, :FIRST_PLACES]
    language = np.searchsorted(np.cumsum(candidate_counts), first, side="right")
    queries, languages = len(first), len(candidate_counts)
    cell = (np.arange(queries)[:, None] * (languages + 1) + np.where(first < 0, languages, language)).ravel()
    counts = np.bincount(cell, minlength=queries * (languages + 1)).reshape(queries, languages + 1)[:, :languages]
    return np.asarray(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1), np.float64)


def language_bias(shares: Floats, candidate_counts: Sequence[int]) -> Floats:
    """[Q] half the sum over languages of |share in the first ten - share in the pool| (total variation), from [Q, L].

    0: the first places are mixed as the pool is; near 1: they are all of a language that is rare in it. With eleven
    languages of equal size, ten candidates in ten languages give 0.09, ten in one language 0.91.
    """
    pool = np.asarray(candidate_counts, np.float64) / max(sum(candidate_counts), 1)
    return np.asarray(np.abs(shares - pool).sum(axis=1) / 2, np.float64)
