"""Judged sets whose questions and documents are the same in all languages: MuPLeR, MultilingualNano.

That a set is parallel is said by whoever names it so. What can be checked is: question ids, document ids and judgements
must be the same in all languages. Where they are not, or a language cannot be part of a pool, each is asked by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from hbtrain.evaluation.benchmark import Benchmark, Collection, Floats, Int64s
from hbtrain.evaluation.judged import PLAIN, Judging, find_judged, open_judged, read_judged
from hbtrain.formats.languages import choose_languages


def read_pooled(
    folder: str | Path,
    name: str,
    languages: Sequence[str] | None = None,
    *,
    cache: Path,
    judging: Judging = PLAIN,
) -> Benchmark:
    """A set in mteb's layout as one pool of all languages, asked in all settings; the documents are held in memory.

    Where the languages do not have the same ids and judgements, or `judging` leaves candidates out of them, they are
    asked one by one, and a note says why.

    Raises:
        DataError: as `read_judged`, or a language's files do not fit together.
    """
    found = find_judged("mteb", folder, languages)
    where = f"benchmark {name} ({folder})"
    chosen = choose_languages([key for key in found.languages if key not in found.sides], languages, where)
    collections = [open_judged(found, name, key, cache, judging) for key in chosen]
    if problem := _not_one(collections):
        note = f"{name}: each language is asked by itself, since {problem}"
        alone = read_judged("mteb", folder, name, chosen, cache=cache, judging=judging)

        def first() -> Collection:
            collection = alone.openers[0]()
            return replace(collection, notes=(note, *collection.notes))

        return replace(alone, openers=(first, *alone.openers[1:]))
    return Benchmark.of(name, "title+text", pool(name, collections))


def pool(name: str, collections: Sequence[Collection]) -> Collection:
    """The collection of all languages, of collections of one language each with the same ids and judgements."""
    starts = [0, *accumulate(len(c.candidate_ids) for c in collections)]
    of_question = [{x: number for number, x in enumerate(c.question_ids)} for c in collections]
    own_gains = [_gains(c) for c in collections]
    relevant: dict[str, Int64s] = {}
    gains: dict[str, Floats] = {}
    for question in collections[0].question_ids:
        places = [places[question] for places in of_question]
        lists = [c.relevant[at] + start for c, at, start in zip(collections, places, starts, strict=False)]
        relevant[question] = np.concatenate(lists)
        gains[question] = np.concatenate([own[at] for own, at in zip(own_gains, places, strict=True)])
    asked = [question for c in collections for question in c.question_ids]
    language_of = [c.languages[0] for c in collections]
    domains = [domain for c in collections for domain in c.domains or [None] * len(c.question_ids)]
    return Collection(
        name=name,
        question_ids=asked,
        query_languages=[x for x, c in zip(language_of, collections, strict=True) for _ in c.question_ids],
        query_texts=[text for c in collections for text in c.query_texts],
        candidate_ids=[f"{x}/{key}" for x, c in zip(language_of, collections, strict=True) for key in c.candidate_ids],
        candidate_texts=[text for c in collections for text in c.candidate_texts],
        candidate_counts={x: len(c.candidate_ids) for x, c in zip(language_of, collections, strict=True)},
        relevant=[relevant[question] for question in asked],
        gains=[gains[question] for question in asked] if any(c.gains is not None for c in collections) else None,
        domains=domains if any(domain is not None for domain in domains) else None,
        left_out=sum(c.left_out for c in collections),
        repeated=sum(c.repeated for c in collections),
        unasked={x: own for c in collections for x, own in c.unasked.items()},
        notes=tuple(note for c in collections for note in c.notes),
    )


def _not_one(collections: Sequence[Collection]) -> str:
    """Why the collections cannot be one pool, in words; nothing if they can."""
    first = collections[0]
    for c in collections:
        if c.missing is not None:
            return f"{c.name} has relevant candidates that are never found"
        if c.own is not None:
            return f"{c.name} has queries that are documents themselves"
    ids, judged = set(first.candidate_ids), _judged(first)
    for c in collections[1:]:
        names = f"{first.languages[0]} and {c.languages[0]}"
        if set(c.question_ids) != set(first.question_ids):
            return f"the ids of questions in {names} differ"
        if set(c.candidate_ids) != ids:
            return f"the ids of documents in {names} differ"
        if _judged(c) != judged:
            return f"the judgements in {names} differ"
    return ""


def _judged(c: Collection) -> dict[str, dict[str, float]]:
    """{question: {document: gain}}"""
    ids = list(c.candidate_ids)
    lists = zip(c.question_ids, c.relevant, _gains(c), strict=True)
    return {x: dict(zip([ids[at] for at in own.tolist()], y.tolist(), strict=True)) for x, own, y in lists}


def _gains(c: Collection) -> Sequence[Floats]:
    return [np.ones(len(places)) for places in c.relevant] if c.gains is None else c.gains
