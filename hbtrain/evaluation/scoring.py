"""Scoring: every query of a collection, from its ranking. Shapes: P relevant candidates in all, G rankings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hbtrain.evaluation.benchmark import Benchmark, Collection, Floats, Int64s
from hbtrain.evaluation.metrics import (
    FIRST_PLACES,
    METRICS,
    Rankings,
    first_languages,
    graded_ndcg,
    language_bias,
    rank_distance,
)
from hbtrain.evaluation.rankers import TopLists
from hbtrain.reporting.metric_names import RANK_DISTANCE, WORST_RANK

if TYPE_CHECKING:
    import pyarrow as pa

    from hbtrain.retrieval.ranks import Ranks, Search

OWN_LANGUAGE = "own_language@10"
"""Share of the query's own language among the first ten candidates."""
LANGUAGE_BIAS = "language_bias@10"
POOL_METRICS = (RANK_DISTANCE, WORST_RANK, OWN_LANGUAGE, LANGUAGE_BIAS)
"""Metrics that only the setting `multi` has."""
ALL_LANGUAGES = "all"
"""The `passage_language` in the setting `multi`."""


@dataclass(frozen=True)
class CollectionScores:
    """The scores of a collection, without its texts.

    Attributes:
        query_counts: {language: queries}.
        candidate_counts: {language: candidates}, in the order of the pool.
        left_out: queries without a relevant candidate.
        repeated: documents that came before, word for word.
        per_query: one row per query and setting; see `Evaluation.per_query`.
        first_languages: {query language: mean share [L] of each language among the first ten candidates} in the setting
            `multi`; empty without it.
    """

    query_counts: dict[str, int]
    candidate_counts: dict[str, int]
    left_out: int
    repeated: int
    per_query: pa.Table
    first_languages: Mapping[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class RankingScores:
    """Scores of G rankings.

    Attributes:
        setting: [G] of each ranking.
        query: [G] the query's place in the collection.
        passage_language: [G] of the candidates.
        scores: {metric: [G]}; a metric that is not known is missing or NaN.
    """

    setting: npt.NDArray[np.object_]
    query: Int64s
    passage_language: npt.NDArray[np.object_]
    scores: dict[str, Floats]


def score_collection(benchmark: Benchmark, collection: Collection, ranking: Search | TopLists) -> CollectionScores:
    """The scores of every query in the settings of `benchmark`, from exact ranks or from lists of the best."""
    if isinstance(ranking, TopLists):
        listed = _listed(collection, ranking)
        return combine_scores(benchmark, collection, [listed], ranking.places if listed.setting[0] == "multi" else None)
    parts = [_pairs(collection, ranking.ranks), _pool(collection, ranking.ranks)]
    return combine_scores(benchmark, collection, parts, ranking.pool.places)


def combine_scores(
    benchmark: Benchmark, collection: Collection, parts: list[RankingScores], pool: Int64s | None
) -> CollectionScores:
    """The scores of all rankings in one table; `pool`: places [Q, K] of the best candidates in all languages."""
    shares = None
    if pool is not None and "multi" in benchmark.settings:
        counts = list(collection.candidate_counts.values())
        if pool.shape[1] >= min(FIRST_PLACES, sum(counts)):
            shares = first_languages(pool, counts)
            own = shares[np.arange(len(shares)), collection.query_codes]
            for part in parts:
                multi = part.setting == "multi"
                for name, values in ((OWN_LANGUAGE, own), (LANGUAGE_BIAS, language_bias(shares, counts))):
                    part.scores[name] = np.where(multi, values[part.query], np.nan)
    return CollectionScores(
        query_counts=collection.query_counts,
        candidate_counts=dict(collection.candidate_counts),
        left_out=collection.left_out,
        repeated=collection.repeated,
        per_query=_table(benchmark, collection, parts),
        first_languages={} if shares is None else _by_query_language(collection, shares),
    )


def _by_query_language(collection: Collection, shares: Floats) -> dict[str, Floats]:
    codes = collection.query_codes
    return {collection.languages[code]: shares[codes == code].mean(axis=0) for code in np.unique(codes).tolist()}


def _pairs(collection: Collection, ranks: Ranks) -> RankingScores:
    """Scores in the settings `mono` and `cross`: a ranking for every query and language that has an answer to it."""
    size = len(collection.languages)
    group = ranks.query * size + ranks.language
    rankings = Rankings.of(group, ranks.in_language)
    query, language = np.divmod(rankings.group, size)
    setting = np.where(collection.query_codes[query] == language, "mono", "cross").astype(object)
    languages = np.array(collection.languages, object)
    return RankingScores(setting, query, languages[language], _scores(collection, rankings, group, ranks.in_language))


def _pool(collection: Collection, ranks: Ranks) -> RankingScores:
    """Scores in the setting `multi`: a ranking of all languages for every query."""
    rankings = Rankings.of(ranks.query, ranks.in_pool)
    worst = rankings.rank[rankings.start + rankings.relevant - 1].astype(np.float64)
    scores = _scores(collection, rankings, ranks.query, ranks.in_pool)
    scores |= {RANK_DISTANCE: rank_distance(rankings), WORST_RANK: worst}
    size = len(rankings.group)
    return RankingScores(np.full(size, "multi", object), rankings.group, np.full(size, ALL_LANGUAGES, object), scores)


def _listed(collection: Collection, lists: TopLists) -> RankingScores:
    """Scores in `mono` (one language) or `multi`, as far as the depth of the lists lets them be known."""
    depth = lists.places.shape[1]
    query = np.repeat(np.arange(len(collection.relevant)), [len(places) for places in collection.relevant])
    # What is in no list ranks somewhere behind it; metrics that do not look beyond the list do not depend on where.
    rank = depth + 1 + np.arange(len(query))
    first = 0
    for best, relevant in zip(lists.places, collection.relevant, strict=True):
        found, at, _ = np.intersect1d(best, relevant, return_indices=True)
        rank[first + np.searchsorted(relevant, found)] = at + 1
        first += len(relevant)
    rankings = Rankings.of(query, rank)
    scores = _scores(collection, rankings, query, rank)
    known = {name: values for name, values in scores.items() if 0 < cutoff(name) <= depth}
    one = len(collection.languages) == 1
    size = len(rankings.group)
    asked = collection.languages[0] if one else ALL_LANGUAGES
    return RankingScores(
        np.full(size, "mono" if one else "multi", object), rankings.group, np.full(size, asked, object), known
    )


def cutoff(metric: str) -> int:
    """The cut-off in a metric's name, such as 10 of `mrr@10`; 0 if it has none."""
    return int(metric.partition("@")[2] or 0)


def _scores(collection: Collection, rankings: Rankings, group: Int64s, rank: Int64s) -> dict[str, Floats]:
    scores = {name: metric(rankings) for name, metric in METRICS.items()}
    if collection.gains is not None:
        scores["ndcg@10"] = graded_ndcg(group, rank, np.concatenate(collection.gains), 10)
    return scores


def _table(benchmark: Benchmark, collection: Collection, parts: list[RankingScores]) -> pa.Table:
    import pyarrow as pa

    setting = np.concatenate([part.setting for part in parts])
    rows = np.flatnonzero(np.isin(setting, benchmark.settings))
    query = np.concatenate([part.query for part in parts])[rows]
    texts = {
        "benchmark": np.full(len(rows), benchmark.name, object),
        "setting": setting[rows],
        "query_language": np.array(collection.query_languages, object)[query],
        "passage_language": np.concatenate([part.passage_language for part in parts])[rows],
        "question_id": np.array(collection.question_ids, object)[query],
    }
    columns = {name: pa.array(values, pa.string()) for name, values in texts.items()}
    for name in (*METRICS, *POOL_METRICS):
        values = [part.scores.get(name, np.full(len(part.query), np.nan)) for part in parts]
        scores = np.concatenate(values)[rows]
        columns[name] = pa.array(scores, pa.float64(), mask=np.isnan(scores))
    domains = np.array(collection.domains or [None] * len(collection.question_ids), object)
    columns["domain"] = pa.array(domains[query], pa.string())
    return pa.table(columns)
