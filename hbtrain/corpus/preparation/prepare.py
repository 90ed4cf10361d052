"""`prepare`: a raw source becomes a corpus on disk, stage by stage; interrupted at any point, the same call goes on.

Stages: the texts of each part (`texts`), numbers for queries and passages over all languages (`numbering`), the rows
(`pairs`), which of them conflict (`identities`, `order`), which languages they have (`patterns`), and the corpus's own
folder with its manifest, which then takes its place in one step.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.files import file_size, is_remote
from hbtrain.corpus.preparation.identities import all_differ, identified, identities
from hbtrain.corpus.preparation.keys import KeyIndex
from hbtrain.corpus.prepared import FORMAT, MANIFEST, read_prepared, write_manifest
from hbtrain.corpus.preparation.numbering import Numbering
from hbtrain.corpus.preparation.numbers import blocks, count, save_npy
from hbtrain.corpus.preparation.order import write_order
from hbtrain.corpus.preparation.pairs import Rows, write_rows
from hbtrain.corpus.preparation.patterns import write_patterns
from hbtrain.corpus.preparation.staging import Staging, staging_of, unwritable
from hbtrain.corpus.preparation.tables import Table
from hbtrain.corpus.preparation.texts import write_texts
from hbtrain.corpus.readers.items import Reader
from hbtrain.errors import DataError, StorageError

DROPS = "drops.jsonl"
Progress = Callable[[str, int], None]
"""Called with what is being done and how much of it is."""


@dataclass(frozen=True)
class Prepared:
    """A corpus that is whole.

    Attributes:
        folder: where it is.
        manifest: what it holds.
        fresh: whether this call has written it; else it was there.
    """

    folder: Path
    manifest: dict[str, Any]
    fresh: bool


def prepare(reader: Reader, output: Path, skip_bad_rows: bool = False, progress: Progress | None = None) -> Prepared:
    """Make the corpus of `reader` in the folder `output`; where it is already, nothing is done.

    Args:
        reader: the raw source.
        output: a folder that is not there, is empty, or holds this very corpus.
        skip_bad_rows: list them in `drops.jsonl` instead of raising at the first.
        progress: told of what is done.

    Raises:
        DataError: a bad row or a broken file, with its place; a source without rows.
        StorageError: the folder holds something else, is being written by another process, or cannot be written.
    """
    output = output.expanduser()
    request = {
        "reader": reader.kind,
        "options": reader.options,
        "skip_bad_rows": skip_bad_rows,
        "inputs": [{"path": path, "bytes": file_size(path)} for path in reader.inputs],
    }
    if there := _there(output, request):
        return Prepared(output, there, fresh=False)
    with staging_of(output, request | {"format": FORMAT, "changed": _times(reader)}) as staging:
        _Preparation(reader, staging, skip_bad_rows, progress or (lambda what, done: None)).run(request)
        manifest = read_prepared(staging.path("corpus"))
        staging.finish(staging.path("corpus"), output)
    return Prepared(output, manifest, fresh=True)


def _there(output: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    try:
        if not output.exists() or (output.is_dir() and not any(output.iterdir())):
            return None
    except OSError as error:
        raise unwritable(output, error) from error
    if (output / MANIFEST).is_file():
        manifest = read_prepared(output)
        if {key: manifest.get(key) for key in request} == request:
            return manifest
        raise StorageError(f"{output} holds a corpus of other inputs or options; give another --output, or delete it")
    raise StorageError(f"{output} is there and holds no prepared corpus; give another --output")


def _times(reader: Reader) -> list[int | None]:
    """When local inputs were changed: a changed file makes what is staged void."""
    return [None if is_remote(path) else os.stat(path).st_mtime_ns for path in reader.inputs]  # noqa: PTH116


class _Preparation:
    """One run through the stages."""

    def __init__(self, reader: Reader, staging: Staging, skip: bool, progress: Progress) -> None:
        self._reader = reader
        self._staging = staging
        self._skip = skip
        self._progress = progress
        self._drop_files: list[Path] = []
        self._dropped: Counter[str] = Counter()

    def run(self, request: dict[str, Any]) -> None:
        """All stages, up to the corpus's own folder with its manifest."""
        tables = self._texts()
        sides = ("query",) if self._reader.sentences else ("query", "passage")
        for side in sides:
            if not tables[side]:
                raise DataError(f"the source holds no {side} texts ({', '.join(self._reader.inputs[:3])})")
        numberings = {side: self._number(side, tables[side]) for side in sides}
        queries, passages = numberings["query"], numberings[sides[-1]]
        rows = self._rows(queries, passages)
        if not len(rows):
            raise DataError(f"the source holds no rows ({', '.join(self._reader.inputs[:3])})")
        ids = self._staging.stage("ids", lambda folder: self._ids(folder, rows, queries, passages))
        order = self._staging.stage("order", lambda folder: self._order(folder, rows, queries, passages))
        languages = (list(tables["query"]), list(tables[sides[-1]]))
        patterns = self._staging.stage(
            "patterns",
            lambda folder: write_patterns(
                rows, (queries.patterns(), passages.patterns()), languages, folder / "pattern_of_row.npy"
            ),
        )
        content = request | {
            "rows": len(rows),
            "sentences": self._reader.sentences,
            "negative_languages": [],
            "negatives_per_row": rows.negatives_per_row(),
            "texts": {side: {x: table.texts for x, table in tables[side].items()} for side in sides},
            "dropped": dict(sorted(self._dropped.items())),
        }
        self._staging.stage(
            "corpus",
            lambda folder: self._collect(folder, content | patterns | order, tables, numberings, rows, ids),
        )

    def _texts(self) -> dict[str, dict[str, Table]]:
        """Tables by side and language, languages in the order of the alphabet."""
        found: dict[str, dict[str, Path]] = {"query": {}, "passage": {}}
        for number, part in enumerate(self._reader.parts()):
            name = f"texts-{number}"

            def work(folder: Path, part: Any = part) -> dict[str, Any]:
                with Drops(self._skip, folder / DROPS) as drops:
                    counts = write_texts(
                        part,
                        self._reader.content_keys,
                        drops,
                        folder,
                        lambda done: self._progress(f"texts {part.name}", done),
                    )
                return {"tables": counts, "dropped": dict(drops.counts)}

            result = self._staging.stage(name, work)
            self._dropped.update(result["dropped"])
            self._drop_files.append(self._staging.path(name) / DROPS)
            for table in result["tables"]:
                side, _, language = table.partition(".")
                if language in found[side]:
                    raise DataError(f"two inputs hold {side} texts in {language}; the second is {part.name}")
                found[side][language] = self._staging.path(name) / table
        return {side: {x: Table(paths[x]) for x in sorted(paths)} for side, paths in found.items()}

    def _number(self, side: str, tables: dict[str, Table]) -> Numbering:
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
        def work(folder: Path) -> dict[str, Any]:
            with Drops(self._skip, folder / DROPS) as drops:
                pairs = self._reader.pairs(drops)
                keys = self._query_of_id(folder / "query_of_id")
                write_rows(
                    pairs,
                    queries.find_complete if self._reader.complete else queries.index.find,
                    passages.find_complete if self._reader.complete else passages.index.find,
                    keys,
                    drops,
                    folder / "rows",
                    lambda done: self._progress("rows", done),
                )
            return {"dropped": dict(drops.counts)}

        self._dropped.update(self._staging.stage("rows", work)["dropped"])
        self._drop_files.append(self._staging.path("rows") / DROPS)
        return Rows.of(self._staging.path("rows") / "rows")

    def _query_of_id(self, folder: Path) -> KeyIndex | None:
        parts = [self._staging.path(f"texts-{number}") for number in range(len(self._reader.parts()))]
        length = sum(count(part / "ids") for part in parts)
        if not length:
            return None
        pairs = (both for part in parts for both in zip(blocks(part / "ids"), blocks(part / "id_keys"), strict=True))
        return KeyIndex.build(pairs, length, folder)

    def _ids(self, folder: Path, rows: Rows, queries: Numbering, passages: Numbering) -> dict[str, Any]:
        """Identities of the rows' queries and passages, as raw numbers and as the corpus keeps them."""
        self._progress("which rows share a query or a passage", 0)
        distinct: dict[str, Any] = {}
        for side, numbering, numbers, given in (
            ("query", queries, rows.queries, rows.query_ids),
            ("passage", passages, rows.passages, rows.passage_ids),
        ):
            components = identities(numbering, numbers, given, folder / side)
            with (folder / f"{side}.raw").open("wb") as stream:
                for block in identified(components, numbers):
                    stream.write(block.astype("<i8").tobytes())
            distinct[side] = all_differ(folder / f"{side}.raw")
            if not distinct[side]:
                self._save(blocks(folder / f"{side}.raw"), folder / f"{side}_ids.npy", len(rows), len(numbering))
            if side == "passage" and components is not None and count(rows.negatives):
                self._save(components.blocks(), folder / "passage_identity.npy", len(numbering), len(numbering))
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

    def _collect(
        self,
        folder: Path,
        content: dict[str, Any],
        tables: dict[str, dict[str, Table]],
        numberings: dict[str, Numbering],
        rows: Rows,
        distinct: dict[str, Any],
    ) -> dict[str, Any]:
        """The corpus's folder, its manifest last."""
        self._progress("writing the corpus", 0)
        for side, numbering in numberings.items():
            for code, (language, table) in enumerate(tables[side].items()):
                os.link(table.column, folder / f"{side}.{language}.arrow")
                if (found := numbering.rows(code)) is not None:
                    self._save(blocks(found), folder / f"place.{side}.{language}.npy", len(numbering), len(table))
        for path in (*self._staging.path("ids").glob("*.npy"), *self._staging.path("order").glob("*.npy")):
            os.link(path, folder / path.name)
        for path in self._staging.path("patterns").glob("*.npy"):
            os.link(path, folder / path.name)
        for side, numbers in (("query", rows.queries), ("passage", rows.passages)):
            numbering = numberings.get(side, numberings["query"])
            if not all_differ(numbers):
                self._save(blocks(numbers), folder / f"{side}_of_row.npy", len(rows), len(numbering))
        if count(rows.negatives):
            passages = numberings.get("passage", numberings["query"])
            self._save(blocks(rows.negatives), folder / "negatives.npy", count(rows.negatives), len(passages))
            if content["negatives_per_row"] is None:
                length = count(rows.negatives)
                self._save(_starts(rows.negative_counts), folder / "negative_starts.npy", len(rows) + 1, length + 1)
        if self._dropped:
            with (folder / DROPS).open("wb") as stream:
                for path in self._drop_files:
                    with path.open("rb") as part:
                        shutil.copyfileobj(part, stream)
        write_manifest(folder, content | {"distinct": distinct})
        return {}

    @staticmethod
    def _save(parts: Any, path: Path, length: int, bound: int) -> None:
        save_npy(parts, path, length, bound)


def _check_complete(numbering: Numbering, side: str, tables: dict[str, Table]) -> None:
    if (found := numbering.incomplete()) is None:
        return
    lacking, lacks, has, item = found
    languages = list(tables)
    raise DataError(
        f"{tables[languages[has]].place(item)}: a {side} id that {languages[lacks]} lacks, one of {lacking:,} that are not "
        "in every language; fetch the files again, or give --allow-missing where rows may lack languages"
    )


def _starts(counts: Path) -> Iterator[Any]:
    """[rows + 1]: where each row's negatives begin."""
    done = 0
    yield np.zeros(1, np.int64)
    for block in blocks(counts):
        yield done + np.cumsum(block)
        done += int(block.sum())
