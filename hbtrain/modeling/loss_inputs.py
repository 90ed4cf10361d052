"""What the loss of a step is computed from: vectors of a rank's texts, and what all ranks know of the global batch.

The candidates of every query are the passages of all pairs, then the hard negatives, then the translations that pairs
bring along.

Shapes: b pairs, m hard negatives, k translated passages and o translated queries of this rank, B, M, K and O of all
ranks, C = B + M + K candidates, D dimensions, E dimensions of a guide or teacher.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Embedded:
    """The embeddings of a rank's part of the global batch."""

    q_bD: Tensor  # unit vectors of its queries
    p_bD: Tensor  # unit vectors of their passages, row by row
    n_mD: Tensor  # unit vectors of the hard negatives of its pairs; m may be 0
    scale: Tensor | None = None  # 1 / temperature, a tensor [1], where it is learned; None where it is fixed
    t_kD: Tensor | None = None  # passages of its pairs' rows in other languages, brought along; None: no rank has any
    u_oD: Tensor | None = None  # queries of its pairs in another language; None: no rank has any


@dataclass(frozen=True)
class Sizes:
    """Pairs of every rank, and texts that they bring along, in rank order; the empty tuple: no rank has any."""

    pairs: Sequence[int]
    negatives: Sequence[int]  # hard negatives
    translations: Sequence[int] = ()  # passages in other languages
    queries: Sequence[int] = ()  # queries in another language


@dataclass(frozen=True)
class PairIds:
    """Which queries, and which candidates, of the global batch are the same: these have equal numbers."""

    query_B: Tensor  # int64 [B], of the queries
    # int64 [C], of the passages, then of the negatives, then of the translations. Both are the same on all ranks
    candidate_C: Tensor


@dataclass(frozen=True)
class Owners:
    """The pair that brought each text along: its place in the global batch, int64. The same on all ranks."""

    negative_M: Tensor
    translation_K: Tensor
    query_O: Tensor


@dataclass(frozen=True)
class Reference:
    """Vectors of this rank's texts by a frozen model: unit vectors, float32, of that model's own dimension E."""

    q_bE: Tensor
    p_bE: Tensor
    n_mE: Tensor | None = None  # None: no rank has hard negatives
    t_kE: Tensor | None = None  # None: no rank has translations


@dataclass(frozen=True)
class Scores:
    """Scores that are kept with this rank's rows, float32: of each query with its own passage and hard negatives."""

    positive_b: Tensor
    negative_m: Tensor


@dataclass(frozen=True)
class References:
    """What the loss knows of this rank's texts from others than the student."""

    guide: Reference | Scores | None = None
    teacher: Reference | Scores | None = None
