"""Blocks: numbered parts of the texts to translate.

One actor translates a block, whose results are then written to a file of its own; so after an interruption only the
unfinished blocks are translated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from hbtrain.errors import StorageError
from hbtrain.translation.scores import Scores
from hbtrain.translation.texts import Texts

FOLDER = "blocks"


@dataclass(frozen=True)
class Result:
    """The translation of a text."""

    translation: str | None  # None if the text is too long for the model
    scores: Scores | None  # measured on the translation; None if there is none
    finished: bool = True  # whether the model ended the translation; False if it reached the limit on its length


@dataclass(frozen=True)
class Block:
    """A part of the texts to translate into a language: those at [start, stop) of `Texts.numbers(language)`.

    `number` counts the blocks of a language from 0.
    """

    language: str
    number: int
    start: int
    stop: int

    def path(self, folder: Path) -> Path:
        """The file of its results, which exists once it is finished."""
        return folder / FOLDER / f"{self.language}-{self.number:06d}.jsonl"

    def texts(self, texts: Texts) -> list[str]:
        """Its texts, in the language translated from."""
        found = texts.texts().get(texts.numbers(self.language)[self.start : self.stop])
        return [text for text in found if text is not None]


def blocks_of(texts: Texts, size: int) -> list[Block]:
    """All blocks, of `size` texts each but the last of a language; languages take turns, so that they advance alike."""
    found = [
        Block(language, number, start, min(start + size, wanted))
        for language, wanted in texts.wanted.items()
        for number, start in enumerate(range(0, wanted, size))
    ]
    return sorted(found, key=lambda block: block.number)


def read_block(block: Block, folder: Path) -> Iterator[Result]:
    """The results of a finished block, in the order of its texts. Raises StorageError if it is damaged."""
    path = block.path(folder)
    try:
        results = load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{path} is damaged; delete it, and the same command goes on: {error}") from error
    if len(results) != block.stop - block.start:
        raise StorageError(f"{path} is damaged: {len(results)} lines; delete it, and the same command goes on")
    yield from results


def dump(results: Sequence[Result]) -> str:
    """The results as JSON lines, as a block's file has them."""
    return "".join(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results)


def load(lines: str) -> list[Result]:
    """The results that `dump` has written. Raises ValueError, TypeError or KeyError if the lines are damaged."""
    # Not splitlines: a translation may hold U+2028.
    records = [json.loads(line) for line in lines.split("\n")[:-1]]
    return [
        Result(r["translation"], None if r["scores"] is None else Scores(**r["scores"]), r["finished"]) for r in records
    ]
