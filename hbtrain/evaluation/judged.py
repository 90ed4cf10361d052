"""Benchmarks of topics and judgements over corpora, a collection for each language: MIRACL, Mr. TyDi and BEIR.

Nothing of a corpus is read before its collection is opened; then it is on disk, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Benchmark, Collection
from hbtrain.evaluation.documents import Documents, open_documents
from hbtrain.formats.inputs import REFUSED
from hbtrain.formats.judged import JudgedFolder, Judgement, Topic, find_beir, find_miracl, find_mr_tydi
from hbtrain.formats.languages import choose_languages

SHOWN = 3
"""How many ids an error message names."""

RESOURCES = {
    "low-resource": ("bn", "hi", "sw", "te", "th", "yo"),
    "mid-resource": ("ar", "fa", "fi", "id", "ko"),
    "high-resource": ("de", "en", "es", "fr", "ja", "ru", "zh"),
}
"""MIRACL's languages, grouped by the number of Wikipedia articles in their corpus: below 200,000 (47,793 in Swahili to
148,107 in Hindi), up to a million (437,373 in Korean to 857,827 in Persian), and above (1,133,444 in Japanese to
5,758,285 in English). The grouping is ours. MIRACL's paper has these figures for all but Yoruba, whose corpus has
49,043 passages, and German, whose corpus has more than eleven million."""

Qrels = dict[str, dict[str, int]]
"""{question id: {document id: grade}}; 0 means judged and not relevant."""


def read_judged(
    form: str,
    folder: str | Path,
    name: str,
    languages: Sequence[str] | None = None,
    *,
    cache: Path,
    split: str | None = None,
) -> Benchmark:
    """The benchmark in a folder: one collection for each language, in alphabetical order or that of `languages`.

    Args:
        form: miracl (its languages are those whose corpus is there), mr-tydi or beir.
        folder: with the files as their makers publish them.
        name: of the benchmark.
        languages: only these; None: all.
        cache: folder for converted corpora.
        split: of topics and judgements; by default dev for MIRACL, whose test is not public, and test for the others.

    Raises:
        DataError: there are no languages, a language is not there, or a file of a language is missing.
    """
    if form == "miracl":
        found = find_miracl(str(folder), split or "dev", by="corpus")
    elif form == "mr-tydi":
        found = find_mr_tydi(str(folder), split or "test")
    else:
        found = find_beir(str(folder), split or "test", languages)
    chosen = choose_languages(found.languages, languages, f"benchmark {name} ({folder})")
    for language in chosen:
        found.of(language)  # raises if a file is missing, before anything is read
    openers = tuple(partial(_open, found, name, language, cache) for language in chosen)
    groups = RESOURCES if form == "miracl" else {}
    return Benchmark(name, "title+text", chosen, openers, ("mono",), groups, parallel=False)


def topics_by_id(topics: Iterable[Topic], file: str) -> dict[str, Topic]:
    """{id: topic} of a file.

    Raises:
        DataError: there are no topics, a topic has no text, or an id occurs twice.
    """
    found: dict[str, Topic] = {}
    for topic in topics:
        if not topic.text.strip():
            REFUSED.bad(topic.position, "an empty text", f" (question {topic.id})")
        if topic.id in found:
            raise DataError(f"{topic.position}: question {topic.id} occurs twice; ids must be unique in a language")
        found[topic.id] = topic
    if not found:
        raise DataError(f"{file} holds no topics")
    return found


def grades_by_question(judgements: Iterable[Judgement], file: str) -> Qrels:
    """{question id: {document id: grade}} of a file.

    Raises:
        DataError: there are no judgements.
    """
    found: Qrels = {}
    for one in judgements:
        found.setdefault(one.question, {})[one.document] = one.grade
    if not found:
        raise DataError(f"{file} holds no judgements")
    return found


def _open(found: JudgedFolder, name: str, language: str, cache: Path) -> Collection:
    files = found.of(language)
    topics = topics_by_id(found.topics(language, REFUSED), files.topics)
    qrels = grades_by_question(found.judgements(language, REFUSED), files.qrels)
    if found.form == "beir":
        # BEIR has one file of queries for all splits; those without judgements in this split belong to others.
        topics = {question: topic for question, topic in topics.items() if question in qrels}
    documents = open_documents(files.corpus, cache)
    return judged_collection(f"{name} in {language}", language, topics, qrels, documents)


def judged_collection(
    name: str,
    language: str,
    topics: Mapping[str, Topic],
    qrels: Qrels,
    documents: Documents,
) -> Collection:
    """The collection of one language: the topics that have a relevant document, over all documents.

    Topics without one cannot be scored; they are left out and counted.

    Raises:
        DataError: judgements name questions that are not among the topics, or relevant documents that the corpus lacks.
            Files are then missing or do not belong together, and scores would be wrong.
    """
    _check_known([x for x in qrels if x not in topics], "questions", f"benchmark {name}: the judgements", "the topics")
    relevant = {
        question: {document: grade for document, grade in qrels.get(question, {}).items() if grade > 0}
        for question in topics
    }
    answered = [question for question, found in relevant.items() if found]
    wanted = list(dict.fromkeys(document for question in answered for document in relevant[question]))
    places = dict(zip(wanted, documents.find(wanted).tolist(), strict=True))
    _check_known(
        [document for document, place in places.items() if place < 0],
        "relevant documents",
        f"benchmark {name}: the judgements",
        "the corpus",
    )
    ordered = [sorted((places[document], grade) for document, grade in relevant[x].items()) for x in answered]
    domains = [topics[question].domain for question in answered]
    graded = any(grade != 1 for found in ordered for _, grade in found)
    return Collection(
        name=name,
        question_ids=answered,
        query_languages=[language] * len(answered),
        query_texts=[topics[question].text for question in answered],
        candidate_ids=documents.ids,
        candidate_texts=documents.texts,
        candidate_counts={language: len(documents.ids)},
        relevant=[np.array([place for place, _ in found], np.int64) for found in ordered],
        gains=[np.array([grade for _, grade in found], np.float64) for found in ordered] if graded else None,
        domains=domains if any(domain is not None for domain in domains) else None,
        left_out=len(topics) - len(answered),
        repeated=documents.repeated,
    )


def _check_known(unknown: list[str], what: str, who: str, where: str) -> None:
    if unknown:
        first = ", ".join(unknown[:SHOWN]) + (", ..." if len(unknown) > SHOWN else "")
        raise DataError(
            f"{who} name {len(unknown):,} {what} that {where} lack ({first}); fetch all files of one version"
        )
