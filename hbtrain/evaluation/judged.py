"""Benchmarks of topics and judgements over corpora, a collection for each language: MIRACL, Mr. TyDi,
BEIR, and the sets that have mteb's layout.

Nothing of a corpus is read before its collection is opened; then it is on disk, however large it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from hbtrain.config import EvaluationConfig
from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import SETTINGS, Benchmark, Collection, Floats
from hbtrain.evaluation.documents import Documents, open_documents
from hbtrain.evaluation.own_documents import ignore_identical_ids, with_note_of_own
from hbtrain.formats.ciral import find_ciral
from hbtrain.formats.inputs import REFUSED
from hbtrain.formats.judged import JudgedFolder, Judgement, Topic, find_beir, find_miracl, find_mr_tydi
from hbtrain.formats.mteb import find_mteb
from hbtrain.reporting.text import counted, listed

SHOWN = 3  # how many ids an error message names

RESOURCES = {
    "low-resource": ("bn", "hi", "sw", "te", "th", "yo"),
    "mid-resource": ("ar", "fa", "fi", "id", "ko"),
    "high-resource": ("de", "en", "es", "fr", "ja", "ru", "zh"),
}
"""MIRACL's languages, grouped by the number of Wikipedia articles in their corpus: below 200,000 (47,793 in Swahili to
148,107 in Hindi), up to a million (437,373 in Korean to 857,827 in Persian), and above (1,133,444 in Japanese to
5,758,285 in English). The grouping is ours. MIRACL's paper has these figures for all but Yoruba, whose corpus has
49,043 passages, and German, whose corpus has more than eleven million."""


@dataclass(frozen=True)
class Judging:
    """How judged collections are taken where they are not plain."""

    # leave the document that has a query's own id out of the query's ranking, as BEIR does for queries that are
    # documents themselves (ArguAna, Quora)
    ignore_identical_ids: bool = False
    # relevant documents that the corpus lacks count as never found; else they are refused
    allow_missing_documents: bool = False

    @classmethod
    def of(cls, options: EvaluationConfig) -> Judging:
        return cls(options.ignore_identical_ids, options.allow_missing_documents)


PLAIN = Judging()

Qrels = dict[str, dict[str, int]]  # {question id: {document id: grade}}; 0 means judged and not relevant


def read_judged(
    form: str,
    folder: str | Path,
    name: str,
    languages: Sequence[str] | None = None,
    *,
    cache: Path,
    split: str | None = None,
    judging: Judging = PLAIN,
) -> Benchmark:
    """The benchmark in a folder: one collection for each language, in alphabetical order or that of `languages`.

    Args:
        form: miracl or ciral (their languages are those whose corpus is there), mr-tydi, beir or mteb.
        folder: with the files as their makers publish them.
        name: of the benchmark.
        languages: only these; None: all.
        cache: folder for converted corpora.
        split: of topics and judgements; by default dev for MIRACL, whose test is not public, for mteb and CIRAL
            the first of their `SPLITS` that is there, and test for the others.
        judging: how queries that are documents, and relevant documents that the corpus lacks, are taken.

    Raises:
        DataError: there are no languages, a language is not there, or a file of a language is missing.
    """
    found = find_judged(form, folder, languages, split)
    chosen = found.chosen(languages, f"benchmark {name} ({folder})")
    for key in chosen:
        found.of(key)  # raises if a file is missing, before anything is read
    openers = tuple(partial(open_judged, found, name, key, cache, judging) for key in chosen)
    sides = [found.sides.get(key, (key, key)) for key in chosen]
    there = dict.fromkeys([*(corpus for corpus, _ in sides), *(topics for _, topics in sides)])
    ordered = tuple(dict.fromkeys([*(x for x in languages or () if x in there), *there]))
    settings = [x for x in SETTINGS[:2] if (x == "mono") in {one == other for one, other in sides}]
    groups = RESOURCES if form == "miracl" else {}
    return Benchmark(name, "title+text", ordered, openers, tuple(settings), groups, parallel=False)


def find_judged(
    form: str, folder: str | Path, languages: Sequence[str] | None = None, split: str | None = None
) -> JudgedFolder:
    """The files that `read_judged` reads with these arguments. Raises DataError if there are none."""
    if form == "miracl":
        return find_miracl(str(folder), split or "dev", by="corpus")
    if form == "mr-tydi":
        return find_mr_tydi(str(folder), split or "test")
    if form == "beir":
        return find_beir(str(folder), split or "test", languages)
    if form == "ciral":
        return find_ciral(str(folder), split)
    return find_mteb(str(folder), split, languages)


def topics_by_id(topics: Iterable[Topic], file: str) -> dict[str, Topic]:
    """{id: topic} of a file.

    Raises:
        DataError: there are no topics, or an id occurs twice.
    """
    found: dict[str, Topic] = {}
    for topic in topics:
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


def open_judged(found: JudgedFolder, name: str, key: str, cache: Path, judging: Judging = PLAIN) -> Collection:
    """The collection of one of `found.languages`. Raises DataError as `judged_collection`, or if a file is broken."""
    files = found.of(key)
    corpus_language, language = found.sides.get(key, (key, key))
    topics = topics_by_id(found.topics(key, REFUSED), files.topics[0])
    qrels = grades_by_question(found.judgements(key, REFUSED), files.qrels[0])
    unasked = set(topics)
    if found.all_splits:  # those without judgements in this split belong to others
        topics = {question: topic for question, topic in topics.items() if question in qrels}
    documents = open_documents(files.corpus, cache)
    if not any(documents.texts):
        raise DataError(f"{files.corpus[0]}: all {len(documents.texts):,} documents of the corpus are empty")
    collection = judged_collection(f"{name} in {key}", language, topics, qrels, documents, judging, corpus_language)
    return replace(collection, unasked={language: sorted(unasked.difference(collection.question_ids))})


def judged_collection(
    name: str,
    language: str,
    topics: Mapping[str, Topic],
    qrels: Qrels,
    documents: Documents,
    judging: Judging = PLAIN,
    corpus_language: str | None = None,
) -> Collection:
    """The collection of one language: the topics that have a relevant document, over all documents, which are in
    `corpus_language`, where this is another.

    Topics without one cannot be scored; they are left out and counted.

    Raises:
        DataError: judgements name questions that are not among the topics, or relevant documents that the corpus lacks
            where `judging` does not allow it. Files are then missing or do not belong together, and scores would be
            wrong. Or a topic with a relevant document has no text.
    """
    _check_questions([x for x in qrels if x not in topics], name)
    relevant = {
        question: {document: grade for document, grade in qrels.get(question, {}).items() if grade > 0}
        for question in topics
    }
    answered = [question for question, found in relevant.items() if found]
    for question in answered:
        if not topics[question].text.strip():
            REFUSED.bad(topics[question].position, "an empty text", f" (question {question})")
    wanted = list(dict.fromkeys(document for question in answered for document in relevant[question]))
    places = dict(zip(wanted, documents.ids.find(wanted).tolist(), strict=True))
    lacking = [document for document, place in places.items() if place < 0]
    if lacking and not judging.allow_missing_documents:
        raise DataError(
            f"benchmark {name}: the judgements name {counted(len(lacking), 'relevant document')} that the corpus lacks "
            f"({listed(lacking, SHOWN)}); fetch all files of one version, or give --allow-missing-documents "
            "(evaluation.allow_missing_documents), with which they count as never found"
        )
    ordered = [sorted((places[document], grade) for document, grade in relevant[x].items()) for x in answered]
    graded = any(grade != 1 for found in ordered for _, grade in found)
    domains = [topics[question].domain for question in answered]
    one = corpus_language in (None, language)
    collection = Collection(
        name=name,
        question_ids=answered,
        query_languages=[language] * len(answered),
        query_texts=[topics[question].text for question in answered],
        candidate_ids=documents.ids,
        candidate_texts=documents.texts,
        candidate_counts={corpus_language or language: len(documents.ids)} | ({} if one else {language: 0}),
        relevant=[np.array([place for place, _ in found if place >= 0], np.int64) for found in ordered],
        gains=[_gains(found, missing=False) for found in ordered] if graded else None,
        domains=domains if any(domain is not None for domain in domains) else None,
        left_out=len(topics) - len(answered),
        repeated=documents.repeated,
        missing=[_gains(found, missing=True) for found in ordered] if lacking else None,
        notes=_lacking_note(name, lacking),
    )
    return ignore_identical_ids(collection) if judging.ignore_identical_ids else with_note_of_own(collection)


def _gains(found: Sequence[tuple[int, int]], *, missing: bool) -> Floats:
    """Gains of a query's relevant documents, either of those that the corpus lacks (place -1) or of the others."""
    return np.array([grade for place, grade in found if (place < 0) == missing], np.float64)


def _lacking_note(name: str, lacking: list[str]) -> tuple[str, ...]:
    if not lacking:
        return ()
    documents = counted(len(lacking), "relevant document")
    return (f"{name}: the corpus lacks {documents} ({listed(lacking, SHOWN)}), counted as never found",)


def _check_questions(unknown: list[str], name: str) -> None:
    if unknown:
        raise DataError(
            f"benchmark {name}: the judgements name {len(unknown):,} questions that the topics lack "
            f"({listed(unknown, SHOWN)}); fetch all files of one version"
        )
