"""Token features: what tokenizing gives and the encoder takes. Counting, cutting, and taking some rows of a batch.

Two forms occur. A transformer's features are padded: `input_ids` and `attention_mask` [B, tokens] and companions. A
static encoder's are bags: `input_ids` [all tokens] and `offsets` [B], where each bag begins.

Padding token ids: from the rows that a tokenizer gives to a transformer's tensors, without a detour through Python.

Left to the tokenizer, rows become padded lists, and these tensors, number by number, while Python's lock is held: 40 %
of the time of preparing a batch of mixed lengths, in which no other thread of a worker gets on.

Batches of like length: texts are tokenized a window ahead of the network, and cut by a budget of tokens.

Characters sort texts well enough to choose windows, but not batches: a token holds one character of Thai and five of
English. Inside a window texts are sorted by their tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
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


Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW_TEXTS = 1024
"""Texts tokenized at one time."""
WINDOW_CHARACTERS = 4_000_000
"""The most texts x longest text of a window, which bounds the memory of its padded tokens to some 100 MB."""


def windows(texts: Sequence[str]) -> Iterator[list[int]]:
    """The places of all texts in windows, longest texts first; texts of one length in their order."""
    longest_first = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    start = 0
    while start < len(texts):
        longest = max(1, len(texts[longest_first[start]]))
        stop = start + max(1, min(WINDOW_TEXTS, WINDOW_CHARACTERS // longest))
        yield longest_first[start:stop]
        start = stop


def within_budget(tokens_W: Tensor, batch_size: int, batch_tokens: int) -> Iterator[Tensor]:
    """int64 [B] places of the texts of each batch, longest first.

    Args:
        tokens_W: tokens of each text of a window.
        batch_size: the most texts of a batch.
        batch_tokens: the most tokens of a batch, padding included; a longer text is a batch of its own.
    """
    order_W = tokens_W.argsort(descending=True, stable=True)
    start = 0
    while start < len(order_W):
        longest = max(1, int(tokens_W[order_W[start]]))
        stop = start + max(1, min(batch_size, batch_tokens // longest))
        yield order_W[start:stop]
        start = stop


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """`items` with their results, each computed in a thread while the one before is being used."""
    with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as thread:
        before = None
        for item in items:
            here = (item, thread.submit(function, item))
            if before is not None:
                yield before[0], before[1].result()
            before = here
        if before is not None:
            yield before[0], before[1].result()
