"""The rows of a corpus: pairs of keys as readers give them, turned into numbers; what names nothing is bad.

Pairs are first written down as digests of keys, in `pairs.parquet` and `negatives.parquet`. Once all are there, they
are joined with the numbers of keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.drops import Drops
from hbtrain.corpus.negatives import digest_number
from hbtrain.corpus.prepare.database import ArrayWriter, Database, NumberWriter, Session, blocks, parquet
from hbtrain.corpus.readers.items import PairItem

TELL_EVERY = 1 << 15
"""Pairs between two words of progress."""
PART_SHIFT = 40
"""A pair's number is that of its part times 2**40, plus its place among the part's pairs."""
PAIRS, NEGATIVES = "pairs.parquet", "negatives.parquet"
QUERY_UNKNOWN, PASSAGE_UNKNOWN, OTHER_QUERY = 0, 1, 2


class Digests:
    """Digests of keys, of which one often follows another that is equal."""

    def __init__(self) -> None:
        self._key = ""
        self._digest = digest_number("")

    def of(self, key: str) -> int:
        """The digest of a key."""
        if key != self._key:
            self._key, self._digest = key, digest_number(key)
        return self._digest


class PairWriter:
    """Writes pairs down as digests; without an id of its own, a query or passage is known by its key."""

    def __init__(self, folder: Path, part: int) -> None:
        self._number = part << PART_SHIFT
        self._pairs = NumberWriter(folder / PAIRS, ("pair", "query", "passage", "query_id", "passage_id"))
        self._negatives = NumberWriter(folder / NEGATIVES, ("pair", "nth", "key"))
        self._queries, self._passages = Digests(), Digests()

    def append(self, pair: PairItem) -> None:
        """Add a pair."""
        query, passage = self._queries.of(pair.query), self._passages.of(pair.passage)
        query_id = query if pair.query_id is None else digest_number(pair.query_id)
        passage_id = passage if pair.passage_id is None else digest_number(pair.passage_id)
        self._pairs.append((self._number, query, passage, query_id, passage_id))
        for nth, key in enumerate(pair.negatives):
            self._negatives.append((self._number, nth, digest_number(key)))
        self._number += 1

    def close(self) -> None:
        """Write what is left."""
        self._pairs.close()
        self._negatives.close()


@dataclass(frozen=True)
class Rows:
    """What there is of rows, beside the arrays in the folder.

    Attributes:
        folder: with `rows.parquet`, the numbers of each row: its own, its pair's, query, passage, and the digests of
            their ids; and with arrays of the corpus.
        rows: how many.
        negatives: of all rows.
        negatives_per_row: of each row; None: some have more than others.
        given_ids: whether queries, and whether passages, have ids that are not their keys.
    """

    folder: Path
    rows: int
    negatives: int
    negatives_per_row: int | None
    given_ids: tuple[bool, bool]

    @property
    def numbers(self) -> Path:
        """The file of numbers."""
        return self.folder / "rows.parquet"


@dataclass(frozen=True)
class RowInputs:
    """What rows are made of.

    Attributes:
        pairs: folders that `PairWriter` wrote to.
        ids: files of (id, key, item): the query that each id stands for is the one of its first item.
        queries: a query of (key, number) of the queries that rows may have.
        passages: the same of passages.
        query_count: numbers of queries.
        passage_count: numbers of passages.
        again: all pairs once more, with their numbers.
    """

    pairs: Sequence[Path]
    ids: Sequence[Path]
    queries: str
    passages: str
    query_count: int
    passage_count: int
    again: Callable[[], Iterator[tuple[int, PairItem]]]

    def files(self, name: str) -> str:
        """The rows of all files of that name, for a FROM clause."""
        return parquet([folder / name for folder in self.pairs])


def write_rows(database: Database, inputs: RowInputs, drops: Drops, folder: Path) -> dict[str, Any]:
    """Write the rows to `folder`, in the order of their pairs; returns what `Rows` says of them.

    Arrays: `query_of_row.npy`, `passage_of_row.npy` (absent where each number is the row's own), `negatives.npy` and
    `negative_starts.npy` (absent where each row has equally many).

    Args:
        database: for the queries.
        inputs: see there.
        drops: told of pairs whose query or passage is unknown, and of negatives that are; only these are left out then.
        folder: for the files.
    """
    with database.session() as db:
        rows = _number_rows(db, inputs, folder)
        _tell_bad_pairs(inputs, drops, folder / "bad.parquet")
        negatives, per_row = _write_negatives(db, inputs, rows, folder)
        _tell_bad_negatives(inputs, drops, folder / "bad_negatives.parquet")
        given = [
            bool(db.rows(f"SELECT 1 FROM {inputs.files(PAIRS)} WHERE {side}_id <> {side} LIMIT 1"))
            for side in ("query", "passage")
        ]
    return {"rows": rows, "negatives": negatives, "negatives_per_row": per_row, "given_ids": given}


def _number_rows(db: Session, inputs: RowInputs, folder: Path) -> int:
    """Write the numbers of good pairs, and which pairs are bad; returns how many are good."""
    first, other = "", "0"
    if inputs.ids:
        db.table("askers", f"SELECT id, arg_min(key, item) AS key FROM {parquet(inputs.ids)} GROUP BY id")
        first, other = "LEFT JOIN askers a ON a.id = p.query_id", "coalesce(a.key <> p.query, false)::BIGINT"
    query = (
        f"SELECT p.pair, coalesce(q.number, -1), coalesce(s.number, -1), p.query_id, p.passage_id, {other} "
        f"FROM {inputs.files(PAIRS)} p LEFT JOIN ({inputs.queries}) q ON q.key = p.query "
        f"LEFT JOIN ({inputs.passages}) s ON s.key = p.passage {first} ORDER BY p.pair"
    )
    rows = NumberWriter(folder / "rows.parquet", ("row", "pair", "query", "passage", "query_id", "passage_id"))
    bad = NumberWriter(folder / "bad.parquet", ("pair", "reason"))
    arrays = [
        ArrayWriter(folder / "query_of_row.npy", inputs.query_count),
        ArrayWriter(folder / "passage_of_row.npy", inputs.passage_count),
    ]
    for pair, queries, passages, query_id, passage_id, others in db.blocks(query):
        good = (queries >= 0) & (passages >= 0) & (others == 0)
        reason = np.where(queries < 0, QUERY_UNKNOWN, np.where(passages < 0, PASSAGE_UNKNOWN, OTHER_QUERY))
        bad.extend(pair[~good], reason[~good])
        numbers = arrays[0].length + np.arange(int(good.sum()), dtype=np.int64)
        rows.extend(numbers, *(column[good] for column in (pair, queries, passages, query_id, passage_id)))
        arrays[0].extend(queries[good])
        arrays[1].extend(passages[good])
    rows.close()
    bad.close()
    for array in arrays:
        array.close(wanted=not array.counts_up)
    return arrays[0].length


def _write_negatives(db: Session, inputs: RowInputs, rows: int, folder: Path) -> tuple[int, int | None]:
    """Write negatives and where each row's begin; returns how many there are, and how many in each row, if equally."""
    query = (
        f"SELECT r.row, n.pair, n.nth, coalesce(s.number, -1) FROM {inputs.files(NEGATIVES)} n "
        f"JOIN {parquet(folder / 'rows.parquet')} r USING (pair) "
        f"LEFT JOIN ({inputs.passages}) s ON s.key = n.key ORDER BY n.pair, n.nth"
    )
    numbers = ArrayWriter(folder / "negatives.npy", inputs.passage_count)
    bad = NumberWriter(folder / "bad_negatives.parquet", ("pair", "nth"))
    # How many negatives there are at most decides how wide their places are.
    (most,) = db.rows(f"SELECT count(*) FROM {inputs.files(NEGATIVES)}")[0]
    starts = ArrayWriter(folder / "negative_starts.npy", most + 1)
    counts: set[int] = set()
    last = 0

    def begin_rows(owners: Int64s, stop: int) -> None:
        """Say where the rows before `stop` begin, of which `owners` are those of the negatives that come next."""
        nonlocal last
        begun = numbers.length + np.searchsorted(owners, np.arange(starts.length, stop))
        if len(begun):
            counts.update(np.unique(np.diff(begun, prepend=last) if starts.length else np.diff(begun)).tolist())
            last = int(begun[-1])
            starts.extend(begun)

    for owner, pair, nth, number in db.blocks(query):
        good = number >= 0
        bad.extend(pair[~good], nth[~good])
        if good.any():
            owners = owner[good]
            begin_rows(owners, int(owners[-1]) + 1)
            numbers.extend(number[good])
    begin_rows(np.zeros(0, np.int64), rows + 1)
    bad.close()
    per_row = counts.pop() if len(counts) == 1 else None
    numbers.close(wanted=numbers.length > 0)
    starts.close(wanted=numbers.length > 0 and per_row is None)
    return numbers.length, per_row


def _tell_bad_pairs(inputs: RowInputs, drops: Drops, bad: Path) -> None:
    """Tell of bad pairs, each by its place and keys, for which the source is read once more."""
    for reason, pair in _again(inputs, bad):
        if reason == QUERY_UNKNOWN:
            drops.bad(pair.position, "a query without a text", f" ({pair.query})")
        elif reason == PASSAGE_UNKNOWN:
            drops.bad(pair.position, "a passage that the corpus lacks", f" ({pair.passage})")
        else:
            drops.bad(pair.position, "an id that an earlier row has with another query", f" ({pair.query_id})")


def _tell_bad_negatives(inputs: RowInputs, drops: Drops, bad: Path) -> None:
    """The same of negatives."""
    for nth, pair in _again(inputs, bad):
        drops.bad(pair.position, "a negative passage that the corpus lacks", f" ({pair.negatives[nth]})")


def _again(inputs: RowInputs, bad: Path) -> Iterator[tuple[int, PairItem]]:
    """(second number, pair) of each line of `bad`, whose first number is the pair's; they ascend."""
    pairs: Iterator[tuple[int, PairItem]] | None = None
    at, pair = -1, None
    for numbers, others in blocks(bad):
        pairs = pairs or inputs.again()
        for number, other in zip(numbers.tolist(), others.tolist(), strict=True):
            while at < number:
                at, pair = next(pairs)
            if at == number and pair is not None:
                yield other, pair
