"""Texts of one side in one language while a corpus is prepared: a column, and the key and place of every item.

Files of a table: `text.arrow`, `keys` (digest of each item's key), `lines` (where it stands in the source: the number
of its file times 2**40, plus the line), `texts` (the row of its text in the column; only where items share texts) and
`table.json`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from hbtrain.corpus.columns import CHUNK, ColumnWriter, TextColumn
from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.negatives import digest_number
from hbtrain.corpus.preparation.keys import KEYS
from hbtrain.corpus.preparation.number_array import NumberArray
from hbtrain.corpus.preparation.numbers import NumberWriter, blocks, count, numbered
from hbtrain.corpus.preparation.sorting import sorted_blocks
from hbtrain.corpus.readers.items import TextItem
from hbtrain.formats.inputs import Place

COLUMN = "text"
FILE_SHIFT = 40


class TableWriter:
    """Writes a table item by item."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._column = ColumnWriter(folder)
        self._keys, self._lines, self._texts = (NumberWriter(folder / name) for name in ("keys", "lines", "texts"))
        self._files: dict[tuple[str, str], int] = {}
        self._rows = self._items = 0

    def append(self, item: TextItem) -> None:
        """Add an item whose text, if it has one, is not blank."""
        if item.text is not None:
            self._column.append({COLUMN: item.text})
            self._rows += 1
        place = item.place
        file = self._files.setdefault((place.file, place.unit), len(self._files))
        self._keys.append(digest_number(item.key))
        self._lines.append(file << FILE_SHIFT | place.number)
        self._texts.append(self._rows - 1)
        self._items += 1

    def close(self) -> None:
        """Write what is left."""
        self._column.close()
        for writer in (self._keys, self._lines, self._texts):
            writer.close()
        if self._rows == self._items:
            (self._folder / "texts").unlink()
        table = {"files": [list(key) for key in self._files]}
        (self._folder / "table.json").write_text(json.dumps(table), encoding="utf-8")


class Table:
    """A table that is written."""

    def __init__(self, folder: Path) -> None:
        self.column, self.keys = folder / f"{COLUMN}.arrow", folder / "keys"
        self._folder = folder
        self._texts = folder / "texts"

    def __len__(self) -> int:
        """Items."""
        return count(self.keys)

    @property
    def shares_texts(self) -> bool:
        """Whether some items have one text."""
        return self._texts.exists()

    @property
    def texts(self) -> int:
        """Texts that items stand for."""
        if not self.shares_texts:
            return len(self)
        return sum(int((np.diff(block, prepend=before) != 0).sum()) for block, before in self._text_blocks())

    def rows(self) -> Iterator[Int64s]:
        """The column's row of each item, in blocks."""
        return blocks(self._texts) if self.shares_texts else (items for _, items in numbered(self.keys))

    def place(self, item: int) -> Place:
        """Where an item stands in the source."""
        line = int(NumberArray(self._folder / "lines").get(np.array([item]))[0])
        file, unit = self._files[line >> FILE_SHIFT]
        return Place(file, line & (1 << FILE_SHIFT) - 1, unit)

    @cached_property
    def _files(self) -> list[tuple[str, str]]:
        table = json.loads((self._folder / "table.json").read_text(encoding="utf-8"))
        return [(file, unit) for file, unit in table["files"]]

    def drop_repeated(self, told: Callable[[Place, Place], None] | None) -> None:
        """Leave out items whose key an earlier one has; a text of theirs that nobody shares goes, too.

        `told` of the place of each and of the first one's, in the order of keys.
        """
        kept_path = self._folder / "kept"
        kept = None
        for keys, items in sorted_blocks(numbered(self.keys), len(self), KEYS, self._folder / "sorting"):
            again = np.diff(keys, prepend=-1) == 0
            if not again.any():
                continue
            if kept is None:
                kept = NumberArray.filled(kept_path, len(self), 1)
            kept.put(items[again], 0)
            if told is not None:
                first = np.maximum.accumulate(np.where(again, 0, np.arange(len(keys))))
                for place in np.flatnonzero(again).tolist():
                    told(self.place(int(items[place])), self.place(int(items[first[place]])))
        if kept is None:
            return
        if not self.shares_texts:
            self._keep_texts(kept_path)
        for name in ("keys", "lines", "texts"):
            if (self._folder / name).exists():
                self._keep_numbers(self._folder / name, kept_path)
        kept_path.unlink()

    def _text_blocks(self) -> Iterator[tuple[Int64s, int]]:
        """Blocks of `texts`, which ascend, each with the number before it."""
        before = -1
        for block in blocks(self._texts):
            yield block, before
            before = int(block[-1])

    def _keep_texts(self, kept: Path) -> None:
        narrow = self._folder / "narrow"
        narrow.mkdir()
        writer, column = ColumnWriter(narrow), TextColumn(self.column)
        start = 0
        for block in blocks(kept, CHUNK):
            for text in column.get((start + np.flatnonzero(block)).tolist()):
                writer.append({COLUMN: text or ""})
            start += len(block)
        writer.close()
        (narrow / self.column.name).replace(self.column)
        narrow.rmdir()

    def _keep_numbers(self, path: Path, kept: Path) -> None:
        narrow = path.with_suffix(".narrow")
        writer = NumberWriter(narrow)
        for numbers, keep in zip(blocks(path), blocks(kept), strict=True):
            writer.extend(numbers[keep != 0])
        writer.close()
        narrow.replace(path)
