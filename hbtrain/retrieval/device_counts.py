"""Exact ranks on a GPU: the scores of relevant candidates, and who stands ahead of them, without waits in between.

**The rule**: on a GPU a score is the inner product in float64, rounded to float32, where a CPU sums in float32. So two
candidates stand in the same order on both wherever their inner products differ by more than the CPU's rounding of the
two: at most D x 2^-23 of the product of the vectors' lengths, 9e-5 for unit vectors of 768 dimensions, and some 1e-7 on
average. Closer ones may stand otherwise. Those of equal score stand in the order of the pool, as on CPUs, and equal
vectors score equally.

As on CPUs (`scores`), every product has one and the same shape, so that a score depends on its two vectors only, and
the outcome not on blocks, shards, devices or memory. Candidates stream through the device block by block, by as much as
its free memory holds; queries stay there with what was counted for them. The host waits for each block that is moved,
and once for what was counted, however many queries there are.

Shapes: Q queries, N candidates of a shard, D dimensions, P (query, relevant candidate) pairs, T and C queries and
candidates of a product, R queries of it that are not filled up, B candidates of a block, M of them in one language, S
the most relevant candidates of a query of the product, K places of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hbtrain.errors import RetrievalError
from hbtrain.modeling.devices import Device, free_bytes
from hbtrain.retrieval.counting import Pairs, Segment, segments_of, targets_of
from hbtrain.retrieval.scores import Floats, rows_at, rows_of
from hbtrain.retrieval.shard_counts import AskedPairs, ShardCounts, check_scores, joined_scores, sum_counts
from hbtrain.retrieval.sort_keys import PLACES, count_above, keys_of, lowest_keys, merge_best, scores_and_places
from hbtrain.retrieval.top import Int64s, Top
from hbtrain.retrieval.workers import each

if TYPE_CHECKING:
    from torch import Tensor, device

PRODUCT_QUERIES = 1024
PRODUCT_CANDIDATES = 16_384
"""At this shape a product of 768 dimensions is 26 GFLOP, and its scores with their keys at most 1 GB."""
BLOCK_CANDIDATES = 16 * PRODUCT_CANDIDATES  # the most candidates of a block; more would save nothing
SCORE_BYTES = 64  # of a score: in float64 and float32, its key, and what keys are made and sorted by
USED = 0.5  # the share of the free memory that is planned with

Vectors = Callable[[], Iterator[tuple[int, Floats]]]
"""Gives a shard's candidates: (place of the first in the pool, vectors [R, D]), in the order of the pool."""


def count_on_all(
    gpus: Sequence[Device], q_QD: Floats, p_ND: Floats, languages: Int64s, pairs: Pairs, depth: int
) -> tuple[Floats, ShardCounts]:
    """The scores of all pairs and the counts in the whole pool, of which each GPU takes a part; a thread for each."""
    import torch

    cuts = np.linspace(0, len(p_ND), min(len(gpus), len(p_ND)) + 1).astype(int).tolist()
    shards = [(torch.device(gpu), *cut) for gpu, cut in zip(gpus, pairwise(cuts), strict=False)]

    def scores(shard: tuple[device, int, int]) -> Floats:
        where, start, stop = shard
        return relevant_scores_on(where, q_QD, p_ND[start:stop], pairs, start)

    def counts(shard: tuple[device, int, int]) -> ShardCounts:
        where, start, stop = shard
        return count_on(where, q_QD, lambda: iter([(start, p_ND[start:stop])]), languages, pairs, scores_P, depth)

    scores_P = joined_scores(each(scores, shards))
    return scores_P, sum_counts(each(counts, shards), depth)


def relevant_scores_on(where: device, q_QD: Floats, p_ND: Floats, pairs: Pairs, first: int = 0) -> Floats:
    """`shard_counts.relevant_scores` on a GPU, by the rule above.

    Raises:
        ModelError: a score is NaN or infinite.
        RetrievalError: the GPU's memory is too small.
    """
    asked = AskedPairs(pairs, first, len(p_ND))
    with _in_memory(where):
        pair, scores = _asked_scores(where, q_QD, p_ND, asked)
    scores_P = np.full(len(pairs.query), np.nan, np.float32)
    scores_P[pair] = scores
    check_scores(scores)
    return scores_P


def _asked_scores(where: device, q_QD: Floats, p_ND: Floats, asked: AskedPairs) -> tuple[Int64s, Floats]:
    """Numbers and scores of the pairs, for which the host waits once."""
    import torch

    numbers: list[Int64s] = [np.zeros(0, np.int64)]
    found = [torch.empty(0, device=where)]
    for start in range(0, asked.queries, PRODUCT_QUERIES):
        asking, wanted, pair, row, column = asked.of_queries(start, PRODUCT_QUERIES)
        q_TD = _filled(_moved(rows_at(q_QD, asking), where), PRODUCT_QUERIES)
        for c in range(0, len(wanted), PRODUCT_CANDIDATES):
            p_RD = _moved(rows_at(p_ND, wanted[c : c + PRODUCT_CANDIDATES]), where)
            here = (column >= c) & (column < c + PRODUCT_CANDIDATES)
            cell = _moved(row[here] * PRODUCT_CANDIDATES + column[here] - c, where)
            found.append(_scores(q_TD, _filled(p_RD, PRODUCT_CANDIDATES)).flatten()[cell])
            numbers.append(pair[here])
    return np.concatenate(numbers), torch.cat(found).cpu().numpy()


def count_on(
    where: device,
    q_QD: Floats,
    vectors: Vectors,
    languages: Int64s,
    pairs: Pairs,
    scores_P: Floats,
    depth: int = 0,
) -> ShardCounts:
    """`shard_counts.count_in_shard` on a GPU, by the rule above.

    Args:
        where: the GPU.
        q_QD: queries, one at least; they and the candidates may be memory-mapped.
        vectors: the shard's candidates, finite; they are read once for as many queries as the device has room for.
        languages: language codes [N] of the whole pool, grouped.
        pairs: of these queries and of candidates in any shard.
        scores_P: scores of the pairs, from `relevant_scores_on` in each shard.
        depth: length of the list of the best candidates in each language; 0: no lists.

    Raises:
        RetrievalError: the GPU's memory is too small.
        ValueError: the candidates are not grouped by language.
    """
    segments = segments_of(languages, 0)
    most = int(np.bincount(pairs.query, minlength=1).max(initial=0))
    listed = sum(min(depth, segment.stop - segment.start) for segment in segments)
    queries, block = _room(where, q_QD.shape[1], most, listed)
    parts = []
    with _in_memory(where):
        for start in range(0, len(q_QD), queries):
            q_RD = _moved(rows_of(q_QD, start, start + queries), where)
            tiles = [
                _QueryTile(where, q_RD[t : t + PRODUCT_QUERIES], pairs, scores_P, start + t, depth)
                for t in range(0, len(q_RD), PRODUCT_QUERIES)
            ]
            for first, p_RD in vectors():
                for b in range(0, len(p_RD), block):
                    # The host waits here, or it would run ahead of the device with all candidates in its memory.
                    p_BD = _moved(rows_of(p_RD, b, b + block), where, wait=True)
                    _count_block(tiles, p_BD, first + b, segments)
                    del p_BD  # before the next is moved, or the device would hold two
            parts.append(_fetched(tiles))
    return _joined(parts, pairs)


def _room(where: device, dimension: int, relevant: int, listed: int) -> tuple[int, int]:
    """How many queries are on the device at one time, and how many candidates of a block."""
    free = free_bytes(where)
    if free is None:
        return 2**62, BLOCK_CANDIDATES
    product = PRODUCT_QUERIES * PRODUCT_CANDIDATES * SCORE_BYTES + PRODUCT_CANDIDATES * dimension * 8
    half = max(0, int(USED * free) - product) // 2
    # A vector twice; of each relevant candidate three bounds, its language and four counts; keys of the lists, twice.
    query = dimension * 8 + relevant * 8 * 8 + listed * 16
    queries = max(1, half // (query * PRODUCT_QUERIES)) * PRODUCT_QUERIES
    block = max(1, half // (dimension * 4 * PRODUCT_CANDIDATES)) * PRODUCT_CANDIDATES
    return queries, min(block, BLOCK_CANDIDATES)


def _count_block(tiles: Sequence[_QueryTile], p_BD: Tensor, first: int, segments: Sequence[Segment]) -> None:
    for c in range(0, len(p_BD), PRODUCT_CANDIDATES):
        p_RD = p_BD[c : c + PRODUCT_CANDIDATES]
        start, stop = first + c, first + c + len(p_RD)
        p_CD = _filled(p_RD, PRODUCT_CANDIDATES).double()
        here = [(segment, segment.within(start, stop)) for segment in segments if segment.start < stop]
        here = [(segment, columns) for segment, columns in here if columns.start < columns.stop]
        for tile in tiles:
            scores_TC = _scores(tile.q_TD, p_CD)
            for segment, columns in here:
                tile.count(scores_TC[: tile.rows, columns], start + columns.start, segment.language)


class _Fetched(NamedTuple):
    """What was counted for some queries, on the host."""

    pair: Int64s  # [p] numbers of their pairs
    counts: Int64s  # [p, 4] in the order of `ShardCounts`
    top: dict[int, Top]  # of the queries


class _QueryTile:
    """Queries of a product, on a device, and what was counted for them."""

    def __init__(self, where: device, q_RD: Tensor, pairs: Pairs, scores_P: Floats, start: int, depth: int) -> None:
        import torch

        self.rows = len(q_RD)
        self.q_TD = _filled(q_RD, PRODUCT_QUERIES)
        self._depth = depth
        self.targets = targets_of(pairs, scores_P, start, self.rows)
        lowest_RS = lowest_keys(torch.from_numpy(self.targets.score))
        # A key above the first bound stands ahead, one above the second scores the same or higher, the third: higher.
        own_RS = lowest_RS + (PLACES - 1 - torch.from_numpy(self.targets.place))
        self._bounds = _moved(torch.cat([own_RS, lowest_RS - 1, lowest_RS + (PLACES - 1)], dim=1).numpy(), where)
        self._language = _moved(self.targets.language, where)
        shape = 2, self.rows, self.targets.score.shape[1]
        self.in_pool = torch.zeros(shape, dtype=torch.int64, device=where)  # ahead, and of equal score
        self.in_language = torch.zeros(shape, dtype=torch.int64, device=where)  # the same
        self.best: dict[int, Tensor] = {}  # {language code: keys of the best [R, K]}

    def count(self, scores_RM: Tensor, first: int, language: int) -> None:
        """Count, and list, candidates of one language from place `first` of the pool."""
        import torch

        keys_RM = keys_of(scores_RM, first)
        if len(self.targets.pair):
            above = count_above(keys_RM, self._bounds).unflatten(1, (3, -1))
            found = torch.stack([above[:, 0], above[:, 1] - above[:, 2]])
            self.in_pool += found
            self.in_language += found * (self._language == language)
        if self._depth:
            if language not in self.best:
                self.best[language] = keys_RM[:, :0]
            self.best[language] = merge_best(self.best[language], keys_RM, self._depth)


def _fetched(tiles: Sequence[_QueryTile]) -> _Fetched:
    """What was counted for the queries of all tiles, for which the host waits once, and once for their lists."""
    import torch

    counted = [torch.cat([tile.in_language, tile.in_pool]).flatten(1) for tile in tiles]
    counts_4n = torch.cat(counted, dim=1).cpu().numpy()
    at, pairs = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    first = 0
    for tile in tiles:
        width = tile.targets.score.shape[1]
        at.append(first + tile.targets.row * width + tile.targets.nth)
        pairs.append(tile.targets.pair)
        first += tile.rows * width
    counts = counts_4n[[0, 2, 1, 3]].T[np.concatenate(at)]
    top = {}
    if tiles[0].best:
        listed = torch.cat([torch.cat(list(tile.best.values()), dim=1) for tile in tiles]).cpu()
        widths = [best_RK.shape[1] for best_RK in tiles[0].best.values()]
        for code, keys in zip(tiles[0].best, listed.split(widths, dim=1), strict=True):
            top[code] = Top(*(x.numpy() for x in scores_and_places(keys)))
    return _Fetched(np.concatenate(pairs), counts, top)


def _joined(parts: Sequence[_Fetched], pairs: Pairs) -> ShardCounts:
    counts = np.zeros((4, len(pairs.query)), np.int64)
    counts[:, np.concatenate([part.pair for part in parts])] = np.concatenate([part.counts for part in parts]).T
    top = {
        code: Top(*(np.concatenate([part.top[code][column] for part in parts]) for column in (0, 1)))
        for code in parts[0].top
    }
    in_language, in_pool, equal_in_language, equal_in_pool = counts
    return ShardCounts(in_language, in_pool, equal_in_language, equal_in_pool, top)


def _scores(q_TD: Tensor, p_CD: Tensor) -> Tensor:
    """[T, C] float32: inner products in float64, rounded."""
    return (q_TD.double() @ p_CD.double().T).float()


def _filled(x_RD: Tensor, rows: int) -> Tensor:
    """[rows, D]: `x_RD`, filled up with rows of zeros."""
    import torch

    return torch.nn.functional.pad(x_RD, (0, 0, 0, rows - len(x_RD)))


def _moved(x: Floats | Int64s, where: device, wait: bool = False) -> Tensor:
    import torch

    return torch.from_numpy(np.require(x, requirements=["C", "W"])).to(where, non_blocking=not wait)


@contextmanager
def _in_memory(where: device) -> Iterator[None]:
    """Says in one line that a GPU's memory is too small."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        free = (free_bytes(where) or 0) / 2**30
        raise RetrievalError(
            f"exact ranks do not fit into the memory of {where}, of which {free:.1f} GiB are free: end what else uses "
            "it, or set CUDA_VISIBLE_DEVICES= (empty) to rank on the CPU"
        ) from error
