"""The stages of a preparation, each from files to files.

The texts of each part (`texts`), numbers for queries and passages over all languages (`numbering`), the rows (`pairs`),
which of them share a query or a passage (`identities`) and the order that keeps these apart (`order`), which languages
they have (`patterns`), and the corpus's own folder (`collect`).
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.preparation.collect import DROPS, Parts, collect
from hbtrain.corpus.preparation.identities import all_differ, identified, identities
from hbtrain.corpus.preparation.keys import KeyIndex
from hbtrain.corpus.preparation.numbering import Numbering
from hbtrain.corpus.preparation.numbers import blocks, count, save_npy
from hbtrain.corpus.preparation.order import write_order
from hbtrain.corpus.preparation.pairs import Rows, write_rows
from hbtrain.corpus.preparation.patterns import write_patterns
from hbtrain.corpus.preparation.staging import Staging
from hbtrain.corpus.preparation.tables import Table
from hbtrain.corpus.preparation.texts import write_texts
from hbtrain.corpus.readers.items import Part, Reader, check_languages
from hbtrain.errors import DataError

SHOWN = 3
"""Inputs that a message names."""
Tables = dict[str, Table]
"""By language, in the order of the alphabet."""


class Preparation:
    """One run through the stages."""

    def __init__(self, reader: Reader, staging: Staging, skip: bool, progress: Callable[[str, int], None]) -> None:
        self._reader = reader
        self._staging = staging
        self._skip = skip
        self._progress = progress
        self._drop_files: list[Path] = []
        self._dropped: Counter[str] = Counter()

    def run(self, request: dict[str, Any]) -> Path:
        """All stages; returns the corpus's folder, whose manifest holds `request`."""
        tables = self._texts()
        queries = self._number("query", tables["query"])
        passages = queries if self._reader.sentences else self._number("passage", tables["passage"])
        passage_tables = tables["query" if self._reader.sentences else "passage"]
        rows = self._rows(queries, passages)
        if not len(rows):
            raise DataError(f"the source holds no rows ({self._inputs})")
        distinct = self._staging.stage("ids", lambda folder: self._ids(folder, rows, queries, passages))
        order = self._staging.stage("order", lambda folder: self._order(folder, rows, queries, passages))
        patterns = self._staging.stage(
            "patterns",
            lambda folder: write_patterns(
                rows,
                (queries.patterns(), passages.patterns()),
                (list(tables["query"]), list(passage_tables)),
                folder / "pattern_of_row.npy",
            ),
        )
        sides = {"query": (tables["query"], queries), "passage": (passage_tables, passages)}
        if self._reader.sentences:
            del sides["passage"]
        content = {
            "rows": len(rows),
            "sentences": self._reader.sentences,
            "negatives_per_row": rows.negatives_per_row(),
            "texts": {side: {x: table.texts for x, table in own.items()} for side, (own, _) in sides.items()},
            "dropped": dict(sorted(self._dropped.items())),
            "distinct": distinct,
        }
        stages = [self._staging.path(name) for name in ("ids", "order", "patterns")]
        parts = Parts(sides, passages, rows, stages, self._drop_files if self._dropped else [])
        self._progress("writing the corpus", 0)
        self._staging.stage("corpus", lambda folder: collect(parts, request | content | patterns | order, folder))
        return self._staging.path("corpus")

    def _texts(self) -> dict[str, Tables]:
        """Tables by side."""
        found: dict[str, dict[str, Path]] = {"query": {}, "passage": {}}
        for number, part in enumerate(self._reader.parts()):
            name = f"texts-{number}"
            result = self._staging.stage(name, partial(self._part, part))
            self._dropped.update(result["dropped"])
            self._drop_files.append(self._staging.path(name) / DROPS)
            for table in result["tables"]:
                side, _, language = table.partition(".")
                if language in found[side]:
                    raise DataError(f"two inputs hold {side} texts in {language}; the second is {part.name}")
                found[side][language] = self._staging.path(name) / table
        for side in ("query",) if self._reader.sentences else ("query", "passage"):
            if not found[side]:
                raise DataError(f"the source holds no {side} texts ({self._inputs})")
            check_languages(len(found[side]), f"the source ({self._inputs})")
        return {side: {x: Table(paths[x]) for x in sorted(paths)} for side, paths in found.items()}

    @property
    def _inputs(self) -> str:
        return ", ".join(self._reader.inputs[:SHOWN]) or self._reader.kind

    def _part(self, part: Part, folder: Path) -> dict[str, Any]:
        with Drops(self._skip, folder / DROPS) as drops:
            counts = write_texts(
                part,
                self._reader.content_keys,
                drops,
                folder,
                lambda done: self._progress(f"texts {part.name}", done),
            )
        return {"tables": counts, "dropped": dict(drops.counts)}

    def _number(self, side: str, tables: Tables) -> Numbering:
        name = f"numbering-{side}"

        def work(folder: Path) -> dict[str, Any]:
            self._progress(f"aligning {side} languages", 0)
            numbering = Numbering.build(list(tables.values()), folder / "numbers")
            if self._reader.complete and not self._skip:
                _check_complete(numbering, side, tables)
            return {}

        self._staging.stage(name, work)
        return Numbering(self._staging.path(name) / "numbers", list(tables.values()))

    def _rows(self, queries: Numbering, passages: Numbering) -> Rows:
        finders = [x.find_complete if self._reader.complete else x.index.find for x in (queries, passages)]

        def work(folder: Path) -> dict[str, Any]:
            query_of_id = self._query_of_id(folder / "query_of_id")
            with Drops(self._skip, folder / DROPS) as drops:
                pairs = self._reader.pairs(drops)
                told = partial(self._progress, "rows")
                write_rows(pairs, finders[0], finders[1], query_of_id, drops, folder / "rows", told)
            return {"dropped": dict(drops.counts)}

        self._dropped.update(self._staging.stage("rows", work)["dropped"])
        self._drop_files.append(self._staging.path("rows") / DROPS)
        return Rows.of(self._staging.path("rows") / "rows")

    def _query_of_id(self, folder: Path) -> KeyIndex | None:
        """The first query of each id, where keys are made of texts and there are ids."""
        parts = [self._staging.path(f"texts-{number}") for number in range(len(self._reader.parts()))]
        length = sum(count(part / "ids") for part in parts)
        if not length:
            return None
        pairs = (both for part in parts for both in zip(blocks(part / "ids"), blocks(part / "id_keys"), strict=True))
        return KeyIndex.build(pairs, length, folder)

    def _ids(self, folder: Path, rows: Rows, queries: Numbering, passages: Numbering) -> dict[str, bool]:
        """Identities of the rows' queries and passages; returns of which side all differ."""
        self._progress("which rows share a query or a passage", 0)
        distinct = {}
        for side, numbering, numbers, given in (
            ("query", queries, rows.queries, rows.query_ids),
            ("passage", passages, rows.passages, rows.passage_ids),
        ):
            components = identities(numbering, numbers, given, folder / side)
            raw = folder / f"{side}.raw"
            with raw.open("wb") as stream:
                for block in identified(components, numbers):
                    stream.write(block.astype("<i8").tobytes())
            distinct[side] = all_differ(raw)
            if components is not None and not distinct[side]:
                save_npy(blocks(raw), folder / f"{side}_ids.npy", len(rows), len(numbering))
            if components is not None and side == "passage" and count(rows.negatives):
                save_npy(components.blocks(), folder / "passage_identity.npy", len(numbering), len(numbering))
        return distinct

    def _order(self, folder: Path, rows: Rows, queries: Numbering, passages: Numbering) -> dict[str, Any]:
        self._progress("an order that keeps conflicting rows apart", 0)
        ids = [self._staging.path("ids") / f"{side}.raw" for side in ("query", "passage")]
        classes = write_order(
            lambda: zip(blocks(ids[0]), blocks(ids[1]), strict=True),
            len(rows),
            len(queries),
            len(passages),
            folder / "work",
            folder / "order.npy",
        )
        shutil.rmtree(folder / "work")
        return {"classes": None if classes is None else [[c.size, c.clusters, c.start] for c in classes]}


def _check_complete(numbering: Numbering, side: str, tables: Tables) -> None:
    found = numbering.incomplete()
    if found is not None:
        languages = list(tables)
        place = tables[languages[found.has]].place(found.item)
        raise DataError(
            f"{place}: a {side} id that {languages[found.lacks]} lacks, one of {found.total:,} that are not in every "
            "language; fetch the files again, or give --allow-missing where rows may lack languages"
        )
