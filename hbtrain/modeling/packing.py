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

Shapes: D dimensions of a token.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hbtrain.errors import ModelError
from hbtrain.modeling.compiling import is_compiled
from hbtrain.modeling.features import Features, gives_rows, token_counts

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

logger = logging.getLogger(__name__)

PACKED = "packed"  # the attention of packed_attention.py, as `encoder.attention` and transformers call it
FLASH = "flash_attention_2"

PROVEN = ("BertModel", "CamembertModel", "DistilBertModel", "RobertaModel", "XLMRobertaModel")
"""Networks of transformers that are shown to give the same for packed batches as for padded ones."""


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
        from hbtrain.modeling.packed_attention import register

        register(PACKED)
        _network(model).set_attn_implementation(PACKED)
    if first.model_forward_params is not None:
        first.model_forward_params |= {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "groups"}
    first.register_forward_pre_hook(_as_one_row)
    first.register_forward_hook(_unpack)


def pack_on_gpu(model: SentenceTransformer, device: torch.device) -> None:
    """Have the model take packed batches where that pays: on GPUs in bf16, with a network for which it is proven.

    Where the kernel is not right on this GPU, batches stay padded, and a warning says so.
    """
    weight = next(model.parameters(), None)
    if device.type != "cuda" or weight is None or weight.dtype != torch.bfloat16 or not can_pack(model):
        return
    from hbtrain.modeling.packed_attention import kernel_problem

    settings = _network(model).config
    if problem := kernel_problem(device, settings.hidden_size // settings.num_attention_heads):
        logger.warning("texts are padded, which takes longer: %s", problem)
    else:
        pack(model)


def _network(model: SentenceTransformer) -> Any:
    """The transformer inside adapters."""
    network = getattr(model[0], "model", model[0])
    return network.get_base_model() if hasattr(network, "get_base_model") else network


def _as_one_row(module: nn.Module, inputs: tuple[dict[str, Any]]) -> tuple[dict[str, Any]] | None:
    """What the transformer is given for packed features, and `packed` for `_unpack`."""
    (features,) = inputs
    if "starts" not in features:
        return None
    from hbtrain.modeling.packed_attention import Group, similar_groups

    mask_BL, starts = features["attention_mask"], features["starts"]
    longest = mask_BL.shape[1]
    row = {name: features[name][None] for name in ("input_ids", "position_ids", "token_type_ids") if name in features}
    lengths = {"cu_seq_lens_q": starts, "cu_seq_lens_k": starts, "max_length_q": longest, "max_length_k": longest}
    rest = {name: value for name, value in features.items() if name not in row and name != "attention_mask"}
    by_length = starts.device.type == "cpu" and not is_compiled(module)
    groups = similar_groups(starts) if by_length else [Group(features["places"], mask_BL.bool())]
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
