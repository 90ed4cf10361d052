"""Inner products in fp32, tile by tile: a score depends on its two vectors only, to the last bit.

Whatever a model's similarity, vectors are ranked by inner products: for the cosine those of unit vectors, for a dot
product those of vectors as they are, for a distance those of vectors with two more components (`for_inner_products`).

Matrix libraries choose their order of summation by the shape of the operands and by the number of threads. Here every
product has one and the same shape, `TILE_QUERIES` x `TILE_CANDIDATES`, filled up with zeros, and is computed by one
thread; then a score depends neither on the place of its vectors nor on what else is scored, and whatever is cut into
blocks or shards comes out the same. More threads take more tiles.

Shapes: T rows of a query tile, C columns of a candidate tile, R rows of any matrix, D dimensions.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hbtrain.errors import ModelError
from hbtrain.modeling.devices import full_float32
from hbtrain.modeling.encoder import Side, Similarity

if TYPE_CHECKING:
    from torch import Tensor

Floats = npt.NDArray[np.float32]

TILE_QUERIES = 512
TILE_CANDIDATES = 512
"""At this shape a product runs at nine tenths of full speed, and its scores (1 MiB) stay in the cache of a core."""
CHECKED_ROWS = 4096  # vectors that `check_finite` looks at in one go
GATHERED_ROWS = 64  # vectors that `rows_at` reads in one go


def similarity_of(encoder: object) -> Similarity:
    """How the vectors of an encoder are compared; an encoder that does not say makes unit vectors."""
    similarity: Similarity = getattr(encoder, "similarity", "cosine")
    return similarity


def for_inner_products(x_ND: Floats, side: Side, similarity: Similarity) -> Floats:
    """Vectors whose inner products rank as the similarity does: `x_ND` itself, or, for euclidean distances, [N, D + 2].

    With (q, -|q|^2 / 2, 1) and (p, 1, -|p|^2 / 2) the product is q.p - |q|^2 / 2 - |p|^2 / 2 = -|q - p|^2 / 2.
    """
    if similarity != "euclidean":
        return x_ND
    halves_N = np.einsum("nd,nd->n", x_ND, x_ND, dtype=np.float64)[:, None].astype(np.float32) / -2
    ones_N = np.ones_like(halves_N)
    return np.hstack([x_ND, *((halves_N, ones_N) if side == "query" else (ones_N, halves_N))], dtype=np.float32)


def similarities(products: Floats, similarity: Similarity) -> Floats:
    """The similarities that such inner products stand for, as sentence-transformers gives them: for euclidean
    distances their negatives."""
    return -np.sqrt(np.maximum(-2 * products, 0)) if similarity == "euclidean" else products


def rows_of(x_ND: Floats, start: int, stop: int) -> Floats:
    """[stop - start, D] in fp32; a copy only where the array is read-only (memory-mapped) or of another type."""
    return np.require(x_ND[start:stop], np.float32, ["C", "W"])


def rows_at(x_ND: Floats, places: npt.NDArray[np.int64]) -> Floats:
    """[R, D] in fp32: a copy of the rows at `places`."""
    rows_RD = np.empty((len(places), x_ND.shape[1]), np.float32)
    # Reading a row of a file brings in its surroundings, so let go of them early.
    for start in range(0, len(places), GATHERED_ROWS):
        rows_RD[start : start + GATHERED_ROWS] = x_ND[places[start : start + GATHERED_ROWS]]
        forget_pages(x_ND)
    return rows_RD


def tile_of(x_RD: Floats, rows: int) -> Tensor:
    """[rows, D]: `x_RD`, filled up with rows of zeros."""
    import torch

    if len(x_RD) == rows:
        return torch.from_numpy(x_RD)
    tile = np.zeros((rows, x_RD.shape[1]), np.float32)
    tile[: len(x_RD)] = x_RD
    return torch.from_numpy(tile)


def tile_scores(q_TD: Tensor, p_CD: Tensor, out_TC: Tensor) -> None:
    """Write the inner products of two tiles into `out_TC`; to be called in a thread of `scoring_threads`."""
    import torch

    torch.mm(q_TD, p_CD.T, out=out_TC)


@contextmanager
def scoring_threads(threads: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Threads that compute one product each, in full fp32; `threads` None: as many as torch uses."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with (
            full_float32(),
            ThreadPoolExecutor(threads or before, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            yield pool
    finally:
        torch.set_num_threads(before)


def check_finite(what: str, x_ND: Floats) -> None:
    """Check that all vectors are finite, and short enough for their inner products to be finite too.

    Raises:
        ModelError: with the number of the first vector that is not, and how many are not.
    """
    broken: list[int] = []
    for start in range(0, len(x_ND), CHECKED_ROWS):
        block_RD = np.asarray(x_ND[start : start + CHECKED_ROWS], np.float32)
        with np.errstate(over="ignore", invalid="ignore"):
            square_R = np.einsum("rd,rd->r", block_RD, block_RD)
        broken.extend((start + np.flatnonzero(~np.isfinite(square_R))).tolist())
        forget_pages(x_ND)
    if broken:
        raise ModelError(
            f"the embedding of {what} {broken[0]} holds NaN or infinity ({len(broken)} of {len(x_ND)} do), or is too "
            "long for fp32: training has diverged or the precision is too low; use an earlier checkpoint or fp32"
        )


def forget_pages(x_ND: Floats) -> None:
    """Let go of the pages read from a read-only memory-mapped file, which would pile up in the process's memory."""
    if isinstance(x_ND, np.memmap) and x_ND.mode == "r" and hasattr(mmap, "MADV_DONTNEED"):
        base: object = x_ND
        while isinstance(base, np.ndarray):
            base = base.base
        if isinstance(base, mmap.mmap):
            base.madvise(mmap.MADV_DONTNEED)
