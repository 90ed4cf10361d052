"""The score matrix, a block of queries at a time, so that it never exists whole.

Shapes: Q queries, N candidates, D dimensions, T rows of a tile, B rows of a block.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

TILE_ROWS = 128
COLUMN_MULTIPLE = 64


def score_blocks(
    q_QD: npt.NDArray[np.float32], p_ND: npt.NDArray[np.float32], block_rows: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Inner products in fp32, as (first query, scores [B, N]) with B <= `block_rows` rounded up to whole tiles.

    A block is overwritten by the next one. Matrix libraries choose their order of summation by the shape of the
    operands, so every product here has one and the same shape: tiles of `TILE_ROWS` queries, filled up with zeros,
    against candidates filled up to a multiple of `COLUMN_MULTIPLE`. Hence a score depends neither on `block_rows`
    nor on the number of queries, and equal candidates get equal scores. Memory: one copy of the candidates where
    their number is no such multiple, and `block_rows` x N x 4 bytes.
    """
    import torch

    queries, dimensions = q_QD.shape
    candidates = len(p_ND)
    padded = np.zeros((_round_up(candidates, COLUMN_MULTIPLE), dimensions), np.float32)
    padded[:candidates] = p_ND
    p_DN = torch.from_numpy(padded).T
    rows = _round_up(min(block_rows, max(queries, 1)), TILE_ROWS)
    scores_BN = torch.empty(rows, len(padded))
    tile_TD = np.zeros((TILE_ROWS, dimensions), np.float32)
    for start in range(0, queries, rows):
        stop = min(start + rows, queries)
        for first in range(start, stop, TILE_ROWS):
            filled = min(TILE_ROWS, stop - first)
            tile_TD[:filled] = q_QD[first : first + filled]
            tile_TD[filled:] = 0
            row = first - start
            torch.mm(torch.from_numpy(tile_TD), p_DN, out=scores_BN[row : row + TILE_ROWS])
        yield start, scores_BN[: stop - start, :candidates]


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
