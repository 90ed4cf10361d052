"""The stages of a preparation. Each reads files of earlier stages and writes files to a folder of its own.

They write the texts of each part (`text_tables`), give queries and passages numbers (`alignment`), make the rows
(`rows`), find those that share a query or a passage and order them (`order`), find which languages rows have
(`alignment`), and bring the files of the corpus together.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.prepare.alignment import Side, write_patterns
from hbtrain.corpus.prepare.database import Database, linked_file
from hbtrain.corpus.prepare.order import IDS, Coding, write_given_ids, write_ids, write_order
from hbtrain.corpus.prepare.rows import PAIRS, PART_SHIFT, PROGRESS_EVERY, PairWriter, RowInputs, Rows, write_rows
from hbtrain.corpus.prepare.staging import Staging
from hbtrain.corpus.prepare.text_tables import PartTables, Table, write_texts
from hbtrain.corpus.readers.items import PairItem, Part, Reader, check_languages
from hbtrain.errors import DataError

DROPS = "drops.jsonl"
SHOWN = 3  # how many inputs a message names
Tables = dict[str, dict[str, tuple[PartTables, Table]]]  # {side: {language: (part that holds its table, the table)}}


class Preparation:
    """One run through the stages.

    Attributes:
        dropped: how many bad rows were skipped, by reason.
        drop_files: the files that list them.
    """

    def __init__(
        self,
        reader: Reader,
        staging: Staging,
        database: Database,
        skip: bool = False,
        progress: Callable[[str, int], None] = lambda what, done: None,
        as_given: bool = False,
        limit: int | None = None,
    ) -> None:
        """A preparation that has done nothing yet.

        With `skip`, bad rows are skipped. With `as_given`, rows are taken as the source gives them (see
        `hbtrain.corpus.prepare.cached`): only ids say which queries and passages are the same, and there may be any
        number of languages. With `limit`, only so many pairs are read. `progress` is told what is being done, and how
        much of it is.
        """
        self.dropped: Counter[str] = Counter()
        self.drop_files: list[Path] = []
        self._reader = reader
        self._staging = staging
        self._database = database
        self._skip = skip
        self._progress = progress
        self._as_given = as_given
        self._limit = limit
        self._parts = list(reader.parts())

    def run(self) -> dict[str, Any]:
        """Do all stages but the last; returns the manifest's entries."""
        tables = self._texts()
        queries = self._align("query", tables)
        passages = queries if self._reader.sentences else self._align("passage", tables)
        rows = self._rows(queries, passages)
        if not rows.rows:
            raise DataError(f"the source holds no rows ({self._inputs})")
        distinct = self._staging.stage("ids", lambda folder: self._ids(folder, queries, passages, rows))
        order = self._staging.stage("order", lambda folder: self._order(folder, queries, passages))
        patterns = self._staging.stage(
            "patterns", lambda folder: write_patterns(self._database, queries, passages, rows, folder)
        )
        sides = [queries] if self._reader.sentences else [queries, passages]
        self._columns = {f"{x.name}.{language}": path for x in sides for language, path in x.columns().items()}
        return {
            "rows": rows.rows,
            "sentences": self._reader.sentences,
            "negatives_per_row": rows.negatives_per_row,
            "texts": {side.name: side.texts for side in sides},
            "dropped": dict(sorted(self.dropped.items())),
            "distinct": distinct,
            **patterns,
            **order,
        }

    def collect(self, folder: Path) -> None:
        """The last stage: bring the files of the corpus together in `folder`, without the manifest."""
        self._progress("writing the corpus", 0)
        for name, path in self._columns.items():
            linked_file(path, folder / f"{name}.arrow")
        for path in sorted(self._staging.folder.glob("*/*.npy")):
            if path.parent != folder:
                linked_file(path, folder / path.name)
        if self.dropped:
            with (folder / DROPS).open("wb") as stream:
                for path in self.drop_files:
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, stream)

    @property
    def _inputs(self) -> str:
        return ", ".join(self._reader.inputs[:SHOWN]) or self._reader.kind

    def _part_folder(self, number: int) -> Path:
        return self._staging.path(f"texts-{number}")

    def _texts(self) -> Tables:
        found: Tables = {"query": {}, "passage": {}}
        for number, part in enumerate(self._parts):
            folder = self._part_folder(number)
            result = self._staging.stage(folder.name, partial(self._part, number, part))
            self.dropped.update(result["dropped"])
            self.drop_files.append(folder / DROPS)
            tables = PartTables(folder, result)
            for table in tables.tables:
                if table.language in found[table.side]:
                    raise DataError(
                        f"two inputs hold {table.side} texts in {table.language}; the second is {part.name}"
                    )
                found[table.side][table.language] = tables, table
        for side in ("query",) if self._reader.sentences else ("query", "passage"):
            if not found[side]:
                raise DataError(f"the source holds no {side} texts ({self._inputs})")
            if not self._as_given:
                check_languages(len(found[side]), f"the source ({self._inputs})")
        return found

    def _part(self, number: int, part: Part, folder: Path) -> dict[str, Any]:
        with Drops(self._skip, folder / DROPS) as drops:
            progress = partial(self._progress, f"texts {part.name}")
            limited = not self._as_given
            found = write_texts(
                self._database, part, number, self._reader.content_keys, limited, drops, folder, progress
            )
        return {**found, "dropped": dict(drops.counts)}

    def _align(self, name: str, tables: Tables) -> Side:
        side = Side(name, tables[name], self._staging.path(f"numbering-{name}"))

        def work(folder: Path) -> dict[str, Any]:
            self._progress(f"aligning {name} languages", 0)
            side.align(self._database)
            if self._reader.complete and not self._skip:
                _check_complete(side, self._database)
            return {}

        self._staging.stage(side.folder.name, work)
        return side

    def _rows(self, queries: Side, passages: Side) -> Rows:
        def work(folder: Path) -> dict[str, Any]:
            parts = [self._part_folder(number) for number in range(len(self._parts))]
            with Drops(self._skip, folder / DROPS) as drops:
                own = PairWriter(folder, len(parts))
                done = 0
                for done, pair in enumerate(islice(self._reader.pairs(drops), self._limit), 1):
                    own.append(pair)
                    if done % PROGRESS_EVERY == 0:
                        self._progress("rows", done)
                own.close()
                self._progress("rows", done)
                inputs = RowInputs(
                    pairs=[*(path for path in parts if (path / PAIRS).exists()), folder],
                    ids=[path for part in parts if (path := part / "ids.parquet").exists()],
                    queries=queries.of_keys(self._reader.complete),
                    passages=passages.of_keys(self._reader.complete),
                    query_count=len(queries),
                    passage_count=len(passages),
                    again=self._pairs_again,
                )
                rows = write_rows(self._database, inputs, drops, folder)
            return {"rows": rows, "dropped": dict(drops.counts)}

        result = self._staging.stage("rows", work)
        self.dropped.update(result["dropped"])
        self.drop_files.append(self._staging.path("rows") / DROPS)
        return Rows(self._staging.path("rows"), **result["rows"])

    def _pairs_again(self) -> Iterator[tuple[int, PairItem]]:
        """(number, pair) of all pairs, read from the source once more."""
        for part, read in enumerate([*(part.read for part in self._parts), self._reader.pairs]):
            pairs = (item for item in read(Drops.silent()) if isinstance(item, PairItem))
            yield from enumerate(pairs, part << PART_SHIFT)

    def _ids(self, folder: Path, queries: Side, passages: Side, rows: Rows) -> dict[str, Any]:
        self._progress("which rows share a query or a passage", 0)
        if self._as_given:
            return write_given_ids(self._database, passages, rows, folder)
        return write_ids(self._database, queries, passages, rows, folder)

    def _order(self, folder: Path, queries: Side, passages: Side) -> dict[str, Any]:
        self._progress("an order that keeps conflicting rows apart", 0)
        ids = self._staging.path("ids") / IDS
        if self._as_given:
            coding = Coding.of_ids(self._database, ids, "query"), Coding.of_ids(self._database, ids, "passage")
        else:
            coding = Coding(len(queries)), Coding(len(passages))
        return write_order(self._database, ids, coding, folder)


def _check_complete(side: Side, database: Database) -> None:
    found = side.incomplete(database)
    if found is not None:
        raise DataError(
            f"{found.part.position(found.place)}: a {side.name} id that {found.lacks} lacks, one of {found.total:,} "
            "that are not in every language; fetch the files again, or give --allow-missing where rows may lack "
            "languages"
        )
