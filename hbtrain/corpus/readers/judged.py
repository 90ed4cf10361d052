"""Topics, judgements and corpora of several languages that are not parallel: each gives rows of its own language.

A row is a query with a passage that is judged relevant; those judged not to be are its negatives. Of a corpus only the
judged passages are kept. Judgements are held in memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from hbtrain.corpus.document import read_document
from hbtrain.corpus.drops import Drops
from hbtrain.corpus.files import Place, decoded, json_object, raw_lines
from hbtrain.corpus.readers.items import PairItem, Part, TextItem
from hbtrain.corpus.readers.text_lines import text_lines
from hbtrain.errors import DataError

_GRADE = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class JudgedFiles:
    """The files of one language."""

    topics: str
    qrels: str
    corpus: Sequence[str]


@dataclass
class _Judgements:
    positives: dict[str, Place] = field(default_factory=dict)
    negatives: list[str] = field(default_factory=list)


class JudgedReader:
    """Queries with judged passages, language by language."""

    content_keys = False
    sentences = False
    complete = False

    def __init__(self, kind: str, files: dict[str, JudgedFiles], split: str, negatives: bool) -> None:
        self.kind = kind
        self._files = files
        self._negatives = negatives
        self.inputs: Sequence[str] = [path for one in files.values() for path in (one.topics, one.qrels, *one.corpus)]
        self.options: dict[str, Any] = {"languages": list(files), "split": split, "negatives": negatives}

    def parts(self) -> Sequence[Part]:
        """Topics and corpus of each language."""
        return [
            part
            for language, files in self._files.items()
            for part in (
                Part(f"topics {language}", partial(_topics, language, files.topics)),
                Part(f"corpus {language}", partial(self._corpus, language, files)),
            )
        ]

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
        """The rows, in the order of the judgements."""
        for language, files in self._files.items():
            for query, judged in _read_qrels(files.qrels, drops).items():
                negatives = [f"{language}:{x}" for x in judged.negatives] if self._negatives else []
                for passage, place in judged.positives.items():
                    yield PairItem(f"{language}:{query}", f"{language}:{passage}", negatives, place)

    def _corpus(self, language: str, files: JudgedFiles, drops: Drops) -> Iterator[TextItem]:
        judged = _read_qrels(files.qrels, Drops.silent()).values()
        wanted = {passage for one in judged for passage in one.positives}
        if self._negatives:
            wanted |= {passage for one in judged for passage in one.negatives}
        for file in files.corpus:
            for line, place in raw_lines(file):
                if not line.strip():
                    continue
                try:
                    key, text = read_document(json_object(decoded(line, place), place), str(place))
                except DataError as error:
                    drops.bad(place, "not a document", f": {str(error).removeprefix(str(place)).lstrip(': ')}")
                    continue
                if key in wanted:
                    yield TextItem("passage", language, f"{language}:{key}", text, place)


def _topics(language: str, file: str, drops: Drops) -> Iterator[TextItem]:
    for key, text, place in text_lines(file, drops):
        yield TextItem("query", language, f"{language}:{key}", text.strip(), place)


def _read_qrels(file: str, drops: Drops) -> dict[str, _Judgements]:
    """Judgements by query, from TREC's four columns: question, anything, passage, grade."""
    found: dict[str, _Judgements] = {}
    grades: dict[tuple[str, str], int] = {}
    for line, place in raw_lines(file):
        try:
            columns = decoded(line, place).split()
        except DataError:
            drops.bad(place, "not UTF-8")
            continue
        if not columns:
            continue
        if len(columns) != 4 or not _GRADE.fullmatch(columns[3]):
            drops.bad(place, "not a judgement", ": question, 0, passage, grade is expected")
            continue
        query, passage, grade = columns[0], columns[2], int(columns[3])
        if (before := grades.setdefault((query, passage), grade)) != grade:
            drops.bad(place, "a judgement that contradicts an earlier one", f": {passage} of {query} had {before}")
            continue
        judged = found.setdefault(query, _Judgements())
        if grade > 0:
            judged.positives.setdefault(passage, place)
        elif passage not in judged.negatives:
            judged.negatives.append(passage)
    return found
