"""Folders of SQuAD files, one `<language>.json` (or `.json.gz`) a language: every paragraph is a candidate.

A question's relevant candidate is its paragraph; equal paragraphs of a language are one candidate. Questions of one id
in several languages are one question. TyDi QA's gold passages come in this form.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hbtrain.corpus.files import json_document
from hbtrain.corpus.jsonl import LANGUAGE
from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Benchmark, LanguagePart, assemble, choose_languages


class Question(NamedTuple):
    """A question of a SQuAD file."""

    id: str
    text: str
    answer_start: int
    """Where its (first) answer begins, in characters of the paragraph."""
    domain: str | None


def read_squad(folder: Path, name: str, languages: Sequence[str] | None = None) -> Benchmark:
    """The benchmark of a folder, restricted to `languages` where given; a pool in their order, else alphabetical.

    Raises:
        DataError: no language files, a language nobody has, or a file that is not of this form, with the question id.
    """
    files = language_files(folder)
    chosen = choose_languages(list(files), languages, f"benchmark {name} ({folder})")
    return Benchmark.of(name, "passage", assemble(name, {language: _part(files[language]) for language in chosen}))


def language_files(folder: Path) -> dict[str, Path]:
    """The files of a folder by language.

    Raises:
        DataError: there are none, or two of one language.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        language = path.name.removesuffix(".gz").removesuffix(".json")
        if not path.name.endswith((".json", ".json.gz")) or not LANGUAGE.fullmatch(language):
            continue
        if language in files:
            raise DataError(f"{folder} holds both {files[language].name} and {path.name}; remove one")
        files[language] = path
    if not files:
        raise DataError(f"{folder} holds no languages: files such as en.json or en.json.gz are expected")
    return files


def read_paragraphs(path: Path) -> list[Any]:
    """The paragraphs of a file, in its order.

    Raises:
        DataError: it cannot be read or has none.
    """
    document = json_document(path)
    try:
        return [paragraph for article in document["data"] for paragraph in article["paragraphs"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is not in SQuAD's form: no data[].paragraphs[] ({error!r})") from error


def add_question(part: LanguagePart, question: Question, answer: int, path: Path) -> None:
    """Put a question into a part, with the place of its answer.

    Raises:
        DataError: the part has a question of that id.
    """
    if question.id in part.queries:
        raise DataError(f"{path} question {question.id}: the id occurs twice; ids must be unique in a language")
    part.queries[question.id] = question.text
    part.answers[question.id] = answer
    if question.domain is not None:
        part.domains[question.id] = question.domain


def read_question(question: Any, place: str) -> Question:
    """The question of a record.

    Raises:
        DataError: it has no id, no text, no answer, or an answer that begins nowhere.
    """
    if not isinstance(question, dict) or not isinstance(question.get("id"), str):
        raise DataError(f"{place} holds a question without an id")
    where = f"{place} question {question['id']}"
    text, answers, domain = question.get("question"), question.get("answers"), question.get("domain")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where} has no text")
    if not isinstance(answers, list) or not answers:
        raise DataError(f"{where} has no answer; every question needs one")
    start = answers[0].get("answer_start") if isinstance(answers[0], dict) else None
    if not isinstance(start, int):
        raise DataError(f"{where}: answer_start must be a whole number, not {start!r}")
    if not isinstance(domain, str | None):
        raise DataError(f"{where}: domain must be a text, not {domain!r}")
    return Question(question["id"], text, start, domain)


def _part(path: Path) -> LanguagePart:
    part = LanguagePart()
    places: dict[str, int] = {}
    for number, paragraph in enumerate(read_paragraphs(path)):
        place = f"{path} paragraph {number}"
        try:
            context, questions = str(paragraph["context"]), list(paragraph["qas"])
        except (KeyError, TypeError) as error:
            raise DataError(f"{place} is not in SQuAD's form: context and qas are needed ({error!r})") from error
        if context not in places:
            places[context] = len(places)
            part.candidate_ids.append(str(number))
            part.candidate_texts.append(context)
        for record in questions:
            question = read_question(record, place)
            if not 0 <= question.answer_start < len(context):
                raise DataError(
                    f"{path} question {question.id}: the answer begins at character {question.answer_start}, outside "
                    f"the text of {len(context)} characters"
                )
            add_question(part, question, places[context], path)
    return part
