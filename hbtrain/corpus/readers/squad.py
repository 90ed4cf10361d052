"""SQuAD's form, one file a language: rows are aligned by question id, whatever paragraphs the files have.

A row's passage in a language is the paragraph of its question there, or the sentence in which the answer begins. The
questions of a paragraph share it: it is stored once, and they never meet in a batch.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal

from hbtrain.corpus.drops import NOT_UNICODE, Drops
from hbtrain.corpus.files import Place, is_unicode
from hbtrain.corpus.json_stream import array_elements
from hbtrain.corpus.readers.items import PairItem, Part, TextItem
from hbtrain.corpus.readers.sentences import sentence_starts

PassageKind = Literal["paragraph", "sentence"]
_BAD = "a question that is not in SQuAD's form"


class SquadReader:
    """Questions of files by language. A question without an answer (SQuAD 2.0's) is left out."""

    kind = "squad"
    content_keys = False
    sentences = False

    def __init__(self, files: Mapping[str, str], passage: PassageKind = "paragraph", complete: bool = True) -> None:
        """`complete`: a question that some languages lack is bad."""
        self._files = dict(files)
        self._passage = passage
        self.complete = complete
        self.inputs: Sequence[str] = list(files.values())
        self.options: dict[str, Any] = {"passage": passage, "languages": list(files), "complete": complete}

    def parts(self) -> Sequence[Part]:
        """A part a language."""
        return [Part(f"in {x}", partial(self._texts, x, file)) for x, file in self._files.items()]

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
        """One row for each question, in the order of the first file that has it."""
        seen: set[str] = set()
        for file in self._files.values():
            for _, key, _, _, place in self._questions(file, Drops.silent()):
                if key not in seen:
                    seen.add(key)
                    yield PairItem(key, key, (), place)

    def _texts(self, language: str, file: str, drops: Drops) -> Iterator[TextItem]:
        last = None
        for paragraph, key, question, passage, place in self._questions(file, drops):
            yield TextItem("query", language, key, question, place)
            same = (paragraph, passage) == last
            yield TextItem("passage", language, key, None if same else passage, place)
            last = paragraph, passage

    def _questions(self, file: str, drops: Drops) -> Iterator[tuple[int, str, str, str, Place]]:
        """(paragraph's number, id, question, passage, place) of all answered questions."""
        number = 0
        for article in array_elements(file, "data"):
            paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
            if not isinstance(paragraphs, list):
                drops.bad(Place(file, number + 1, "paragraph"), "an article without paragraphs")
                continue
            for paragraph in paragraphs:
                number += 1
                place = Place(file, number, "paragraph")
                try:
                    context, records = paragraph["context"], list(paragraph["qas"])
                    good = isinstance(context, str) and bool(context.strip())
                except (KeyError, TypeError):
                    good = False
                if not good:
                    drops.bad(place, "a paragraph without context and qas")
                    continue
                if not is_unicode(context):
                    drops.bad(place, NOT_UNICODE, " (its context)")
                    continue
                starts = _starts(paragraph, context) if self._passage == "sentence" else []
                if starts is None:
                    drops.bad(
                        place, "a paragraph whose sentence_breaks are not pairs of places in it, one after the other"
                    )
                    continue
                for record in records:
                    found = self._question(record, context, starts, place, drops)
                    if found is not None:
                        yield number, *found, place

    def _question(
        self, record: Any, context: str, starts: Sequence[int], place: Place, drops: Drops
    ) -> tuple[str, str, str] | None:
        """(id, question, passage) of a record; None if it is left out."""
        bad = _problem(record)
        if bad is not None:
            drops.bad(place, *bad)
            return None
        key, text, answers = str(record["id"]), record["question"], record.get("answers")
        if record.get("is_impossible") is True or answers == []:
            return None
        if self._passage == "paragraph":
            return key, text, context
        start = answers[0].get("answer_start") if isinstance(answers, list) and isinstance(answers[0], dict) else None
        if not isinstance(start, int) or not 0 <= start < len(context):
            drops.bad(place, _BAD, f": question {key} has its answer at {start!r} of {len(context)} characters")
            return None
        at = bisect.bisect_right(starts, start) - 1
        end = starts[at + 1] if at + 1 < len(starts) else len(context)
        sentence = context[starts[at] : end].strip()
        if not sentence:
            drops.bad(place, "an empty text", f" (the sentence in which the answer of question {key} begins)")
            return None
        return key, text, sentence


def _problem(record: Any) -> tuple[str, str] | None:
    """What keeps a record from being a question: reason and detail."""
    if not isinstance(record, dict) or not isinstance(record.get("id"), str | int):
        return _BAD, ": no id"
    key, text = str(record["id"]), record.get("question")
    if not is_unicode(key) or (isinstance(text, str) and not is_unicode(text)):
        return NOT_UNICODE, f" (question {key!r})"
    if not isinstance(text, str) or not text.strip():
        return "an empty text", f" (question {key})"
    return None


def _starts(paragraph: Mapping[str, Any], context: str) -> list[int] | None:
    """Where the sentences of a paragraph begin: LAReQA's breaks, or those found by their ends; None: bad breaks."""
    breaks = paragraph.get("sentence_breaks")
    if not breaks:
        return sentence_starts(context)
    if not isinstance(breaks, list) or not all(isinstance(b, list) and len(b) == 2 for b in breaks):
        return None
    starts = [0, *(b[0] for b in breaks[1:])]
    numbers = all(type(start) is int for start in starts)
    return starts if numbers and starts == sorted(starts) and starts[-1] <= len(context) else None
