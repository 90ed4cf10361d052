"""The best-scoring candidates of each query, exactly, with ties in the order of the pool.

FAISS leaves open which of equally good candidates it returns, and computes a score differently for few and for many
queries. What is mined should not hang on the size of blocks, hence this search: matrix products of one shape, and a
selection that knows the rule for ties.

Shapes: B queries, N candidates, D dimensions, T rows of a tile (or those filled), M columns of a chunk, K candidates
returned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hbtrain.retrieval.scores import TILE_ROWS, Floats

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_COLUMNS = 32_768
"""Candidates scored at one time; with `TILE_ROWS` queries, 16 MiB of scores."""


def top_scores(q_BD: Floats, p_ND: Tensor, spans: Sequence[slice], depth: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Inner products in fp32 with the `depth` best candidates of some parts of the pool, on the device of `p_ND`.

    Args:
        q_BD: queries.
        p_ND: candidates, float32.
        spans: the places of the pool that are searched: ascending, without overlap, with start and stop.
        depth: candidates wanted.

    Returns:
        scores [B, K], best first, and the places of their candidates [B, K] in the whole pool; K = `depth`, or all
        candidates where the spans hold fewer. Of equal scores the first places win, and stand first. A query's result
        does not depend on the other queries.
    """
    import torch

    chunks = [
        slice(start, min(start + CHUNK_COLUMNS, span.stop))
        for span in spans
        for start in range(span.start, span.stop, CHUNK_COLUMNS)
    ]
    width = min(depth, sum(chunk.stop - chunk.start for chunk in chunks))
    scores_BK = np.empty((len(q_BD), width), np.float32)
    places_BK = np.empty((len(q_BD), width), np.int64)
    for start in range(0, len(q_BD) if width else 0, TILE_ROWS):
        rows = slice(start, min(start + TILE_ROWS, len(q_BD)))
        tile_TD = torch.zeros(TILE_ROWS, p_ND.shape[1])
        filled = rows.stop - start
        tile_TD[:filled] = torch.from_numpy(q_BD[rows])
        tile_TD = tile_TD.to(p_ND.device)
        scores_TK, places_TK = _top((tile_TD @ p_ND[chunks[0]].T)[:filled], depth, chunks[0].start)
        for chunk in chunks[1:]:
            scores, places = _top((tile_TD @ p_ND[chunk].T)[:filled], depth, chunk.start)
            # Both are in order and the earlier places stand first, so a stable sort keeps ties in the pool's order.
            scores_TK, order = torch.cat([scores_TK, scores], 1).sort(dim=1, descending=True, stable=True)
            scores_TK, places_TK = scores_TK[:, :depth], torch.cat([places_TK, places], 1).gather(1, order[:, :depth])
        scores_BK[rows] = scores_TK.cpu().numpy()
        places_BK[rows] = places_TK.cpu().numpy()
    return scores_BK, places_BK


def _top(scores_TM: Tensor, depth: int, first: int) -> tuple[Tensor, Tensor]:
    """The best K of each row in order, and their columns counted from `first`."""
    import torch

    rows, columns = scores_TM.shape
    width = min(depth, columns)
    # K groups of columns have a member at or above the K-th highest of the groups' maxima, so nothing below it is
    # among the best K. What is not below is little more than K, and stands in the order of the pool.
    group = max(1, columns // (8 * width))
    groups = columns // group
    maxima_TG = scores_TM[:, : groups * group].unflatten(1, (groups, group)).amax(dim=2)
    least_T1 = maxima_TG.topk(width, dim=1).values[:, -1:]
    row_n, column_n = (scores_TM >= least_T1).nonzero(as_tuple=True)
    value_n = scores_TM[row_n, column_n]
    by_value_n = value_n.sort(descending=True, stable=True).indices
    order_n = by_value_n[row_n[by_value_n].sort(stable=True).indices]
    start_T = torch.searchsorted(row_n, torch.arange(rows, device=row_n.device))
    best_TK = order_n[start_T[:, None] + torch.arange(width, device=row_n.device)]
    return value_n[best_TK], column_n[best_TK] + first
