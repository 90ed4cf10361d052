"""The best of several shards' best, where results may be out of order or missing; `merge_top` asks for neither.

Shapes: Q queries, K results, Ks results of a shard.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hbtrain.retrieval.top import Top

NONE = -1
"""The place of a result that an approximate index did not find; its score is minus infinity."""


def merge(parts: Sequence[Top], k: int) -> Top:
    """The best `k` of all parts, or all where they are fewer; the parts' candidates are distinct."""
    scores = np.concatenate([part.scores for part in parts], axis=1)
    places = np.concatenate([part.places for part in parts], axis=1)
    # By score, and of equal scores by place, whatever the order of the parts and of the results within them.
    order = np.lexsort((places, -scores), axis=1)[:, :k]
    return Top(np.take_along_axis(scores, order, axis=1), np.take_along_axis(places, order, axis=1))
