"""Metrics of rankings with binary relevance, computed from the exact ranks of the relevant candidates.

All but the rank distance agree with trec_eval on the full ranking. Shapes: P relevant candidates in all, G rankings.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hbtrain.plugins import Plugin, PluginError, plugins
from hbtrain.reporting import metric_names

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Rankings:
    """The ranks of the relevant candidates of G rankings, sorted by ranking and then by rank."""

    group: Int64s  # [G] number of each ranking
    start: Int64s  # [G] where the ranks of each ranking begin in `rank`
    relevant: Int64s  # [G] how many relevant candidates each ranking has (R), at least 1
    # [P] ranks from 1, distinct within a ranking; infinite where a relevant candidate is never found
    rank: Int64s | Floats
    nth: Int64s  # [P] 1 for the best relevant candidate of a ranking, 2 for the next, and so on

    @classmethod
    def of(cls, group: Int64s, rank: Int64s | Floats) -> Rankings:
        """From the number of the ranking and the rank of every relevant candidate, both [P], in any order."""
        order = np.lexsort((rank, group))
        groups, start, relevant = np.unique(group[order], return_index=True, return_counts=True)
        nth = np.arange(1, len(order) + 1) - np.repeat(start, relevant)
        return cls(groups, start, relevant, rank[order], nth)


def average_precision(rankings: Rankings) -> Floats:
    """[G] mean over the R relevant candidates of the precision at their ranks; uncut."""
    return _sums(rankings, rankings.nth / rankings.rank) / rankings.relevant


def recall(rankings: Rankings, k: int) -> Floats:
    """[G] share of the R relevant candidates among the first k."""
    return _sums(rankings, (rankings.rank <= k).astype(np.float64)) / rankings.relevant


def reciprocal_rank(rankings: Rankings, k: int | None = None) -> Floats:
    """[G] 1 / rank of the best relevant candidate; uncut, or 0 where it is not within the first k."""
    best = rankings.rank[rankings.start]
    return np.where(best <= (k or best), 1.0 / best, 0.0)


def ndcg(rankings: Rankings, k: int) -> Floats:
    """[G] discounted gain 1 / log2(1 + rank) within the first k, over that of the best possible ranking."""
    gain = np.where(rankings.rank <= k, 1.0 / np.log2(1.0 + rankings.rank), 0.0)
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, k + 2)))
    normalised: Floats = _sums(rankings, gain) / ideal[np.minimum(rankings.relevant, k) - 1]
    return normalised


def rank_distance(rankings: Rankings) -> Floats:
    """[G] highest minus lowest rank of the relevant candidates (arXiv 2408.10536).

    NaN where there is only one: a 0 would pass for a ranking without language bias. NaN or infinite where one is never
    found.

    In a pool of all languages it measures language bias: an unbiased ranking keeps the translations together.
    """
    last = rankings.start + rankings.relevant - 1
    with np.errstate(invalid="ignore"):  # infinity less infinity
        distance = (rankings.rank[last] - rankings.rank[rankings.start]).astype(np.float64)
    return np.where(rankings.relevant > 1, distance, np.nan)


METRICS: dict[str, Callable[[Rankings], Floats]] = {
    "map": average_precision,
    "recall@1": lambda rankings: recall(rankings, 1),
    "recall@10": lambda rankings: recall(rankings, 10),
    "recall@100": lambda rankings: recall(rankings, 100),
    "mrr": reciprocal_rank,
    "mrr@10": lambda rankings: reciprocal_rank(rankings, 10),
    "ndcg@10": lambda rankings: ndcg(rankings, 10),
}
"""hbtrain's own metrics of every setting, by their names in keys and columns; `multi` has `rank_distance` too."""


@cache
def metrics() -> Mapping[str, Callable[[Rankings], Floats]]:
    """The metrics of every setting: `METRICS`, then those of other packages, by name.

    Raises:
        PluginError: one of these cannot be loaded, or has the name of one of hbtrain's own.
    """
    others = {}
    for name, plugin in plugins("metric").items():
        if name in metric_names.METRICS or name in METRICS or not re.fullmatch(r"[^@]+(@[1-9]\d*)?", name):
            raise PluginError(f"{plugin}: hbtrain has that name itself, or what follows its @ is no number; rename it")
        others[name] = _checked(plugin, plugin.load())
    return METRICS | others


def _checked(plugin: Plugin, function: Callable[[Rankings], Any]) -> Callable[[Rankings], Floats]:
    """A metric of another package, whose results are looked at."""

    def metric(rankings: Rankings) -> Floats:
        with plugin.errors_in_words():
            values = np.asarray(function(rankings), np.float64)
        if values.shape != rankings.group.shape or np.isinf(values).any():
            raise PluginError(
                f"{plugin} must return a finite number or NaN for each of {len(rankings.group)} rankings, and returned "
                f"an array of shape {values.shape}{' with infinity' if np.isinf(values).any() else ''}"
            )
        return values

    return metric


def _sums(rankings: Rankings, values: Floats) -> Floats:
    return np.asarray(np.add.reduceat(values, rankings.start), np.float64)


def graded_ndcg(group: Int64s, rank: Int64s | Floats, gain: Floats, k: int) -> Floats:
    """[G] gain / log2(1 + rank) summed over the first k, over that of the best possible ranking; as in trec_eval.

    Args:
        group: int64 [P], number of each relevant candidate's ranking; results are in the ascending order of rankings.
        rank: [P] from 1; infinite for a relevant candidate that is never found.
        gain: float64 [P], above 0.
        k: the cut-off.
    """
    groups, number = np.unique(group, return_inverse=True)
    best_first = np.lexsort((-gain, number))
    starts = np.searchsorted(number[best_first], np.arange(len(groups)))
    ideal_rank = np.empty(len(rank), np.int64)
    ideal_rank[best_first] = np.arange(len(gain)) - starts[number[best_first]] + 1

    def discounted(ranks: Int64s | Floats) -> Floats:
        weights = np.where(ranks <= k, gain / np.log2(1.0 + ranks), 0.0)
        return np.bincount(number, weights, len(groups)).astype(np.float64)

    return np.asarray(discounted(rank) / discounted(ideal_rank), np.float64)


FIRST_PLACES = 10


def first_languages(places: Int64s, candidate_counts: Sequence[int]) -> Floats:
    """[Q, L] share of each language among a query's first ten candidates, or all candidates if they are fewer.

    Args:
        places: [Q, K] places in the pool, best first; -1 fills up a short list.
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
