"""Scoring: every query of a collection, from its ranking. Shapes: P relevant candidates in all, G rankings."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from hbtrain.evaluation.benchmark import Benchmark, Collection, Floats, Int64s
from hbtrain.evaluation.geometry import (
    MOST_RANKED,
    LanguagePairs,
    evenly,
    language_pairs,
    parallel_texts,
    query_alignment,
    rank_correlation,
    unit,
)
from hbtrain.evaluation.metrics import (
    FIRST_PLACES,
    Rankings,
    first_languages,
    graded_ndcg,
    language_bias,
    metrics,
    rank_distance,
)
from hbtrain.evaluation.preference import (
    FIRST,
    best_ranks,
    equal_expected_rank,
    first_candidates,
    preferences,
)
from hbtrain.evaluation.rankers import TopLists
from hbtrain.reporting.metric_names import (
    LANGUAGE_AWARE,
    LANGUAGE_BIAS,
    OWN_BEFORE,
    OWN_FIRST,
    OWN_LANGUAGE,
    PEER,
    QUERY_ALIGNMENT,
    RANK_CORRELATION,
    RANK_DISTANCE,
    WORST_RANK,
)
from hbtrain.retrieval.scores import for_inner_products

if TYPE_CHECKING:
    import pyarrow as pa

    from hbtrain.modeling.encoder import Side
    from hbtrain.retrieval.ranks import Ranks, Search, Vectors

OF_TRANSLATED_ANSWERS = (OWN_FIRST, OWN_BEFORE)  # of queries with answers in their own language and in another
OF_TRANSLATED_QUESTIONS = (RANK_CORRELATION, QUERY_ALIGNMENT)  # of queries that are asked in another language too
POOL_METRICS = (
    RANK_DISTANCE,
    WORST_RANK,
    OWN_LANGUAGE,
    LANGUAGE_BIAS,
    *OF_TRANSLATED_ANSWERS,
    LANGUAGE_AWARE,
    *FIRST.values(),
    PEER,
    *OF_TRANSLATED_QUESTIONS,
)
"""Metrics of a query that only the setting `multi` has."""
BLOCK_PAIRS = 1 << 20  # relevant candidates of queries that are scored at one time; some 500 bytes of memory for each
ALL_LANGUAGES = "all"  # the `passage_language` in the setting `multi`


@dataclass(frozen=True)
class CollectionScores:
    """The scores of a collection, without its texts."""

    query_counts: dict[str, int]  # {language: queries}
    candidate_counts: dict[str, int]  # {language: candidates}, in the order of the pool
    left_out: int  # queries without a relevant candidate
    repeated: int  # documents that came before, word for word
    per_query: pa.Table  # one row per query and setting; see `Evaluation.per_query`
    # {query language: mean share [L] of each language among the first ten candidates} in the setting `multi`; empty
    # without it
    first_languages: Mapping[str, Floats] = field(default_factory=dict)
    # {setting: counts of its relevant candidates}; without settings in which scores are not known
    ties: Mapping[str, Ties] = field(default_factory=dict)
    # {"query" or "passage": how the vectors of its languages lie to each other}, where vectors are known, in `multi`
    pairs: Mapping[Side, LanguagePairs] = field(default_factory=dict)
    never_found: int = 0  # relevant candidates that no ranking can hold
    own_left_out: int = 0  # queries whose own document is left out of their rankings
    notes: tuple[str, ...] = ()  # of the collection


class Ties(NamedTuple):
    """How many relevant candidates score the same as one that is not relevant, or less so: metrics depend on which of
    the two ranks first."""

    tied: int
    relevant: int  # all relevant candidates of all rankings


@dataclass(frozen=True)
class RankingScores:
    """Scores of G rankings."""

    setting: npt.NDArray[np.object_]  # [G] of each ranking
    query: Int64s  # [G] the query's place in the collection
    passage_language: npt.NDArray[np.object_]  # [G] of the candidates
    scores: dict[str, Floats]  # {metric: [G]}; a metric that is not known is missing or NaN
    relevant: Int64s  # [G] how many relevant candidates there are
    tied: Int64s | None  # [G] how many of them are tied as `Ties` says; None: not known


def score_collection(benchmark: Benchmark, collection: Collection, ranking: Search | TopLists) -> CollectionScores:
    """The scores of every query in the settings of `benchmark`, from exact ranks or from lists of the best."""
    if isinstance(ranking, TopLists):
        listed = _listed(benchmark, collection, ranking)
        places = ranking.places if listed.setting[0] == "multi" else None
        return combine_scores(benchmark, collection, [listed], places, ranking.vectors)
    parts = (part for score in (_pairs, _pool) for part in _in_blocks(collection, ranking.ranks, score))
    return combine_scores(benchmark, collection, parts, ranking.pool.places, ranking.vectors)


def _in_blocks(
    collection: Collection, ranks: Ranks, score: Callable[[Collection, Ranks], RankingScores]
) -> Iterator[RankingScores]:
    """The scores of some queries after the other: with 122 languages the ranks of all of them are 13 million."""
    first = 0
    while first < len(collection.question_ids):
        low = int(np.searchsorted(ranks.query, first))
        beyond = int(ranks.query[low + BLOCK_PAIRS]) if low + BLOCK_PAIRS < len(ranks.query) else sys.maxsize
        last = min(max(beyond, first + 1), len(collection.question_ids))
        high = int(np.searchsorted(ranks.query, last))
        found = score(collection.of_queries(first, last), ranks.of_pairs(low, high, first))
        yield replace(found, query=found.query + first)
        first = last


def combine_scores(
    benchmark: Benchmark,
    collection: Collection,
    parts: Iterable[RankingScores],
    pool: Int64s | None,
    vectors: Vectors | None = None,
) -> CollectionScores:
    """The scores of all rankings in one table.

    Args:
        benchmark: has the settings.
        collection: what was ranked.
        parts: the scores that follow from ranks.
        pool: places [Q, K] of the best candidates in all languages; None: not known.
        vectors: of queries and candidates; None: not known.
    """
    import pyarrow as pa

    shares = None
    of_queries: dict[str, Floats] = {}
    pairs: dict[Side, LanguagePairs] = {}
    if "multi" in benchmark.settings:
        size = len(collection.candidate_texts)
        if pool is not None and pool.shape[1] >= min(FIRST_PLACES, size):
            shares, of_queries = _of_first_places(collection, pool)
        if vectors is not None and len(collection.languages) > 1:
            of_vectors, pairs = _of_vectors(collection, vectors)
            of_queries |= of_vectors
    tables: list[pa.Table] = []
    ties: dict[str, Ties] = {}
    for part in parts:
        multi = part.setting == "multi"
        for name, values in of_queries.items() if multi.any() else ():
            part.scores[name] = np.where(multi, values[part.query], np.nan)
        _add_ties(ties, part)
        tables.append(_table(benchmark, collection, part))
    return CollectionScores(
        query_counts=collection.query_counts,
        candidate_counts=dict(collection.candidate_counts),
        left_out=collection.left_out,
        repeated=collection.repeated,
        per_query=pa.concat_tables(tables),
        first_languages={} if shares is None else _by_query_language(collection, shares),
        ties={setting: ties[setting] for setting in benchmark.settings if setting in ties},
        pairs=pairs,
        never_found=sum(map(len, collection.missing or ())),
        own_left_out=0 if collection.own is None else int(np.count_nonzero(collection.own >= 0)),
        notes=collection.notes,
    )


def _of_first_places(collection: Collection, pool: Int64s) -> tuple[Floats, dict[str, Floats]]:
    """Shares [Q, L] of languages among the first ten places, and the measures [Q] that follow from these places."""
    counts = list(collection.candidate_counts.values())
    shares = first_languages(pool, counts)
    own = collection.query_codes
    first = pool[:, :FIRST_PLACES]
    size = len(collection.candidate_texts)
    language = np.append(collection.candidate_codes, len(counts))[first]  # of no candidate, -1, the number L
    relevant_of = np.repeat(np.arange(len(collection.relevant)), [len(places) for places in collection.relevant])
    relevant = np.concatenate([np.zeros(0, np.int64), *collection.relevant])
    found = np.isin(np.arange(len(first))[:, None] * (size + 1) + first, relevant_of * (size + 1) + relevant)
    every = np.zeros((len(first), len(counts) + 1), np.int64)
    np.add.at(every, (relevant_of, collection.candidate_codes[relevant]), 1)
    np.subtract.at(every, (np.arange(len(first))[:, None], np.where(found, language, len(counts))), 1)
    return shares, {
        OWN_LANGUAGE: shares[np.arange(len(shares)), own],
        LANGUAGE_BIAS: language_bias(shares, counts),
        PEER: equal_expected_rank(language, found, every[:, :-1]),
        **first_candidates(found[:, 0], language[:, 0] == own),
    }


def _of_vectors(collection: Collection, vectors: Vectors) -> tuple[dict[str, Floats], dict[Side, LanguagePairs]]:
    """Measures [Q] that follow from the vectors, and how those of two languages lie to each other."""
    queries_nL, answers_nL = parallel_texts(collection)
    similarity, q_QD = vectors.similarity, vectors.queries
    sample = vectors.passages(evenly(len(collection.candidate_texts), MOST_RANKED))
    ranking = for_inner_products(q_QD, "query", similarity), for_inner_products(sample, "passage", similarity)
    return {
        RANK_CORRELATION: rank_correlation(*ranking, queries_nL),
        QUERY_ALIGNMENT: query_alignment(unit(q_QD), queries_nL),
    }, {
        "query": language_pairs(collection.languages, q_QD.__getitem__, queries_nL),
        "passage": language_pairs(collection.languages, vectors.passages, answers_nL),
    }


def _add_ties(ties: dict[str, Ties], part: RankingScores) -> None:
    """Add the counts of a part to those of the settings."""
    if part.tied is None:
        return
    for setting in np.unique(part.setting.astype(str)).tolist():
        here = part.setting == setting
        before = ties.get(setting, Ties(0, 0))
        tied, relevant = int(part.tied[here].sum()), int(part.relevant[here].sum())
        ties[setting] = Ties(before.tied + tied, before.relevant + relevant)


def _by_query_language(collection: Collection, shares: Floats) -> dict[str, Floats]:
    codes = collection.query_codes
    return {collection.languages[code]: shares[codes == code].mean(axis=0) for code in np.unique(codes).tolist()}


def _pairs(collection: Collection, ranks: Ranks) -> RankingScores:
    """Scores in the settings `mono` and `cross`: a ranking for every query and language that has an answer to it."""
    size = len(collection.languages)
    group = ranks.query * size + ranks.language
    tied = _tied(collection, group, ranks.score, ranks.equal_in_language)
    # Only a pool of one language has candidates that are never found.
    code = collection.languages.index(collection.pool_language or collection.languages[0])
    query_of_missing, _ = _missing(collection)
    rankings, scores = _scored(collection, np.append(group, query_of_missing * size + code), ranks.in_language)
    query, language = np.divmod(rankings.group, size)
    setting = np.where(collection.query_codes[query] == language, "mono", "cross").astype(object)
    languages = np.array(collection.languages, object)[language]
    return RankingScores(setting, query, languages, scores, rankings.relevant, _per_ranking(rankings, group[tied]))


def _pool(collection: Collection, ranks: Ranks) -> RankingScores:
    """Scores in the setting `multi`: a ranking of all languages for every query."""
    tied = _tied(collection, ranks.query, ranks.score, ranks.equal_in_pool)
    query_of_missing, _ = _missing(collection)
    rankings, scores = _scored(collection, np.append(ranks.query, query_of_missing), ranks.in_pool)
    worst = rankings.rank[rankings.start + rankings.relevant - 1].astype(np.float64)
    scores |= {RANK_DISTANCE: rank_distance(rankings), WORST_RANK: worst}
    if collection.pool_language is None:
        best = best_ranks(ranks.query, ranks.language, ranks.in_pool, len(collection.languages))
        scores |= preferences(best, collection.query_codes[rankings.group])
    size = len(rankings.group)
    return RankingScores(
        np.full(size, "multi", object),
        rankings.group,
        np.full(size, ALL_LANGUAGES, object),
        scores,
        rankings.relevant,
        _per_ranking(rankings, ranks.query[tied]),
    )


def _listed(benchmark: Benchmark, collection: Collection, lists: TopLists) -> RankingScores:
    """Scores in `mono` or `cross` (candidates of one language) or `multi`, as far as the lists are deep enough."""
    depth = lists.places.shape[1]
    query = np.repeat(np.arange(len(collection.relevant)), [len(places) for places in collection.relevant])
    # What is in no list ranks somewhere behind it; metrics that do not look beyond the list do not depend on where.
    rank = depth + 1 + np.arange(len(query))
    first = 0
    for best, relevant in zip(lists.places, collection.relevant, strict=True):
        found, at, _ = np.intersect1d(best, relevant, return_indices=True)
        rank[first + np.searchsorted(relevant, found)] = at + 1
        first += len(relevant)
    query_of_missing, _ = _missing(collection)
    rankings, scores = _scored(collection, np.append(query, query_of_missing), rank)
    if collection.pool_language is None:
        language = collection.candidate_codes[np.concatenate(collection.relevant)]
        scores |= preferences(best_ranks(query, language, rank, len(collection.languages)), collection.query_codes)
    known = {name: values for name, values in scores.items() if 0 < cutoff(name) <= depth}
    one = benchmark.listed_language(collection)
    asked = one or ALL_LANGUAGES
    settings = np.full(len(rankings.group), "multi", object)
    if one is not None:
        languages = np.array(collection.query_languages, object)[rankings.group]
        settings = np.where(languages == asked, "mono", "cross").astype(object)
    tied = None
    if lists.scores is not None:
        own_PK = lists.scores[query]
        score = own_PK[np.arange(len(query)), np.minimum(rank, depth) - 1]
        inside = rank <= depth
        equal = np.where(inside, np.count_nonzero(own_PK == score[:, None], axis=1), 0)
        tied = _per_ranking(rankings, query[_tied(collection, query, np.where(inside, score, np.nan), equal)])
    return RankingScores(
        settings,
        rankings.group,
        np.full(len(settings), asked, object),
        known,
        rankings.relevant,
        tied,
    )


def _missing(collection: Collection) -> tuple[Int64s, Floats]:
    """Query and gain of every relevant candidate that is never found."""
    lists = collection.missing or ()
    sizes = np.array([len(gains) for gains in lists], np.int64)
    return np.repeat(np.arange(len(lists)), sizes), np.concatenate([np.zeros(0), *lists])


def _tied(
    collection: Collection, group: Int64s, score: npt.NDArray[np.floating], equal: Int64s
) -> npt.NDArray[np.bool_]:
    """bool [P]: which relevant candidates score the same as one of another gain.

    Args:
        collection: has the gains.
        group: [P] number of each relevant candidate's ranking.
        score: [P]
        equal: [P] candidates of the ranking with that score, this one included.
    """
    gain = np.ones(len(group)) if collection.gains is None else np.concatenate(collection.gains)
    _, inverse, counts = np.unique(
        np.column_stack([group, score + 0.0, gain]), axis=0, return_inverse=True, return_counts=True
    )
    return np.asarray(equal > counts[inverse.reshape(-1)])


def _per_ranking(rankings: Rankings, group: Int64s) -> Int64s:
    """[G] how often each ranking's number occurs."""
    return np.bincount(np.searchsorted(rankings.group, group), minlength=len(rankings.group))


def cutoff(metric: str) -> int:
    """The cut-off in a metric's name, such as 10 of `mrr@10`; 0 if it has none."""
    return int(metric.partition("@")[2] or 0)


def _scored(collection: Collection, group: Int64s, rank: Int64s) -> tuple[Rankings, dict[str, Floats]]:
    """The rankings and their scores.

    Args:
        collection: has the gains.
        group: number of the ranking of every relevant candidate, then of those that are never found.
        rank: of the relevant candidates in the pool.
    """
    gain_of_missing = _missing(collection)[1]
    ranks = np.append(rank, np.full(len(gain_of_missing), np.inf)) if len(gain_of_missing) else rank
    rankings = Rankings.of(group, ranks)
    scores = {name: metric(rankings) for name, metric in metrics().items()}
    if collection.gains is not None:
        scores["ndcg@10"] = graded_ndcg(group, ranks, np.concatenate([*collection.gains, gain_of_missing]), 10)
    return rankings, scores


def _table(benchmark: Benchmark, collection: Collection, part: RankingScores) -> pa.Table:
    """The rankings of a part, those in settings of the benchmark, in the columns of `Evaluation.per_query`."""
    import pyarrow as pa

    rows = np.flatnonzero(np.isin(part.setting, benchmark.settings))
    query = part.query[rows]
    texts = {
        "benchmark": np.full(len(rows), benchmark.name, object),
        "setting": part.setting[rows],
        "query_language": np.array(collection.query_languages, object)[query],
        "passage_language": part.passage_language[rows],
        "question_id": np.array(collection.question_ids, object)[query],
    }
    columns = {name: pa.array(values, pa.string()) for name, values in texts.items()}
    for name in (*metrics(), *POOL_METRICS):
        scores = part.scores[name][rows] if name in part.scores else np.full(len(rows), np.nan)
        columns[name] = pa.array(scores, pa.float64(), mask=np.isnan(scores))
    domains = np.array(collection.domains or [None] * len(collection.question_ids), object)
    columns["domain"] = pa.array(domains[query], pa.string())
    return pa.table(columns)
