"""InfoNCE over the global batch, exact across ranks, in bounded memory (van den Oord et al., arXiv 1807.03748).

With B pairs in the global batch over W ranks, M hard negatives, and s_ij = q_i . c_j / temperature on unit vectors,
where the candidates c are the B passages followed by the M negatives,

    L = -(1/B) sum_i log softmax_j(s_i)_i.

Data parallelism averages gradients over ranks, so rank r must back-propagate g_r with (1/W) sum_r g_r = dL. Here each
rank takes its own rows i of the sum, scaled by W/B, over candidates gathered with a backward that sums: every row's
gradient is then W times that of L, and the average is exact, for any sizes of the ranks' shards.

Shapes: b pairs, m negatives, k translated passages and o translated queries of this rank, B, M, K and O of all ranks,
C = B + M + K candidates, R rows of one block, D dimensions, E dimensions of a guide or teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hbtrain.config.loss import LossConfig
from hbtrain.modeling.devices import full_float32
from hbtrain.modeling.gather import Group, gather_rows


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a rank's part of the global batch."""

    q_bD: Tensor  # unit vectors of its queries
    p_bD: Tensor  # unit vectors of their passages, row by row
    n_mD: Tensor  # unit vectors of the hard negatives of its pairs; m may be 0
    scale: Tensor | None = None  # 1 / temperature, a tensor [1], where it is learned; None where it is fixed
    t_kD: Tensor | None = None  # passages of its pairs' rows in other languages, brought along; None: no rank has any
    u_oD: Tensor | None = None  # queries of its pairs in another language; None: no rank has any


@dataclass(frozen=True)
class Sizes:
    """Pairs of every rank, and texts that they bring along, in rank order; the empty tuple: no rank has any."""

    pairs: Sequence[int]
    negatives: Sequence[int]  # hard negatives
    translations: Sequence[int] = ()  # passages in other languages
    queries: Sequence[int] = ()  # queries in another language


@dataclass(frozen=True)
class PairIds:
    """Which queries, and which candidates, of the global batch are the same: these have equal numbers."""

    query_B: Tensor  # int64 [B], of the queries
    # int64 [C], of the passages, then of the negatives, then of the translations. Both are the same on all ranks
    candidate_C: Tensor


@dataclass(frozen=True)
class Owners:
    """The pair that brought each text along: its place in the global batch, int64. The same on all ranks."""

    negative_M: Tensor
    translation_K: Tensor
    query_O: Tensor


@dataclass(frozen=True)
class Reference:
    """Vectors of this rank's texts by a frozen model: unit vectors, float32, of that model's own dimension E."""

    q_bE: Tensor
    p_bE: Tensor
    n_mE: Tensor | None = None  # None: no rank has hard negatives
    t_kE: Tensor | None = None  # None: no rank has translations


@dataclass(frozen=True)
class Scores:
    """Scores that are kept with this rank's rows, float32: of each query with its own passage and hard negatives."""

    positive_b: Tensor
    negative_m: Tensor


@dataclass(frozen=True)
class References:
    """What the loss knows of this rank's texts from others than the student."""

    guide: Reference | Scores | None = None
    teacher: Reference | Scores | None = None


def contrastive_loss(own: Embedded, sizes: Sizes, group: Group, config: LossConfig, ids: PairIds | None) -> Tensor:
    """This rank's part of the loss. The mean over ranks is the loss of the global batch; the same holds for gradients.

    Args:
        own: this rank's vectors.
        sizes: pairs and negatives of every rank; their sums are B and M.
        group: the ranks.
        config: temperature, symmetric (the other direction scores passages against queries), dimensions, block_rows.
        ids: with them, a candidate that is the same passage as the positive, or another passage of the same query, is
            no negative: its score is left out of the softmax. None if there are no such candidates.

    Returns:
        a scalar, float32: the mean over `matryoshka_dimensions` and the whole embedding.
    """
    start = sum(sizes.pairs[: group.rank])
    scale = own.scale if own.scale is not None else 1.0 / config.temperature
    c_CD = gather_rows(own.p_bD, sizes.pairs, group)
    if sum(sizes.negatives):
        c_CD = torch.cat([c_CD, gather_rows(own.n_mD, sizes.negatives, group)])
    q_BD = gather_rows(own.q_bD, sizes.pairs, group) if config.symmetric else None
    query_ids = None if ids is None else PairIds(ids.query_B, ids.candidate_C[: sum(sizes.pairs)])
    whole = own.q_bD.shape[1]
    dimensions = [d for d in config.matryoshka_dimensions if d < whole] + [whole]
    sums = []
    for d in dimensions:
        forwards = _info_nce_sum(_prefix(own.q_bD, d), _prefix(c_CD, d), scale, start, ids, config.block_rows)
        if q_BD is None:
            sums.append(forwards)
            continue
        back = _info_nce_sum(_prefix(own.p_bD, d), _prefix(q_BD, d), scale, start, query_ids, config.block_rows)
        sums.append((forwards + back) / 2)
    total = sum(sums[1:], sums[0])
    return total * (group.world_size / (sum(sizes.pairs) * len(dimensions)))


def _prefix(x_BD: Tensor, d: int) -> Tensor:
    """The first d dimensions, normalised to unit vectors [B, d]."""
    return x_BD if d == x_BD.shape[1] else normalize(x_BD[:, :d], dim=-1)


def _info_nce_sum(
    x_bD: Tensor, y_CD: Tensor, scale: Tensor | float, start: int, ids: PairIds | None, block_rows: int
) -> Tensor:
    """sum_i -log softmax_j(scale x_i . y_j) at j = start + i."""
    total: Tensor = _BlockedInfoNCE.apply(x_bD, y_CD, scale, start, ids, block_rows)
    return total


class _BlockedInfoNCE(torch.autograd.Function):
    """The sum over queries of `_info_nce_sum`, computed R rows at a time.

    The gradient of a block needs its scores; rather than keep or recompute them, the forward pass forms the gradient
    while it holds them, which costs the three matrix products of the plain computation and R x C memory.
    """

    @staticmethod
    @full_float32()
    def forward(
        ctx: Any, x_bD: Tensor, y_CD: Tensor, scale: Tensor | float, start: int, ids: PairIds | None, block_rows: int
    ) -> Tensor:
        needs_gradient = any(ctx.needs_input_grad[:3])
        # Scores and softmax in float32 whatever the model's precision: bf16 has 8 bits for exp's argument, TF32 11.
        x32_bD, y32_CD = x_bD.float(), y_CD.float()
        dx_bD = torch.empty_like(x32_bD) if needs_gradient else None
        dy_CD = torch.empty_like(y32_CD) if needs_gradient else None
        sums = []
        for first in range(0, len(x32_bD), block_rows):
            rows = slice(first, min(first + block_rows, len(x32_bD)))
            positive = start + first  # that of the block's first row; those of the others follow, on a diagonal
            scaled_RD = x32_bD[rows] * scale
            scores_RC = scaled_RD @ y32_CD.T
            if ids is not None:
                scores_RC.masked_fill_(_same_item(ids, positive, len(scaled_RD)), float("-inf"))
            highest_R1 = scores_RC.amax(dim=1, keepdim=True)
            positive_R = scores_RC.diagonal(positive) - highest_R1[:, 0]
            # In place from here on: a second block of this size would be most of the memory the loss needs.
            sums_R1 = scores_RC.sub_(highest_R1).exp_().sum(dim=1, keepdim=True)
            sums.append((sums_R1[:, 0].log() - positive_R).sum())
            if dx_bD is not None and dy_CD is not None:
                ds_RC = scores_RC.div_(sums_R1)
                ds_RC.diagonal(positive).sub_(1.0)
                torch.mm(ds_RC, y32_CD, out=dx_bD[rows])
                # Not zeros that the first block is added to: beta 0 writes without reading.
                dy_CD.addmm_(ds_RC.T, scaled_RD, beta=int(first > 0))
                del ds_RC
            del scores_RC  # before the next block, or two would exist at one time
        if dx_bD is not None:
            if ctx.needs_input_grad[2]:
                # sum_ij ds_ij x_i . y_j, as long as dx does not carry the scale
                ctx.dscale = (x32_bD * dx_bD).sum().reshape(1)
            dx_bD.mul_(scale)
        ctx.dtypes = x_bD.dtype, y_CD.dtype
        ctx.gradients = dx_bD, dy_CD
        return sum(sums[1:], sums[0])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the loss gives its gradients away in the first backward pass; there is no second")
        dx_bD, dy_CD = ctx.gradients
        ctx.gradients = None
        x_dtype, y_dtype = ctx.dtypes
        (d,) = gradients
        dscale = ctx.dscale * d if ctx.needs_input_grad[2] else None
        return dx_bD.mul_(d).to(x_dtype), dy_CD.mul_(d).to(y_dtype), dscale, None, None, None


def _same_item(ids: PairIds, first: int, count: int) -> Tensor:
    """bool [R, C]: whether candidate j, another one than the positive i, is the same passage or of the same query.

    The positives are the `count` candidates from `first` on.
    """
    positives = slice(first, first + count)
    same_RC = ids.candidate_C[positives, None] == ids.candidate_C
    same_RC[:, : len(ids.query_B)] |= ids.query_B[positives, None] == ids.query_B
    same_RC.diagonal(first).fill_(False)
    return same_RC
