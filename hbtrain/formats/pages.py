"""Pages of questions and answers, as MFAQ (arXiv 2109.12870) publishes them: JSON lines, one page a line.

A page is `{"qa_pairs": [{"question", "answer", "language"?}, ...]}`; its other keys are ignored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from hbtrain.formats.inputs import BadRows, Position, json_lines
from hbtrain.formats.language_codes import same_language
from hbtrain.formats.languages import LANGUAGE


class Page(NamedTuple):
    """A page: (question, answer) of each of its pairs, neither of them blank."""

    pairs: Sequence[tuple[str, str]]
    position: Position


def read_pages(file: str, rows: BadRows, language: str) -> Iterator[Page]:
    """The pages of a file; a pair that lacks a text, or says that it is not in `language`, is left out.

    Raises:
        DataError: the file cannot be read, or `rows` refuses a page or a pair.
    """
    for record, position in json_lines(file, rows, "not a page"):
        pairs = record.get("qa_pairs")
        if not isinstance(pairs, list):
            rows.bad(position, "not a page", ": qa_pairs, a list, is expected")
            continue
        found = []
        for number, pair in enumerate(pairs):
            said = pair.get("language") if isinstance(pair, dict) else None
            if isinstance(said, str) and LANGUAGE.fullmatch(said) and not same_language(said, language):
                rows.bad(position, "a pair in another language", f" (pair {number}: {said}, not {language})")
                continue
            texts = [pair.get(key) if isinstance(pair, dict) else None for key in ("question", "answer")]
            good = [text for text in texts if isinstance(text, str) and text.strip()]
            if len(good) == 2:
                found.append((good[0], good[1]))
            else:
                rows.bad(position, "an empty text", f" (question or answer of pair {number})")
        yield Page(found, position)
