"""The best of several shards' best.

Shapes: Q queries, K results, Ks results of a shard.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hbtrain.retrieval.scores import Floats

NONE = -1
"""The place of a result that an approximate index did not find; its score is minus infinity."""


class Found(NamedTuple):
    """Results of queries, best first; of equal scores the first in the pool comes first."""

    scores: Floats
    """[Q, K]"""
    places: npt.NDArray[np.int64]
    """[Q, K] in the pool; `NONE` where fewer than K were found."""


def merge(parts: Sequence[Found], k: int) -> Found:
    """The best `k` of all parts, or all where they are fewer; the parts' candidates are distinct."""
    scores = np.concatenate([part.scores for part in parts], axis=1)
    places = np.concatenate([part.places for part in parts], axis=1)
    # By score, and of equal scores by place, whatever the order of the parts and of the results within them.
    order = np.lexsort((places, -scores), axis=1)[:, :k]
    return Found(np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1))
