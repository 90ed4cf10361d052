"""The rows of a corpus: turns the pairs of keys that readers give into numbers; a key without a text makes a bad row.

Pairs are first written as digests of keys to `pairs.parquet` and `negatives.parquet`, and their scores, where the
source gives any, to `scores.parquet`. Once all have been read, they are joined with the numbers of the keys.
"""

from __future__ import annotations

import math
import struct
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

PROGRESS_EVERY = 1 << 15  # pairs between two calls of the progress callback
PART_SHIFT = 40  # a pair's number is that of its part times 2**40, plus its index among the part's pairs
PAIRS, NEGATIVES, SCORES = "pairs.parquet", "negatives.parquet", "scores.parquet"
OF_PASSAGE = -1  # what stands for a row's own passage among the numbers of its negatives, where it is a score's
QUERY_UNKNOWN, PASSAGE_UNKNOWN, OTHER_QUERY = 0, 1, 2  # why a pair is bad, as `bad.parquet` says it


class Digests:
    """Digests of keys; remembers the last one, as equal keys often follow each other."""

    def __init__(self) -> None:
        self._key = ""
        self._digest = digest_number("")

    def of(self, key: str) -> int:
        if key != self._key:
            self._key, self._digest = key, digest_number(key)
        return self._digest


class PairWriter:
    """Writes the pairs of a part as digests. The key of a query or passage is its id, unless the pair gives one."""

    def __init__(self, folder: Path, part: int) -> None:
        self._number = part << PART_SHIFT
        self._pairs = NumberWriter(folder / PAIRS, ("pair", "query", "passage", "query_id", "passage_id"))
        self._negatives = NumberWriter(folder / NEGATIVES, ("pair", "nth", "key"))
        self._scores: NumberWriter | None = None
        self._folder = folder
        self._queries, self._passages = Digests(), Digests()

    def append(self, pair: PairItem) -> None:
        query, passage = self._queries.of(pair.query), self._passages.of(pair.passage)
        query_id = query if pair.query_id is None else digest_number(pair.query_id)
        passage_id = passage if pair.passage_id is None else digest_number(pair.passage_id)
        self._pairs.append((self._number, query, passage, query_id, passage_id))
        for nth, key in enumerate(pair.negatives):
            self._negatives.append((self._number, nth, digest_number(key)))
        if pair.scores:
            self._scores = self._scores or NumberWriter(self._folder / SCORES, ("pair", "nth", "bits"))
            for nth, score in enumerate(pair.scores, OF_PASSAGE):
                self._scores.append((self._number, nth, _bits(score)))
        self._number += 1

    def close(self) -> None:
        for writer in (self._pairs, self._negatives, self._scores):
            if writer is not None:
                writer.close()


def _bits(number: float) -> int:
    """The bits of a float64 as an int64: tables hold integers alone."""
    return int(struct.unpack("<q", struct.pack("<d", number))[0])


@dataclass(frozen=True)
class Rows:
    """The rows of a corpus, as the stage `rows` has written them."""

    # holds `rows.parquet` (for each row: its number, its pair's number, the numbers of query and passage, and the
    # digests of their ids), and arrays of the corpus
    folder: Path
    rows: int  # how many there are
    negatives: int  # how many all rows have together
    negatives_per_row: int | None  # how many each row has; None if not all have equally many
    given_ids: tuple[bool, bool]  # whether any query, and whether any passage, has an id other than its key

    @property
    def numbers(self) -> Path:
        return self.folder / "rows.parquet"


@dataclass(frozen=True)
class RowInputs:
    """What rows are made of."""

    pairs: Sequence[Path]  # folders that `PairWriter` has written to
    ids: Sequence[Path]  # Parquet files of (id, key, item); an id belongs to the key of its first item, by number
    queries: str  # an SQL query of (key, number) of the queries that rows may have
    passages: str  # the same for passages
    query_count: int  # how many queries there are
    passage_count: int  # how many passages there are
    # reads the source once more and gives (number, pair) of all pairs
    again: Callable[[], Iterator[tuple[int, PairItem]]]

    def files(self, name: str) -> str:
        """The rows of the files of that name in all folders of `pairs`, as an SQL table."""
        return parquet([folder / name for folder in self.pairs])

    def scores(self) -> str | None:
        """The scores of pairs (pair, nth, bits), as an SQL table; None if the source gives none."""
        found = [folder / SCORES for folder in self.pairs if (folder / SCORES).exists()]
        return parquet(found) if found else None


def write_rows(database: Database, inputs: RowInputs, drops: Drops, folder: Path) -> dict[str, Any]:
    """Write the rows to `folder`, in the order of their pairs; returns the attributes of `Rows`.

    Arrays: `query_of_row.npy`, `passage_of_row.npy` (absent where each number is the row's own), `negatives.npy` and
    `negative_starts.npy` (absent where all rows have equally many); `passage_scores.npy`, `negative_scores.npy` (absent
    where the source gives no scores). `drops` is told of pairs whose query or passage has no text, and of negatives
    without a text, which alone are left out of their rows.
    """
    with database.session() as db:
        rows = _number_rows(db, inputs, folder)
        _tell_bad_pairs(inputs, drops, folder / "bad.parquet")
        negatives, per_row = _write_negatives(db, inputs, rows, folder)
        if (scores := inputs.scores()) is not None:
            _write_passage_scores(db, scores, folder)
        _tell_bad_negatives(inputs, drops, folder / "bad_negatives.parquet")
        given = [
            bool(db.rows(f"SELECT 1 FROM {inputs.files(PAIRS)} WHERE {side}_id <> {side} LIMIT 1"))
            for side in ("query", "passage")
        ]
    return {"rows": rows, "negatives": negatives, "negatives_per_row": per_row, "given_ids": given}


def _number_rows(db: Session, inputs: RowInputs, folder: Path) -> int:
    """Write `rows.parquet` and `bad.parquet` (the numbers of bad pairs); returns how many rows there are."""
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
    """Write the arrays of negatives; returns how many there are, and how many each row has (None: not all equally)."""
    given = inputs.scores()
    bits = "" if given is None else f", coalesce(x.bits, {_bits(math.nan)})"
    scored = "" if given is None else f"LEFT JOIN {given} x ON x.pair = n.pair AND x.nth = n.nth "
    query = (
        f"SELECT r.row, n.pair, n.nth, coalesce(s.number, -1){bits} FROM {inputs.files(NEGATIVES)} n "
        f"JOIN {parquet(folder / 'rows.parquet')} r ON r.pair = n.pair {scored}"
        f"LEFT JOIN ({inputs.passages}) s ON s.key = n.key ORDER BY n.pair, n.nth"
    )
    scores = None if given is None else ArrayWriter(folder / "negative_scores.npy", None)
    numbers = ArrayWriter(folder / "negatives.npy", inputs.passage_count)
    bad = NumberWriter(folder / "bad_negatives.parquet", ("pair", "nth"))
    # The type of `negative_starts.npy` follows from how many negatives there can be.
    (most,) = db.rows(f"SELECT count(*) FROM {inputs.files(NEGATIVES)}")[0]
    starts = ArrayWriter(folder / "negative_starts.npy", most + 1)
    counts: set[int] = set()
    last = 0

    def begin_rows(owners: Int64s, stop: int) -> None:
        """Write the starts of the rows before `stop`; `owners` are the rows of the negatives that are written next."""
        nonlocal last
        begun = numbers.length + np.searchsorted(owners, np.arange(starts.length, stop))
        if len(begun):
            counts.update(np.unique(np.diff(begun, prepend=last) if starts.length else np.diff(begun)).tolist())
            last = int(begun[-1])
            starts.extend(begun)

    for owner, pair, nth, number, *of_negatives in db.blocks(query):
        good = number >= 0
        bad.extend(pair[~good], nth[~good])
        if good.any():
            owners = owner[good]
            begin_rows(owners, int(owners[-1]) + 1)
            numbers.extend(number[good])
            if scores is not None:
                scores.extend(of_negatives[0][good].view(np.float64))
    begin_rows(np.zeros(0, np.int64), rows + 1)
    bad.close()
    per_row = counts.pop() if len(counts) == 1 else None
    numbers.close(wanted=numbers.length > 0)
    starts.close(wanted=numbers.length > 0 and per_row is None)
    if scores is not None:
        scores.close(wanted=numbers.length > 0)
    return numbers.length, per_row


def _write_passage_scores(db: Session, scores: str, folder: Path) -> None:
    """Write `passage_scores.npy`: the score of each row's own passage, not a number where the source gives none."""
    query = (
        f"SELECT coalesce(x.bits, {_bits(math.nan)}) FROM {parquet(folder / 'rows.parquet')} r "
        f"LEFT JOIN {scores} x ON x.pair = r.pair AND x.nth = {OF_PASSAGE} ORDER BY r.row"
    )
    array = ArrayWriter(folder / "passage_scores.npy", None)
    for (bits,) in db.blocks(query):
        array.extend(bits.view(np.float64))
    array.close()


def _tell_bad_pairs(inputs: RowInputs, drops: Drops, bad: Path) -> None:
    """Report the bad pairs with their positions and keys, which are found by reading the source again."""
    for reason, pair in _again(inputs, bad):
        if reason == QUERY_UNKNOWN:
            drops.bad(pair.position, "a query without a text", f" ({pair.query})")
        elif reason == PASSAGE_UNKNOWN:
            drops.bad(pair.position, "a passage that the corpus lacks", f" ({pair.passage})")
        else:
            drops.bad(pair.position, "an id that an earlier row has with another query", f" ({pair.query_id})")


def _tell_bad_negatives(inputs: RowInputs, drops: Drops, bad: Path) -> None:
    """Report the negatives that have no text."""
    for nth, pair in _again(inputs, bad):
        drops.bad(pair.position, "a negative passage that the corpus lacks", f" ({pair.negatives[nth]})")


def _again(inputs: RowInputs, bad: Path) -> Iterator[tuple[int, PairItem]]:
    """(second column, pair) of each row of the file `bad`, whose first column holds numbers of pairs that ascend."""
    pairs: Iterator[tuple[int, PairItem]] | None = None
    at, pair = -1, None
    for numbers, others in blocks(bad):
        pairs = pairs or inputs.again()
        for number, other in zip(numbers.tolist(), others.tolist(), strict=True):
            while at < number:
                at, pair = next(pairs)
            if at == number and pair is not None:
                yield other, pair
