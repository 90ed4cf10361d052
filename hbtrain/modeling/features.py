"""Token features, which a tokenizer makes for the encoder: counting, cutting, batches of like length.

Features have three forms. A transformer's are padded: `input_ids` and `attention_mask` [B, tokens] and others like
them; or packed, see `hbtrain.modeling.packing`. A static encoder's are bags: `input_ids` [all tokens] and `offsets`
[B], where each bag begins.

**Batches of like length**: texts are tokenized one window ahead of the network, and a window is cut into batches by a
budget of tokens. Windows are chosen by the number of characters, which would be too coarse for batches: a token has one
character in Thai and five in English. Inside a window texts are sorted by their tokens.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


Features = dict[str, Tensor]


def row_count(features: Features) -> int:
    """B, the number of texts."""
    if is_packed(features):
        return len(features["starts"]) - 1
    return len(features["offsets"]) if "offsets" in features else len(features["input_ids"])


def is_padded(features: Features) -> bool:
    """Whether texts are padded to the longest of their batch."""
    return "offsets" not in features and not is_packed(features)


def is_packed(features: Features) -> bool:
    """Whether the tokens of all texts are one after another, see `hbtrain.modeling.packing`."""
    return "starts" in features


def token_counts(features: Features) -> Tensor:
    """int64 [B]: tokens of each text, padding not counted."""
    if is_packed(features):
        return features["starts"].diff().long()
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
        rows_R: int64 [R], numbers of the texts, in the order wanted.
    """
    if "offsets" in features:
        return _select_bags(features, rows_R)
    selected = {name: value[rows_R] for name, value in features.items()}
    mask_RT = selected.get("attention_mask")
    if mask_RT is None:
        return selected
    used_T = mask_RT.any(dim=0)
    used_T[:1] |= ~used_T.any()  # texts without tokens keep a column of padding, see `with_padding`
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


def with_padding(features: Features) -> Features:
    """Features of which those with rows of no tokens [B, 0] have a column of padding [B, 1].

    A network cannot take rows of length 0, which texts have that are all empty where the tokenizer adds no token of its
    own. Zeros are masked, as `attention_mask` is widened in the same way.
    """
    return {
        name: torch.zeros(len(value), 1, dtype=torch.int64) if value.ndim == 2 and not value.shape[1] else value
        for name, value in features.items()
    }


def pinned(features: Features, device: torch.device) -> Features:
    """The features in memory from which a GPU copies them by itself, without the host waiting for it."""
    if device.type != "cuda":
        return features
    return {name: value.pin_memory() for name, value in features.items()}


def moved(features: Features, device: torch.device) -> Features:
    """The features on a device; the host does not wait for it where they are `pinned`."""
    return {name: value.to(device, non_blocking=True) for name, value in features.items()}


ROWS = frozenset({"input_ids", "attention_mask", "token_type_ids"})
"""Names of what a tokenizer gives for each token of a text."""


def gives_rows(model: SentenceTransformer) -> bool:
    """Whether the model does nothing but tokenize its texts, so that this may be done here."""
    from sentence_transformers.base.modules import Transformer
    from transformers import PreTrainedTokenizerFast

    first = model[0]
    return (
        type(first) is Transformer
        and isinstance(first.processor, PreTrainedTokenizerFast)
        and type(first.processor)._encode_plus is PreTrainedTokenizerFast._encode_plus
        and first.processor.pad_token_id is not None
        and "message" not in first.modality_config
        and first.transformer_task not in ("text-generation", "any-to-any")
        and first.query_expansion is None
        and not first.processing_kwargs
        and set(first.processor.model_input_names) <= ROWS
    )


Item = TypeVar("Item")
Result = TypeVar("Result")

WINDOW_TEXTS = 1024  # texts tokenized at one time
WINDOW_CHARACTERS = 4_000_000
"""The most texts x longest text of a window, which bounds the memory of its padded tokens to some 100 MB."""


def windows(texts: Sequence[str]) -> Iterator[list[int]]:
    """The numbers of all texts, in windows, longest texts first; texts of equal length in their order."""
    longest_first = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    start = 0
    while start < len(texts):
        longest = max(1, len(texts[longest_first[start]]))
        stop = start + max(1, min(WINDOW_TEXTS, WINDOW_CHARACTERS // longest))
        yield longest_first[start:stop]
        start = stop


def within_budget(tokens_W: Tensor, batch_size: int, batch_tokens: int, packed: bool = False) -> Iterator[Tensor]:
    """int64 [B] numbers of the texts of each batch, longest texts first.

    Args:
        tokens_W: tokens of each text of a window.
        batch_size: the most texts of a batch.
        batch_tokens: the most tokens of a batch, padding included; a longer text gets a batch of its own.
        packed: whether batches will be packed, and have no padding.
    """
    order_W = tokens_W.argsort(descending=True, stable=True)
    ends = tokens_W[order_W].cumsum(0).tolist()
    start = 0
    while start < len(order_W):
        if packed:
            fitting = bisect_right(ends, batch_tokens + (ends[start - 1] if start else 0)) - start
        else:
            fitting = batch_tokens // max(1, int(tokens_W[order_W[start]]))
        stop = start + max(1, min(batch_size, fitting))
        yield order_W[start:stop]
        start = stop


def ahead(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[tuple[Item, Result]]:
    """(item, result of `function`) for all items; a thread computes the next result while one is being used."""
    with ThreadPoolExecutor(1, thread_name_prefix="tokenize") as thread:
        before = None
        for item in items:
            here = (item, thread.submit(function, item))
            if before is not None:
                yield before[0], before[1].result()
            before = here
        if before is not None:
            yield before[0], before[1].result()
