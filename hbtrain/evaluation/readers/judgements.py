"""Topics and relevance judgements of one language over a corpus, as TREC and those after it publish them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hbtrain.corpus.files import numbered_lines
from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Collection
from hbtrain.evaluation.readers.documents import Documents

SHOWN = 3
"""Ids that a message names."""

Qrels = dict[str, dict[str, int]]
"""Question id -> document id -> grade; 0 is judged and not relevant."""


def read_topics(path: Path) -> dict[str, str]:
    """Questions by id, from lines of id, tab, text.

    Raises:
        DataError: the file cannot be read, a line is not of this form, or an id occurs twice.
    """
    topics: dict[str, str] = {}
    for line, place in numbered_lines(path):
        identifier, tab, text = line.partition("\t")
        if not tab or not identifier.strip() or not text.strip():
            raise DataError(f"{place} is not a topic: id, tab, text is expected")
        if identifier in topics:
            raise DataError(f"{place}: topic {identifier} occurs twice; ids must be unique in a language")
        topics[identifier] = text.strip()
    if not topics:
        raise DataError(f"{path} holds no topics")
    return topics


def read_qrels(path: Path) -> Qrels:
    """Judgements from lines of TREC's four columns (question, anything, document, grade) or BEIR's three, whose first
    line may name them.

    A judgement that is repeated with the same grade counts once.

    Raises:
        DataError: the file cannot be read, a line is not of this form, or two lines contradict each other.
    """
    qrels: Qrels = {}
    for number, (line, place) in enumerate(numbered_lines(path)):
        columns = [column.strip() for column in (line.split("\t") if "\t" in line else line.split())]
        if number == 0 and len(columns) == 3 and not _is_number(columns[-1]):
            continue
        if len(columns) not in (3, 4) or not _is_number(columns[-1]):
            raise DataError(
                f"{place} is not a judgement: question, 0, document, grade (or question, document, grade) is expected"
            )
        question, document, grade = columns[0], columns[-2], int(columns[-1])
        if qrels.setdefault(question, {}).setdefault(document, grade) != grade:
            raise DataError(f"{place}: document {document} of question {question} has another grade in a line before")
    if not qrels:
        raise DataError(f"{path} holds no judgements")
    return qrels


def judged_collection(
    name: str,
    language: str,
    topics: Mapping[str, str],
    qrels: Qrels,
    documents: Documents,
    domains: Mapping[str, str] | None = None,
) -> Collection:
    """The collection of one language: topics with a relevant document, in their order, over all documents.

    Topics of which nothing is judged relevant cannot be scored: they are left out and counted. Judgements of unknown
    questions, and relevant documents that the corpus lacks, are an error: both mean that files are missing or do not
    belong together, and scores would be wrong.

    Raises:
        DataError: as said, with how many there are and the first of them.
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
    graded = any(grade != 1 for found in ordered for _, grade in found)
    return Collection(
        name=name,
        question_ids=answered,
        query_languages=[language] * len(answered),
        query_texts=[topics[question] for question in answered],
        candidate_ids=documents.ids,
        candidate_texts=documents.texts,
        candidate_counts={language: len(documents.ids)},
        relevant=[np.array([place for place, _ in found], np.int64) for found in ordered],
        gains=[np.array([grade for _, grade in found], np.float64) for found in ordered] if graded else None,
        domains=[domains.get(question) for question in answered] if domains else None,
        left_out=len(topics) - len(answered),
    )


def _check_known(unknown: list[str], what: str, who: str, where: str) -> None:
    if unknown:
        first = ", ".join(unknown[:SHOWN]) + (", ..." if len(unknown) > SHOWN else "")
        raise DataError(
            f"{who} name {len(unknown):,} {what} that {where} lack ({first}); fetch all files of one version"
        )


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?[0-9]+", text) is not None
