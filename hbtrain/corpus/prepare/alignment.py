"""One number for each query or passage, in whatever languages: tables of several languages aligned by key.

Files of a side: `numbers.parquet` (key, number, and from `bits0` on which tables have it, `BITS` of them a column) and
`place.<side>.<language>.npy` (for each number its row in the column of that language, -1 for none; absent where that is
the number itself).
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

BITS = 60
"""Languages that one column of numbers tells of."""
ITEM_SHIFT = 40
"""Items are ordered by the number of their table times 2**40, plus their place in it."""


class Incomplete(NamedTuple):
    """Numbers that some tables lack.

    Attributes:
        total: how many.
        lacks: a language that lacks the first.
        has: a language that has it.
        place: where it stands there, as a number of the part.
        part: that of the language that has it.
    """

    total: int
    lacks: str
    has: str
    place: int
    part: PartTables


class Side:
    """The numbers of one side.

    Items are numbered as they come in the first table; those that only later tables have follow.

    Attributes:
        name: query or passage.
        languages: by the alphabet.
    """

    def __init__(self, name: str, tables: dict[str, tuple[PartTables, Table]], folder: Path) -> None:
        """`tables`: by language, each with its part; `folder`: of the files."""
        self.name = name
        self.languages = sorted(tables)
        self.folder = folder
        self.numbers = folder / "numbers.parquet"
        self._tables = [tables[language] for language in self.languages]

    def __len__(self) -> int:
        """Numbers given."""
        return count(self.numbers)

    @property
    def texts(self) -> dict[str, int]:
        """Texts of each language."""
        return {table.language: table.texts for _, table in self._tables}

    def columns(self) -> dict[str, Path]:
        """The file of texts of each language."""
        return {table.language: table.column(part.folder) for part, table in self._tables}

    @property
    def bits(self) -> list[str]:
        """The columns that tell which tables have a number."""
        return [f"bits{i}" for i in range(-(-len(self._tables) // BITS))]

    def languages_of(self, bits: Sequence[int]) -> set[str]:
        """The languages that such columns tell of."""
        return {x for code, x in enumerate(self.languages) if bits[code // BITS] >> code % BITS & 1}

    @property
    def complete(self) -> str:
        """The condition that all tables have a number."""
        full = [(1 << min(BITS, len(self._tables) - BITS * i)) - 1 for i in range(len(self.bits))]
        return " AND ".join(f"{name} = {bits}" for name, bits in zip(self.bits, full, strict=True))

    def of_keys(self, complete: bool) -> str:
        """The query of (key, number); of those in all tables only, if `complete`."""
        return f"SELECT key, number FROM {parquet(self.numbers)}" + (f" WHERE {self.complete}" if complete else "")

    def align(self, database: Database) -> None:
        """Give the numbers, and say where their texts are."""
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
        """What some tables lack; None: all have all."""
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
        """Numbers that stand for one thing; None: each stands for itself.

        Items that share a text, because the source says so, and rows of one given id are one.

        Args:
            database: for the queries.
            rows: the numbers of the rows.
            name: what they are to the rows, query or passage.
            given_ids: whether rows have ids for them.
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
        """Arrays of `length` numbers, one a language, with `absent` where nothing is found; not closed yet.

        Args:
            found: (code of the language, place, number) in blocks, sorted by the first two.
            path: of the array of a language.
            bound: numbers are below it.
            length: of each array.
            absent: a number.
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
        """All items, for a FROM clause: number of the table among the languages, item, key, row of the text, place."""
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
        """The same with the number of each."""
        return f"{self.items} JOIN (SELECT key, number FROM {parquet(self.numbers)}) USING (key)"


def _link_equal(db: Session, components: Components, query: str) -> None:
    """Link numbers of one label; `query` gives (code, label, number), and labels differ from code to code."""
    first = f"SELECT code, label, min(number) AS first FROM ({query}) GROUP BY ALL HAVING min(number) < max(number)"
    edges = f"SELECT DISTINCT first, number FROM ({query}) JOIN ({first}) USING (code, label) WHERE number > first"
    for a, b in db.blocks(edges):
        components.link(a, b)


def write_patterns(database: Database, queries: Side, passages: Side, rows: Rows, folder: Path) -> dict[str, Any]:
    """What the manifest says of availability patterns: which languages a row's query has, and which its passage.

    Patterns are in the order of their bits; that of each row goes to `pattern_of_row.npy` where there are several.
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
    # A language that only negatives have is none of the rows'.
    languages = sorted(set().union(*query_sets, *passage_sets))
    return {
        "languages": languages,
        "query_patterns": [[x in own for x in languages] for own in query_sets],
        "passage_patterns": [[x in own for x in languages] for own in passage_sets],
        "pattern_counts": [rows_of_it for *_, rows_of_it in found],
    }
