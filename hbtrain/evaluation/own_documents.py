"""Queries that are documents themselves, as in ArguAna and Quora: a query's own document is left out of its ranking.

BEIR calls this `ignore_identical_ids`. The document is ranked like any other and then taken out, so that what ranks
behind it moves up; judgements stay as they are, so that an own document that is judged relevant is never found.

Shapes: Q queries, K places of a list, P (query, relevant candidate) pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hbtrain.evaluation.benchmark import Collection, Int64s
from hbtrain.reporting.text import counted, listed
from hbtrain.retrieval.ranks import Ranks, Search
from hbtrain.retrieval.top import NONE, Top

FLAG = "--ignore-identical-ids (evaluation.ignore_identical_ids)"
SHOWN = 3  # how many ids a note names


def with_note_of_own(collection: Collection) -> Collection:
    """The collection, with a note where ids of queries are ids of documents too."""
    same = np.flatnonzero(collection.find(collection.question_ids) >= 0)
    if not len(same):
        return collection
    ids = listed([collection.question_ids[query] for query in same.tolist()], SHOWN)
    note = (
        f"{collection.name}: {counted(len(same), 'query id')} of {len(collection.question_ids):,} "
        f"{'is' if len(same) == 1 else 'are'} a document's id as well ({ids}); "
        f"where such queries are these documents (ArguAna, Quora), {FLAG} leaves a query's own document out"
    )
    return replace(collection, notes=(*collection.notes, note))


def ignore_identical_ids(collection: Collection) -> Collection:
    """The collection, with the candidate that has a query's id left out of that query's ranking."""
    own = collection.find(collection.question_ids)
    relevant, gains, missing = [], [], []
    for query, places in enumerate(collection.relevant):
        others = places != own[query]
        gain = np.ones(len(places)) if collection.gains is None else collection.gains[query]
        before = np.zeros(0) if collection.missing is None else collection.missing[query]
        relevant.append(places[others])
        gains.append(gain[others])
        missing.append(np.concatenate([before, gain[~others]]))
    lost = sum(map(len, collection.relevant)) - sum(map(len, relevant))
    note = f"{collection.name}: {counted(int((own >= 0).sum()), 'own document')} left out of the rankings"
    if lost:
        note += f", {lost:,} of them judged relevant, which count as never found"
    return replace(
        collection,
        relevant=relevant,
        gains=None if collection.gains is None else gains,
        missing=missing if any(map(len, missing)) else None,
        own=own,
        notes=(*collection.notes, note),
    )


def with_own(collection: Collection) -> Sequence[Int64s]:
    """[Q] the places of each query's relevant candidates and of the one that will be left out, ascending."""
    if collection.own is None:
        return collection.relevant
    lists = zip(collection.relevant, collection.own.tolist(), strict=True)
    return [places if own < 0 else np.insert(places, np.searchsorted(places, own), own) for places, own in lists]


def deep_enough(collection: Collection, depth: int) -> int:
    """The length of lists that still hold `depth` candidates when a query's own document is taken out."""
    return depth if collection.own is None else depth + 1


def without_own(collection: Collection, search: Search, depth: int) -> Search:
    """What was found for `with_own` and lists of `deep_enough`, without the queries' own documents."""
    own = collection.own
    if own is None:
        return search
    by_language = {code: top_without_own(collection, top, depth) for code, top in search.by_language.items()}
    of_pool = None if search.of_pool is None else top_without_own(collection, search.of_pool, depth)
    return search._replace(
        ranks=_ranks_without(search.ranks, own), by_language=by_language, depth=depth, of_pool=of_pool
    )


def top_without_own(collection: Collection, top: Top, depth: int) -> Top:
    """[Q, at most `depth`] lists without the queries' own documents; NONE fills up a list that has become shorter."""
    if collection.own is None:
        return top
    mine = (top.places == collection.own[:, None]) & (top.places >= 0)
    order = np.argsort(mine, axis=1, kind="stable")[:, :depth]
    scores, places = np.where(mine, np.float32(-np.inf), top.scores), np.where(mine, NONE, top.places)
    return Top(np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1))


def _ranks_without(ranks: Ranks, own: Int64s) -> Ranks:
    mine = ranks.candidate == own[ranks.query]
    # [P] number of the pair of the same query with its own document; -1 for none
    pair_of_query = np.full(len(own), -1)
    pair_of_query[ranks.query[mine]] = np.flatnonzero(mine)
    pair = pair_of_query[ranks.query]
    there = pair >= 0
    same_language = there & (ranks.language == ranks.language[pair])
    same_score = ranks.score == ranks.score[pair]
    keep = ~mine
    return Ranks(
        query=ranks.query[keep],
        candidate=ranks.candidate[keep],
        language=ranks.language[keep],
        in_language=(ranks.in_language - (same_language & (ranks.in_language > ranks.in_language[pair])))[keep],
        in_pool=(ranks.in_pool - (there & (ranks.in_pool > ranks.in_pool[pair])))[keep],
        score=ranks.score[keep],
        equal_in_language=(ranks.equal_in_language - (same_language & same_score))[keep],
        equal_in_pool=(ranks.equal_in_pool - (there & same_score))[keep],
    )
