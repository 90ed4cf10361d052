"""Parallel JSON lines: hbtrain's own text format of a source, plain or gzip.

A line is `{"id", "query": {lang: text}, "passage": {lang: text}, "passage_id"?, "negatives"?, "scores"?}`; or, for
parallel sentences, `{"id", "text": {lang: text}}`, where a sentence is the query and its translations are the passages.
`negatives` is a list of `{lang: text}`: texts like the passage that do not answer the query, each in some languages.
`scores` are numbers that another model gave: of the passage, then of each of the negatives.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbtrain.errors import DataError, shown
from hbtrain.formats.inputs import decoded, identifier, is_unicode, json_problem, raw_lines
from hbtrain.formats.languages import LANGUAGE

KEYS = {"id", "query", "passage", "text", "passage_id", "negatives", "scores", "source", "domain"}


@dataclass(frozen=True, slots=True)
class ParallelRow:
    """A query and its passage, each as {language: text}. Of a parallel sentence both are the same object."""

    id: str
    query: dict[str, str]
    passage: dict[str, str]
    passage_id: str
    negatives: Sequence[dict[str, str]] = ()
    domain: str | None = None
    scores: Sequence[float] = ()  # of the passage, then of each of the negatives; empty: none are given


def read_rows(path: Path) -> Iterator[ParallelRow]:
    """The rows of a file, plain or gzip, in file order; empty lines are skipped.

    Raises:
        DataError: at the first line that is not such a row, with file and line number.
    """
    for record, position in read_records(path):
        yield checked_row(record, position)


def read_records(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """The objects that the lines of a file hold, each with its position for messages; only their keys are checked.

    Raises:
        DataError: the file cannot be read, or a line is not an object with allowed keys.
    """
    for line, position in raw_lines(path):
        if line.strip():
            yield _record(line, str(position)), str(position)


def parse_row(line: bytes, position: str) -> ParallelRow:
    """The row of a line.

    Raises:
        DataError: it is no row; the message begins with `position`.
    """
    return checked_row(_record(line, position), position)


def _record(line: bytes, position: str) -> dict[str, Any]:
    try:
        record = json.loads(decoded(line))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{position} {json_problem(error, line)}") from error
    if not isinstance(record, dict):
        raise DataError(f"{position} must be an object with id, query and passage, not {type(record).__name__}")
    unknown = sorted(set(record) - KEYS)
    if unknown:
        raise DataError(f"{position} has an unknown key {shown(unknown[0])}; allowed are {', '.join(sorted(KEYS))}")
    return record


def checked_row(record: dict[str, Any], position: str) -> ParallelRow:
    """The row of an object from `read_records`.

    Raises:
        DataError: it is no row; the message begins with `position`.
    """
    sentence = "text" in record
    query = _texts(record, "text" if sentence else "query", position)
    passage = query if sentence else _texts(record, "passage", position)
    row_id = _identifier(record, "id", position)
    passage_id = _identifier(record, "passage_id", position) if "passage_id" in record else row_id
    domain = record.get("domain")
    if not isinstance(domain, str | None):
        raise DataError(f"{position}: domain must be a text, not {shown(domain)}")
    if domain is not None and not is_unicode(domain):
        raise DataError(f"{position}: domain is not Unicode: {shown(domain)} holds half a surrogate pair")
    if "source" in record and not is_unicode(json.dumps(record["source"], ensure_ascii=False)):
        raise DataError(f"{position}: source is not Unicode: {shown(record['source'])} holds half a surrogate pair")
    negatives = _negatives(record, position)
    scores = _scores(record, len(negatives), position)
    return ParallelRow(row_id, query, passage, passage_id, negatives, domain, scores)


def _identifier(record: dict[str, Any], key: str, position: str) -> str:
    value = identifier(record.get(key))
    if value is None:
        given = shown(record.get(key))
        raise DataError(f"{position}: {key} must be a text or a whole number that names the item, not {given}")
    if not is_unicode(value):
        raise DataError(f"{position}: {key} is not Unicode: {shown(value)} holds half a surrogate pair")
    return value


def _negatives(record: dict[str, Any], position: str) -> Sequence[dict[str, str]]:
    if "negatives" not in record:
        return ()
    negatives = record["negatives"]
    if not isinstance(negatives, list):
        raise DataError(f"{position}: negatives must be a list of objects {{language: text}}")
    return [_checked(texts, f"negatives[{number}]", position) for number, texts in enumerate(negatives)]


def _scores(record: dict[str, Any], negatives: int, position: str) -> Sequence[float]:
    if "scores" not in record:
        return ()
    scores = record["scores"]
    are_numbers = isinstance(scores, list) and all(
        isinstance(score, (int, float)) and not isinstance(score, bool) and math.isfinite(score) for score in scores
    )
    if not are_numbers or len(scores) != 1 + negatives:
        raise DataError(
            f"{position}: scores must be a list of {1 + negatives} finite numbers, of the passage and of each of the "
            f"{negatives} negatives, not {shown(scores)}"
        )
    return list(map(float, scores))


def _texts(record: dict[str, Any], key: str, position: str) -> dict[str, str]:
    return _checked(record.get(key), key, position)


def _checked(texts: Any, key: str, position: str) -> dict[str, str]:
    if not isinstance(texts, dict) or not texts:
        raise DataError(f"{position}: {key} must be an object {{language: text}} with at least one language")
    for language, text in texts.items():
        if not LANGUAGE.fullmatch(language):
            raise DataError(f"{position}: {shown(language)} in {key} is not a language code such as en, zh or pt-BR")
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{position}: {key} in {language} is empty or not a text")
        if not is_unicode(text):
            raise DataError(f"{position}: {key} in {language} is not Unicode: it holds half a surrogate pair")
    return texts
