"""Folders in the form of LAReQA (arXiv 2004.05484): XQuAD-R, MLQA-R and others of its kind.

One `<language>.json` (or `.json.gz`) per language, as SQuAD, each paragraph with its `sentences` and
`sentence_breaks` ([start, end) in characters of the context). Every sentence is a candidate, repeated ones included;
a question's relevant candidate is the sentence in which its answer begins. Languages are aligned by question id.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hbtrain.corpus.jsonl import LANGUAGE
from hbtrain.errors import DataError
from hbtrain.evaluation.pool import Benchmark, LanguagePart, assemble, choose_languages


def read_lareqa(folder: Path, name: str, languages: Sequence[str] | None = None) -> Benchmark:
    """The benchmark of a folder, restricted to `languages` where given; a pool in their order, else alphabetical.

    Raises:
        DataError: no language files, a language nobody has, or a file that is not of this form, with the question id.
    """
    files = _language_files(folder)
    chosen = choose_languages(list(files), languages, f"benchmark {name} ({folder})")
    parts = {language: _read_language(files[language]) for language in chosen}
    return Benchmark.of(name, "sentence", assemble(name, parts))


def _language_files(folder: Path) -> dict[str, Path]:
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


def _read_language(path: Path) -> LanguagePart:
    document = _load(path)
    part = LanguagePart()
    try:
        paragraphs = [paragraph for article in document["data"] for paragraph in article["paragraphs"]]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} is not in LAReQA's form: no data[].paragraphs[] ({error!r})") from error
    for number, paragraph in enumerate(paragraphs):
        _read_paragraph(paragraph, number, part, path)
    return part


def _read_paragraph(paragraph: Any, number: int, part: LanguagePart, path: Path) -> None:
    place = f"{path} paragraph {number}"
    try:
        context, questions = str(paragraph["context"]), list(paragraph["qas"])
        sentences, breaks = list(paragraph["sentences"]), [(int(a), int(b)) for a, b in paragraph["sentence_breaks"]]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{place} is not in LAReQA's form: context, qas, sentences and sentence_breaks are needed ({error!r})"
        ) from error
    if len(sentences) != len(breaks) or not all(isinstance(s, str) for s in sentences):
        raise DataError(f"{place} has {len(sentences)} sentences and {len(breaks)} breaks; there must be one a text")
    first = len(part.candidate_ids)
    part.candidate_ids += [f"{number}/{sentence}" for sentence in range(len(sentences))]
    part.candidate_texts += sentences
    for question in questions:
        question_id, text, answer_start = _read_question(question, place)
        if question_id in part.queries:
            raise DataError(f"{path} question {question_id}: the id occurs twice; ids must be unique in a language")
        part.queries[question_id] = text
        part.answers[question_id] = first + _sentence_of(
            answer_start, breaks, len(context), f"{path} question {question_id}"
        )


def _read_question(question: Any, place: str) -> tuple[str, str, int]:
    """Id, text, and where the (first) answer begins, in characters of the context."""
    if not isinstance(question, dict) or not isinstance(question.get("id"), str):
        raise DataError(f"{place} holds a question without an id")
    where = f"{place} question {question['id']}"
    text, answers = question.get("question"), question.get("answers")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{where} has no text")
    if not isinstance(answers, list) or not answers:
        raise DataError(f"{where} has no answer; every question needs one")
    start = answers[0].get("answer_start") if isinstance(answers[0], dict) else None
    if not isinstance(start, int):
        raise DataError(f"{where}: answer_start must be a whole number, not {start!r}")
    return question["id"], text, start


def _sentence_of(offset: int, breaks: Sequence[tuple[int, int]], length: int, place: str) -> int:
    for number, (start, end) in enumerate(breaks):
        if start <= offset < end:
            return number
    raise DataError(
        f"{place}: the answer begins at character {offset}, outside the text: no sentence break of the "
        f"paragraph's {length} characters holds it"
    )


def _load(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if path.name.endswith(".gz") else raw).decode("utf-8")
        document = json.loads(text)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a broken gzip file: {error}; fetch it again") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}; fetch it again") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if not isinstance(document, dict):
        raise DataError(f"{path} is not in LAReQA's form: the top must be an object, not {type(document).__name__}")
    return cast(dict[str, Any], document)
