"""Which candidates of a row are positives, which are negatives, and which are left out of its softmax.

Shapes: b pairs and m hard negatives of this rank; B pairs, M hard negatives, K translations and C = B + M + K
candidates of all ranks; R rows of one block; E dimensions of a guide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hbtrain.config.loss import LossConfig
from hbtrain.modeling.devices import full_float32
from hbtrain.modeling.loss_inputs import Owners, PairIds, Scores

TIE = 1e-6
"""Scores of a guide that differ by less are equal: a product in float32 differs by so much with the block that it is
computed in, and what is done with two equal texts must not depend on that."""

Guide = Callable[[slice], Tensor]
"""Rows of this rank -> bool [R, C]: whether the guide scores the candidate above the positive less the margin."""


@dataclass(frozen=True)
class Block:
    """What the candidates are to the rows of one block."""

    left_out_RC: Tensor | None = None  # bool: not in the softmax; None: all are in it
    positive_RC: Tensor | None = None  # bool, the own positive included; None: only that one, on the diagonal
    harder_RC: Tensor | None = None  # bool: weighted by hardness; None: none is


@dataclass
class Relations:
    """What the candidates, or in the other direction the queries, of the global batch are to the rows of this rank."""

    start: int  # the place in the global batch of this rank's first row, and the column of its positive
    columns: int  # C, or B in the other direction
    ids: PairIds | None = None  # which rows and columns are the same; None: none are
    owners: Owners | None = None  # None: no column but the passages of the pairs needs one
    several: bool = False  # whether a column that is the same passage is a positive, not left out
    guide: Guide | None = None  # what it drops is left out
    hardness_of: str | None = None  # the negatives that are weighted, as `loss.hardness_of`; None: none are

    def __post_init__(self) -> None:
        self._counts: dict[int, Tensor] = {}

    def of(self, rows: slice, device: torch.device) -> Block:
        """For rows of this rank."""
        left_out_RC, positive_RC = self.left_out(rows), self._positives(rows)
        if self.guide is not None:
            dropped_RC = self.guide(rows)
            dropped_RC.diagonal(self.start + rows.start).fill_(False)
            no_negatives = [x for x in (left_out_RC, positive_RC) if x is not None]
            for mask_RC in no_negatives:
                dropped_RC &= ~mask_RC
            dropped_R = dropped_RC.sum(1)
            # The own positive is no negative, and in the sum of `positive_RC` already.
            negatives_R = torch.full_like(dropped_R, self.columns - int(positive_RC is None))
            self._counts[rows.start] = torch.stack([dropped_R, negatives_R - sum(x.sum(1) for x in no_negatives)], 1)
            left_out_RC = dropped_RC if left_out_RC is None else left_out_RC | dropped_RC
        return Block(left_out_RC, positive_RC, self._harder(rows, positive_RC, device))

    def left_out(self, rows: slice | Tensor) -> Tensor | None:
        """bool [R, C]: the candidates that are neither positives nor negatives, guide or not; None: there are none.

        `rows` are rows of this rank, or a tensor of places in the global batch.
        """
        if self.ids is None:
            return None
        places = self._places(rows)
        same_RC = same_item(self.ids, places, self.owners)
        return same_RC & ~_same_passage(self.ids, places) if self.several else same_RC

    @property
    def guided_b2(self) -> Tensor | None:
        """int64 [b, 2] of each row: negatives that the guide drops, and how many there are without it; None: none."""
        return torch.cat(list(self._counts.values())) if self._counts else None

    def _positives(self, rows: slice) -> Tensor | None:
        return _same_passage(self.ids, self._places(rows)) if self.several and self.ids is not None else None

    def _harder(self, rows: slice, positive_RC: Tensor | None, device: torch.device) -> Tensor | None:
        if self.hardness_of is None:
            return None
        shape = rows.stop - rows.start, self.columns
        harder_RC = torch.full(shape, self.hardness_of != "hard_negatives", device=device)
        if self.hardness_of != "all":
            assert self.owners is not None
            own_RM = self.owners.negative_M == self._row_places(rows, device)
            first = self.columns - len(self.owners.negative_M) - len(self.owners.translation_K)
            harder_RC[:, first : first + own_RM.shape[1]] = own_RM ^ (self.hardness_of == "in_batch")
        if positive_RC is None:
            harder_RC.diagonal(self.start + rows.start).fill_(False)
            return harder_RC
        return harder_RC & ~positive_RC

    def _row_places(self, rows: slice, device: torch.device) -> Tensor:
        """int64 [R, 1]."""
        return torch.arange(self.start + rows.start, self.start + rows.stop, device=device)[:, None]

    def _places(self, rows: slice | Tensor) -> slice | Tensor:
        return slice(self.start + rows.start, self.start + rows.stop) if isinstance(rows, slice) else rows


def same_item(ids: PairIds, places: slice | Tensor, owners: Owners | None = None) -> Tensor:
    """bool [R, C]: whether candidate j, another one than the own positive i, is the same passage or of the same query.

    Args:
        ids: of all queries and candidates.
        places: those of the rows in the global batch, which are those of their positives.
        owners: with them, a translation that a pair brings along is of that pair's query.
    """
    same_RC = _same_passage(ids, places)
    pairs = len(ids.query_B)
    query_R1 = ids.query_B[places].unsqueeze(1)
    same_RC[:, :pairs] |= query_R1 == ids.query_B
    if owners is not None and len(owners.translation_K):
        same_RC[:, -len(owners.translation_K) :] |= query_R1 == ids.query_B[owners.translation_K]
    if isinstance(places, slice):
        same_RC.diagonal(places.start).fill_(False)
        return same_RC
    return same_RC.scatter_(1, places[:, None], False)


def _same_passage(ids: PairIds, places: slice | Tensor) -> Tensor:
    """bool [R, C]: whether candidate j is the passage of pair i, in whatever language; so is the own positive."""
    return ids.candidate_C[places].unsqueeze(1) == ids.candidate_C


def guide_by_vectors(x_bE: Tensor, y_CE: Tensor, start: int, config: LossConfig) -> Guide:
    """A guide that scores by cosines (GISTEmbed, arXiv 2402.16829): g_ij > g_ii - margin, strictly.

    Args:
        x_bE: its unit vectors of this rank's rows.
        y_CE: of all columns; that of the first row's positive is `start`.
        start: as in `Relations`.
        config: margin, absolute or as a share of the size of g_ii.
    """

    def above(rows: slice) -> Tensor:
        with full_float32():
            g_RC = x_bE[rows] @ y_CE.T
        own_R = g_RC.diagonal(start + rows.start)
        return g_RC > (_threshold(own_R, config) + TIE)[:, None]

    return above


def guide_by_scores(
    scores: Scores, owners: Owners, start: int, columns: int, negatives: Sequence[int], rank: int, config: LossConfig
) -> Guide:
    """A guide that knows the scores of each row's own passage and hard negatives, and drops of the latter only.

    Args:
        scores: of this rank's rows.
        owners: of the hard negatives.
        start, columns: as in `Relations`.
        negatives: hard negatives of every rank.
        rank: this one.
        config: margin, absolute or as a share of the size of the positive's score.
    """
    first, count = sum(negatives[:rank]), negatives[rank]
    owner_m = owners.negative_M[first : first + count] - start
    above_m = scores.negative_m > (_threshold(scores.positive_b, config) + TIE)[owner_m]
    left = columns - len(owners.negative_M) - len(owners.translation_K) + first

    def above(rows: slice) -> Tensor:
        above_RC = torch.zeros(rows.stop - rows.start, columns, dtype=torch.bool, device=above_m.device)
        row_R = torch.arange(rows.start, rows.stop, device=above_m.device)
        above_RC[:, left : left + count] = (row_R[:, None] == owner_m) & above_m
        return above_RC

    return above


def _threshold(own_R: Tensor, config: LossConfig) -> Tensor:
    return own_R - config.guide_margin * (own_R.abs() if config.guide_relative else 1.0)
