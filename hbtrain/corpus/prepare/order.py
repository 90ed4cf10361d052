"""Finds which rows share a query or a passage, and orders rows so that the batch plan can keep these apart.

Rows share a query or passage where its identity is equal, a number. Files:
    `ids.parquet`: the identities of each row, for the stages of the preparation.
    `query_ids.npy`, `passage_ids.npy`: the same for the corpus; absent where all differ, or where they are the numbers
        of the row's query or passage.
    `passage_identity.npy`: the identity of each passage number; absent where it is the number itself.
    `order.npy`: the rows in the order of `hbtrain.corpus.conflicts.cluster_order`; clusters of one size are ordered by
        their smallest query identity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.columns import CHUNK, TextColumn
from hbtrain.corpus.conflicts import Components, Int64s, size_classes
from hbtrain.corpus.negatives import digest_number
from hbtrain.corpus.prepare.alignment import Side
from hbtrain.corpus.prepare.database import ArrayWriter, Database, NumberWriter, blocks, count, numbers_below, parquet
from hbtrain.corpus.prepare.rows import Rows

IDS = "ids.parquet"


@dataclass(frozen=True)
class Coding:
    """Numbers the identities of queries or passages from 0 on in ascending order, as nodes of a graph."""

    codes: int  # how many nodes there are
    identities: Int64s | None = None  # int64 [codes], ascending; None: an identity is its own node

    @classmethod
    def of_ids(cls, database: Database, ids: Path, side: str) -> Coding:
        """The numbering of the identities in column `side` of `ids.parquet`, which may be any numbers."""
        with database.session() as db:
            found = list(db.blocks(f"SELECT DISTINCT {side} FROM {parquet(ids)} ORDER BY {side}"))
        identities = np.concatenate([block for (block,) in found])
        return cls(len(identities), identities)

    def of(self, identities: Int64s) -> Int64s:
        """int64 [n]: the node of each identity (int64 [n])."""
        return identities if self.identities is None else np.searchsorted(self.identities, identities)


def write_ids(database: Database, queries: Side, passages: Side, rows: Rows, folder: Path) -> dict[str, bool]:
    """Write the identities of the rows' queries and passages; returns {side: whether all differ}.

    A query or passage is identified by the smallest number that is the same (see `Side.components`).
    """
    sides = {"query": queries, "passage": passages}
    given = dict(zip(sides, rows.given_ids, strict=True))
    components = {x: side.components(database, rows.numbers, x, given[x]) for x, side in sides.items()}
    arrays = _write_rows(rows, components, max(map(len, sides.values())), folder)
    distinct = {x: array.counts_up for x, array in arrays.items()}
    for x, array in arrays.items():
        array.close(wanted=components[x] is not None and not distinct[x])
    linked = components["passage"]
    if linked is not None and rows.negatives:
        identity = ArrayWriter(folder / "passage_identity.npy", len(passages))
        for numbers in numbers_below(len(passages)):
            identity.extend(linked.of(numbers))
        identity.close()
    return distinct


def write_given_ids(database: Database, passages: Side, rows: Rows, folder: Path) -> dict[str, bool]:
    """As `write_ids`, but a query or passage is identified by the digest of the id that its row gives.

    A negative is then identified by its text in the language it is asked for: if it equals, letter by letter, a row's
    passage in any language, it has that passage's identity (that of the first such row), else a number below zero that
    is made of the text. `passage_identity.<language>.npy` holds these for each passage number.
    """
    arrays = _write_rows(rows, {"query_id": None, "passage_id": None}, 2**63, folder)
    distinct = {}
    with database.session() as db:
        for x, array in zip(("query", "passage"), arrays.values(), strict=True):
            repeated = f"SELECT 1 FROM {parquet(folder / IDS)} GROUP BY {x} HAVING count(*) > 1 LIMIT 1"
            distinct[x] = not db.rows(repeated)
            array.close(wanted=not distinct[x])
    if rows.negatives:
        _write_text_identities(database, passages, rows, distinct["passage"], folder)
    return distinct


def _write_rows(
    rows: Rows, columns: Mapping[str, Components | None], bound: int, folder: Path
) -> dict[str, ArrayWriter]:
    """Write `ids.parquet` and the arrays of ids, all below `bound`, which the caller closes.

    `columns` is {column of `rows.parquet` that identifies queries, then passages: components of its numbers, if any}.
    """
    names = ("query", "passage")
    arrays = {x: ArrayWriter(folder / f"{name}_ids.npy", bound) for x, name in zip(columns, names, strict=True)}
    with NumberWriter(folder / IDS, ("row", *names)) as writer:
        for row, *found in blocks(rows.numbers, "row", *columns):
            both = zip(found, columns.values(), strict=True)
            own = [block if linked is None else linked.of(block) for block, linked in both]
            writer.extend(row, *own)
            for array, block in zip(arrays.values(), own, strict=True):
                array.extend(block)
    return arrays


def _write_text_identities(database: Database, passages: Side, rows: Rows, rows_are_ids: bool, folder: Path) -> None:
    """Write `passage_identity.<language>.npy`; with `rows_are_ids`, a row's number is the identity of its passage."""
    digests = folder / "digests.parquet"
    with NumberWriter(digests, ("code", "text", "digest")) as writer:
        for code, path in enumerate(passages.columns().values()):
            column = TextColumn(path)
            for start in range(0, len(column), CHUNK):
                at = np.arange(start, min(start + CHUNK, len(column)), dtype=np.int64)
                own = np.array([digest_number(text or "") for text in column.get(at)], np.int64)
                writer.extend(np.full(len(at), code, np.int64), at, own)
    with database.session() as db:
        items = passages.numbered_items
        db.table("texts", f"SELECT code, number, digest FROM {items} JOIN {parquet(digests)} USING (code, text)")
        row_of = f"SELECT digest, row FROM texts JOIN {parquet(rows.numbers)} r ON r.passage = texts.number"
        db.table("first_rows", f"SELECT digest, min(row) AS row FROM ({row_of}) GROUP BY digest")
        identity = "row" if rows_are_ids else "passage"
        found = db.blocks(
            f"SELECT code, number, coalesce({identity}, -1 - digest) FROM texts LEFT JOIN first_rows USING (digest) "
            f"LEFT JOIN {parquet(folder / IDS)} USING (row) ORDER BY code, number"
        )
        for array in passages.write_arrays(
            found, lambda language: folder / f"passage_identity.{language}.npy", 2**63, len(passages), 0
        ):
            array.close()
    digests.unlink()


def write_order(database: Database, ids: Path, coding: tuple[Coding, Coding], folder: Path) -> dict[str, Any]:
    """Write `order.npy`, unless no two rows conflict; returns the manifest's entries.

    `ids` is `ids.parquet`, `coding` that of queries and of passages.
    """
    queries, passages = coding
    components = Components(queries.codes + passages.codes)
    for query, passage in blocks(ids, "query", "passage"):
        components.link(queries.of(query), queries.codes + passages.of(passage))
    clusters = folder / "clusters.parquet"
    with NumberWriter(clusters, ("row", "cluster", "passage")) as writer:
        for row, query, passage in blocks(ids, "row", "query", "passage"):
            # The smallest node of a component is a query, since queries come first.
            writer.extend(row, components.of(queries.of(query)), passage)
    del components
    with database.session() as db:
        db.table("sizes", f"SELECT cluster, count(*) AS size FROM {parquet(clusters)} GROUP BY cluster")
        found = db.rows("SELECT size, count(*) FROM sizes GROUP BY size ORDER BY size DESC")
        if found[0][0] > 1:
            order = ArrayWriter(folder / "order.npy", count(ids))
            laid_out = f"FROM {parquet(clusters)} JOIN sizes USING (cluster) ORDER BY size DESC, cluster, passage, row"
            for (rows,) in db.blocks(f"SELECT row {laid_out}"):
                order.extend(rows)
            order.close()
    clusters.unlink()
    classes = size_classes([size for size, _ in found], [many for _, many in found])
    return {"classes": [[c.size, c.clusters, c.start] for c in classes] if found[0][0] > 1 else None}
