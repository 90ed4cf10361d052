"""Gathering rows of all ranks, with a gradient that flows back to the rank each row came from.

Shapes: b rows of this rank, B rows of all ranks, D dimensions, W ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

# Their names since torch 2.13, which warns of the old ones.
all_gather_single = getattr(dist, "all_gather_single", dist.all_gather_into_tensor)
reduce_scatter_single = getattr(dist, "reduce_scatter_single", dist.reduce_scatter_tensor)


class Group(Protocol):
    """The ranks that train together."""

    @property
    def rank(self) -> int: ...

    @property
    def world_size(self) -> int: ...

    def all_gather(self, x: Tensor) -> Tensor:
        """[W, *x.shape]: the tensors of all ranks, which must have the same shape."""

    def all_reduce_sum(self, x: Tensor) -> Tensor:
        """The sum over ranks; may overwrite `x`."""

    def reduce_scatter_sum(self, x: Tensor) -> Tensor:
        """Of the sum over ranks of `x`, [W, ...], the part with this rank's number."""


class SingleProcess:
    """A group of one rank."""

    rank = 0
    world_size = 1

    def all_gather(self, x: Tensor) -> Tensor:
        return x.unsqueeze(0)

    def all_reduce_sum(self, x: Tensor) -> Tensor:
        return x

    def reduce_scatter_sum(self, x: Tensor) -> Tensor:
        return x[0]


class ProcessGroup:
    """The default group of torch.distributed."""

    def __init__(self) -> None:
        self.rank = dist.get_rank()
        self.world_size = dist.get_world_size()

    def all_gather(self, x: Tensor) -> Tensor:
        out = x.new_empty(self.world_size * x.numel())
        all_gather_single(out, x.flatten())
        return out.view(self.world_size, *x.shape)

    def all_reduce_sum(self, x: Tensor) -> Tensor:
        dist.all_reduce(x)
        return x

    def reduce_scatter_sum(self, x: Tensor) -> Tensor:
        out = x.new_empty(x[0].numel())
        reduce_scatter_single(out, x.flatten())
        return out.view(x.shape[1:])


def gather_rows(x_bD: Tensor, sizes: Sequence[int], group: Group) -> Tensor:
    """x_BD: the rows of all ranks in rank order, differentiable.

    The backward sums the gradients that all ranks hold for a row and hands the sum to the row's own rank. So if every
    rank back-propagates its own part of a loss, each row receives the gradient of the whole.

    Args:
        x_bD: this rank's rows; b equals sizes[rank].
        sizes: number of rows of every rank; they may differ.
        group: the ranks.
    """
    if x_bD.shape[0] != sizes[group.rank]:
        raise ValueError(f"rank {group.rank} has {x_bD.shape[0]} rows, sizes say {sizes[group.rank]}")
    if group.world_size == 1:
        return x_bD
    gathered: Tensor = _GatherRows.apply(x_bD, tuple(sizes), group)
    return gathered


class _GatherRows(torch.autograd.Function):
    """Collectives take parts of one size: shorter ones are padded with zeros to the longest."""

    @staticmethod
    def forward(ctx: Any, x_bD: Tensor, sizes: tuple[int, ...], group: Group) -> Tensor:
        ctx.sizes, ctx.group = sizes, group
        most = max(sizes)
        padded = x_bD if len(x_bD) == most else torch.cat([x_bD, x_bD.new_zeros(most - len(x_bD), *x_bD.shape[1:])])
        gathered = group.all_gather(padded)
        if min(sizes) == most:
            return gathered.flatten(0, 1)
        return torch.cat([part[:size] for part, size in zip(gathered, sizes, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (g_BD,) = gradients
        most, fewest = max(ctx.sizes), min(ctx.sizes)
        if fewest < most:
            zeros = g_BD.new_zeros(most - fewest, *g_BD.shape[1:])
            parts = zip(g_BD.split(ctx.sizes), ctx.sizes, strict=True)
            g_BD = torch.cat([x for part, size in parts for x in (part, zeros[: most - size])])
        total = ctx.group.reduce_scatter_sum(g_BD.unflatten(0, (len(ctx.sizes), most)))
        return total[: ctx.sizes[ctx.group.rank]], None, None
