"""The first stage of a preparation: writes the texts of a part, in a table for each side and language.

Files of a part:
    `<side>.<language>/text.arrow`: the texts of a table.
    `items.parquet`: the items of all tables: number of the table, index among its items, digest of the key, row of the
        text in `text.arrow`, and position in the source.
    `ids.parquet`: the ids of queries with their keys, where the reader gives any.
    `pairs.parquet`, `negatives.parquet`: pairs (see `rows`), where the reader gives any in its parts.
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

PROGRESS_EVERY = 4096  # texts between two calls of the progress callback
COLUMN = "text"
ITEM_COLUMNS = ("tab", "item", "key", "text", "place")
FILE_SHIFT = 40  # a position is one number in `items.parquet`: that of its file times 2**40, plus the line


@dataclass
class Table:
    """The texts of one side in one language."""

    side: str  # `query` or `passage`
    language: str  # its code
    number: int  # of the table in its part
    items: int = 0  # how many keys have a text
    texts: int = 0  # how many texts there are
    shares_texts: bool = False  # whether several keys may have the same text

    def column(self, part: Path) -> Path:
        """The file of the texts, in the folder of a part."""
        return part / f"{self.side}.{self.language}" / f"{COLUMN}.arrow"


class PartTables:
    """The tables of a part, from its folder and the result of the first stage."""

    def __init__(self, folder: Path, result: dict[str, Any]) -> None:
        self.folder = folder
        self.items = folder / "items.parquet"
        self.tables = [Table(**table) for table in result["tables"]]
        self._files = result["files"]

    def position(self, number: int) -> Position:
        """The position in the source that a number of `items.parquet` stands for."""
        return _position(number, self._files)


class _PartWriter:
    """Writes a part item by item."""

    def __init__(self, folder: Path, number: int, limited_languages: bool) -> None:
        self._folder = folder
        self._number = number
        self._limited_languages = limited_languages
        self._columns: dict[tuple[str, str], tuple[Table, ColumnWriter]] = {}
        self._items = NumberWriter(folder / "items.parquet", ITEM_COLUMNS)
        self._ids: NumberWriter | None = None
        self._next_id = number << PART_SHIFT
        self._pairs: PairWriter | None = None
        self._files: dict[tuple[str, str], int] = {}
        self._digests = Digests()

    @property
    def tables(self) -> list[Table]:
        return [table for table, _ in self._columns.values()]

    @property
    def files(self) -> list[tuple[str, str]]:
        """(file, unit of positions in it), by the number that positions have for it."""
        return list(self._files)

    def text(self, item: TextItem) -> None:
        """Add a text that is not blank, or, if it is None, another key for the text before."""
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
        if self._ids is None:
            self._ids = NumberWriter(self._folder / "ids.parquet", ("id", "key", "item"))
        self._ids.append((digest_number(item.id), self._digests.of(item.key), self._next_id))
        self._next_id += 1

    def pair(self, pair: PairItem) -> None:
        if self._pairs is None:
            self._pairs = PairWriter(self._folder, self._number)
        self._pairs.append(pair)

    def close(self) -> None:
        for _, column in self._columns.values():
            column.close()
        for writer in (self._items, self._ids, self._pairs):
            if writer is not None:
                writer.close()

    def _open(self, item: TextItem) -> tuple[Table, ColumnWriter]:
        if not LANGUAGE.fullmatch(item.language):
            raise DataError(f"{item.position}: {item.language!r} is not a language code such as en, zh or pt-BR")
        if self._limited_languages:
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
    limited_languages: bool,
    drops: Drops,
    folder: Path,
    progress: Callable[[int], None],
) -> dict[str, Any]:
    """Write the texts of the `number`-th part to tables in `folder`; returns the result that `PartTables` takes.

    Blank texts are bad rows, and repeated keys as well, unless keys are made of texts (`content_keys`).

    Raises:
        DataError: a bad row that `drops` refuses, or a code that is no language's; more languages than a corpus can
            hold, if `limited_languages` says that there is a limit.
    """
    writer = _PartWriter(folder, number, limited_languages)
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
            if done % PROGRESS_EVERY == 0:
                progress(done)
    progress(done)
    writer.close()
    with db.session() as session:
        _drop_repeated(session, part, writer.tables, writer.files, None if content_keys else drops, folder)
    return {"tables": [asdict(table) for table in sorted(writer.tables, key=_rank)], "files": writer.files}


def _drop_repeated(
    db: Session,
    part: Part,
    tables: Sequence[Table],
    files: Sequence[tuple[str, str]],
    drops: Drops | None,
    folder: Path,
) -> None:
    """Remove items whose key an earlier item of the table has, with their texts if no other item has them.

    They are told to `drops`, table by table in the order of keys: one with the same text is left out, one with another
    text is a bad row.
    """
    items = parquet(folder / "items.parquet")
    db.table("repeated", f"SELECT tab, key, min(item) AS first FROM {items} GROUP BY tab, key HAVING count(*) > 1")
    if not db.rows("SELECT 1 FROM repeated LIMIT 1"):
        return
    db.table(
        "dropped",
        f"SELECT tab, item, first, key, text, place FROM {items} JOIN repeated USING (tab, key) WHERE item > first",
    )
    if drops is not None:
        ranked = sorted(tables, key=_rank)
        columns = {table.number: TextColumn(table.column(folder)) for table in tables if table.texts}
        query = (
            f"SELECT d.tab, d.key, d.place, f.place, d.text, f.text FROM dropped d JOIN {items} f ON f.tab = d.tab AND "
            f"f.item = d.first ORDER BY list_position({[table.number for table in ranked]}, d.tab), d.key, d.item"
        )
        for block in db.blocks(query):
            found = []
            for number, key, place, first, *rows in zip(*(column.tolist() for column in block), strict=True):
                one, other = columns[number].get(rows)
                found.append((number, key, place, first, one == other))
            keys = _keys(part, {key for _, key, _, _, same in found if not same})
            for number, key, place, first, same in found:
                tell, text = (drops.leave_out, "the same text") if same else (drops.bad, "another text")
                reason = f"a {tables[number].side} id that came before, with {text}"
                name = f"{keys[key]}, " if key in keys else ""
                tell(_position(place, files), reason, f" ({name}at {_position(first, files)})")
    _narrow(db, tables, folder)


def _keys(part: Part, digests: set[int]) -> dict[int, str]:
    """{digest: key} of those digests, for messages, by reading the part again; nothing is read if there are none."""
    items = part.read(Drops.silent()) if digests else ()
    keys = (item.key for item in items if isinstance(item, TextItem))
    return {digest: key for key in keys if (digest := digest_number(key)) in digests}


def _narrow(db: Session, tables: Sequence[Table], folder: Path) -> None:
    """Write `items.parquet` again without the items in the SQL table `dropped`, and the columns that change thereby."""
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
    remaining = f"SELECT {', '.join(ITEM_COLUMNS)} FROM {parquet(items)} ANTI JOIN dropped USING (tab, item)"
    for number, (tab, item, key, text, place) in by_code(db.blocks(f"{remaining} ORDER BY tab, item")):
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
    """Sort key of tables: queries first, then by language."""
    return table.side != "query", table.language


def _position(number: int, files: Sequence[tuple[str, str]]) -> Position:
    file, unit = files[number >> FILE_SHIFT]
    return Position(file, number & (1 << FILE_SHIFT) - 1, unit)
