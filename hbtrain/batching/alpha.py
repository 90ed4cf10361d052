"""The probability of a monolingual batch, step by step."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hbtrain.config.schema import BatchingConfig


def alpha_at(batching: BatchingConfig, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """float64 of the shape of `steps`: the probability that a batch is monolingual rather than cross-lingual.

    A schedule is joined by straight lines between its points and constant outside them.
    """
    if batching.mode in ("monolingual", "english"):
        return np.ones(steps.shape)
    if batching.mode == "cross-lingual":
        return np.zeros(steps.shape)
    if isinstance(batching.alpha, dict):
        points = sorted(batching.alpha.items())
        return np.interp(steps, [step for step, _ in points], [value for _, value in points])
    return np.full(steps.shape, float(batching.alpha))


def kinds_of(batching: BatchingConfig) -> tuple[str, ...]:
    """The kinds of batches that can occur: among `mono`, `cross` and `multi`."""
    if batching.mode == "multilingual":
        return ("multi",)
    if batching.mode in ("monolingual", "english"):
        return ("mono",)
    if batching.mode == "cross-lingual":
        return ("cross",)
    values = set(batching.alpha.values()) if isinstance(batching.alpha, dict) else {batching.alpha}
    return tuple(k for k, never in (("mono", values == {0.0}), ("cross", values == {1.0})) if not never)
