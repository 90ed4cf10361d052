"""Sources whose queries and passages have ids: SQuAD, mMARCO, MIRACL, Mr. TyDi, BEIR and mteb.

Ids align the languages, and a text is stored once, however many rows refer to its id.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.readers.inline import InlineJudgedReader
from hbtrain.corpus.readers.items import PairItem, Part, Reader, TextItem, TextSide, check_languages
from hbtrain.errors import DataError, shown
from hbtrain.formats.inputs import Position, text_lines
from hbtrain.formats.judged import JudgedFolder, find_miracl, find_mr_tydi
from hbtrain.formats.judged_inline import find_inline
from hbtrain.formats.languages import choose_languages
from hbtrain.formats.mmarco import find_mmarco, read_triples
from hbtrain.formats.squad import (
    Paragraph,
    Question,
    answer_start,
    read_breaks,
    read_paragraphs,
    read_question,
    sentence_starts,
)

PassageKind = Literal["paragraph", "sentence"]


class SquadReader:
    """The questions of SQuAD files, one file for each language; a question has the same id in all of them.

    A row's passage in a language is the paragraph of its question there, or the sentence in which the answer begins.
    Questions on one paragraph share the passage: it is stored once, and they are never in one batch. Questions without
    an answer (SQuAD 2.0) are left out.
    """

    kind = "squad"
    content_keys = False
    sentences = False

    def __init__(self, files: Mapping[str, str], passage: PassageKind = "paragraph", complete: bool = True) -> None:
        """A reader of {language: file}.

        Args:
            files: by language.
            passage: what a row's passage is.
            complete: whether a question that some languages lack is an error.

        Raises:
            DataError: there are more languages than a corpus can hold.
        """
        check_languages(len(files), "the source")
        self._files = dict(files)
        self._passage = passage
        self.complete = complete
        self.inputs: Sequence[str] = list(files.values())
        self.options: dict[str, Any] = {"passage": passage, "languages": list(files), "complete": complete}

    def parts(self) -> Sequence[Part]:
        return [Part(f"in {x}", partial(self._texts, x, file)) for x, file in self._files.items()]

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
        """One row for each question, in the order of the first file that has it."""
        seen: set[str] = set()
        for file in self._files.values():
            for (key, *_), _, position in self._questions(file, Drops.silent()):
                if key not in seen:
                    seen.add(key)
                    yield PairItem(key, key, (), position)

    def _texts(self, language: str, file: str, drops: Drops) -> Iterator[TextItem]:
        last = None
        for question, passage, position in self._questions(file, drops):
            yield TextItem("query", language, question.id, question.text, position)
            same = (position.number, passage) == last
            yield TextItem("passage", language, question.id, None if same else passage, position)
            last = position.number, passage

    def _questions(self, file: str, drops: Drops) -> Iterator[tuple[Question, str, Position]]:
        """The questions that have an answer, with their passages."""
        for paragraph in read_paragraphs(file, drops):
            starts = _starts(paragraph, drops) if self._passage == "sentence" else []
            if starts is None:
                continue
            for record in paragraph.records:
                question = read_question(record, paragraph, drops)
                if question is None or question.answer is None:
                    continue
                if self._passage == "paragraph":
                    yield question, paragraph.context, paragraph.position
                elif (sentence := _sentence(question, paragraph, starts, drops)) is not None:
                    yield question, sentence, paragraph.position


def _starts(paragraph: Paragraph, drops: Drops) -> list[int] | None:
    """The characters at which sentences begin, by LAReQA's breaks or else by punctuation; None: the breaks are bad."""
    if not paragraph.breaks:
        return sentence_starts(paragraph.context)
    breaks = read_breaks(paragraph, drops)
    return None if breaks is None else [0, *(start for start, _ in breaks[1:])]


def _sentence(question: Question, paragraph: Paragraph, starts: Sequence[int], drops: Drops) -> str | None:
    """The sentence in which the answer begins; None where it is a bad row, which `drops` has been told of."""
    start = answer_start(question, paragraph, drops)
    if start is None:
        return None
    ends = [*starts[1:], len(paragraph.context)]
    at = bisect.bisect_right(starts, start) - 1
    sentence = paragraph.context[starts[at] : ends[at]].strip()
    if sentence:
        return sentence
    detail = f" (the sentence in which the answer of question {question.id} begins)"
    drops.bad(paragraph.position, "an empty text", detail)
    return None


class MmarcoReader:
    """The triples of mMARCO, in all languages whose texts a folder has."""

    kind = "mmarco"
    content_keys = False
    sentences = False

    def __init__(
        self,
        folder: str,
        languages: Sequence[str] | None = None,
        complete: bool = True,
        translator: str | None = None,
    ) -> None:
        """Find the files of a folder.

        Args:
            folder: on this machine, or a URL.
            languages: codes; None: all that are there.
            complete: whether an id that some languages lack is an error.
            translator: see `find_mmarco`.

        Raises:
            DataError: see `find_mmarco`; or there are more languages than a corpus can hold.
        """
        self._files = files = find_mmarco(folder, languages, translator)
        check_languages(len(files.queries), folder)
        self.complete = complete
        self.inputs: Sequence[str] = [*files.queries.values(), *files.collections.values(), files.triples]
        self.options: dict[str, Any] = {"languages": list(files.queries), "complete": complete}
        if translator is not None:
            self.options["translator"] = translator

    def parts(self) -> Sequence[Part]:
        sides: tuple[tuple[TextSide, dict[str, str]], ...] = (
            ("query", self._files.queries),
            ("passage", self._files.collections),
        )
        return [
            Part(f"{side} {language}", partial(_texts, side, language, file))
            for side, files in sides
            for language, file in files.items()
        ]

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
        for query, passage, negative, position in read_triples(self._files.triples, drops):
            yield PairItem(query, passage, (negative,), position)


def _texts(side: TextSide, language: str, file: str, drops: Drops) -> Iterator[TextItem]:
    for key, text, position in text_lines(file, drops):
        # Some translations of queries are dots only. Such passages stay: they answer no triple's query.
        if side == "query" and text.strip() and not any(map(str.isalnum, text)):
            drops.bad(position, "a query without letters and digits", f" ({key} in {language}: {shown(text.strip())})")
        else:
            yield TextItem(side, language, key, text, position)


def judged_reader(
    kind: Literal["mr-tydi", "miracl"], folder: str, split: str, languages: Sequence[str] | None, negatives: bool
) -> Reader:
    """The reader of a split of MIRACL or Mr. TyDi: of topics, judgements and corpora, or, where the folder has no
    corpus, of questions with their passages inside.

    Raises:
        DataError: there are no such files, or a language is not there.
    """

    def found() -> JudgedFolder:
        return find_miracl(folder, split, by="topics") if kind == "miracl" else find_mr_tydi(folder, split)

    if inside := find_inline(folder, split):
        try:
            has_corpus = bool(found().files["corpus"])
        except DataError:
            has_corpus = False
        if not has_corpus:
            chosen = choose_languages(inside, languages, f"{folder} ({split})")
            return InlineJudgedReader(kind, {x: inside[x] for x in sorted(chosen)}, split, negatives)
    return JudgedReader(found(), languages, negatives)


class JudgedReader:
    """Topics with judged passages, as MIRACL, Mr. TyDi, BEIR and mteb have them. Each language has rows of its own.

    A row is a query with a passage that is judged relevant; passages that are judged not relevant are its negatives. Of
    the corpus, only judged passages are read in. The judgements of a language are held in memory.
    """

    content_keys = False
    sentences = False
    complete = False

    def __init__(self, found: JudgedFolder, languages: Sequence[str] | None = None, negatives: bool = True) -> None:
        """A reader of the files that were found.

        Args:
            found: the files.
            languages: codes; None: all that are there. Pairs of languages are left out.
            negatives: whether rows get the passages that are judged not relevant.

        Raises:
            DataError: a language is not there, or lacks a file; or there are more than a corpus can hold.
        """
        self.kind = found.form
        self._found = found
        self._negatives = negatives
        where = f"{found.folder} ({found.split})"
        self._languages = sorted(x for x in found.chosen(languages, where) if x not in found.sides)
        if not self._languages:
            raise DataError(f"{where} has pairs of languages only ({', '.join(found.sides)}), which are for evaluation")
        check_languages(len(self._languages), found.folder)
        files = map(found.of, self._languages)
        self.inputs: Sequence[str] = [path for one in files for path in (*one.topics, *one.qrels, *one.corpus)]
        self.options: dict[str, Any] = {"languages": self._languages, "split": found.split, "negatives": negatives}

    def parts(self) -> Sequence[Part]:
        return [
            part
            for language in self._languages
            for part in (
                Part(f"topics {language}", partial(self._topics, language)),
                Part(f"corpus {language}", partial(self._corpus, language)),
            )
        ]

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
        """The rows, in the order of the judgements."""
        for language in self._languages:
            relevant: dict[str, list[tuple[str, Position]]] = {}
            others: dict[str, list[str]] = {}
            for query, passage, grade, position in self._found.judgements(language, drops):
                key = f"{language}:{passage}"
                positives = relevant.setdefault(query, [])
                if grade > 0:
                    positives.append((key, position))
                elif self._negatives:
                    others.setdefault(query, []).append(key)
            for query, positives in relevant.items():
                for passage, position in positives:
                    yield PairItem(f"{language}:{query}", passage, others.get(query, []), position)

    def _topics(self, language: str, drops: Drops) -> Iterator[TextItem]:
        judged = None  # topics of all splits: only those of this one
        if self._found.all_splits:
            judged = {one.question for one in self._found.judgements(language, Drops.silent())}
        for topic in self._found.topics(language, drops):
            if judged is None or topic.id in judged:
                yield TextItem("query", language, f"{language}:{topic.id}", topic.text, topic.position)

    def _corpus(self, language: str, drops: Drops) -> Iterator[TextItem]:
        judged = self._found.judgements(language, Drops.silent())
        wanted = {one.document for one in judged if one.grade > 0 or self._negatives}
        for key, text, position in self._found.documents(language, drops):
            if key in wanted:
                yield TextItem("passage", language, f"{language}:{key}", text, position)
