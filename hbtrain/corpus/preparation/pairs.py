"""Rows of a corpus: pairs of keys as readers give them, turned into numbers; what names nothing is bad."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from hbtrain.corpus.conflicts import Int64s
from hbtrain.corpus.drops import Drops
from hbtrain.corpus.negatives import digest_number
from hbtrain.corpus.preparation.keys import KeyIndex
from hbtrain.corpus.preparation.numbers import NumberWriter, blocks, count
from hbtrain.corpus.readers.items import PairItem

BLOCK_PAIRS = 1 << 15
Find = Callable[[Int64s], Int64s]
"""Numbers by the digests of keys, -1 where there is none."""
FILES = ("queries", "passages", "negatives", "negative_counts", "query_ids", "passage_ids")


@dataclass(frozen=True)
class Rows:
    """Files of numbers, one a row but for `negatives`.

    Attributes:
        queries: number of the query.
        passages: number of the passage.
        negatives: numbers of the passages that do not answer the queries, row after row.
        negative_counts: how many of them are a row's.
        query_ids: digests of given query ids; empty where keys are the ids.
        passage_ids: the same of passages.
    """

    queries: Path
    passages: Path
    negatives: Path
    negative_counts: Path
    query_ids: Path
    passage_ids: Path

    @classmethod
    def of(cls, folder: Path) -> Rows:
        """The files of a folder."""
        return cls(*(folder / name for name in FILES))

    def __len__(self) -> int:
        return count(self.queries)

    def negatives_per_row(self) -> int | None:
        """How many negatives each row has; None: some rows have more than others."""
        seen: set[int] = set()
        for block in blocks(self.negative_counts):
            seen.update(np.unique(block).tolist())
            if len(seen) > 1:
                return None
        return seen.pop() if seen else 0


def write_rows(
    pairs: Iterable[PairItem],
    queries: Find,
    passages: Find,
    query_of_id: KeyIndex | None,
    drops: Drops,
    folder: Path,
    progress: Callable[[int], None],
) -> Rows:
    """Write the rows of `pairs` to `folder`, which is made.

    Args:
        pairs: in the order of the rows.
        queries: numbers of queries by key.
        passages: numbers of passages by key.
        query_of_id: the key's digest of the one query that each query id stands for; None: it is not checked.
        drops: told of pairs whose query or passage is unknown, and of negatives that are; only these are left out then.
        folder: for the files.
        progress: told of the pairs read.
    """
    folder.mkdir()
    writers = {name: NumberWriter(folder / name) for name in FILES}
    done, stream = 0, iter(pairs)
    while block := list(islice(stream, BLOCK_PAIRS)):
        _write_block(block, queries, passages, query_of_id, drops, writers)
        done += len(block)
        progress(done)
    for writer in writers.values():
        writer.close()
    return Rows.of(folder)


def _write_block(
    pairs: Sequence[PairItem],
    queries: Find,
    passages: Find,
    query_of_id: KeyIndex | None,
    drops: Drops,
    writers: dict[str, NumberWriter],
) -> None:
    query_keys = _digests([pair.query for pair in pairs])
    query = queries(query_keys)
    # All at once, since each search goes through all keys.
    both = passages(_digests([pair.passage for pair in pairs] + [key for pair in pairs for key in pair.negatives]))
    passage, negatives = both[: len(pairs)], both[len(pairs) :]
    counts = np.array([len(pair.negatives) for pair in pairs], np.int64)
    owner = np.repeat(np.arange(len(pairs)), counts)
    ids = _digests([pair.query if pair.query_id is None else pair.query_id for pair in pairs])
    other = np.zeros(len(pairs), bool) if query_of_id is None else query_of_id.find(ids) != query_keys
    good = (query >= 0) & (passage >= 0) & ~other
    for at in np.flatnonzero(~good).tolist():
        pair = pairs[at]
        if query[at] < 0:
            drops.bad(pair.place, "a query that the queries lack", f" ({pair.query})")
        elif passage[at] < 0:
            drops.bad(pair.place, "a passage that the corpus lacks", f" ({pair.passage})")
        else:
            drops.bad(pair.place, "an id that an earlier row has with another query", f" ({pair.query_id})")
    kept = good[owner] & (negatives >= 0)
    nth = np.arange(len(owner)) - (np.cumsum(counts) - counts)[owner]
    for at in np.flatnonzero(good[owner] & (negatives < 0)).tolist():
        pair = pairs[owner[at]]
        drops.bad(pair.place, "a negative passage that the corpus lacks", f" ({pair.negatives[int(nth[at])]})")
    writers["queries"].extend(query[good])
    writers["passages"].extend(passage[good])
    writers["negatives"].extend(negatives[kept])
    writers["negative_counts"].extend(np.bincount(owner[kept], minlength=len(pairs))[good])
    if pairs[0].query_id is not None:
        writers["query_ids"].extend(ids[good])
    if pairs[0].passage_id is not None:
        writers["passage_ids"].extend(_digests([pair.passage_id or "" for pair in pairs])[good])


def _digests(keys: Sequence[str]) -> Int64s:
    return np.fromiter(map(digest_number, keys), np.int64, len(keys))
