"""Every score of every system, with its interval, its spread over seeds, and its difference from the baseline.

Questions are the units of all statistics. Where a system has several runs (seeds), each question's scores are averaged
over them first, so a test asks whether the systems, as trained, would differ on other questions of the kind. What
other seeds would give is another question (Reimers, Gurevych 2017; Bouthillier et al. 2021): the spread over seeds
stands beside each mean, and a difference that not all seeds show has a mark of its own. Shapes: U questions, C cells,
K scores, S systems.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import numpy as np

from hbtrain.comparison.scores import Floats, Layout, Scores
from hbtrain.evaluation.significance import bootstrap_means, holm, interval, permutation_p_values
from hbtrain.reporting.metric_names import ALL, RANK_DISTANCE, SETTINGS, sign


@dataclass(frozen=True)
class Method:
    """How differences are judged."""

    flips: int = 19_999  # sign flips of a permutation test; all of them, if they are fewer
    resamples: int = 2_000
    confidence: float = 0.95  # of the intervals
    level: float = 0.05  # of the marks: the chance that any mark of a family is false stays below it
    seed: int = 0  # of the flips and the resamples


class Score(NamedTuple):
    """Which score: a column of a table."""

    benchmark: str
    setting: str
    metric: str
    part: str  # `all` languages, `seen`, `unseen`, or one query language


@dataclass(frozen=True)
class Difference:
    """A system's score less the baseline's."""

    value: float
    low: float  # lower end of its interval
    high: float  # upper end of its interval
    p: float  # p-value of the two-sided paired permutation test over questions
    p_holm: float  # the same with Holm's correction; see `adjusted`
    seeds_agree: bool  # whether every run of one of the two systems is better than every run of the other


@dataclass(frozen=True)
class Estimate:
    """One score of one system."""

    system: str
    score: Score
    value: float  # mean over the system's runs
    by_run: tuple[float, ...]  # the score of each run
    low: float  # lower end of the interval
    high: float  # upper end of the interval
    difference: Difference | None  # from the baseline; None for the baseline itself

    @property
    def spread(self) -> float | None:
        """Standard deviation over runs (n - 1); None for one run."""
        return statistics.stdev(self.by_run) if len(self.by_run) > 1 else None

    def mark(self, level: float) -> str:
        """`▲` better than the baseline, `▼` worse, at the family's level; hollow where seeds overlap; else empty."""
        difference = self.difference
        if difference is None or difference.p_holm > level:
            return ""
        better = difference.value * sign(self.score.metric) > 0
        return ("▲" if better else "▼") if difference.seeds_agree else ("△" if better else "▽")


def estimates_of(
    benchmark: str,
    systems: Sequence[tuple[str, Sequence[Scores]]],
    baseline: int,
    metrics: Sequence[str],
    parts: dict[str, tuple[str, ...]],
    method: Method,
) -> list[Estimate]:
    """All scores of the systems on one benchmark; p-values are not adjusted yet.

    Args:
        benchmark: its name.
        systems: labels, and the scores of their runs; all of one layout.
        baseline: the place of the system that the others are compared with.
        metrics: those to compare, as far as a setting has them.
        parts: {name: its query languages}, single languages included.
        method: how differences are judged.
    """
    layout = systems[0][1][0].layout
    found: list[Estimate] = []
    tested: list[Floats] = []
    for metric in metrics:
        for setting in SETTINGS:
            cells = [c for c, cell in enumerate(layout.cells) if cell.setting == setting]
            if not cells or (metric == RANK_DISTANCE and setting != "multi"):
                continue
            everywhere = np.all(
                [np.isfinite(run.values[metric][:, cells]) for _, runs in systems for run in runs], axis=0
            )
            known_UC = layout.present_UC[:, cells] & everywhere  # the questions of which every run has a score
            kept = np.flatnonzero(known_UC.any(axis=0))
            if not len(kept):
                continue
            cells, known_UC = [cells[c] for c in kept], known_UC[:, kept]
            of_runs = [np.stack([run.values[metric][:, cells] for run in runs]) for _, runs in systems]
            names, weights_CK = _weights(layout, cells, parts)
            scores = [Score(benchmark, setting, metric, name) for name in names]
            estimates, parts_SUK = _judge(
                of_runs,
                known_UC,
                weights_CK,
                scores,
                [label for label, _ in systems],
                baseline,
                method,
            )
            found += estimates
            tested += [parts_UK - parts_SUK[baseline] for s, parts_UK in enumerate(parts_SUK) if s != baseline]
    if not tested:
        return found
    p = iter(permutation_p_values(np.concatenate(tested, axis=1), method.flips, method.seed))
    return [
        e if e.difference is None else replace(e, difference=replace(e.difference, p=float(next(p)))) for e in found
    ]


def adjusted(estimates: Sequence[Estimate]) -> list[Estimate]:
    """The estimates with p-values corrected by Holm's method, in two families: over all languages, and others."""
    result = list(estimates)
    for over_all in (True, False):
        family = [
            (i, e.difference)
            for i, e in enumerate(result)
            if e.difference is not None and (e.score.part == ALL) == over_all
        ]
        for (i, difference), p in zip(family, holm([d.p for _, d in family]) if family else (), strict=True):
            result[i] = replace(result[i], difference=replace(difference, p_holm=float(p)))
    return result


def _weights(layout: Layout, cells: Sequence[int], parts: dict[str, tuple[str, ...]]) -> tuple[list[str], Floats]:
    """The parts that the cells hold, and the weight of each cell in each [C, K]: means over cells, as reported."""
    asked = [layout.cells[c].query_language for c in cells]
    inside = {name: np.array([language in languages for language in asked]) for name, languages in parts.items()}
    inside = {name: of_part for name, of_part in inside.items() if of_part.any()}
    return list(inside), np.stack([of_part / of_part.sum() for of_part in inside.values()], axis=1)


def _judge(
    of_runs: Sequence[Floats],
    present_UC: np.ndarray,
    weights_CK: Floats,
    scores: Sequence[Score],
    labels: Sequence[str],
    baseline: int,
    method: Method,
) -> tuple[list[Estimate], list[Floats]]:
    """All estimates, by system and score; and what each question contributes to the scores, [U, K] for each system."""
    counts_C = present_UC.sum(axis=0)
    means_SUC = np.stack([values.mean(axis=0) for values in of_runs])
    resampled_RSK = bootstrap_means(means_SUC, weights_CK, present_UC, method.resamples, method.seed)
    low_SK, high_SK = interval(resampled_RSK, method.confidence)
    difference_low, difference_high = interval(resampled_RSK - resampled_RSK[:, [baseline]], method.confidence)
    filled = [np.where(present_UC, values, 0.0) / counts_C for values in of_runs]
    by_run = [np.sum(values, axis=1) @ weights_CK for values in filled]
    value_SK = np.stack([values.mean(axis=0) for values in by_run])
    more_SK = value_SK - value_SK[baseline]
    estimates = []
    for (s, label), (k, score) in product(enumerate(labels), enumerate(scores)):
        own, others = by_run[s][:, k], by_run[baseline][:, k]
        difference = None
        if s != baseline:
            ends = float(difference_low[s, k]), float(difference_high[s, k])
            apart = bool(own.min() > others.max() or own.max() < others.min())
            difference = Difference(float(more_SK[s, k]), *ends, p=1.0, p_holm=1.0, seeds_agree=apart)
        ends = float(low_SK[s, k]), float(high_SK[s, k])
        estimates.append(Estimate(label, score, float(value_SK[s, k]), tuple(own.tolist()), *ends, difference))
    return estimates, [values.mean(axis=0) @ weights_CK for values in filled]
