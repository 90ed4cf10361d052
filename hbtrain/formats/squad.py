"""SQuAD's form, one JSON file a language: articles of paragraphs with questions; and LAReQA's, with their sentences.

LAReQA (arXiv 2004.05484: XQuAD-R, MLQA-R) adds `sentences` and `sentence_breaks`: for each sentence, the characters of
the paragraph at which it begins and ends. Files are read article by article, so memory does not grow with a file.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from hbtrain.errors import DataError
from hbtrain.formats.inputs import NOT_UNICODE, BadRows, Position, is_unicode, open_unzipped

READ_CHARACTERS = 1 << 20
BAD_QUESTION = "a question that is not in SQuAD's form"
_SENTENCE_END = re.compile(
    r"(?<=[.!?؟۔।])[\"'”’»)\]]*\s+(?=\S)"  # a mark, and a blank after it
    r"|(?<=[。！？])[」』”’）]*(?=[^\s」』”’）])"  # Chinese and Japanese write no blank
    r"|\n+\s*(?=\S)"
)
_GAP = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A paragraph with its questions, which are not checked yet.

    Attributes:
        context: its text.
        records: the JSON of its questions, for `read_question`.
        sentences: LAReQA's sentences; None where the file has none.
        breaks: LAReQA's sentence breaks, for `read_breaks`; None where the file has none.
        position: its number is counted from 1 through all articles.
    """

    context: str
    records: Sequence[Any]
    sentences: Any
    breaks: Any
    position: Position


class Question(NamedTuple):
    """A question on a paragraph.

    Attributes:
        id: the same in all languages.
        text: not blank.
        is_unanswerable: whether the paragraph holds no answer, as SQuAD 2.0 may say.
        answers: as they are in the file, for `answer_start`.
        domain: what it is about; not a part of SQuAD's form, and not checked.
    """

    id: str
    text: str
    is_unanswerable: bool
    answers: Any
    domain: Any


def read_paragraphs(file: str, rows: BadRows) -> Iterator[Paragraph]:
    """The paragraphs of a file, in its order.

    Raises:
        DataError: the file cannot be read or is no JSON, or `rows` refuses an article or a paragraph.
    """
    number = 0
    for article in array_elements(file, "data"):
        paragraphs = article.get("paragraphs") if isinstance(article, dict) else None
        if not isinstance(paragraphs, list):
            rows.bad(Position(file, number + 1, "paragraph"), "an article without paragraphs")
            continue
        for record in paragraphs:
            number += 1
            position = Position(file, number, "paragraph")
            context, questions = (record.get(x) if isinstance(record, dict) else None for x in ("context", "qas"))
            if not isinstance(context, str) or not context.strip() or not isinstance(questions, list):
                rows.bad(position, "a paragraph without context and qas")
            elif not is_unicode(context):
                rows.bad(position, NOT_UNICODE, " (its context)")
            else:
                yield Paragraph(context, questions, record.get("sentences"), record.get("sentence_breaks"), position)


def read_question(record: Any, position: Position, rows: BadRows) -> Question | None:
    """The question of a record of `Paragraph.records`; None if it is bad and `rows` skips it."""
    if not isinstance(record, dict) or not isinstance(record.get("id"), str | int):
        rows.bad(position, BAD_QUESTION, ": no id")
        return None
    key, text, answers = str(record["id"]), record.get("question"), record.get("answers")
    if not is_unicode(key) or (isinstance(text, str) and not is_unicode(text)):
        rows.bad(position, NOT_UNICODE, f" (question {key!r})")
        return None
    if not isinstance(text, str) or not text.strip():
        rows.bad(position, "an empty text", f" (question {key})")
        return None
    return Question(key, text, record.get("is_impossible") is True or answers == [], answers, record.get("domain"))


def answer_start(question: Question, paragraph: Paragraph, rows: BadRows) -> int | None:
    """The character of the paragraph at which the first answer to a question begins, from 0.

    None if it begins nowhere in the paragraph and `rows` skips that.
    """
    first = question.answers[0] if isinstance(question.answers, list) and question.answers else None
    start = first.get("answer_start") if isinstance(first, dict) else None
    if question.is_unanswerable or not first:
        problem = " has no answer"
    elif type(start) is not int:
        problem = f": answer_start must be a whole number, not {start!r}"
    elif not 0 <= start < len(paragraph.context):
        length = len(paragraph.context)
        problem = f": the answer begins at character {start}, outside the text of {length} characters"
    else:
        return start
    rows.bad(paragraph.position, BAD_QUESTION, f": question {question.id}{problem}")
    return None


def read_breaks(paragraph: Paragraph, rows: BadRows) -> list[tuple[int, int]] | None:
    """[start, end) of each sentence in characters of a paragraph that has breaks; None if bad and `rows` skips them."""
    breaks = paragraph.breaks
    if isinstance(breaks, list) and all(isinstance(x, list) and [type(y) for y in x] == [int, int] for x in breaks):
        starts = [start for start, _ in breaks]
        if starts == sorted(starts) and all(0 <= start <= len(paragraph.context) for start in starts):
            return [(start, end) for start, end in breaks]
    rows.bad(paragraph.position, "a paragraph whose sentence_breaks are not pairs of places in it, one after the other")
    return None


def sentence_starts(text: str) -> list[int]:
    """The characters at which the sentences of a text begin, 0 first.

    Sentences end at punctuation marks (Latin, Arabic, Devanagari, Chinese, Japanese) and at line ends. The rule is a
    simple one: an abbreviation with a full stop ends a sentence here.
    """
    return [0, *(match.end() for match in _SENTENCE_END.finditer(text) if match.end() > 0)]


def array_elements(file: str, key: str) -> Iterator[Any]:
    """The elements of the first array under `key` in a JSON document, one by one; the rest is not looked at.

    ijson cannot be used: its fast backend fails at the first half of a surrogate pair, or changes it into another
    character, where such a text is to be reported as a bad row.

    Raises:
        DataError: the file cannot be read, is no JSON or not UTF-8, or has no such array.
    """
    decoder, start = json.JSONDecoder(), re.compile(rf'"{re.escape(key)}"\s*:\s*\[')
    with open_unzipped(file) as stream:
        text = io.TextIOWrapper(stream, "utf-8-sig", newline="")
        buffer, at = "", -1
        while True:
            problem = "the document breaks off"
            if at < 0:
                found = start.search(buffer)
                at = found.end() if found else -1
            if at >= 0:
                gap = _GAP.match(buffer, at)
                at = gap.end() if gap else at
                if buffer.startswith("]", at):
                    return
                try:
                    element, end = decoder.raw_decode(buffer, at)
                except json.JSONDecodeError as error:
                    problem = error.msg
                except RecursionError as error:
                    raise DataError(f"{file} is nested too deeply") from error
                else:
                    if end < len(buffer):  # a number at the very end might go on
                        yield element
                        at = end
                        continue
            try:
                more = text.read(max(READ_CHARACTERS, len(buffer)))
            except UnicodeDecodeError as error:
                raise DataError(f"{file} is not UTF-8, some {error.start} bytes into a block") from error
            if not more and at < 0:
                raise DataError(f"{file} has no array {key!r}, or is not JSON")
            if not more:
                raise DataError(f"{file} is not JSON: {problem}; fetch it again")
            buffer, at = buffer[max(at, 0) :] + more, min(at, 0)
