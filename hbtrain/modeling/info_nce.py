"""InfoNCE over the global batch, in bounded memory (van den Oord et al., arXiv 1807.03748).

With B pairs in the global batch, and z_ij = q_i . c_j / temperature on unit vectors, where c are the candidates,

    L = -(1/B) sum_i log softmax_j(z_i)_i

and so that its negatives may be weighted, its positives several, and candidates that are neither left out.

Shapes: b rows of this rank, C columns (candidates, or queries in the other direction), R rows of one block, D
dimensions.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from hbtrain.config.loss import LossConfig
from hbtrain.modeling.candidates import Relations
from hbtrain.modeling.devices import full_float32


def info_nce_sum(x_bD: Tensor, y_CD: Tensor, scale: Tensor | float, relations: Relations, config: LossConfig) -> Tensor:
    """sum_i (log sum_j exp(z_ij + h_ij) - z_i+) with z_ij = scale x_i . y_j, over candidates j that are not left out.

    z_i+ is the score of the own positive; of several, what `config.positives_form` makes of them. h_ij is
    `config.hardness` times the cosine x_i . y_j for negatives that are weighted, without gradient, else 0
    (arXiv 2503.04812).

    Args:
        x_bD: unit vectors of the rows.
        y_CD: those of the columns.
        scale: 1 / temperature, a tensor [1] where it is learned.
        relations: what the columns are to the rows.
        config: block_rows (R), hardness, positives_form.
    """
    total: Tensor = _BlockedInfoNCE.apply(x_bD, y_CD, scale, relations, config)
    return total


class _BlockedInfoNCE(torch.autograd.Function):
    """The sum over rows of `info_nce_sum`, computed R rows at a time.

    The gradient of a block needs its scores; rather than keep or recompute them, the forward pass forms the gradient
    while it holds them, which costs the three matrix products of the plain computation and R x C memory.
    """

    @staticmethod
    @full_float32()
    def forward(
        ctx: Any, x_bD: Tensor, y_CD: Tensor, scale: Tensor | float, relations: Relations, config: LossConfig
    ) -> Tensor:
        needs_gradient = any(ctx.needs_input_grad[:3])
        # Scores and softmax in float32 whatever the model's precision: bf16 has 8 bits for exp's argument, TF32 11.
        x32_bD, y32_CD = x_bD.float(), y_CD.float()
        dx_bD = torch.empty_like(x32_bD) if needs_gradient else None
        # Without rows no block writes it.
        dy_CD = (torch.empty_like if len(x_bD) else torch.zeros_like)(y32_CD) if needs_gradient else None
        sums = []
        for first in range(0, len(x32_bD), config.block_rows):
            rows = slice(first, min(first + config.block_rows, len(x32_bD)))
            own = relations.start + first  # the positive of the block's first row; the others follow, on a diagonal
            scaled_RD = x32_bD[rows] * scale
            scores_RC = scaled_RD @ y32_CD.T
            block = relations.of(rows, scores_RC.device)
            if block.harder_RC is not None:  # z + hardness x s, where s = z / scale
                scores_RC.mul_(torch.where(block.harder_RC, 1.0 + config.hardness / scale, 1.0))
            if block.left_out_RC is not None:
                scores_RC.masked_fill_(block.left_out_RC, float("-inf"))
            highest_R1 = scores_RC.amax(dim=1, keepdim=True)
            target_RC = None
            if block.positive_RC is None:
                positive_R = scores_RC.diagonal(own) - highest_R1[:, 0]
            else:
                positive_R, target_RC = _towards(scores_RC, block.positive_RC, config.positives_form)
                positive_R = positive_R - highest_R1[:, 0]
            del block
            # In place from here on: a second block of this size would be most of the memory the loss needs.
            sums_R1 = scores_RC.sub_(highest_R1).exp_().sum(dim=1, keepdim=True)
            sums.append((sums_R1[:, 0].log() - positive_R).sum())
            if dx_bD is not None and dy_CD is not None:
                ds_RC = scores_RC.div_(sums_R1)
                if target_RC is None:
                    ds_RC.diagonal(own).sub_(1.0)
                else:
                    ds_RC.sub_(target_RC)
                torch.mm(ds_RC, y32_CD, out=dx_bD[rows])
                # Not zeros that the first block is added to: beta 0 writes without reading.
                dy_CD.addmm_(ds_RC.T, scaled_RD, beta=int(first > 0))
                del ds_RC
            del scores_RC, target_RC  # before the next block, or two would exist at one time
        if dx_bD is not None:
            if ctx.needs_input_grad[2]:
                # sum_ij ds_ij x_i . y_j, as long as dx does not carry the scale
                ctx.dscale = (x32_bD * dx_bD).sum().reshape(1)
            dx_bD.mul_(scale)
        ctx.dtypes = x_bD.dtype, y_CD.dtype
        ctx.gradients = dx_bD, dy_CD
        return sum(sums[1:], sums[0]) if sums else x32_bD.new_zeros(())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("the loss gives its gradients away in the first backward pass; there is no second")
        dx_bD, dy_CD = ctx.gradients
        ctx.gradients = None
        x_dtype, y_dtype = ctx.dtypes
        (d,) = gradients
        dscale = ctx.dscale * d if ctx.needs_input_grad[2] else None
        return dx_bD.mul_(d).to(x_dtype), dy_CD.mul_(d).to(y_dtype), dscale, None, None


def _towards(scores_RC: Tensor, positive_RC: Tensor, form: Literal["out", "in"]) -> tuple[Tensor, Tensor]:
    """What InfoNCE with several positives pulls rows towards: (value [R], its gradient by the scores [R, C]).

    out: the mean of the positives' scores. in: the logarithm of the mean of their exponentials. The loss of a row is
    the logarithm of the sum of exponentials over all candidates less this value (SupCon, arXiv 2004.11362, L_out and
    L_in).
    """
    count_R1 = positive_RC.sum(1, keepdim=True)
    if form == "out":
        mean_RC = positive_RC / count_R1
        return torch.where(positive_RC, scores_RC, 0.0).mul_(mean_RC).sum(1), mean_RC
    of_positives_RC = scores_RC.masked_fill(~positive_RC, float("-inf"))
    value_R1 = of_positives_RC.logsumexp(1, keepdim=True)
    return (value_R1 - count_R1.log())[:, 0], (of_positives_RC - value_R1).exp_()
