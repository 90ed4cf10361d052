"""Gives each query or passage one number in all its languages, by aligning the tables of the languages by key.

Files of a side:
    `numbers.parquet`: key, number, and columns `bits0`, `bits1`, ..., each with the bits of `BITS` languages: a set bit
        says that the language has the key.
    `place.<side>.<language>.npy`: for each number, the row of its text in the column of that language, -1 for none.
        Absent where that is the number itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hbtrain.corpus.conflicts import Components, Int64s
from hbtrain.corpus.prepare.database import ArrayWriter, Database, NumberWriter, Session, by_code, count, parquet
from hbtrain.corpus.prepare.rows import Rows
from hbtrain.corpus.prepare.text_tables import PartTables, Table

BITS = 60  # languages for which a `bits` column has a bit
ITEM_SHIFT = 40  # items are ordered by the number of their table times 2**40, plus their index in it


class Incomplete(NamedTuple):
    """Queries or passages that some languages lack, with an example."""

    total: int  # how many there are
    lacks: str  # a language that lacks the first of them
    has: str  # a language that has it
    place: int  # its position in the source in that language, as `part.position` takes it
    part: PartTables  # the part that holds that language


class Side:
    """The numbers of the queries, or of the passages.

    Items are numbered in the order of the first language's table; those that only later tables have follow.

    Attributes:
        name: `query` or `passage`.
        languages: codes in alphabetical order; a language's index here is its `code` in queries.
        folder: of the files.
        numbers: `numbers.parquet`.
    """

    def __init__(self, name: str, tables: dict[str, tuple[PartTables, Table]], folder: Path) -> None:
        """`tables`: {language: (part that holds it, its table)}."""
        self.name = name
        self.languages = sorted(tables)
        self.folder = folder
        self.numbers = folder / "numbers.parquet"
        self._tables = [tables[language] for language in self.languages]

    def __len__(self) -> int:
        return count(self.numbers)

    @property
    def texts(self) -> dict[str, int]:
        """{language: how many texts it has}."""
        return {table.language: table.texts for _, table in self._tables}

    def columns(self) -> dict[str, Path]:
        """{language: the Arrow file of its texts}."""
        return {table.language: table.column(part.folder) for part, table in self._tables}

    @property
    def bits(self) -> list[str]:
        """The names of the columns that say which languages have a number."""
        return [f"bits{i}" for i in range(-(-len(self._tables) // BITS))]

    def languages_of(self, bits: Sequence[int]) -> set[str]:
        """The languages whose bits are set in values of these columns."""
        return {x for code, x in enumerate(self.languages) if bits[code // BITS] >> code % BITS & 1}

    @property
    def complete(self) -> str:
        """The SQL condition that all languages have a number."""
        full = [(1 << min(BITS, len(self._tables) - BITS * i)) - 1 for i in range(len(self.bits))]
        return " AND ".join(f"{name} = {bits}" for name, bits in zip(self.bits, full, strict=True))

    def of_keys(self, complete: bool) -> str:
        """An SQL query of (key, number), with `complete` only of those that all languages have."""
        return f"SELECT key, number FROM {parquet(self.numbers)}" + (f" WHERE {self.complete}" if complete else "")

    def align(self, database: Database) -> None:
        """Give the numbers, and write the files of the side."""
        with database.session() as db:
            bits = [
                f"bit_or(CASE WHEN code // {BITS} = {i} THEN 1::BIGINT << (code % {BITS}) ELSE 0 END)::BIGINT AS {name}"
                for i, name in enumerate(self.bits)
            ]
            first = f"min((code << {ITEM_SHIFT}) + item) AS first"
            db.table("keys", f"SELECT key, {first}, {', '.join(bits)} FROM {self.items} GROUP BY key")
            given = 0
            with NumberWriter(self.numbers, ("key", "number", *self.bits)) as writer:
                for key, *own in db.blocks(f"SELECT key, {', '.join(self.bits)} FROM keys ORDER BY first"):
                    writer.extend(key, np.arange(given, given + len(key), dtype=np.int64), *own)
                    given += len(key)
            places = db.blocks(f"SELECT code, number, text FROM {self.numbered_items} ORDER BY code, number")
            most = max(self.texts.values())
            for array in self.write_arrays(places, self._place, most, given, -1):
                array.close(wanted=not array.counts_up)

    def incomplete(self, database: Database) -> Incomplete | None:
        """What some languages lack; None if all have everything."""
        with database.session() as db:
            numbers = f"{parquet(self.numbers)} WHERE NOT ({self.complete})"
            ((total, first),) = db.rows(f"SELECT count(*), min(number) FROM {numbers}")
            if not total:
                return None
            columns = ", ".join(self.bits)
            ((key, *bits),) = db.rows(f"SELECT key, {columns} FROM {parquet(self.numbers)} WHERE number = {first}")
            there = self.languages_of(bits)
            lacks = next(x for x in self.languages if x not in there)
            code, has = next((code, x) for code, x in enumerate(self.languages) if x in there)
            ((place,),) = db.rows(f"SELECT place FROM {self.items} WHERE code = {code} AND key = {key}")
        return Incomplete(total, lacks, has, place, self._tables[code][0])

    def components(self, database: Database, rows: Path, name: str, given_ids: bool) -> Components | None:
        """The components of numbers that are the same query or passage; None if every number is one by itself.

        Numbers are the same where the source says that they share a text, or where rows have one id for them.

        `name` is the column of `rows` (`rows.parquet`) that holds these numbers, `query` or `passage`.
        """
        components = Components(len(self))
        with database.session() as db:
            shared = [str(code) for code, (_, table) in enumerate(self._tables) if table.shares_texts]
            if shared:
                query = f"FROM {self.numbered_items} WHERE code IN ({', '.join(shared)})"
                _link_equal(db, components, f"SELECT code, text AS label, number {query}")
            if given_ids:
                columns = f"SELECT 0 AS code, {name}_id AS label, {name} AS number"
                _link_equal(db, components, f"{columns} FROM {parquet(rows)}")
        return components if components.linked else None

    def write_arrays(
        self, found: Iterable[list[Int64s]], path: Callable[[str], Path], bound: int, length: int, absent: int
    ) -> list[ArrayWriter]:
        """Write an array of `length` numbers below `bound` for each language; the caller closes them.

        `found` has blocks of (code of the language, index in the array, number), sorted by the first two; `absent` is
        the number at other indices. `path` gives the file of a language's array.
        """
        writers: dict[int, ArrayWriter] = {}
        for code, (_, at, numbers) in by_code(found):
            if code not in writers:
                writers[code] = ArrayWriter(path(self.languages[code]), bound)
            writer = writers[code]
            writer.fill(absent, int(at[0]))
            block = np.full(int(at[-1]) + 1 - writer.length, absent, np.int64)
            block[at - writer.length] = numbers
            writer.extend(block)
        for writer in writers.values():
            writer.fill(absent, length)
        return list(writers.values())

    def _place(self, language: str) -> Path:
        return self.folder / f"place.{self.name}.{language}.npy"

    @property
    def items(self) -> str:
        """All items as an SQL table: code of the language, item, key, row of the text in its column, place."""
        parts: dict[PartTables, list[tuple[int, int]]] = {}
        for code, (part, table) in enumerate(self._tables):
            parts.setdefault(part, []).append((table.number, code))
        queries = [
            f"SELECT c.code, item, key, text, place FROM {parquet(part.items)} "
            f"JOIN (VALUES {', '.join(f'({tab}, {code}::BIGINT)' for tab, code in codes)}) c(tab, code) USING (tab)"
            for part, codes in parts.items()
        ]
        return f"({' UNION ALL '.join(queries)})"

    @property
    def numbered_items(self) -> str:
        """The table `items`, joined with the number of each."""
        return f"{self.items} JOIN (SELECT key, number FROM {parquet(self.numbers)}) USING (key)"


def _link_equal(db: Session, components: Components, query: str) -> None:
    """Link the numbers that have equal (code, label) in the result of `query`: (code, label, number)."""
    first = f"SELECT code, label, min(number) AS first FROM ({query}) GROUP BY ALL HAVING min(number) < max(number)"
    edges = f"SELECT DISTINCT first, number FROM ({query}) JOIN ({first}) USING (code, label) WHERE number > first"
    for a, b in db.blocks(edges):
        components.link(a, b)


def write_patterns(database: Database, queries: Side, passages: Side, rows: Rows, folder: Path) -> dict[str, Any]:
    """Find the availability patterns of the rows (see `SourceIndex`), in the order of their bits.

    Where there are several, the pattern of each row goes to `pattern_of_row.npy`. Returns the manifest's entries.
    """
    sides = {"q": queries, "p": passages}
    bits = ", ".join(f"{x}.{name} AS {x}{name}" for x, side in sides.items() for name in side.bits)
    names = [f"{x}{name}" for x, side in sides.items() for name in side.bits]
    with database.session() as db:
        of_query = f"JOIN {parquet(queries.numbers)} q ON q.number = r.query"
        of_passage = f"JOIN {parquet(passages.numbers)} p ON p.number = r.passage"
        row_bits = f"(SELECT r.row, {bits} FROM {parquet(rows.numbers)} r {of_query} {of_passage})"
        columns = ", ".join(names)
        found = db.rows(f"SELECT {columns}, count(*) FROM {row_bits} GROUP BY {columns} ORDER BY {columns}")
        if len(found) > 1:
            known = ", ".join(f"({', '.join(map(str, pattern))}, {n})" for n, (*pattern, _) in enumerate(found))
            writer = ArrayWriter(folder / "pattern_of_row.npy", len(found))
            query = f"FROM {row_bits} JOIN (VALUES {known}) k({columns}, pattern) USING ({columns}) ORDER BY row"
            for (pattern_of_row,) in db.blocks(f"SELECT pattern::BIGINT {query}"):
                writer.extend(pattern_of_row)
            writer.close()
    cut = len(queries.bits)
    query_sets = [queries.languages_of(pattern[:cut]) for *pattern, _ in found]
    passage_sets = [passages.languages_of(pattern[cut:]) for *pattern, _ in found]
    # Not the languages that only negatives have.
    languages = sorted(set().union(*query_sets, *passage_sets))
    return {
        "languages": languages,
        "query_patterns": [[x in own for x in languages] for own in query_sets],
        "passage_patterns": [[x in own for x in languages] for own in passage_sets],
        "pattern_counts": [rows_of_it for *_, rows_of_it in found],
    }
