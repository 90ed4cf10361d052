"""Cutting a rank's texts into chunks that are embedded one after the other, and joining their vectors again.

A rank's texts of a step are its queries, then its passages, then its hard negatives: n in all. A chunk holds some of
each side, in batches of similar length, so that little padding is computed.

All ranks make the same number of batches of every chunk: under ZeRO-3 each call of the encoder is collective. A rank
that has no text left for a batch embeds one of its texts again, and ignores the vector.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import torch
from torch import Tensor

from hbtrain.modeling.features import Features, moved, pinned, row_count, select_rows, token_counts


class Cut(NamedTuple):
    """Into how many parts a rank's texts are cut."""

    chunks: int
    batches: tuple[int, ...]  # of each side's part of a chunk


@dataclass(frozen=True)
class Chunk:
    """Texts that are embedded in one forward pass."""

    batches: list[Features]  # token features of each batch
    # int64 [B_i] for each batch: the index of each of its texts among the rank's n; n itself for a text whose vector is
    # ignored
    positions: list[Tensor]

    def to(self, device: torch.device) -> Chunk:
        """A copy on a device, for which the host does not wait."""
        batches = [moved(pinned(batch, device), device) for batch in self.batches]
        positions = {str(i): x for i, x in enumerate(self.positions)}
        return Chunk(batches, list(moved(pinned(positions, device), device).values()))


def chunked(
    sides: Sequence[Features | None], count: int, batches: int | Sequence[int], packs: bool = False
) -> list[Chunk]:
    """Cut the texts of all sides into `count` chunks.

    Args:
        sides: token features of queries, passages and negatives; None where this rank has no text of a side that other
            ranks have. A side that no rank has is left out.
        count: number of chunks; at most the number of queries of the rank with the fewest.
        batches: number of batches that each side's part of a chunk is cut into: of every side, or one for all.
        packs: whether the batches will be packed, so that padding does not count.
    """
    batches = [batches] * len(sides) if isinstance(batches, int) else batches
    sizes = [0 if side is None else row_count(side) for side in sides]
    ignored = torch.tensor([sum(sizes)])
    spare = select_rows(_first(sides), torch.tensor([0]))
    chunks: list[Chunk] = [Chunk([], []) for _ in range(count)]
    offset = 0
    for side, size, of_side in zip(sides, sizes, batches, strict=True):
        parts = [] if side is None else balanced_parts(token_counts(side), count * of_side, packs)
        for i in range(count * of_side):
            chunk = chunks[i // of_side]
            if side is not None and i < len(parts):
                chunk.batches.append(select_rows(side, parts[i]))
                chunk.positions.append(offset + parts[i])
            else:
                chunk.batches.append(spare)
                chunk.positions.append(ignored)
        offset += size
    return chunks


def with_packed_batches(chunk: Chunk, count: int, pack: Callable[[Sequence[Features]], list[Features]]) -> Chunk:
    """The chunk, packed: of `count` batches of each side, the first ones of all sides are one batch, and so on.

    `pack` is that of an encoder (`Encoder.pack`), and may leave the sides apart.
    """
    packed = Chunk([], [])
    for i in range(count):
        positions = chunk.positions[i::count]
        batches = pack(chunk.batches[i::count])
        packed.batches.extend(batches)
        packed.positions.extend(positions if len(batches) == len(positions) else [torch.cat(positions)])
    return packed


def balanced_parts(lengths_B: Tensor, count: int, packs: bool = False) -> list[Tensor]:
    """Divide the rows of `lengths_B` [B] (tokens) into `count` parts, or fewer if there are fewer rows.

    Returns row numbers of each part, longest texts first. The parts are chosen so that the largest, padded to its
    longest text unless parts are packed, is as small as possible; none is empty.
    """
    order_B, lengths = _longest_first(lengths_B)
    count = min(count, len(lengths))
    low, high = max(lengths[0], -(-sum(lengths) // count)), lengths[0] * -(-len(lengths) // count)
    while low < high:
        middle = (low + high) // 2
        if len(_cuts(lengths, middle, packs)) <= count:
            high = middle
        else:
            low = middle + 1
    cuts = _cuts(lengths, high, packs)
    while len(cuts) < count:  # the budget leaves parts over: halve the one with the most texts
        start, stop = max(cuts, key=lambda cut: cut[1] - cut[0])
        index = cuts.index((start, stop))
        cuts[index : index + 1] = [(start, (start + stop) // 2), ((start + stop) // 2, stop)]
    return [order_B[start:stop] for start, stop in cuts]


def batches_within(lengths_B: Tensor, budget_tokens: int) -> int:
    """The fewest batches of the rows of `lengths_B` [B] (tokens) that each keep to `budget_tokens`, padding included.

    So does each part of `balanced_parts`, for this many or more. Where a row is longer than the budget, a part may have
    as many tokens as that row. 1 if B is 0.
    """
    return max(1, len(_cuts(_longest_first(lengths_B)[1], budget_tokens)))


def _longest_first(lengths_B: Tensor) -> tuple[Tensor, list[int]]:
    order_B = torch.argsort(lengths_B, descending=True, stable=True)
    return order_B, lengths_B[order_B].clamp(min=1).tolist()


def _cuts(lengths: Sequence[int], budget: int, packs: bool = False) -> list[tuple[int, int]]:
    """[start, stop) of parts in which rows x longest row, or the sum of rows that are packed, stays within `budget`
    tokens; `lengths` are descending."""
    cuts = []
    start = 0
    ends = list(accumulate(lengths)) if packs else []
    while start < len(lengths):
        fitting = (
            bisect_right(ends, budget + (ends[start - 1] if start else 0)) - start
            if packs
            else budget // lengths[start]
        )
        stop = min(len(lengths), start + max(1, fitting))
        cuts.append((start, stop))
        start = stop
    return cuts


def chunks_within(sides: Sequence[Features | None], budget_tokens: int, most: int, packs: bool = False) -> int:
    """The fewest chunks that each stay within `budget_tokens`, with padding unless they are packed; `most` if no number
    suffices."""
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        largest = max(map(real_tokens if packs else padded_tokens, chunked(sides, middle, 1, packs)))
        if largest <= budget_tokens:
            high = middle
        else:
            low = middle + 1
    return low


def padded_tokens(chunk: Chunk) -> int:
    """Tokens that are computed for a chunk, padding included."""
    return sum(features["input_ids"].numel() for features in chunk.batches)


def real_tokens(chunk: Chunk) -> int:
    """Tokens of a chunk without padding."""
    return sum(int(token_counts(features).sum()) for features in chunk.batches)


def assemble(vectors: Sequence[Tensor], positions: Sequence[Tensor], count: int) -> Tensor:
    """x_nD with n = `count`: every vector at its position. Differentiable; the gradient of ignored vectors is zero."""
    all_ = torch.cat(list(vectors))
    x = all_.new_zeros(count + 1, all_.shape[1]).index_copy(0, torch.cat(list(positions)), all_)
    return x[:count]


def _first(sides: Sequence[Features | None]) -> Features:
    return next(side for side in sides if side is not None)
