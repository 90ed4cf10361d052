"""Attention inside each text of a packed batch (see `hbtrain.modeling.packing`), for the interface of transformers.

Shapes: T tokens of all texts, L of the longest; H heads, E dimensions of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

_SIMILAR = 0.75  # on CPUs texts are attended to together while each has this share of the longest one's tokens

_TRIED = (0, 7, 1, 130, 64)  # tokens before, and of, the texts on which the kernel is tried
_ROUNDING = 0.03  # relative difference in norm that bf16 makes; a text attended to by another one's tokens makes more


class Group(NamedTuple):
    """Texts next to each other that are attended to in padded rows; its sizes are the shapes of these tensors, which
    compiled code takes as they come."""

    places: Tensor  # int64 [tokens] in [rows * width]
    mask: Tensor  # bool [rows, width]: where there is a token


def similar_groups(starts: Tensor) -> list[Group]:
    """Groups of texts of similar length, for a batch on the CPU; texts without tokens are in none."""
    groups: list[list[int]] = []
    least = most = 0
    for count in filter(None, starts.diff().tolist()):
        least, most = min(least, count), max(most, count)
        if not groups or least < _SIMILAR * most:
            groups.append([])
            least = most = count
        groups[-1].append(count)
    return [_group(counts) for counts in groups]


def _group(counts: list[int]) -> Group:
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    return Group(mask.flatten().nonzero()[:, 0], mask)


def register(name: str) -> None:
    """Have transformers know `packed_attention` by a name."""
    AttentionInterface.register(name, packed_attention)
    AttentionMaskInterface.register(name, sdpa_mask)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    groups: Sequence[Group] | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attention of transformers' interface, bidirectional: of padded batches as `sdpa`, of packed ones in each text.

    Args:
        module: the layer that asks.
        query: [1, H, T, E], as `key` and `value`; of a padded batch [B, H, L, E].
        key: see `query`.
        value: see `query`.
        attention_mask: of a padded batch; None for a packed one.
        dropout: probability with which a weight of the attention is dropped.
        scaling: of the scores.
        groups: of a packed batch; None for a padded one.
        others: of a packed batch `cu_seq_lens_q` (its `starts`), and what other models use.

    Returns:
        [1, T, H, E], or [B, L, H, E], and no weights.
    """
    if groups is None:
        of_rows: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, **others
        )
        return of_rows
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # [T, H, E]
    if _has_kernel(q):
        longest = max(group.mask.shape[1] for group in groups)
        return _flash_attention(q, k, v, others["cu_seq_lens_q"], longest, dropout, scaling)[None], None
    return _grouped_attention(q, k, v, groups, dropout, scaling)[None], None


def _has_kernel(x: Tensor) -> bool:
    return x.is_cuda and x.dtype in (torch.bfloat16, torch.float16) and x.shape[-1] % 8 == 0 and x.shape[-1] <= 256


def _flash_attention(
    query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, dropout: float, scaling: float | None
) -> Tensor:
    """Attention [T, H, E] inside each text, in one kernel: `torch.nn.attention.varlen.varlen_attn`, with dropout."""
    found: Tensor = torch.ops.aten._flash_attention_forward(
        query, key, value, starts, starts, longest, longest, dropout, False, return_debug_mask=False, scale=scaling
    )[0]
    return found


@cache
def kernel_problem(device: torch.device, dimension: int) -> str | None:
    """Why batches should not be packed on a GPU, in words; None if the kernel gives what it should.

    The kernel is tried once on a few small texts, with its gradients, against attention in padded rows: it is one of
    torch's inner functions, and takes other ways on other GPUs.

    Args:
        device: the GPU.
        dimension: E, of a head.
    """
    starts = torch.tensor(_TRIED).cumsum(0, dtype=torch.int32)
    groups = [Group(group.places.to(device), group.mask.to(device)) for group in similar_groups(starts)]
    generator = torch.Generator().manual_seed(0)
    shape = (4, int(starts[-1]), 2, dimension)
    *qkv, out = torch.randn(shape, generator=generator).to(device, torch.bfloat16).unbind()
    if not _has_kernel(out):
        return None
    found = []
    for compute in (
        lambda q, k, v: _flash_attention(q, k, v, starts.to(device), max(_TRIED), 0.0, None),
        lambda q, k, v: _grouped_attention(q.float(), k.float(), v.float(), groups, 0.0, None),
    ):
        own = [x.detach().requires_grad_() for x in qkv]
        try:
            result = compute(*own)
            found.append([result.detach(), *torch.autograd.grad(result, own, out.to(result.dtype))])
        except (RuntimeError, NotImplementedError, TypeError, AttributeError) as error:
            return f"torch's attention for packed texts fails on this GPU ({str(error).splitlines()[0]})"
    apart = max(float((x.float() - y.float()).norm() / y.float().norm()) for x, y in zip(*found, strict=True))
    return None if apart < _ROUNDING else f"torch's attention for packed texts is off by {apart:.2g} on this GPU"


def _grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, groups: Sequence[Group], dropout: float, scaling: float | None
) -> Tensor:
    """Attention [T, H, E] inside each text, group by group in padded rows."""
    parts, sizes = [], [len(group.places) for group in groups]
    for (places, mask), *qkv in zip(groups, *(x.split(sizes) for x in (query, key, value)), strict=True):
        is_full = len(places) == mask.numel()
        q, k, v = (_in_rows(x, None if is_full else places, mask.shape) for x in qkv)
        of_rows = None if is_full else mask[:, None, None]
        x = scaled_dot_product_attention(q, k, v, of_rows, dropout, scale=scaling).transpose(1, 2).flatten(0, 1)
        parts.append(x if is_full else x.index_select(0, places))
    return torch.cat(parts)


def _in_rows(x: Tensor, places: Tensor | None, shape: torch.Size) -> Tensor:
    """Tokens [tokens, H, E] in rows [rows, H, width, E], zero where a row is padded."""
    if places is not None:
        x = x.new_zeros(shape.numel(), *x.shape[1:]).index_copy(0, places, x)
    return x.view(*shape, *x.shape[1:]).transpose(1, 2)
