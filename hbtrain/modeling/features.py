"""Token features: what tokenizing gives and the encoder takes. Counting, cutting, and taking some rows of a batch.

Two forms occur. A transformer's features are padded: `input_ids` and `attention_mask` [B, tokens] and companions. A
static encoder's are bags: `input_ids` [all tokens] and `offsets` [B], where each bag begins.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

Features = dict[str, Tensor]


def row_count(features: Features) -> int:
    """B, the texts of a batch."""
    return len(features["offsets"]) if "offsets" in features else len(features["input_ids"])


def is_padded(features: Features) -> bool:
    """Whether a short text costs what the longest of its batch does."""
    return "offsets" not in features


def token_counts(features: Features) -> Tensor:
    """int64 [B]: tokens of each text, padding not counted."""
    if "offsets" in features:
        return _ends(features) - features["offsets"]
    if "attention_mask" in features:
        return features["attention_mask"].sum(dim=1)
    rows, width = features["input_ids"].shape
    return torch.full((rows,), width)


def select_rows(features: Features, rows_R: Tensor) -> Features:
    """The features of some texts, without the padding that only the others needed.

    Args:
        features: of B texts.
        rows_R: int64 [R], which of them, in the order wanted.
    """
    if "offsets" in features:
        return _select_bags(features, rows_R)
    selected = {name: value[rows_R] for name, value in features.items()}
    mask_RT = selected.get("attention_mask")
    if mask_RT is None:
        return selected
    used_T = mask_RT.any(dim=0)
    return {name: value[:, used_T] if value.shape[:2] == mask_RT.shape else value for name, value in selected.items()}


def truncate_bags(features: Features, limit: int) -> Features:
    """Bags of tokens with at most `limit` tokens each."""
    return _take(features, features["offsets"], (_ends(features) - features["offsets"]).clamp(max=limit))


def join_bags(batches: Sequence[Features]) -> Features:
    """Several batches of bags as one."""
    sizes = torch.tensor([0, *(len(batch["input_ids"]) for batch in batches[:-1])])
    starts = torch.cumsum(sizes, 0).tolist()
    return {
        "input_ids": torch.cat([batch["input_ids"] for batch in batches]),
        "offsets": torch.cat([batch["offsets"] + start for batch, start in zip(batches, starts, strict=True)]),
    }


def _select_bags(features: Features, rows_R: Tensor) -> Features:
    return _take(features, features["offsets"][rows_R], (_ends(features) - features["offsets"])[rows_R])


def _take(features: Features, starts_R: Tensor, lengths_R: Tensor) -> Features:
    """Bags of the tokens [start, start + length)."""
    offsets_R = torch.cumsum(lengths_R, 0) - lengths_R
    position = torch.arange(int(lengths_R.sum())) + torch.repeat_interleave(starts_R - offsets_R, lengths_R)
    return {"input_ids": features["input_ids"][position], "offsets": offsets_R}


def _ends(features: Features) -> Tensor:
    starts_B = features["offsets"]
    return torch.cat([starts_B[1:], starts_B.new_tensor([len(features["input_ids"])])])
