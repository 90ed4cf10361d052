"""Batches of like length: texts are tokenized a window ahead of the network, and cut by a budget of tokens.

Characters sort texts well enough to choose windows, but not batches: a token holds one character of Thai and five of
English. Inside a window texts are sorted by their tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

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
