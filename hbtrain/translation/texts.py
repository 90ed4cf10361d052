"""The texts to translate: each distinct text of a source has a number and is stored once, on disk.

While they are numbered, memory holds some 170 bytes for each distinct text.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.columns import ColumnWriter, TextColumn
from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.negatives import digest_number
from hbtrain.errors import DataError
from hbtrain.storage import write_text
from hbtrain.translation.rows import Record, sides

SUMMARY = "texts.json"
PROGRESS_EVERY = 10_000
NO_TEXT = -1  # in `sides.bin`, stands for a side that has nothing to translate


@dataclass(frozen=True)
class Texts:
    """The numbered texts in a folder."""

    folder: Path  # that holds them
    rows: int  # how many rows the source has
    number: int  # how many distinct texts there are to translate
    wanted: dict[str, int]  # {language: how many of them some row lacks in that language}

    @classmethod
    def load(cls, folder: Path) -> Texts | None:
        """The texts that an earlier call of `collect_texts` has finished writing to `folder`; None if there is none."""
        path = folder / SUMMARY
        return cls(folder, **json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None

    def numbers(self, language: str) -> Int64s:
        """int64 [wanted]: the numbers of the texts to translate into a language, ascending."""
        return np.asarray(np.load(self.folder / f"wanted.{language}.npy", mmap_mode="r"))

    def texts(self) -> TextColumn:
        return TextColumn(self.folder / "text.arrow")

    def first_rows(self) -> tuple[TextColumn, TextColumn]:
        """Two columns by the number of a text: the id of the first row that has it, and the side that it is there."""
        return TextColumn(self.folder / "row.arrow"), TextColumn(self.folder / "side.arrow")

    def numbers_of_sides(self) -> Iterator[int]:
        """The number of each side of each row, in the order of `sides`; NO_TEXT where nothing is to translate."""
        with (self.folder / "sides.bin").open("rb") as stream:
            while raw := stream.read(1 << 20):
                yield from np.frombuffer(raw, "<i8").tolist()


def collect_texts(
    records: Iterable[Record], source: str, targets: Sequence[str], folder: Path, progress: Callable[[int], None]
) -> Texts:
    """Number the texts in the language `source` that some row lacks in one of `targets`, and write them to `folder`.

    The folder is empty; `progress` is told now and then how many rows have been read.

    Raises:
        DataError: there are no rows or no such texts, or a row is not Unicode.
    """
    numbers: dict[int, int] = {}
    lacking = array("Q")
    writer = ColumnWriter(folder)
    rows = 0
    languages: set[str] = set()
    with (folder / "sides.bin").open("wb") as stream:
        for record in records:
            rows += 1
            _check_unicode(record, rows)
            of_sides = []
            for side, texts in sides(record):
                languages.update(texts)
                wanted = sum(1 << i for i, target in enumerate(targets) if target not in texts)
                if source not in texts or not wanted:
                    of_sides.append(NO_TEXT)
                    continue
                number = numbers.setdefault(digest_number(texts[source]), len(numbers))
                if number == len(lacking):
                    lacking.append(0)
                    writer.append({"text": texts[source], "row": str(record["id"]), "side": side})
                lacking[number] |= wanted
                of_sides.append(number)
            stream.write(np.array(of_sides, "<i8").tobytes())
            if rows % PROGRESS_EVERY == 0:
                progress(rows)
    writer.close()
    progress(rows)
    _check(rows, len(lacking), source, targets, languages)
    return _saved(folder, rows, targets, np.frombuffer(lacking, np.uint64))


def _check_unicode(record: Record, number: int) -> None:
    """Raise DataError if any text of a row holds half a surrogate pair, which JSON can escape and UTF-8 cannot hold."""
    for key, value in record.items():
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            name = json.dumps(record["id"])  # escaped, as the id itself may not be Unicode
            raise DataError(f"row {number}, id {name}: {key} is not Unicode: {error.reason}") from error


def _check(rows: int, number: int, source: str, targets: Sequence[str], languages: set[str]) -> None:
    if not rows:
        raise DataError("the source holds no rows")
    if source not in languages:
        raise DataError(f"--from {source}: the source has no texts in {source}; it has {', '.join(sorted(languages))}")
    if not number:
        raise DataError(f"nothing to translate: every text in {source} is there in {', '.join(targets)} already")


def _saved(folder: Path, rows: int, targets: Sequence[str], lacking: Any) -> Texts:
    wanted = {}
    for i, target in enumerate(targets):
        numbers = np.flatnonzero(lacking >> np.uint64(i) & np.uint64(1))
        np.save(folder / f"wanted.{target}.npy", numbers.astype(np.int64))
        wanted[target] = len(numbers)
    texts = Texts(folder, rows, len(lacking), wanted)
    write_text(folder / SUMMARY, json.dumps({"rows": rows, "number": texts.number, "wanted": wanted}))
    return texts
