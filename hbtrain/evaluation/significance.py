"""Is a difference more than chance? Permutation tests, bootstrap intervals, Holm's correction.

The unit is the question: one that is asked in eleven languages, of eleven pools, is one observation, and all of its
scores are flipped or drawn together. Shapes: U questions, C cells, K scores (each a mean over cells), S systems,
R resamples.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

BLOCK_BYTES = 2**26  # memory of a block of resamples; no result depends on it

ROUNDING = 1e-10
"""Sums count as equal if they differ by less than this share of the sum of magnitudes, which is rounding."""


def permutation_p_values(differences_UK: npt.ArrayLike, resamples: int, seed: int = 0) -> Floats:
    """[K] two-sided p-values of the paired permutation test that a sum over questions is not 0 by luck.

    Had the two systems been exchangeable, each question's difference could as well have had the other sign. The p-value
    is the share of such sign flips, the observed one included, whose sum is as far from 0 as the observed one or
    farther (Fisher 1935; Smucker, Allan, Carterette 2007 for retrieval). All 2^U flips are tried where they are
    no more than `resamples`; otherwise p = (1 + extreme) / (1 + resamples), which never is 0 (Phipson, Smyth 2010).
    The same flips serve all K scores.

    Args:
        differences_UK: what each question contributes to the difference of each score, which is their sum.
        resamples: how many random sign flips.
        seed: of the random sign flips.
    """
    d_UK = np.atleast_2d(np.asarray(differences_UK, np.float64))
    units, scores = d_UK.shape
    threshold_K = np.abs(d_UK.sum(axis=0)) - ROUNDING * np.abs(d_UK).sum(axis=0)
    if units < 62 and 2**units <= resamples:
        extreme_K, tried, flips = np.zeros(scores, np.int64), 2**units, _all_signs(units)
    else:
        extreme_K, tried, flips = np.ones(scores, np.int64), resamples + 1, _random_signs(units, resamples, seed)
    for signs_RU in flips:
        extreme_K += np.count_nonzero(np.abs(signs_RU @ d_UK) >= threshold_K, axis=0)
    return np.asarray(extreme_K / tried, np.float64)


def holm(p_values: npt.ArrayLike) -> Floats:
    """Holm's (1979) adjusted p-values of a family of tests, in the order given.

    Rejecting where the adjusted value is at most a level keeps the chance of any false rejection below that level,
    however the tests depend on each other.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(stepped, 1.0)
    return adjusted


def draw_counts(units: int, resamples: int, seed: int = 0) -> Iterator[Floats]:
    """Blocks [R', U]: how often each of `units` questions is drawn in a bootstrap resample; `resamples` rows in all."""
    generator = np.random.default_rng(seed)
    rows = max(1, BLOCK_BYTES // (8 * units))
    for start in range(0, resamples, rows):
        drawn = generator.integers(units, size=(min(rows, resamples - start), units))
        places = drawn + units * np.arange(len(drawn))[:, None]
        yield np.bincount(places.ravel(), minlength=drawn.size).reshape(drawn.shape).astype(np.float64)


def bootstrap_means(
    values_SUC: Floats, weights_CK: Floats, present_UC: npt.NDArray[np.bool_], resamples: int, seed: int = 0
) -> Floats:
    """[R, S, K] scores of S systems on resampled questions (Efron 1979), the same questions for all systems.

    A score is the weighted sum of its cells, each the mean over the questions that it has.

    Args:
        values_SUC: scores of U questions in C cells; what is not present is not looked at.
        weights_CK: weight of each cell in each score.
        present_UC: which questions a cell has. A cell that a resample leaves without questions is left out of its
            scores; a score with no cell left is NaN.
        resamples: R.
        seed: of the draws.
    """
    systems, units, _ = values_SUC.shape
    if present_UC.all():
        x_UT = np.moveaxis(values_SUC @ weights_CK, 0, 1).reshape(units, -1) / units
        resampled = np.concatenate([counts_RU @ x_UT for counts_RU in draw_counts(units, resamples, seed)])
        return resampled.reshape(resamples, systems, -1)
    present = present_UC.astype(np.float64)
    filled_SUC = np.where(present_UC, values_SUC, 0.0)
    blocks = []
    for counts_RU in draw_counts(units, resamples, seed):
        size_RC = counts_RU @ present
        weight_RK = (size_RC > 0) @ weights_CK
        of_systems = []
        for filled_UC in filled_SUC:
            means_RC = np.divide(counts_RU @ filled_UC, size_RC, out=np.zeros_like(size_RC), where=size_RC > 0)
            nothing = np.full_like(weight_RK, np.nan)
            of_systems.append(np.divide(means_RC @ weights_CK, weight_RK, out=nothing, where=weight_RK > 0))
        blocks.append(np.stack(of_systems, axis=1))
    return np.concatenate(blocks)


def interval(resampled: Floats, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Lower and upper ends [...] of the percentile intervals (Efron, Tibshirani 1993, chapter 13) of [R, ...], NaN left
    out."""
    tail = (1 - confidence) / 2
    quantile = np.nanquantile if np.isnan(resampled).any() else np.quantile
    low, high = quantile(resampled, (tail, 1 - tail), axis=0)
    return low, high


def _all_signs(units: int) -> Iterator[Floats]:
    """Blocks [R', U] of all 2^U combinations of -1 and 1."""
    rows = max(1, BLOCK_BYTES // (8 * units))
    for start in range(0, 2**units, rows):
        numbers = np.arange(start, min(start + rows, 2**units))
        yield np.asarray(1 - 2 * ((numbers[:, None] >> np.arange(units)) & 1), np.float64)


def _random_signs(units: int, resamples: int, seed: int) -> Iterator[Floats]:
    """Blocks [R', U] of -1 and 1, each with probability 1/2; `resamples` rows in all."""
    generator = np.random.default_rng(seed)
    width = 4 * -(-units // 32)  # whole words: what the generator gives does not depend on the blocks
    rows = max(1, BLOCK_BYTES // (8 * units))
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        bits = np.frombuffer(generator.bytes(count * width), np.uint8).reshape(count, width)
        yield 1.0 - 2.0 * np.unpackbits(bits, axis=1, count=units).astype(np.float64)
