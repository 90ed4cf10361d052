"""Padding token ids: from the rows that a tokenizer gives to a transformer's tensors, without a detour through Python.

Left to the tokenizer, rows become padded lists, and these tensors, number by number, while Python's lock is held: 40 %
of the time of preparing a batch of mixed lengths, in which no other thread of a worker gets on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor

UNPADDED: Mapping[str, Any] = {"text": {"padding": False}, "common": {"return_tensors": None}}
"""`processing_kwargs` that make sentence-transformers' preprocessing give lists of rows."""

ROWS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
"""What a tokenizer gives of each text."""


def gives_rows(model: SentenceTransformer) -> bool:
    """Whether the model reads texts through a tokenizer alone, so that its rows may be padded here."""
    from sentence_transformers.base.modules import Transformer
    from transformers import PreTrainedTokenizerFast

    first = model[0]
    return (
        type(first) is Transformer
        and isinstance(first.processor, PreTrainedTokenizerFast)
        and first.processor.pad_token_id is not None
        and "message" not in first.modality_config
        and first.transformer_task not in ("text-generation", "any-to-any")
        and first.query_expansion is None
        and not first.processing_kwargs
        and set(first.processor.model_input_names) <= ROWS
    )


def padded(rows: Mapping[str, Any], tokenizer: Any) -> dict[str, Tensor]:
    """int64 [B, longest] of each kind of rows, as the tokenizer would pad them.

    Args:
        rows: {name: B lists of numbers}, names as in `ROWS`; anything else is left out.
        tokenizer: of transformers: says with what, and on which side.
    """
    import numpy as np
    import torch

    lengths = np.fromiter(map(len, rows["input_ids"]), np.int64, len(rows["input_ids"]))
    longest = int(lengths.max(initial=0))
    place = np.arange(longest)
    left = tokenizer.padding_side == "left"
    real = place >= (longest - lengths)[:, None] if left else place < lengths[:, None]
    filler = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": tokenizer.pad_token_type_id}
    features = {}
    for name in [name for name in rows if name in ROWS]:
        values: Sequence[Sequence[int]] = rows[name]
        table = np.full(real.shape, filler[name], np.int64)
        table[real] = np.fromiter(chain.from_iterable(values), np.int64, int(lengths.sum()))
        features[name] = torch.from_numpy(table)
    return features
