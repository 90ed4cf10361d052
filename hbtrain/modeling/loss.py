"""InfoNCE over the global batch, exact across ranks, in bounded memory (van den Oord et al., arXiv 1807.03748).

With B pairs in the global batch over W ranks and s_ij = q_i . p_j / temperature on unit vectors,

    L = -(1/B) sum_i log softmax_j(s_i)_i.

Data parallelism averages gradients over ranks, so rank r must back-propagate g_r with (1/W) sum_r g_r = dL. Here each
rank takes its own rows i of the sum, scaled by W/B, over candidates gathered with a backward that sums: every row's
gradient is then W times that of L, and the average is exact, for any sizes of the ranks' shards.

Shapes: b pairs of this rank, B of all ranks, R rows of one block, D dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hbtrain.config.schema import LossConfig
from hbtrain.modeling.gather import Group, gather_rows


@dataclass(frozen=True)
class PairIds:
    """Identities of all pairs of the global batch: equal numbers mark one query, or one passage.

    int64 [B] each, the same on all ranks.
    """

    query_B: Tensor
    passage_B: Tensor


def contrastive_loss(
    q_bD: Tensor, p_bD: Tensor, sizes: Sequence[int], group: Group, config: LossConfig, ids: PairIds | None = None
) -> Tensor:
    """This rank's part of the loss; its mean over ranks is the loss of the global batch, and so for gradients.

    Args:
        q_bD: unit vectors of this rank's queries.
        p_bD: unit vectors of their passages, row by row.
        sizes: pairs of every rank; their sum is B.
        group: the ranks.
        config: temperature, symmetric, block_rows.
        ids: with them, another pair of the same query or passage is no negative: its score leaves the softmax.
            None where no two pairs share one.

    Returns:
        a scalar, float32.
    """
    start = sum(sizes[: group.rank])
    own = slice(start, start + sizes[group.rank])
    p_BD = gather_rows(p_bD, sizes, group)
    total = _info_nce_sum(q_bD, p_BD, own, ids, config)
    if config.symmetric:
        q_BD = gather_rows(q_bD, sizes, group)
        total = (total + _info_nce_sum(p_bD, q_BD, own, ids, config)) / 2
    return total * (group.world_size / sum(sizes))


def _info_nce_sum(x_bD: Tensor, y_BD: Tensor, own: slice, ids: PairIds | None, config: LossConfig) -> Tensor:
    """sum_i -log softmax_j(x_i . y_j / temperature) at j = own.start + i."""
    total: Tensor = _BlockedInfoNCE.apply(x_bD, y_BD, own.start, ids, 1.0 / config.temperature, config.block_rows)
    return total


class _BlockedInfoNCE(torch.autograd.Function):
    """The sum over rows, computed R rows at a time.

    The gradient of a block needs its scores; rather than keep or recompute them, the forward pass forms the gradient
    while it holds them, which costs the three matrix products of the plain computation and R x B memory.
    """

    @staticmethod
    def forward(
        ctx: Any, x_bD: Tensor, y_BD: Tensor, start: int, ids: PairIds | None, scale: float, block_rows: int
    ) -> Tensor:
        needs_gradient = any(ctx.needs_input_grad[:2])
        # Scores and softmax in float32 whatever the model's precision: bf16 has 8 bits for exp's argument.
        x32_bD, y32_BD = x_bD.float(), y_BD.float()
        dx_bD = torch.empty_like(x32_bD) if needs_gradient else None
        dy_BD = torch.zeros_like(y32_BD) if needs_gradient else None
        total = x32_bD.new_zeros(())
        for first in range(0, len(x32_bD), block_rows):
            rows = slice(first, min(first + block_rows, len(x32_bD)))
            positives = torch.arange(start + rows.start, start + rows.stop, device=x_bD.device)
            scores_RB = (x32_bD[rows] @ y32_BD.T).mul_(scale)
            if ids is not None:
                scores_RB.masked_fill_(_same_item(ids, positives), float("-inf"))
            lse_R = scores_RB.logsumexp(dim=1)
            total += (lse_R - scores_RB.gather(1, positives[:, None])[:, 0]).sum()
            if dx_bD is not None and dy_BD is not None:
                ds_RB = scores_RB.sub_(lse_R[:, None]).exp_()
                ds_RB[torch.arange(len(positives), device=x_bD.device), positives] -= 1.0
                dx_bD[rows] = (ds_RB @ y32_BD).mul_(scale)
                dy_BD.addmm_(ds_RB.T, x32_bD[rows], alpha=scale)
        ctx.dtypes = x_bD.dtype, y_BD.dtype
        ctx.save_for_backward(dx_bD, dy_BD)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dx_bD, dy_BD = ctx.saved_tensors
        x_dtype, y_dtype = ctx.dtypes
        (d,) = gradients
        return (dx_bD * d).to(x_dtype), (dy_BD * d).to(y_dtype), None, None, None, None


def _same_item(ids: PairIds, positives_R: Tensor) -> Tensor:
    """bool [R, B]: pair j is not pair i but has its query or its passage."""
    same_RB = (ids.query_B[positives_R, None] == ids.query_B) | (ids.passage_B[positives_R, None] == ids.passage_B)
    same_RB[torch.arange(len(positives_R), device=positives_R.device), positives_R] = False
    return same_RB
