"""What readers of raw sources give to `hbtrain prepare`: texts by key, and pairs of keys.

A key identifies a query or a passage in all its languages. Texts come in any order, language by language or mixed;
pairs are read after all texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from hbtrain.corpus.drops import Drops
from hbtrain.errors import DataError
from hbtrain.formats.inputs import Position

TextSide = Literal["query", "passage"]
MAX_LANGUAGES = 63  # the most languages that a side of a prepared corpus may have


class TextItem(NamedTuple):
    """The text of a query or passage in one language."""

    side: TextSide
    language: str
    key: str
    text: str | None  # none: the same text as in the item before it of that side and language, under a second key
    position: Position


class IdItem(NamedTuple):
    """A query's id with its key, given where keys are made of texts, to check that an id stands for one query."""

    id: str
    key: str


class PairItem(NamedTuple):
    """A row of the corpus, in keys: a query, its passage, and passages that do not answer it."""

    query: str
    passage: str
    negatives: Sequence[str]
    position: Position
    query_id: str | None = None  # rows with equal ids have the same query; None: the key decides
    passage_id: str | None = None  # rows with equal ids have the same passage; None: the key decides
    scores: Sequence[float] = ()  # of the passage, then of each negative, that the source gives; empty: none


class Part(NamedTuple):
    """A part of a source, such as one file, which is read again from its beginning after an interruption.

    All texts of a side in one language are in the same part. A reader that meets rows together with their texts may
    give their `PairItem`s here as well, and none in `Reader.pairs`.
    """

    name: str
    read: Callable[[Drops], Iterator[TextItem | IdItem | PairItem]]


class Reader(Protocol):
    """Reads a raw source."""

    kind: str  # its form, the name of the command `hbtrain prepare <kind>`
    options: dict[str, Any]  # everything besides the inputs that decides what the corpus is; JSON values
    inputs: Sequence[str]  # paths or URLs of the files
    content_keys: bool  # whether keys are made of texts; a repeated key is then the same text, and else a bad row
    complete: bool  # whether a key that some languages of its side lack is an error
    sentences: bool  # whether these are parallel sentences, which have queries only, each its own passage

    def parts(self) -> Sequence[Part]: ...

    def pairs(self, drops: Drops) -> Iterator[PairItem]: ...


def check_languages(number: int, where: str) -> None:
    """Raise DataError if `number` is more than `MAX_LANGUAGES`; `where` begins the message."""
    if number > MAX_LANGUAGES:
        raise DataError(
            f"{where} has {number} languages, and a corpus holds {MAX_LANGUAGES} at most; prepare several corpora "
            "with fewer languages each, and name them all in data.sources"
        )
