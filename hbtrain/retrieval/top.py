"""The best-scoring candidates of each query, exactly, with ties in the order of the pool.

FAISS leaves open which of equally good candidates it returns, and computes a score differently for few and for many
queries. What is mined or written down must not depend on the size of blocks, hence a selection of our own with a rule
for ties.

Shapes: B queries, N candidates, D dimensions, T rows of a tile (or those filled), M columns of a chunk, H candidates
held so far, S that may be among the best, K candidates returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from hbtrain.modeling.devices import free_bytes, full_float32
from hbtrain.retrieval.scores import TILE_CANDIDATES, TILE_QUERIES, Floats, scoring_threads, tile_of, tile_scores
from hbtrain.retrieval.sort_keys import keys_of, merge_best, scores_and_places

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

    from torch import Tensor, device


Int64s = npt.NDArray[np.int64]

CHUNK_COLUMNS = 16_384  # candidates scored at one time by `top_scores`; with `TILE_QUERIES` queries, 32 MiB of scores
MERGED_ROWS = 4096  # queries whose lists are merged at one time
NONE = -1  # the place of a result that an approximate index did not find; its score is minus infinity


class Top(NamedTuple):
    """The best candidates of B queries, best first; of equal scores the first in the pool comes first."""

    scores: Floats  # [B, K]
    places: Int64s  # [B, K] where the candidates stand in the whole pool, from 0; NONE fills up a short list


def merge_top(parts: Sequence[Top], depth: int) -> Top:
    """The best `depth` candidates of all parts [B, `depth`], or all of them where they are fewer.

    Args:
        parts: at least one, of the same queries and of distinct candidates; in any order, and so the candidates of a
            part.
        depth: candidates wanted of each query.
    """
    width = min(depth, sum(part.scores.shape[1] for part in parts))
    queries = len(parts[0].scores)
    merged = Top(np.empty((queries, width), np.float32), np.empty((queries, width), np.int64))
    for start in range(0, queries, MERGED_ROWS):
        rows = slice(start, start + MERGED_ROWS)
        scores = np.concatenate([part.scores[rows] for part in parts], axis=1)
        places = np.concatenate([part.places[rows] for part in parts], axis=1)
        order = np.lexsort((places, -scores), axis=1)[:, :width]  # by score, and equal scores by place
        merged.scores[rows] = np.take_along_axis(scores, order, axis=1)
        merged.places[rows] = np.take_along_axis(places, order, axis=1)
    return merged


@full_float32()
def top_scores(q_BD: Floats, p_ND: Tensor, spans: Sequence[slice], depth: int) -> Top:
    """The `depth` best candidates of each query by inner product in fp32, computed on the device of `p_ND`.

    Args:
        q_BD: queries.
        p_ND: all candidates of the pool, float32.
        spans: the parts of the pool that are searched, ascending and without overlap.
        depth: candidates wanted of each query.

    Returns:
        K = `depth`, or all candidates where the spans hold fewer. A query's result does not depend on the others.
    """
    import torch

    chunks = [
        slice(start, min(start + CHUNK_COLUMNS, span.stop))
        for span in spans
        for start in range(span.start, span.stop, CHUNK_COLUMNS)
    ]
    width = min(depth, sum(chunk.stop - chunk.start for chunk in chunks))
    found = Top(np.empty((len(q_BD), width), np.float32), np.empty((len(q_BD), width), np.int64))
    if not width or not len(q_BD):
        return found
    if p_ND.device.type != "cpu":
        return _top_on_device(q_BD, p_ND, chunks, depth)
    with scoring_threads() as pool:
        for start in range(0, len(q_BD), TILE_QUERIES):
            rows = slice(start, min(start + TILE_QUERIES, len(q_BD)))
            filled = rows.stop - start
            tile_TD = tile_of(q_BD[rows], TILE_QUERIES)
            scores_TH, places_TH = torch.empty(filled, 0), torch.empty(filled, 0, dtype=torch.int64)
            for chunk in chunks:
                scores_TM = _products(tile_TD, p_ND[chunk].numpy(), pool)[:filled]
                scores_TH, places_TH = absorb(scores_TH, places_TH, scores_TM, chunk.start, depth)
            found.scores[rows] = scores_TH.numpy()
            found.places[rows] = places_TH.numpy()
    return found


def _products(q_TD: Tensor, p_MD: Floats, pool: ThreadPoolExecutor) -> Tensor:
    """[T, M] inner products, tile by tile, so that equal candidates of a query tie wherever they stand."""
    import torch

    scores_TC = torch.empty(len(q_TD), -(-len(p_MD) // TILE_CANDIDATES) * TILE_CANDIDATES)

    def work(c: int) -> None:
        tile_CD = tile_of(p_MD[c : c + TILE_CANDIDATES], TILE_CANDIDATES)
        tile_scores(q_TD, tile_CD, scores_TC[:, c : c + TILE_CANDIDATES])

    list(pool.map(work, range(0, len(p_MD), TILE_CANDIDATES)))
    return scores_TC[:, : len(p_MD)]


def _top_on_device(q_BD: Floats, p_ND: Tensor, chunks: Sequence[slice], depth: int) -> Top:
    """`top_scores` of chunks of the pool on a GPU, for which the host waits twice: to bring the queries and to fetch
    what was found."""
    import torch

    queries = torch.zeros(-(-len(q_BD) // TILE_QUERIES) * TILE_QUERIES, p_ND.shape[1], device=p_ND.device)
    queries[: len(q_BD)] = torch.from_numpy(q_BD).to(p_ND.device)
    best = []
    for tile_TD in queries.split(TILE_QUERIES):
        best_TH = torch.empty(TILE_QUERIES, 0, dtype=torch.int64, device=p_ND.device)
        for chunk in chunks:
            best_TH = merge_best(best_TH, keys_of(tile_TD @ p_ND[chunk].T, chunk.start), depth)
        best.append(best_TH)
    scores, places = scores_and_places(torch.cat(best)[: len(q_BD)].cpu())
    return Top(scores.numpy(), places.numpy())


class DevicePool:
    """The candidates of a pool on a device: all of them if they fit, else moved there a part at a time.

    The result is the same to the last bit, as parts end where the chunks of `top_scores` do.
    """

    def __init__(self, p_ND: Floats, where: device, part_bytes: int | None = None) -> None:
        """Hold the candidates.

        Args:
            p_ND: all candidates of the pool; they must not change.
            where: the device that computes.
            part_bytes: the most bytes of candidates on the device; None: half of what is free there, since scores and
                an encoder's batches need room as well.
        """
        import torch

        self.bytes = p_ND.nbytes  # of the candidates
        free = free_bytes(where)
        most = part_bytes if free is None or part_bytes is not None else free // 2
        self._p_ND = torch.from_numpy(p_ND)
        self._where = where
        self._whole = self._p_ND.to(where) if most is None or p_ND.nbytes <= most else None
        chunk_bytes = CHUNK_COLUMNS * p_ND.shape[1] * p_ND.itemsize
        self.on_device = self._whole is not None  # all of them
        self._part_rows = CHUNK_COLUMNS * max(1, (most or 0) // chunk_bytes)

    def __len__(self) -> int:
        return len(self._p_ND)

    def best(self, q_BD: Floats, spans: Sequence[slice], depth: int) -> Top:
        """`top_scores` of the pool."""
        if self._whole is not None:
            return top_scores(q_BD, self._whole, spans, depth)
        found = Top(np.empty((len(q_BD), 0), np.float32), np.empty((len(q_BD), 0), np.int64))
        for span in spans:
            for start in range(span.start, span.stop, self._part_rows):
                part_RD = self._p_ND[start : min(start + self._part_rows, span.stop)].to(self._where)
                scores, places = top_scores(q_BD, part_RD, [slice(0, len(part_RD))], depth)
                found = merge_top([found, Top(scores, places + start)], depth)
                del part_RD  # before the next is moved, or the device would hold two
        return found


def absorb(scores_TH: Tensor, places_TH: Tensor, scores_TM: Tensor, first: int, depth: int) -> tuple[Tensor, Tensor]:
    """Merge the best candidates so far with the scores of further candidates, which come later in the pool; on a CPU.

    Args:
        scores_TH: the best scores so far, in order; H = `depth`, or all candidates so far where they are fewer.
        places_TH: their places in the pool.
        scores_TM: scores of M further candidates, which stand side by side in the pool.
        first: place of the first of these.
        depth: candidates wanted of each query.
    """
    import torch

    if scores_TH.shape[1] < depth:
        return _join(scores_TH, places_TH, *_best(scores_TM, depth, first), depth)
    least_T = scores_TH[:, -1]  # an equal score comes too late
    row_r = (scores_TM.amax(1) > least_T).nonzero().squeeze(1)
    if not len(row_r):
        return scores_TH, places_TH
    news_rM = scores_TM if len(row_r) == len(scores_TM) else scores_TM[row_r]
    most = int(torch.count_nonzero(news_rM > least_T[row_r, None], dim=1).max())
    best = _best(news_rM, min(most, depth), first)
    scores, places = _join(scores_TH[row_r], places_TH[row_r], *best, depth)
    return scores_TH.index_copy(0, row_r, scores), places_TH.index_copy(0, row_r, places)


def _join(
    scores_TH: Tensor, places_TH: Tensor, scores_TK: Tensor, places_TK: Tensor, depth: int
) -> tuple[Tensor, Tensor]:
    import torch

    if not scores_TH.shape[1]:
        return scores_TK, places_TK
    # Both are in order and the earlier places stand first, so a stable sort keeps ties in the pool's order.
    scores, order = torch.cat([scores_TH, scores_TK], 1).sort(dim=1, descending=True, stable=True)
    return scores[:, :depth], torch.cat([places_TH, places_TK], 1).gather(1, order[:, :depth])


def _best(scores_TM: Tensor, depth: int, first: int) -> tuple[Tensor, Tensor]:
    """Scores and places [T, K] of the best K of each row, in order; the first column is at place `first`."""
    import torch

    rows, columns = scores_TM.shape
    width = min(depth, columns)
    # K groups of columns have a member at or above the K-th highest of the groups' maxima, so nothing below it is
    # among the best K. What is not below is little more than K, and stands in the order of the pool.
    group = max(1, columns // (8 * width))
    groups = columns // group
    maxima_TG = scores_TM[:, : groups * group].unflatten(1, (group, groups)).amax(dim=1)
    # numpy is several times as fast as torch at these two.
    least_T1 = np.partition(maxima_TG.numpy(), groups - width, axis=1)[:, groups - width, None]
    row_n, column_n = map(torch.from_numpy, np.divmod(np.flatnonzero(scores_TM.numpy() >= least_T1), columns))
    value_n = scores_TM[row_n, column_n]
    # What is left of each row goes to its beginning, filled up with -inf, and is sorted.
    nth_n = torch.arange(len(row_n)) - torch.searchsorted(row_n, row_n)
    left_TS = torch.full((rows, int(nth_n.max()) + 1), -torch.inf)
    left_TS[row_n, nth_n] = value_n
    places_TS = torch.zeros(left_TS.shape, dtype=torch.int64)
    places_TS[row_n, nth_n] = column_n + first
    left_TS, order_TS = left_TS.sort(dim=1, descending=True, stable=True)
    return left_TS[:, :width], places_TS.gather(1, order_TS[:, :width])
