"""Benchmarks that ask the same questions in several languages: LAReQA, SQuAD, Belebele, parallel rows, Tatoeba."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from hbtrain.errors import DataError, shown
from hbtrain.evaluation.benchmark import Benchmark, Collection, LanguagePart, assemble
from hbtrain.formats.belebele import belebele_questions, find_belebele
from hbtrain.formats.inputs import NOT_UNICODE, REFUSED, Position, is_unicode
from hbtrain.formats.languages import choose_languages, language_files
from hbtrain.formats.parallel import ParallelRow, read_rows
from hbtrain.formats.squad import (
    Paragraph,
    Question,
    answer_start,
    plain_text,
    read_breaks,
    read_paragraphs,
    read_question,
)
from hbtrain.formats.tatoeba import TatoebaFolder, find_tatoeba

Candidates = Literal["sentence", "sentence+context"]
ENGLISH = ("en", "eng")


def read_squad(
    folder: str | Path,
    name: str,
    languages: Sequence[str] | None = None,
    candidates: Candidates | Literal["passage"] = "passage",
) -> Benchmark:
    """A folder of files in SQuAD's form, one for each language; a question may lack some of the languages.

    With `passage` every paragraph is a candidate, equal ones of a language once, and a question's relevant candidate is
    its paragraph. The others need LAReQA's form: every sentence is a candidate, repeated ones included, and the
    relevant one is that in which the answer begins. LAReQA's own models embed a sentence together with its paragraph:
    with `sentence+context` a candidate's text is the sentence, and after a line break the whole paragraph, so that a
    model that cuts long texts still reads the sentence.

    Args:
        folder: of files such as en.json or en.json.gz.
        name: what the benchmark is called.
        languages: only these, which is also the order of the pool; by default all, in alphabetical order.
        candidates: what a candidate is.

    Raises:
        DataError: no language files, a language that is not there, or a file that is not of this form.
    """
    files = language_files(str(folder), ".json")
    chosen = choose_languages(files, languages, f"benchmark {name} ({folder})")
    parts = {}
    for language in chosen:
        part = parts[language] = LanguagePart()
        places: dict[str, int] = {}
        for paragraph in read_paragraphs(files[language], REFUSED):
            if candidates == "passage":
                _add_passage(paragraph, part, places)
            else:
                _add_sentences(paragraph, part, candidates)
    return Benchmark.of(name, candidates, assemble(name, parts))


def read_belebele(folder: str | Path, name: str, languages: Sequence[str] | None = None) -> Benchmark:
    """Belebele: every passage of every language is a candidate, equal ones of a language once; a question's relevant
    candidates are its passage in every language. Where files lack questions of others, a note says how many.

    Raises:
        DataError: no language files, a language that is not there, or a file that is not of this form.
    """
    files = find_belebele(str(folder))
    parts = {}
    for language in choose_languages(files, languages, f"benchmark {name} ({folder})"):
        part = parts[language] = LanguagePart()
        places: dict[str, int] = {}
        for question in belebele_questions(files[language]):
            place = places.setdefault(question.passage, len(places))
            if place == len(part.candidate_ids):
                part.candidate_ids.append(str(place))
                part.candidate_texts.append(question.passage)
            part.queries[question.id] = question.text
            part.answers[question.id] = place
    collection = assemble(name, parts)
    return Benchmark.of(name, "passage", replace(collection, notes=_uneven(name, parts)))


def _uneven(name: str, parts: Mapping[str, LanguagePart]) -> tuple[str, ...]:
    """A note where not all languages have the same questions."""
    everything = set().union(*(part.queries for part in parts.values()))
    lacking = {
        x: len(everything) - len(part.queries) for x, part in parts.items() if len(part.queries) < len(everything)
    }
    if not lacking:
        return ()
    language, number = max(lacking.items(), key=lambda item: item[1])
    return (
        f"{name}: {len(lacking)} of {len(parts)} languages lack some of the {len(everything):,} questions, {language} "
        f"most ({number:,}); are their files whole?",
    )


def read_parallel(path: Path, name: str, languages: Sequence[str] | None = None) -> Benchmark:
    """A file of parallel JSON lines (`hbtrain.formats.parallel`): every passage of every language is a candidate.

    Rows with one passage id share a passage; a question's relevant candidates are its passage in every language that
    has it. Questions in a language without passages are asked all the same, of the passages in the other languages.

    Raises:
        DataError: an unreadable row, a question id that occurs twice, or a passage id with two texts in one language.
    """
    rows = list(read_rows(path))
    if not rows:
        raise DataError(f"benchmark {name} ({path}) holds no rows")
    _check_unique(rows, path)
    available = {language for row in rows for language in (*row.query, *row.passage)}
    chosen = choose_languages(available, languages, f"benchmark {name} ({path})")
    parts = {language: _parallel_part(rows, language, path) for language in chosen}
    return Benchmark.of(name, "passage", assemble(name, parts))


def read_tatoeba(folder: str | Path, name: str, languages: Sequence[str] | None = None) -> Benchmark:
    """Tatoeba: for each language, its sentences must find their English translations, and the other way round.

    There is one collection for each language but English; its accuracy is recall@1. Sentences of both sides are queries
    once and candidates once, with the prompt of a query and of a passage. `languages`: only these, by the codes of the
    files; English is always included.

    Raises:
        DataError: no pairs, a language that is not there, a side missing, or sides of different length.
    """
    found = find_tatoeba(str(folder))
    wanted = None if languages is None else [language for language in languages if language not in ENGLISH]
    chosen = choose_languages(found.pairs, wanted, f"benchmark {name} ({folder})")
    openers = tuple(partial(_translations, found, name, language) for language in chosen)
    return Benchmark(name, "sentence", (*chosen, found.english), openers, ("cross",))


def _add_passage(paragraph: Paragraph, part: LanguagePart, places: dict[str, int]) -> None:
    if paragraph.context not in places:
        places[paragraph.context] = len(places)
        part.candidate_ids.append(str(paragraph.position.number - 1))
        part.candidate_texts.append(paragraph.context)
    for question, _ in _new_questions(paragraph, part, anywhere=True):
        part.answers[question.id] = places[paragraph.context]


def _add_sentences(paragraph: Paragraph, part: LanguagePart, candidates: Candidates) -> None:
    sentences, place = paragraph.sentences, paragraph.position
    if not isinstance(sentences, list) or paragraph.breaks is None:
        raise DataError(
            f"{place} is not in LAReQA's form: context, qas, sentences and sentence_breaks are needed; plain SQuAD "
            "files are read as squad=FOLDER"
        )
    breaks = read_breaks(paragraph, REFUSED) or []
    if not all(isinstance(sentence, str) and is_unicode(sentence) for sentence in sentences):
        raise DataError(f"{place}: sentences must be texts, without halves of surrogate pairs")
    if len(sentences) != len(breaks):
        raise DataError(f"{place} has {len(sentences)} sentences and {len(breaks)} breaks; there must be one a text")
    first = len(part.candidate_ids)
    part.candidate_ids += [f"{place.number - 1}/{sentence}" for sentence in range(len(sentences))]
    whole = candidates == "sentence+context"
    part.candidate_texts += [f"{sentence}\n{paragraph.context}" for sentence in sentences] if whole else sentences
    for question, answer in _new_questions(paragraph, part):
        holding = [number for number, (start, end) in enumerate(breaks) if start <= answer < end]
        if not holding:
            raise DataError(
                f"{place} question {question.id}: the answer begins at character {answer}, and no sentence break of "
                "the paragraph holds it"
            )
        _check_sentence(question, answer, breaks[holding[0]][1], sentences[holding[0]], place)
        part.answers[question.id] = first + holding[0]


def _check_sentence(question: Question, start: int, end: int, sentence: str, place: Position) -> None:
    """Raise DataError if the sentence that ends at character `end` lacks the word with which an answer begins."""
    text = question.answer.text if question.answer is not None else None
    word = plain_text((text or "")[: end - start]).split()[:1]
    if not all(part in plain_text(sentence) for part in word):
        raise DataError(
            f"{place} question {question.id}: by sentence_breaks the answer {shown(word[0])} is in a sentence that "
            f"lacks it, {shown(sentence)}; sentences and sentence_breaks must belong together"
        )


def _new_questions(paragraph: Paragraph, part: LanguagePart, anywhere: bool = False) -> Iterator[tuple[Question, int]]:
    """Add the questions of a paragraph to `part`; gives each with the character at which its answer begins. `anywhere`:
    see `answer_start`.
    """
    for record in paragraph.records:
        question = read_question(record, paragraph, REFUSED)
        start = None if question is None else answer_start(question, paragraph, REFUSED, anywhere)
        if question is None or start is None:
            continue  # not reached: REFUSED raises
        where = f"{paragraph.position} question {question.id}"
        if not isinstance(question.domain, str | None):
            raise DataError(f"{where}: domain must be a text, not {shown(question.domain)}")
        if question.domain is not None and not is_unicode(question.domain):
            raise DataError(f"{where}: {NOT_UNICODE} (its domain)")
        if question.id in part.queries:
            raise DataError(f"{where}: the id occurs twice; ids must be unique in a language")
        part.queries[question.id] = question.text
        if question.domain is not None:
            part.domains[question.id] = question.domain
        yield question, start


def _translations(found: TatoebaFolder, name: str, language: str) -> Collection:
    own, translated = found.read(language)
    english, size = found.english, len(own)
    ids = [f"{language}-{english}/{number}" for number in range(size)]
    return Collection(
        name=f"{name} in {language}",
        question_ids=ids * 2,
        query_languages=[language] * size + [english] * size,
        query_texts=own + translated,
        candidate_ids=[f"{side}/{x}" for side in (language, english) for x in ids],
        candidate_texts=own + translated,
        candidate_counts={language: size, english: size},
        relevant=[np.array([(place + size) % (2 * size)], np.int64) for place in range(2 * size)],
    )


def _check_unique(rows: Sequence[ParallelRow], path: Path) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise DataError(f"{path} question {row.id}: the id occurs twice; ids must be unique in a benchmark")
        seen.add(row.id)


def _parallel_part(rows: Sequence[ParallelRow], language: str, path: Path) -> LanguagePart:
    part = LanguagePart()
    places: dict[str, int] = {}
    for row in rows:
        text = row.passage.get(language)
        if text is None:
            continue
        place = places.setdefault(row.passage_id, len(places))
        if place == len(part.candidate_ids):
            part.candidate_ids.append(row.passage_id)
            part.candidate_texts.append(text)
        elif part.candidate_texts[place] != text:
            raise DataError(
                f"{path} question {row.id}: passage {row.passage_id} has another text in {language} than an earlier "
                "row; rows with one passage_id must repeat it exactly"
            )
    for row in rows:
        if language in row.query:
            part.queries[row.id] = row.query[language]
            if row.domain is not None:
                part.domains[row.id] = row.domain
        if row.passage_id in places:
            part.answers[row.id] = places[row.passage_id]
    return part
