"""Blocks: the unit in which translations are made, kept, and found again after an interruption."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hbtrain.errors import StorageError
from hbtrain.storage import write_text
from hbtrain.translation.scores import Scores
from hbtrain.translation.texts import Texts

FOLDER = "blocks"


@dataclass(frozen=True)
class Result:
    """What became of a text.

    Attributes:
        translation: None if the model cannot read the text.
        scores: what was measured of it; None where there is none.
        finished: whether the model ended it, not the limit on its length.
    """

    translation: str | None
    scores: Scores | None
    finished: bool = True


@dataclass(frozen=True)
class Block:
    """Texts `start` to `stop` of those wanted in a language."""

    language: str
    number: int
    start: int
    stop: int

    def path(self, folder: Path) -> Path:
        """Its file, once it is done."""
        return folder / FOLDER / f"{self.language}-{self.number:06d}.jsonl"

    def texts(self, texts: Texts) -> list[str]:
        """What is to be translated."""
        found = texts.texts().get(texts.numbers(self.language)[self.start : self.stop])
        return [text for text in found if text is not None]


def blocks_of(texts: Texts, size: int) -> list[Block]:
    """All blocks, each of `size` texts but the last of a language; languages take turns, so that all grow alike."""
    found = [
        Block(language, number, start, min(start + size, wanted))
        for language, wanted in texts.wanted.items()
        for number, start in enumerate(range(0, wanted, size))
    ]
    return sorted(found, key=lambda block: block.number)


def write_block(block: Block, folder: Path, results: Sequence[Result]) -> None:
    """Keep a finished block; it is there as a whole or not at all."""
    write_text(block.path(folder), dump(results))


def read_block(block: Block, folder: Path) -> Iterator[Result]:
    """The results of a finished block, in the order of its texts.

    Raises:
        StorageError: it is damaged.
    """
    path = block.path(folder)
    try:
        results = load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StorageError(f"{path} is damaged; delete it, and the same command goes on: {error}") from error
    if len(results) != block.stop - block.start:
        raise StorageError(f"{path} is damaged: {len(results)} lines; delete it, and the same command goes on")
    yield from results


def dump(results: Sequence[Result]) -> str:
    """Results as JSON lines."""
    return "".join(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in results)


def load(lines: str) -> list[Result]:
    """The results of `dump`.

    Raises:
        ValueError, TypeError, KeyError: it is damaged.
    """
    # Not splitlines: a translation may hold U+2028.
    return [_result(json.loads(line)) for line in lines.split("\n")[:-1]]


def _result(record: dict[str, Any]) -> Result:
    scores = record["scores"]
    return Result(record["translation"], None if scores is None else Scores(**scores), record["finished"])
