"""From finished blocks to output: translations that pass the gates go into the rows, others to the file of rejects."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from heapq import merge
from itertools import groupby, islice, repeat
from operator import itemgetter
from pathlib import Path
from typing import Any, BinaryIO

from hbtrain.corpus.columns import CHUNK, ColumnWriter, TextColumn
from hbtrain.errors import DataError
from hbtrain.translation.blocks import Block, Result, read_block
from hbtrain.translation.gates import TOO_LONG, UNFINISHED, Limits, reason_to_reject
from hbtrain.translation.rows import Record, sides
from hbtrain.translation.texts import NO_TEXT, Texts


def judge(texts: Texts, blocks: Sequence[Block], limits: Limits, folder: Path, rejects: BinaryIO) -> dict[str, Counts]:
    """Sort translations by whether they pass the gates; returns {language: how many did and did not}.

    Args:
        texts: that were translated.
        blocks: all blocks of them, finished.
        limits: of the gates.
        folder: gets a column `<language>.arrow` for each language, in which a text's number is the row of its accepted
            translation.
        rejects: gets the rejected ones as JSON lines, ordered by text and language.
    """
    counts = {language: Counts() for language in texts.wanted}
    results = merge(*(_results(texts, language, blocks) for language in texts.wanted), key=itemgetter(0))
    source, (first_row, first_side) = texts.texts(), texts.first_rows()
    writer = ColumnWriter(folder)
    for number, of_text in groupby(results, key=itemgetter(0)):  # every text is wanted in some language
        accepted = {}
        for _, language, result in of_text:
            reason, count = _reason(result, limits), counts[language]
            count.texts += 1
            if reason is None and result.translation is not None:
                count.kept += 1
                accepted[language] = result.translation
                continue
            count.rejected[str(reason)] += 1
            reject = {
                "id": first_row.get([number])[0],
                "side": first_side.get([number])[0],
                "language": language,
                "reason": reason,
                "text": source.get([number])[0],
                "translation": result.translation,
                "scores": None if result.scores is None else asdict(result.scores),
            }
            rejects.write(_line(reject))
        writer.append(accepted)
    writer.close()
    return counts


def assemble(records: Iterable[Record], texts: Texts, targets: Sequence[str], folder: Path, stream: BinaryIO) -> None:
    """Write the rows with their accepted translations; a text that a row already has in a language stays.

    Args:
        records: the rows of the source.
        texts: that were collected from these rows.
        targets: codes of the languages translated into.
        folder: holds the columns that `judge` has written.
        stream: gets the rows as parallel JSON lines.

    Raises:
        DataError: the records are not those that the texts were collected from.
    """
    columns = {x: TextColumn(folder / f"{x}.arrow") for x in targets if (folder / f"{x}.arrow").exists()}
    numbers = texts.numbers_of_sides()
    records = iter(records)
    while some := list(islice(records, CHUNK)):
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


def _results(texts: Texts, language: str, blocks: Sequence[Block]) -> Iterator[tuple[int, str, Result]]:
    """(number of the text, language, result) of all texts that are wanted in a language, by ascending number."""
    numbers = texts.numbers(language)
    for block in sorted((x for x in blocks if x.language == language), key=lambda block: block.number):
        own = numbers[block.start : block.stop].tolist()
        yield from zip(own, repeat(language), read_block(block, texts.folder), strict=False)


def _line(record: Any) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


@dataclass
class Counts:
    """How many translations into a language were made, kept by the gates, and rejected for each reason."""

    texts: int = 0
    kept: int = 0
    rejected: Counter[str] = field(default_factory=Counter)

    def as_dict(self) -> dict[str, object]:
        return {"texts": self.texts, "kept": self.kept, "rejected": dict(sorted(self.rejected.items()))}
