"""From token features to unit vectors: the part of the encoder that carries gradients.

Shapes: B texts, D dimensions of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


class EmbeddingModule(nn.Module):
    """The module that is trained: every parameter of the encoder is registered here.

    One call embeds several batches (queries, passages, negatives), so that a wrapper which counts forward passes,
    such as DeepSpeed's engine, sees one.
    """

    def __init__(self, model: SentenceTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, batches: Sequence[dict[str, Tensor]]) -> list[Tensor]:
        """Unit vectors [B_i, D] in fp32 of each batch of token features, which are left unchanged."""
        return [embed(self.model, features) for features in batches]


def embed(model: SentenceTransformer, features: dict[str, Tensor], **forward_kwargs: Any) -> Tensor:
    """Unit vectors [B, D] in fp32 of a batch of token features; a text without tokens may give the zero vector."""
    # A copy, because the modules of a SentenceTransformer write into what they are given.
    vectors_BD = model(dict(features), **forward_kwargs)["sentence_embedding"]
    return functional.normalize(vectors_BD[:, : model.truncate_dim].float(), dim=-1)


def token_count(features: dict[str, Tensor]) -> int:
    """Number of tokens of a batch, padding not counted."""
    counted = features["attention_mask"].sum() if "attention_mask" in features else features["input_ids"].numel()
    return int(counted)


def truncate_bags(features: dict[str, Tensor], limit: int) -> dict[str, Tensor]:
    """Bags of tokens (`input_ids` [all tokens], `offsets` [B]) with at most `limit` tokens each."""
    ids, starts_B = features["input_ids"], features["offsets"]
    ends_B = torch.cat([starts_B[1:], starts_B.new_tensor([len(ids)])])
    lengths_B = (ends_B - starts_B).clamp(max=limit)
    position = torch.arange(len(ids)) - torch.repeat_interleave(starts_B, ends_B - starts_B)
    return {"input_ids": ids[position < limit], "offsets": torch.cumsum(lengths_B, 0) - lengths_B}
