"""What readers give: texts by key, and pairs of keys.

A key names a query or a passage in all its languages. Texts come language by language or mixed, in any order; pairs are
read after all texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from hbtrain.corpus.drops import Drops
from hbtrain.errors import DataError
from hbtrain.formats.inputs import Position

TextSide = Literal["query", "passage"]
MOST_LANGUAGES = 63
"""Of a side of a corpus: which of them an item has are bits of one number of 64, and one is its sign."""


class TextItem(NamedTuple):
    """A text of one side in one language."""

    side: TextSide
    language: str
    key: str
    text: str | None
    """None: the text of the item before it in the same side and language, known by another key as well."""
    position: Position


class IdItem(NamedTuple):
    """A query's id and its key, where keys are made of texts: an id has one key."""

    id: str
    key: str


class PairItem(NamedTuple):
    """A row of the corpus: a query, its passage, and passages that do not answer it."""

    query: str
    passage: str
    negatives: Sequence[str]
    position: Position
    query_id: str | None = None
    """Rows with one query id ask one question; None: those with one key do."""
    passage_id: str | None = None
    """Rows with one passage id share a passage; None: those with one key do."""


class Part(NamedTuple):
    """A piece of work that is done as a whole or again; a side and language belongs to one part.

    A reader that finds rows beside their texts may give them here, each `PairItem` in its turn, and none in `pairs`.
    """

    name: str
    read: Callable[[Drops], Iterator[TextItem | IdItem | PairItem]]


class Reader(Protocol):
    """A raw source.

    Attributes:
        kind: its form, as the command is called.
        options: what decides the corpus beside the inputs; JSON.
        inputs: the files.
        content_keys: keys are made of texts: a key may come again, and is then the same text.
        complete: a key that some languages of its side lack is bad.
        sentences: parallel sentences: there are queries only, and each is its own passage.
    """

    kind: str
    options: dict[str, Any]
    inputs: Sequence[str]
    content_keys: bool
    complete: bool
    sentences: bool

    def parts(self) -> Sequence[Part]:
        """The texts, in parts."""

    def pairs(self, drops: Drops) -> Iterator[PairItem]:
        """The rows."""


def check_languages(number: int, where: str) -> None:
    """Refuse more languages than a corpus can hold.

    Raises:
        DataError: `number` is more than `MOST_LANGUAGES`.
    """
    if number > MOST_LANGUAGES:
        raise DataError(
            f"{where} has {number} languages, and a corpus holds {MOST_LANGUAGES} at most; prepare several corpora "
            "with fewer languages each, and name them all in data.sources"
        )
