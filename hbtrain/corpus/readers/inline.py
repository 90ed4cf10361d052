"""Sources whose rows hold their texts: parallel JSON lines, lines, judged questions and pages; tables are
in `columns`.

The key of a query or passage is made of its texts in all languages, so equal ones are stored once, under one number.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.readers.items import IdItem, PairItem, Part, TextItem, TextSide, check_languages
from hbtrain.errors import ConfigError, DataError, did_you_mean
from hbtrain.formats.inputs import NOT_UNICODE, REFUSED, Position, is_unicode, numbered_lines, raw_lines
from hbtrain.formats.judged_inline import read_inline
from hbtrain.formats.pages import read_pages
from hbtrain.formats.parallel import ParallelRow, parse_row
from hbtrain.plugins import plugins


class InlineReader(ABC):
    """A reader of rows, which goes through the source twice: once for the texts, once for the pairs."""

    kind: str
    options: dict[str, Any]
    inputs: Sequence[str]
    content_keys = True
    complete = False
    sentences = False

    @abstractmethod
    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Position]]:
        """The rows with their positions. An empty id or passage id means that the row has none."""

    def parts(self) -> Sequence[Part]:
        return [Part("of all rows", self._texts)]

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
        for row, position in self._good_rows(Drops.silent()):
            yield PairItem(
                _key(row.query),
                _key(row.passage),
                [_key(negative) for negative in row.negatives],
                position,
                row.id or None,
                row.passage_id or None,
                row.scores,
            )

    def _good_rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Position]]:
        """The rows all of whose texts can be written as UTF-8."""
        for row, position in self.rows(drops):
            texts = [text for one in (row.query, row.passage, *row.negatives) for text in one.values()]
            if all(map(is_unicode, (row.id, row.passage_id, *texts))):
                yield row, position
            else:
                drops.bad(position, NOT_UNICODE)

    def _texts(self, drops: Drops) -> Iterator[TextItem | IdItem]:
        for row, position in self._good_rows(drops):
            if row.id:
                yield IdItem(row.id, _key(row.query))
            yield from _items("query", row.query, position)
            if not self.sentences:
                yield from _items("passage", row.passage, position)
            # Parallel sentences have no passages of their own: their texts, also negatives, are on the query side.
            for negative in row.negatives:
                yield from _items("query" if self.sentences else "passage", negative, position)


class ParallelReader(InlineReader):
    """Rows of parallel JSON lines (`hbtrain.formats.parallel`)."""

    kind = "parallel"

    def __init__(self, files: Sequence[str], languages: Sequence[str] | None = None) -> None:
        """A reader of files. Of their rows only the texts in `languages` are taken; None: all."""
        self.inputs = list(files)
        self.options: dict[str, Any] = {} if languages is None else {"languages": list(languages)}
        self._languages = languages
        first = next(self._all(Drops.silent()), None)
        self.sentences = first is not None and first[0].passage is first[0].query

    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Position]]:
        for row, position in self._all(drops):
            if (row.passage is row.query) == self.sentences:
                if (taken := self._taken(row)) is not None:
                    yield taken, position
            else:
                drops.bad(position, "a row of another form: text, or query and passage, not both")

    def _taken(self, row: ParallelRow) -> ParallelRow | None:
        """The row in the languages that are wanted; None where it has no query or no passage in them."""
        if self._languages is None:
            return row
        query, passage, *negatives = (
            {language: text for language, text in texts.items() if language in self._languages}
            for texts in (row.query, row.passage, *row.negatives)
        )
        if not query or not passage:
            return None
        kept = [number for number, negative in enumerate(negatives) if negative]
        return replace(
            row,
            query=query,
            passage=query if self.sentences else passage,
            negatives=[negatives[number] for number in kept],
            scores=[row.scores[number] for number in (0, *(1 + number for number in kept))] if row.scores else (),
        )

    def _all(self, drops: Drops) -> Iterator[tuple[ParallelRow, Position]]:
        for line, position in self._lines():
            try:
                yield parse_row(line, str(position)), position
            except DataError as error:
                drops.bad(position, "not a row", f": {str(error).removeprefix(f'{position}').lstrip(': ')}")

    def _lines(self) -> Iterator[tuple[bytes, Position]]:
        for file in self.inputs:
            for line, position in raw_lines(file):
                if line.strip():
                    yield line, position


class PluginReader(ParallelReader):
    """Rows that another package reads: objects in the form of parallel JSON lines, one after the other."""

    kind = "plugin"

    def __init__(self, form: str, files: Sequence[str]) -> None:
        """A reader of files by the plugin of that name. Raises ConfigError if there is none."""
        known = plugins("reader")
        if form not in known:
            hint = did_you_mean(form, known) or (f"known are {', '.join(known)}" if known else "none is installed")
            raise ConfigError(f"there is no reader {form!r} of another package: {hint}".rstrip())
        self._plugin = known[form]
        self._read = self._plugin.load()
        super().__init__(files)
        self.options = {"form": form, "package": self._plugin.package}

    def _lines(self) -> Iterator[tuple[bytes, Position]]:
        with self._plugin.errors_in_words():
            for number, record in enumerate(self._read(list(self.inputs)), 1):
                line = json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")
                yield line, Position(str(self._plugin), number, "row")


class InlineJudgedReader(InlineReader):
    """Rows of questions with their judged passages inside (`hbtrain.formats.judged_inline`), in one language each: one
    for each passage that answers a question. Those that do not are its negatives.
    """

    def __init__(self, kind: str, files: Mapping[str, str], split: str, negatives: bool = True) -> None:
        """A reader of {language: file}.

        Args:
            kind: the data set's form, such as mr-tydi.
            files: by language.
            split: whose files these are.
            negatives: whether rows get negatives.

        Raises:
            DataError: there are more languages than a corpus can hold.
        """
        check_languages(len(files), "the source")
        self.kind = kind
        self._files = dict(files)
        self._negatives = negatives
        self.inputs = list(files.values())
        self.options: dict[str, Any] = {"languages": list(files), "split": split, "negatives": negatives}

    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Position]]:
        for language, file in self._files.items():
            for question in read_inline(file, drops):
                negatives = [{language: x.text} for x in question.negatives] if self._negatives else []
                for passage in question.positives:
                    ids = f"{language}:{question.id}", f"{language}:{passage.id}"
                    texts = {language: question.text}, {language: passage.text}
                    yield ParallelRow(ids[0], *texts, ids[1], negatives), question.position


class PagesReader(InlineReader):
    """Rows of pages of questions and answers, one file for each language. Each pair is a row in that language; answers
    to other questions of its page can be its negatives.
    """

    kind = "pages"

    def __init__(self, files: Mapping[str, str], page_negatives: int = 0) -> None:
        """A reader of {language: file}, with up to `page_negatives` answers of the same page as negatives of a row.

        Raises:
            ConfigError: `page_negatives` is below zero.
            DataError: there are more languages than a corpus can hold.
        """
        if page_negatives < 0:
            raise ConfigError(f"--page-negatives {page_negatives}: must be 0 or more")
        check_languages(len(files), "the source")
        self._files = dict(files)
        self._page_negatives = page_negatives
        self.inputs = list(files.values())
        self.options: dict[str, Any] = {"languages": list(files), "page_negatives": page_negatives}

    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Position]]:
        for language, file in self._files.items():
            for pairs, position in read_pages(file, drops, language):
                for at, (question, answer) in enumerate(pairs):
                    negatives = [{language: x} for x in _others(pairs, at, self._page_negatives)]
                    yield ParallelRow("", {language: question}, {language: answer}, "", negatives), position


class LinesReader(InlineReader):
    """Parallel sentences from files of one language each: line i of one translates line i of the others."""

    kind = "lines"
    sentences = True

    def __init__(self, files: Mapping[str, str]) -> None:
        """A reader of {language: file}. Raises DataError if there are more languages than a corpus can hold."""
        check_languages(len(files), "the source")
        self._files = dict(files)
        self.inputs = list(files.values())
        self.options: dict[str, Any] = {"languages": list(files)}

    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Position]]:
        """A row for each line; a language whose line is blank is missing in it.

        Raises:
            DataError: the files have not equally many lines.
        """
        try:
            # Refused: a line that is left out would shift all that follow.
            lines = (numbered_lines(file, REFUSED, blank=True) for file in self.inputs)
            for together in zip(*lines, strict=True):
                texts = {x: text for x, (text, _) in zip(self._files, together, strict=True) if text.strip()}
                position = together[0][1]
                if texts:
                    yield ParallelRow("", texts, texts, ""), position
                else:
                    drops.bad(position, "an empty text", " (a line that is blank in all languages)")
        except ValueError as error:
            raise DataError(f"{', '.join(self.inputs)}: not equally many lines ({error})") from error


def _items(side: TextSide, texts: dict[str, str], position: Position) -> Iterator[TextItem]:
    key = _key(texts)
    for language, text in texts.items():
        yield TextItem(side, language, key, text, position)


def _key(texts: dict[str, str]) -> str:
    return json.dumps(texts, ensure_ascii=False, sort_keys=True)


def _others(pairs: Sequence[tuple[str, str]], at: int, limit: int) -> Sequence[str]:
    """Up to `limit` different answers of a page other than that of pair `at`: of the pairs after it, then before it."""
    found: dict[str, None] = {}
    for step in range(1, len(pairs)):
        if len(found) == limit:
            break
        answer = pairs[(at + step) % len(pairs)][1]
        if answer != pairs[at][1]:
            found[answer] = None
    return list(found)
