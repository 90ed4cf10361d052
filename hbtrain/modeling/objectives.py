"""Terms of the loss beside InfoNCE, as functions of a block of scores, and their sum over blocks in bounded memory.

Every function gives the sum over the rows of its block; the mean over the global batch is taken by
`hbtrain.modeling.loss`. A score that is left out of a row has no part in its softmax, on either side.

Shapes: R rows of one block, C columns (candidates, or translated queries), n texts, D dimensions. s are cosines of the
student, t scores of a teacher, and z = s / temperature.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from hbtrain.modeling.devices import full_float32

LEFT_OUT = -1e9
"""Stands for minus infinity: its part of a softmax is 0, and differences of two of them are numbers."""

BlockTerm = Callable[[slice, list[Tensor], Tensor | float], Tensor]
"""(rows, cosines of them [R, C] for each pair of vectors, 1 / temperature) -> the term's sum over these rows."""


def teacher_kl(
    s_RC: Tensor, t_RC: Tensor, left_out_RC: Tensor | None, scale: Tensor | float, teacher_scale: float
) -> Tensor:
    """sum_i KL(softmax(t_i / T_t) || softmax(z_i)) over the same candidates (Hinton et al., arXiv 1503.02531).

    It is 0 where both differ by a constant in each row. There is no factor T^2. `teacher_scale` is 1 / T_t.
    """
    return _kl(_log_softmax(t_RC * teacher_scale, left_out_RC), _log_softmax(s_RC * scale, left_out_RC))


def teacher_margin(
    s_RC: Tensor, t_RC: Tensor, left_out_RC: Tensor | None, own_R: Tensor, teacher_scale: float
) -> Tensor:
    """sum_i mean_j ((s_i+ - s_ij) - f (t_i+ - t_ij))^2 over candidates j other than the positive, f = `teacher_scale`
    (MarginMSE: Hofstaetter et al., arXiv 2010.02666).

    The positive of row i is column `own_R[i]`. Cosines, not logits, on the student's side. A row without other
    candidates counts 0.
    """
    own_R1 = own_R[:, None]
    apart_RC = s_RC.gather(1, own_R1) - s_RC - (t_RC.gather(1, own_R1) - t_RC) * teacher_scale
    others_RC = torch.ones_like(s_RC) if left_out_RC is None else (~left_out_RC).to(s_RC.dtype)
    others_RC = others_RC.scatter(1, own_R1, 0.0)
    return ((apart_RC.square() * others_RC).sum(1) / others_RC.sum(1).clamp(min=1)).sum()


def teacher_mse(x_nD: Tensor, t_nD: Tensor) -> Tensor:
    """sum_n mean_d (x_nd - t_nd)^2 (Reimers and Gurevych, arXiv 2004.09813): of unit vectors 2 / D of `teacher_cosine`,
    so that its weight must grow with D."""
    return (x_nD - t_nD).square().mean(1).sum()


def teacher_cosine(x_nD: Tensor, t_nD: Tensor) -> Tensor:
    """sum_n (1 - cos(x_n, t_n))."""
    return (1 - (normalize(x_nD, dim=1) * normalize(t_nD, dim=1)).sum(1)).sum()


def jensen_shannon(s_RC: Tensor, other_RC: Tensor, left_out_RC: Tensor | None, scale: Tensor | float) -> Tensor:
    """sum_i JSD(softmax(z_i), softmax(z'_i)) of a query's scores and those of its translation with the same candidates.

    It lies between 0 and log 2 for each row, is 0 for equal softmaxes, and pulls on both sides. After arXiv 2604.05684,
    whose own distributions could not be read.
    """
    log_p_RC, log_r_RC = _log_softmax(s_RC * scale, left_out_RC), _log_softmax(other_RC * scale, left_out_RC)
    log_mean_RC = torch.logaddexp(log_p_RC, log_r_RC) - math.log(2)
    return (_kl(log_p_RC, log_mean_RC) + _kl(log_r_RC, log_mean_RC)) / 2


def bridge(reverse_RC: Tensor, forward_RC: Tensor, left_out_RC: Tensor | None, scale: Tensor | float) -> Tensor:
    """sum_i KL(softmax(z of passage i with translated queries) || softmax(z of query i with passages)).

    Column j of both is the pair j; the gradient goes through both (CLEAR, arXiv 2604.05821, as in its code).
    """
    return _kl(_log_softmax(reverse_RC * scale, left_out_RC), _log_softmax(forward_RC * scale, left_out_RC))


def _log_softmax(z_RC: Tensor, left_out_RC: Tensor | None) -> Tensor:
    return torch.log_softmax(z_RC if left_out_RC is None else z_RC.masked_fill(left_out_RC, LEFT_OUT), dim=1)


def _kl(log_p_RC: Tensor, log_r_RC: Tensor) -> Tensor:
    """sum_i KL(p_i || r_i) of logarithms of probabilities."""
    return (log_p_RC.exp() * (log_p_RC - log_r_RC)).sum()


def sum_over_blocks(
    term: BlockTerm, pairs: Sequence[tuple[Tensor, Tensor]], scale: Tensor | float, block_rows: int
) -> Tensor:
    """The term's sum over all rows, R at a time; differentiable by all vectors and the scale.

    Args:
        term: of a block.
        pairs: (x [n, D], y [C, D]) for each matrix of cosines x @ y.T that the term reads; n is the same in all.
        scale: 1 / temperature, a tensor [1] where it is learned.
        block_rows: R.
    """
    total: Tensor = _Blocked.apply(term, block_rows, scale, *[x for pair in pairs for x in pair])
    return total


class _Blocked(torch.autograd.Function):
    """As `hbtrain.modeling.info_nce`, for terms whose gradient by the scores autograd forms.

    A few blocks of R x C numbers exist at one time; gradients are those of the vectors.
    """

    @staticmethod
    @full_float32()
    def forward(ctx: Any, term: BlockTerm, block_rows: int, scale: Tensor | float, *vectors: Tensor) -> Tensor:
        needs_gradient = any(ctx.needs_input_grad[2:])
        x32, y32 = [x.float() for x in vectors[::2]], [y.float() for y in vectors[1::2]]
        gradients = [torch.zeros_like(x) for pair in zip(x32, y32, strict=True) for x in pair]
        total, of_scale = x32[0].new_zeros(()), x32[0].new_zeros(1)
        for first in range(0, len(x32[0]), block_rows):
            rows = slice(first, min(first + block_rows, len(x32[0])))
            scores = [(x[rows] @ y.T).requires_grad_(needs_gradient) for x, y in zip(x32, y32, strict=True)]
            learned = isinstance(scale, Tensor)
            own_scale = scale.detach().requires_grad_(needs_gradient) if isinstance(scale, Tensor) else scale
            with torch.set_grad_enabled(needs_gradient):
                value = term(rows, scores, own_scale)
            total += value.detach()
            if not needs_gradient:
                continue
            leaves = [*scores, own_scale] if isinstance(own_scale, Tensor) else scores
            found = torch.autograd.grad(value, leaves, materialize_grads=True)
            for i, (x, y) in enumerate(zip(x32, y32, strict=True)):
                torch.mm(found[i], y, out=gradients[2 * i][rows])
                gradients[2 * i + 1].addmm_(found[i].T, x[rows])
            if learned:
                of_scale += found[-1]
        ctx.dtypes = [x.dtype for x in vectors]
        ctx.gradients = (of_scale, *gradients)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (d,) = gradients
        of_scale, *of_vectors = ctx.gradients
        by_vectors = [(x * d).to(dtype) for x, dtype in zip(of_vectors, ctx.dtypes, strict=True)]
        return None, None, of_scale * d if ctx.needs_input_grad[2] else None, *by_vectors
