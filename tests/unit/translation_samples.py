"""Stand-ins for the model and the cluster: translations come from a book, in this process."""

import gzip
import json
from functools import cache
from pathlib import Path

from hbtrain.translation.blocks import Result, dump
from hbtrain.translation.gates import Limits
from hbtrain.translation.languages import LANGUAGES, Identifier
from hbtrain.translation.scores import score

ANYTHING = Limits(
    copied=1.0, shortest=0.0, longest=1e9, script=0.0, language=0.0, repeated=1.0, looped=10**9, squeezed=1e9
)
"""All gates open, but for translations that are empty."""


class Book:
    """Takes the place of `hbtrain.translation.translate.translated`.

    Attributes:
        asked: every (language, text) that was to be translated, in order.
    """

    def __init__(self, rows, source="en", stop_after=None, spoil=lambda text, translation, language: translation):
        """`stop_after` blocks it is interrupted; `spoil` makes mistakes."""
        self.asked = []
        self._stop_after = stop_after
        self._spoil = spoil
        self._pages = {}
        for row in rows:
            for own in (row.get("text"), row.get("query"), row.get("passage"), *row.get("negatives", ())):
                for language, text in (own or {}).items():
                    self._pages[language, (own or {}).get(source)] = text

    def __call__(self, work, pool, texts, todo):
        for number, block in enumerate(todo):
            if number == self._stop_after:
                raise KeyboardInterrupt
            yield block, dump([self._result(work, text, block.language) for text in block.texts(texts)])

    def _result(self, work, text, language):
        self.asked.append((language, text))
        translation = self._spoil(text, self._pages[language, text], language)
        if translation is None:
            return Result(None, None)
        identifier = _identifier() if work.identify else None
        return Result(translation, score(text, translation, LANGUAGES[work.source], LANGUAGES[language], identifier))


@cache
def _identifier():
    return Identifier()


def read_lines(path: Path):
    """The rows of a JSON-lines file, plain or gzip."""
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if path.suffix == ".gz" else raw
    return [json.loads(line) for line in raw.decode().splitlines()]
