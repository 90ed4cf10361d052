"""From finished blocks to rows: what passes the gates goes into the rows, the rest into the file of rejects."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from hbtrain.corpus.columns import CHUNK, ColumnWriter, TextColumn
from hbtrain.errors import DataError
from hbtrain.translation.blocks import Block, Result, read_block
from hbtrain.translation.gates import TOO_LONG, UNFINISHED, Limits, reason_to_reject
from hbtrain.translation.rows import Record, sides
from hbtrain.translation.texts import NO_TEXT, Texts


def judge(texts: Texts, blocks: Sequence[Block], limits: Limits, folder: Path, rejects: BinaryIO) -> dict[str, Counts]:
    """Write what passes the gates as columns `<language>.arrow` into `folder`, by the texts' numbers; the rest as
    JSON lines into `rejects`, by number and language.
    """
    counts = {language: Counts() for language in texts.wanted}
    results = {language: _results(texts, language, blocks) for language in texts.wanted}
    heads = {language: next(found, None) for language, found in results.items()}
    source, (first_row, first_side) = texts.texts(), texts.first_rows()
    writer = ColumnWriter(folder)
    for number in range(texts.number):
        kept = {}
        for language, head in heads.items():
            if head is None or head[0] != number:
                continue
            heads[language] = next(results[language], None)
            result, count = head[1], counts[language]
            reason = _reason(result, limits)
            count.texts += 1
            if reason is None and result.translation is not None:
                count.kept += 1
                kept[language] = result.translation
                continue
            count.rejected[str(reason)] += 1
            known = {"id": first_row.get([number])[0], "side": first_side.get([number])[0]}
            rejects.write(_line(known | _reject(language, source.get([number])[0], result, reason)))
        writer.append(kept)
    writer.close()
    return counts


def assemble(records: Iterable[Record], texts: Texts, targets: Sequence[str], folder: Path, stream: BinaryIO) -> None:
    """Write the rows with the translations that `judge` has put into `folder`; texts that were there stay.

    Raises:
        DataError: the records are not those that the texts were collected from.
    """
    columns = {x: TextColumn(folder / f"{x}.arrow") for x in targets if (folder / f"{x}.arrow").exists()}
    numbers = texts.numbers_of_sides()
    for some in _chunks(records):
        own_sides = [own for record in some for _, own in sides(record)]
        places = list(zip(own_sides, islice(numbers, len(own_sides)), strict=False))
        if len(places) < len(own_sides):
            raise DataError("there are more texts than were collected")
        asked = sorted({number for _, number in places if number != NO_TEXT})
        found: Mapping[str, dict[int, str | None]] = {
            language: dict(zip(asked, column.get(asked), strict=True)) for language, column in columns.items()
        }
        for own, number in places:
            for language, translations in found.items():
                translation = translations.get(number)
                if language not in own and translation is not None:
                    own[language] = translation
        for record in some:
            stream.write(_line(record))
    if next(numbers, None) is not None:
        raise DataError("there are fewer texts than were collected")


def _reason(result: Result, limits: Limits) -> str | None:
    if result.scores is None:
        return TOO_LONG
    return reason_to_reject(result.scores, limits) if result.finished else UNFINISHED


def _reject(language: str, text: str | None, result: Result, reason: str | None) -> Record:
    return {
        "language": language,
        "reason": reason,
        "text": text,
        "translation": result.translation,
        "scores": None if result.scores is None else result.scores.as_dict(),
    }


def _results(texts: Texts, language: str, blocks: Sequence[Block]) -> Iterator[tuple[int, Result]]:
    numbers = texts.numbers(language)
    for block in sorted((x for x in blocks if x.language == language), key=lambda block: block.number):
        own = numbers[block.start : block.stop].tolist()
        yield from zip(own, read_block(block, texts.folder), strict=True)


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    some: list[Record] = []
    for record in records:
        some.append(record)
        if len(some) == CHUNK:
            yield some
            some = []
    if some:
        yield some


def _line(record: Any) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


@dataclass
class Counts:
    """Of one language."""

    texts: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, object]:
        """For the manifest."""
        return {"texts": self.texts, "kept": self.kept, "rejected": dict(sorted(self.rejected.items()))}
