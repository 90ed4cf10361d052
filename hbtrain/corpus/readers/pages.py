"""Pages of questions and answers, as MFAQ (arXiv 2109.12870) has them: JSON lines, a page each.

A page is `{"qa_pairs": [{"question", "answer"}, ...]}`, with anything beside it. Each pair is a row of the page's
language; answers of other questions of the page may be its negatives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.files import Place, decoded, json_object, raw_lines
from hbtrain.corpus.jsonl import ParallelRow
from hbtrain.corpus.readers.inline import InlineReader
from hbtrain.errors import ConfigError, DataError


class PagesReader(InlineReader):
    """Rows of pages, a file or several for each language."""

    kind = "pages"

    def __init__(self, files: Mapping[str, str], page_negatives: int = 0) -> None:
        """`page_negatives`: the most answers of the same page that a row has as negatives.

        Raises:
            ConfigError: it is below zero.
        """
        if page_negatives < 0:
            raise ConfigError(f"--page-negatives {page_negatives}: must be 0 or more")
        self._files = dict(files)
        self._page_negatives = page_negatives
        self.inputs = list(files.values())
        self.options: dict[str, Any] = {"languages": list(files), "page_negatives": page_negatives}

    def rows(self, drops: Drops) -> Iterator[tuple[ParallelRow, Place]]:
        """The rows of all pages."""
        for language, file in self._files.items():
            for line, place in raw_lines(file):
                if not line.strip():
                    continue
                pairs = _pairs(line, place, drops)
                for at, (question, answer) in enumerate(pairs):
                    negatives = [{language: x} for x in _others(pairs, at, self._page_negatives)]
                    yield ParallelRow("", {language: question}, {language: answer}, "", negatives), place


def _others(pairs: Sequence[tuple[str, str]], at: int, limit: int) -> Sequence[str]:
    """Up to `limit` answers that differ from each other and from that of pair `at`, of the pairs after it, around."""
    found: dict[str, None] = {}
    for step in range(1, len(pairs)):
        if len(found) == limit:
            break
        answer = pairs[(at + step) % len(pairs)][1]
        if answer != pairs[at][1]:
            found[answer] = None
    return list(found)


def _pairs(line: bytes, place: Place, drops: Drops) -> Sequence[tuple[str, str]]:
    try:
        pairs = json_object(decoded(line, place), place).get("qa_pairs")
    except DataError as error:
        drops.bad(place, "not a page", f": {str(error).removeprefix(str(place)).strip()}")
        return []
    if not isinstance(pairs, list):
        drops.bad(place, "not a page", ": qa_pairs, a list, is expected")
        return []
    found = []
    for number, pair in enumerate(pairs):
        texts = [pair.get(key) if isinstance(pair, dict) else None for key in ("question", "answer")]
        good = [text for text in texts if isinstance(text, str) and text.strip()]
        if len(good) == 2:
            found.append((good[0], good[1]))
        else:
            drops.bad(place, "an empty text", f" (question or answer of pair {number})")
    return found
