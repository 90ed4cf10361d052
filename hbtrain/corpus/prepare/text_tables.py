"""The first stage of a preparation: the texts of a part, in a table for each side and language.

Files of a part: `<side>.<language>/text.arrow`, the texts of a table; `items.parquet`, the items of all its tables:
number of the table, place among the table's items, digest of the key, row of its text in the column, and where it
stands in the source; `ids.parquet`, ids of queries with their keys, and `pairs.parquet` and `negatives.parquet` (see
`rows`), where the reader gives any.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.columns import CHUNK, ColumnWriter, TextColumn
from hbtrain.corpus.drops import Drops
from hbtrain.corpus.negatives import digest_number
from hbtrain.corpus.prepare.database import Database, NumberWriter, Session, by_code, parquet
from hbtrain.corpus.prepare.rows import PART_SHIFT, Digests, PairWriter
from hbtrain.corpus.readers.items import IdItem, PairItem, Part, TextItem, check_languages
from hbtrain.errors import DataError
from hbtrain.formats.inputs import Position
from hbtrain.formats.languages import LANGUAGE

TELL_EVERY = 4096
"""Texts between two words of progress."""
COLUMN = "text"
ITEM_COLUMNS = ("tab", "item", "key", "text", "place")
FILE_SHIFT = 40
"""A place is one number: that of its file times 2**40, plus the line."""


@dataclass
class Table:
    """The texts of one side in one language.

    Attributes:
        side: query or passage.
        language: its code.
        number: of the table in its part.
        items: keys that stand for a text.
        texts: texts that items stand for.
        shares_texts: whether several items may have one text.
    """

    side: str
    language: str
    number: int
    items: int = 0
    texts: int = 0
    shares_texts: bool = False

    def column(self, part: Path) -> Path:
        """The file of the texts in the folder of the part."""
        return part / f"{self.side}.{self.language}" / f"{COLUMN}.arrow"


class PartTables:
    """What the first stage says of a part, and its folder."""

    def __init__(self, folder: Path, result: dict[str, Any]) -> None:
        self.folder = folder
        self.items = folder / "items.parquet"
        self.tables = [Table(**table) for table in result["tables"]]
        self._files = result["files"]

    def position(self, number: int) -> Position:
        """Where an item stands in the source."""
        return _position(number, self._files)


class _PartWriter:
    """Writes a part item by item."""

    def __init__(self, folder: Path, number: int, most_languages: bool) -> None:
        self._folder = folder
        self._number = number
        self._most_languages = most_languages
        self._columns: dict[tuple[str, str], tuple[Table, ColumnWriter]] = {}
        self._items = NumberWriter(folder / "items.parquet", ITEM_COLUMNS)
        self._ids: NumberWriter | None = None
        self._next_id = number << PART_SHIFT
        self._pairs: PairWriter | None = None
        self._files: dict[tuple[str, str], int] = {}
        self._digests = Digests()

    @property
    def tables(self) -> list[Table]:
        """By number."""
        return [table for table, _ in self._columns.values()]

    @property
    def files(self) -> list[tuple[str, str]]:
        """(file, unit of its places), by number."""
        return list(self._files)

    def text(self, item: TextItem) -> None:
        """Add a text, which is not blank."""
        table, column = self._columns.get((item.side, item.language)) or self._open(item)
        if item.text is None:
            table.shares_texts = True
        else:
            column.append({COLUMN: item.text})
            table.texts += 1
        place = item.position
        file = self._files.setdefault((place.file, place.unit), len(self._files))
        key = self._digests.of(item.key)
        self._items.append((table.number, table.items, key, table.texts - 1, file << FILE_SHIFT | place.number))
        table.items += 1

    def id(self, item: IdItem) -> None:
        """Add a query's id."""
        if self._ids is None:
            self._ids = NumberWriter(self._folder / "ids.parquet", ("id", "key", "item"))
        self._ids.append((digest_number(item.id), self._digests.of(item.key), self._next_id))
        self._next_id += 1

    def pair(self, pair: PairItem) -> None:
        """Add a row."""
        if self._pairs is None:
            self._pairs = PairWriter(self._folder, self._number)
        self._pairs.append(pair)

    def close(self) -> None:
        """Write what is left."""
        for _, column in self._columns.values():
            column.close()
        for writer in (self._items, self._ids, self._pairs):
            if writer is not None:
                writer.close()

    def _open(self, item: TextItem) -> tuple[Table, ColumnWriter]:
        if not LANGUAGE.fullmatch(item.language):
            raise DataError(f"{item.position}: {item.language!r} is not a language code such as en, zh or pt-BR")
        if self._most_languages:
            there = sum(side == item.side for side, _ in self._columns)
            check_languages(1 + there, f"{item.position}: the source up to here")
        table = Table(item.side, item.language, len(self._columns))
        table.column(self._folder).parent.mkdir()
        new = self._columns[item.side, item.language] = table, ColumnWriter(table.column(self._folder).parent)
        return new


def write_texts(
    db: Database,
    part: Part,
    number: int,
    content_keys: bool,
    most_languages: bool,
    drops: Drops,
    folder: Path,
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Write the texts of the `number`-th part to tables in `folder`; returns what `PartTables` needs to know of them.

    Blank texts and repeated keys are bad rows; where keys are made of texts, a key may be repeated.

    Raises:
        DataError: a bad row, where `drops` says so, a code that is no language's, or too many languages.
    """
    writer = _PartWriter(folder, number, most_languages)
    done = 0
    for item in part.read(drops):
        if isinstance(item, IdItem):
            writer.id(item)
        elif isinstance(item, PairItem):
            writer.pair(item)
        elif item.text is not None and not item.text.strip():
            drops.bad(item.position, "an empty text", f" ({item.side} {item.key} in {item.language})")
        else:
            writer.text(item)
            done += 1
            if done % TELL_EVERY == 0:
                progress(done)
    progress(done)
    writer.close()
    with db.session() as session:
        _drop_repeated(session, writer.tables, writer.files, None if content_keys else drops, folder)
    return {"tables": [asdict(table) for table in sorted(writer.tables, key=_rank)], "files": writer.files}


def _drop_repeated(
    db: Session, tables: Sequence[Table], files: Sequence[tuple[str, str]], drops: Drops | None, folder: Path
) -> None:
    """Leave out items whose key an earlier one of the table has; a text of theirs that nobody shares goes, too.

    `drops` is told of each, table by table in the order of keys.
    """
    items = parquet(folder / "items.parquet")
    db.table("repeated", f"SELECT tab, key, min(item) AS first FROM {items} GROUP BY tab, key HAVING count(*) > 1")
    if not db.rows("SELECT 1 FROM repeated LIMIT 1"):
        return
    db.table(
        "dropped",
        f"SELECT tab, item, first, key, place FROM {items} JOIN repeated USING (tab, key) WHERE item > first",
    )
    if drops is not None:
        ranks = [table.number for table in sorted(tables, key=_rank)]
        told = (
            f"SELECT d.tab, d.place, f.place FROM dropped d JOIN {items} f ON f.tab = d.tab AND f.item = d.first "
            f"ORDER BY list_position({ranks}, d.tab), d.key, d.item"
        )
        for block in db.blocks(told):
            for number, place, first in zip(*(column.tolist() for column in block), strict=True):
                reason = f"a {tables[number].side} id that came before"
                drops.bad(_position(place, files), reason, f" (at {_position(first, files)})")
    _narrow(db, tables, folder)


def _narrow(db: Session, tables: Sequence[Table], folder: Path) -> None:
    """Write items again without those in `dropped`, and the columns whose items have each a text of its own."""
    items, own = folder / "items.parquet", folder / "narrow"
    own.mkdir()
    changed = {number for (number,) in db.rows("SELECT DISTINCT tab FROM dropped")}
    for table in tables:
        table.items = 0
        table.texts = 0 if table.number in changed and not table.shares_texts else table.texts
    writer = NumberWriter(own / items.name, ITEM_COLUMNS)
    columns = {}
    for table in tables:
        if not table.texts:
            table.column(own).parent.mkdir()
            columns[table.number] = TextColumn(table.column(folder)), ColumnWriter(table.column(own).parent)
    kept = f"SELECT {', '.join(ITEM_COLUMNS)} FROM {parquet(items)} ANTI JOIN dropped USING (tab, item)"
    for number, (tab, item, key, text, place) in by_code(db.blocks(f"{kept} ORDER BY tab, item")):
        table = tables[number]
        table.items += len(item)
        if number in columns:
            before, after = columns[number]
            for start in range(0, len(text), CHUNK):
                for value in before.get(text[start : start + CHUNK]):
                    after.append({COLUMN: value or ""})
            own_text = np.arange(table.texts, table.items, dtype=np.int64)
            table.texts = table.items
        writer.extend(tab, item, key, own_text if number in columns else text, place)
    writer.close()
    for number, (_, after) in columns.items():
        after.close()
        tables[number].column(own).replace(tables[number].column(folder))
    (own / items.name).replace(items)
    shutil.rmtree(own)
    for table in tables:
        if table.shares_texts and table.number in changed:
            distinct = f"SELECT DISTINCT text FROM {parquet(items)} WHERE tab = {table.number}"
            ((table.texts,),) = db.rows(f"SELECT count(*) FROM ({distinct})")


def _rank(table: Table) -> tuple[bool, str]:
    """Queries first, by the alphabet."""
    return table.side != "query", table.language


def _position(number: int, files: Sequence[tuple[str, str]]) -> Position:
    file, unit = files[number >> FILE_SHIFT]
    return Position(file, number & (1 << FILE_SHIFT) - 1, unit)
