"""SQuAD's form, one JSON file a language: articles of paragraphs with questions; and LAReQA's, with their sentences.

LAReQA (arXiv 2004.05484: XQuAD-R, MLQA-R) adds `sentences` and `sentence_breaks`: for each sentence, the characters of
the paragraph at which it begins and ends. Files are read article by article, so memory does not grow with a file.
"""

from __future__ import annotations

import io
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from hbtrain.errors import DataError, shown
from hbtrain.formats.inputs import (
    IGNORED,
    NOT_UNICODE,
    BadRows,
    Position,
    identifier,
    is_unicode,
    json_problem,
    open_unzipped,
    whole_number,
)

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
    """A paragraph with its questions, which are not checked yet."""

    context: str  # its text
    records: Sequence[Any]  # the JSON of its questions, for `read_question`
    sentences: Any  # LAReQA's sentences; None where the file has none
    breaks: Any  # LAReQA's sentence breaks, for `read_breaks`; None where the file has none
    position: Position  # its number is counted from 1 through all articles
    answers: FileAnswers  # of all paragraphs of the file


class Answer(NamedTuple):
    """An answer: its text (None: not given; it may have been emptied), and where it begins, which is not checked."""

    text: str | None
    start: Any


class Question(NamedTuple):
    """A question on a paragraph."""

    id: str  # the same in all languages
    text: str  # not blank
    answer: Answer | None  # the first one; None if the paragraph holds none, as SQuAD 2.0 may say
    domain: Any  # what it is about; not a part of SQuAD's form, and not checked


class FileAnswers:
    """What the answers of a file have in common; the file is read once more where that is asked for."""

    def __init__(self, file: str) -> None:
        self._file = file

    @cached_property
    def have_texts(self) -> bool:
        """Whether some answer has a text. One without a text is then no answer; in a file without any, such as a TyDi
        QA that was made smaller, it is one whose place alone is known.
        """
        return any(has_text(answer) for _, answer in self._all())

    @cached_property
    def counting(self) -> str:
        """In words for the end of a message, how `answer_start` is counted if it is not in characters; else nothing.

        What is named holds for every answer: UTF-16 code units, as JavaScript and Java count; bytes; or characters from
        another place on.
        """
        ways = {"UTF-16 code units": ("utf-16-le", 2), "bytes of UTF-8": ("utf-8", 1)}
        shifts: set[int] = set()
        answers = 0
        for context, (text, given) in self._all():
            start = whole_number(given)
            if not text or start is None or not is_unicode(text):
                continue
            for way, (code, width) in list(ways.items()):
                if start < 0 or not context.encode(code).startswith(text.encode(code), start * width):
                    del ways[way]
            found = {match.start() - start for match in re.finditer(f"(?={re.escape(text)})", context)}
            shifts = shifts & found if answers else found
            answers += 1
            if not ways and not shifts:
                return ""
        if ways and answers:
            return (
                f"; all {answers:,} answers of the file are counted in {next(iter(ways))}: convert them to characters"
            )
        if answers < 2:  # any place is some way off
            return ""
        shift = min(shifts, key=abs)
        side = "after" if shift > 0 else "before"
        return f"; all {answers:,} answers of the file stand {abs(shift)} characters {side} their answer_start"

    def _all(self) -> Iterator[tuple[str, Answer]]:
        """(paragraph, first answer) of each question that has one."""
        for paragraph in read_paragraphs(self._file, IGNORED):
            for record in paragraph.records:
                with suppress(ValueError):
                    answer = _first_answer(record) if isinstance(record, dict) else None
                    if answer is not None:
                        yield paragraph.context, answer


def read_paragraphs(file: str, rows: BadRows) -> Iterator[Paragraph]:
    """The paragraphs of a file, in its order.

    Raises:
        DataError: the file cannot be read or is no JSON, or `rows` refuses an article or a paragraph.
    """
    number, answers = 0, FileAnswers(file)
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
                sentences, breaks = record.get("sentences"), record.get("sentence_breaks")
                yield Paragraph(context, questions, sentences, breaks, position, answers)


def read_question(record: Any, paragraph: Paragraph, rows: BadRows) -> Question | None:
    """The question of one of the `records` of a paragraph; None if it is bad and `rows` skips it."""
    position = paragraph.position
    key = identifier(record.get("id")) if isinstance(record, dict) else None
    if key is None:
        rows.bad(position, BAD_QUESTION, ": no id")
        return None
    text = record.get("question")
    if not is_unicode(key) or (isinstance(text, str) and not is_unicode(text)):
        rows.bad(position, NOT_UNICODE, f" (question {shown(key)})")
        return None
    if not isinstance(text, str) or not text.strip():
        rows.bad(position, "an empty text", f" (question {key})")
        return None
    try:
        answer = _first_answer(record)
    except ValueError as error:
        rows.bad(position, BAD_QUESTION, f": question {key}: {error}")
        return None
    if answer is not None and not has_text(answer) and paragraph.answers.have_texts:
        answer = None  # one that was emptied
    return Question(key, text, answer, record.get("domain"))


def _first_answer(record: dict[str, Any]) -> Answer | None:
    """The first answer that has a text, or else the first that has a place.

    `answers` is a list of {"text", "answer_start"}, or, as the hub has it, {"text": [...], "answer_start": [...]}. That
    there is no answer is said by `is_impossible`; by no answers, null or an empty list; or by an answer with neither a
    text nor a place from 0 on. Raises ValueError for what is none of these.
    """
    impossible, answers = record.get("is_impossible"), record.get("answers")
    said = impossible.strip().lower() if isinstance(impossible, str) else impossible
    if said not in (None, True, False, "true", "false"):
        raise ValueError(f"is_impossible must be true or false, not {shown(impossible)}")
    if said in (True, "true") or answers is None:
        return None
    if isinstance(answers, dict):
        texts, starts = (x if isinstance(x, list) else [x] for x in map(answers.get, ("text", "answer_start")))
        if len(texts) != len(starts):
            raise ValueError(f"answers has {len(texts)} texts with {len(starts)} places (answer_start)")
        answers = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(answers, list) or not all(
        isinstance(x, dict) and isinstance(x.get("text"), str | None) for x in answers
    ):
        raise ValueError(f"answers must be a list of objects with text and answer_start, not {shown(answers)}")
    found = [Answer(x.get("text"), x.get("answer_start")) for x in answers]
    placed = [answer for answer in found if answer.start is not None and (whole_number(answer.start) or 0) >= 0]
    return next(filter(has_text, found), next(iter(placed), None))


def is_unanswerable(record: Mapping[str, Any]) -> bool:
    """Whether a record of a table, such as the hub has of SQuAD 2.0, is a question that says that it has no answer: by
    `is_impossible`, or by `answers` in the hub's form.
    """
    answers = record.get("answers")
    if not (isinstance(answers, Mapping) and {"text", "answer_start"} <= answers.keys()):
        answers = [{"answer_start": 0}]  # of another form, which is not known here
    try:
        return _first_answer({"is_impossible": record.get("is_impossible"), "answers": answers}) is None
    except ValueError:
        return False


def has_text(answer: Answer) -> bool:
    return bool(answer.text and answer.text.strip())


def answer_start(question: Question, paragraph: Paragraph, rows: BadRows, anywhere: bool = False) -> int | None:
    """The character of the paragraph at which the first answer to a question begins, from 0.

    Its text must stand there; capitals, blanks and the way in which Unicode composes characters do not count.

    Args:
        question: of the paragraph.
        paragraph: that holds the answer.
        rows: told where the answer does not begin in the paragraph.
        anywhere: whether the text may stand at another place, or, as in a translation, nowhere: for a passage that is
            the whole paragraph.

    Returns:
        None if `rows` skips the question.
    """
    context = paragraph.context
    text, given = question.answer or (None, None)
    start = whole_number(given)
    if question.answer is None:
        problem = " has no answer"
    elif start is None:
        problem = f": answer_start must be a whole number, not {shown(given)}"
    elif not 0 <= start < len(context):
        problem = f": the answer begins at character {shown(start)}, outside the text of {len(context)} characters"
    elif anywhere or text is None or (text.strip() and _stands_at(text, context, start)):
        return start
    elif not text.strip():
        problem = f": the answer at character {start} has no text by which its place could be checked"
    else:
        there = context[start : start + len(text)]
        problem = f": the answer {shown(text)} is not at character {start}, where {shown(there)} stands"
    if text and start is not None:
        problem += paragraph.answers.counting
    rows.bad(paragraph.position, BAD_QUESTION, f": question {question.id}{problem}")
    return None


def _stands_at(text: str, context: str, start: int) -> bool:
    there = context[start : start + 2 * len(text)]  # a character may be composed of several
    return there.startswith(text) or (not there[:1].isspace() and plain_text(there).startswith(plain_text(text)))


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


def plain_text(text: str) -> str:
    """A text without what may differ where one is quoted: capitals, blanks, how Unicode composes its characters."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


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
                except (ValueError, RecursionError) as error:
                    raise DataError(f"{file} {json_problem(error, buffer[at:])}") from error
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
