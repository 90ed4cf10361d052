"""Packed batches: the tokens of all texts one after another, so that no padding is computed.

A packed batch of B texts with T tokens in all, and L in the longest, has these features, all made on the CPU:

- `input_ids`, `position_ids` and, where the tokenizer gives them, `token_type_ids`: int64 [T];
- `starts`: int32 [B + 1], the token at which each text starts, and T;
- `attention_mask`: int64 [B, L], that of the padded batch, with the padding after each text;
- `places`: int64 [T], where each token is in the padded batch, [B * L] row after row.

The host knows shapes, and would have to wait for values that are on a GPU: it takes B and L from `attention_mask`.

A transformer gets a packed batch as one row of T tokens, and computes everything but attention token by token.
Attention is computed inside each text: on GPUs in 16 bits by a kernel that takes `starts` (torch's, or flash-attn's
with `encoder.attention: flash_attention_2`), elsewhere in padded rows that exist within the attention only. After the
transformer the rows are padded again, so that poolings, and whatever follows, get what they always get.

Shapes: H heads, E dimensions of a head, D dimensions of a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from hbtrain.errors import ModelError
from hbtrain.modeling.features import Features, gives_rows, token_counts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PACKED = "packed"  # the attention below, as it is called in `encoder.attention` and in transformers
FLASH = "flash_attention_2"

PROVEN = ("BertModel", "CamembertModel", "DistilBertModel", "RobertaModel", "XLMRobertaModel")
"""Networks of transformers that are shown to give the same for packed batches as for padded ones."""

_SIMILAR = 0.75  # on CPUs texts are attended to together while each has this share of the longest one's tokens


def packed(batches: Sequence[Features], padding_idx: int | None = None) -> Features:
    """One packed batch of the texts of padded ones, in their order; a padded one where there is no token at all.

    Args:
        batches: of the same tokenizer, on the CPU, at least one.
        padding_idx: of networks of the RoBERTa family, see `padding_index`; None for others.
    """
    counts_B = torch.cat([token_counts(batch) for batch in batches])
    total, longest = int(counts_B.sum()), int(counts_B.max())
    if not total:
        return {name: torch.cat([batch[name].narrow(-1, 0, 1) for batch in batches]) for name in batches[0]}
    names = [name for name in batches[0] if name in ("input_ids", "token_type_ids")]
    features: Features = {name: torch.cat([_real(batch, name) for batch in batches]) for name in names}
    starts = torch.cat([counts_B.new_zeros(1), counts_B.cumsum(0)])
    row_T = torch.repeat_interleave(torch.arange(len(counts_B)), counts_B)
    position_T = torch.arange(total) - starts[row_T]
    features |= {
        "position_ids": position_T,
        "starts": starts.int(),
        "attention_mask": (torch.arange(longest) < counts_B[:, None]).long(),
        "places": row_T * longest + position_T,
    }
    if padding_idx is not None:
        features["position_ids"] = _roberta_positions(features["input_ids"] != padding_idx, starts[row_T], padding_idx)
    if len(batches) == 1 and "prompt_length" in batches[0]:
        features["prompt_length"] = batches[0]["prompt_length"]
    return features


def _real(features: Features, name: str) -> Tensor:
    """The values of a padded batch without those of padding, [tokens]."""
    mask = features.get("attention_mask")
    return features[name].flatten() if mask is None else features[name][mask.bool()]


def _roberta_positions(counted_T: Tensor, start_T: Tensor, padding_idx: int) -> Tensor:
    """Positions as RoBERTa numbers them: from `padding_idx` + 1 in each text, without its padding tokens, which may
    also be written in a text; these have the position `padding_idx`."""
    so_far = torch.cat([start_T.new_zeros(1), counted_T.cumsum(0)])
    return torch.where(counted_T, so_far[1:] - so_far[start_T], 0) + padding_idx


def padding_index(model: SentenceTransformer) -> int | None:
    """The token after whose id a network of the RoBERTa family begins to number positions; None for others."""
    for module in model.modules():
        index = getattr(module, "padding_idx", None)
        if isinstance(index, int) and isinstance(getattr(module, "position_embeddings", None), nn.Embedding):
            return index
    return None


def reads_prompt_length(model: SentenceTransformer) -> bool:
    """Whether a module leaves the prompt out, or may do so because it is not one of sentence-transformers."""
    return any(
        not getattr(module, "include_prompt", True) or not type(module).__module__.startswith("sentence_transformers.")
        for module in model
    )


def packs(model: SentenceTransformer) -> bool:
    """Whether the model takes packed batches; it takes padded ones in any case."""
    return _unpack in model[0]._forward_hooks.values()


def can_pack(model: SentenceTransformer) -> bool:
    """Whether the model's network is one of PROVEN, used as its authors do."""
    if not gives_rows(model) or model[0].module_output_name != "token_embeddings":
        return False
    network = _network(model)
    settings = network.config
    return (
        type(network).__name__ in PROVEN
        and type(network).__module__.startswith("transformers.models.")
        and model[0].modality_config["text"]["method_output_name"] == "last_hidden_state"
        and not getattr(settings, "is_decoder", False)
        and not settings.output_hidden_states
        and not settings.chunk_size_feed_forward
    )


def pack(model: SentenceTransformer) -> None:
    """Have the model take packed batches, in place; with the attention FLASH if it has that, else PACKED.

    Raises:
        ModelError: its network is not one for which packing is proven.
    """
    if packs(model):
        return
    if not can_pack(model):
        raise ModelError(
            f"encoder.attention = '{PACKED}' is for networks of BERT, DistilBERT, RoBERTa and XLM-R, and this backbone "
            f"({type(_network(model)).__name__}) is none; take 'auto'"
        )
    first = model[0]
    if first.config._attn_implementation != FLASH:
        _network(model).set_attn_implementation(PACKED)
    if first.model_forward_params is not None:
        first.model_forward_params |= {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "groups"}
    first.register_forward_pre_hook(_as_one_row)
    first.register_forward_hook(_unpack)


def pack_on_gpu(model: SentenceTransformer, device: torch.device) -> None:
    """Have the model take packed batches where that pays: on GPUs in bf16, with a network for which it is proven."""
    weight = next(model.parameters(), None)
    if device.type == "cuda" and weight is not None and weight.dtype == torch.bfloat16 and can_pack(model):
        pack(model)


def _network(model: SentenceTransformer) -> Any:
    """The transformer inside adapters."""
    network = getattr(model[0], "model", model[0])
    return network.get_base_model() if hasattr(network, "get_base_model") else network


class _Group(NamedTuple):
    """Texts next to each other that are attended to in padded rows; its sizes are the shapes of these tensors, which
    compiled code takes as they come."""

    places: Tensor  # int64 [tokens] in [rows * width]
    mask: Tensor  # bool [rows, width]: where there is a token


def _as_one_row(module: nn.Module, inputs: tuple[dict[str, Any]]) -> tuple[dict[str, Any]] | None:
    """What the transformer is given for packed features, and `packed` for `_unpack`."""
    (features,) = inputs
    if "starts" not in features:
        return None
    mask_BL, starts = features["attention_mask"], features["starts"]
    longest = mask_BL.shape[1]
    row = {name: features[name][None] for name in ("input_ids", "position_ids", "token_type_ids") if name in features}
    lengths = {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": longest, "max_length_k": longest}
    rest = {name: value for name, value in features.items() if name not in row and name != "attention_mask"}
    by_length = starts.device.type == "cpu" and not getattr(module, "is_compiled", False)
    groups = _similar_groups(starts) if by_length else [_Group(features["places"], mask_BL.bool())]
    return (rest | row | lengths | {"groups": groups, "packed": mask_BL},)


def _unpack(module: nn.Module, inputs: tuple[dict[str, Any]], features: dict[str, Any]) -> None:
    """Put the token vectors back into a padded batch [B, L, D], which the modules after a transformer expect."""
    mask_BL = features.pop("packed", None)
    if mask_BL is None:
        return
    x_TD = features["token_embeddings"][0]
    padded = x_TD.new_zeros(mask_BL.numel(), x_TD.shape[1]).index_copy(0, features["places"], x_TD)
    features |= {"token_embeddings": padded.view(*mask_BL.shape, -1), "attention_mask": mask_BL}
    del features["cu_seq_lens_q"]  # by which poolings know packed batches


def _similar_groups(starts: Tensor) -> list[_Group]:
    """Groups of texts of similar length, for a batch on the CPU; texts without tokens are in none."""
    groups: list[list[int]] = []
    for count in starts.diff().tolist():
        if not count:
            continue
        if groups and min(*groups[-1], count) >= _SIMILAR * max(*groups[-1], count):
            groups[-1].append(count)
        else:
            groups.append([count])
    return [_group(counts) for counts in groups]


def _group(counts: list[int]) -> _Group:
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    return _Group(mask.flatten().nonzero()[:, 0], mask)


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    groups: Sequence[_Group] | None = None,
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


def _grouped_attention(
    query: Tensor, key: Tensor, value: Tensor, groups: Sequence[_Group], dropout: float, scaling: float | None
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


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, sdpa_mask)
