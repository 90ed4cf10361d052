"""The score matrix, a block of queries at a time, so that it never exists whole.

Shapes: Q queries, N candidates, D dimensions, T rows of a tile, B rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

TILE_ROWS = 128
"""Queries of one matrix product; at this many it runs within a tenth of its full speed."""


def score_blocks(q_QD: Floats, p_ND: Floats, block_rows: int) -> Iterator[tuple[int, Floats]]:
    """Inner products in fp32, as (first query, scores [B, N]) with B <= `block_rows` rounded up to whole tiles.

    A block is overwritten by the next one. Matrix libraries choose their order of summation by the shape of the
    operands, so every product here has one and the same shape: a whole tile of queries against all candidates. Hence
    a score depends, to the last bit, neither on `block_rows` nor on the number of queries.
    """
    import torch

    queries, dimensions = q_QD.shape
    candidates = len(p_ND)
    p_DN = torch.from_numpy(np.require(p_ND, np.float32, ["C", "W"])).T  # torch warns of arrays that cannot be written
    rows = -(-min(block_rows, max(queries, 1)) // TILE_ROWS) * TILE_ROWS
    scores_BN = torch.empty(rows, candidates)
    tile_TD = np.zeros((TILE_ROWS, dimensions), np.float32)
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        for first in range(start, stop, TILE_ROWS):
            filled = min(TILE_ROWS, stop - first)
            tile_TD[:filled] = q_QD[first : first + filled]  # the rest of the last tile is not read
            row = first - start
            torch.mm(torch.from_numpy(tile_TD), p_DN, out=scores_BN[row : row + TILE_ROWS])
        yield start, scores_BN[: stop - start].numpy()
