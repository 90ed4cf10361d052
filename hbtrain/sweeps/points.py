"""The points of a sweep's space (a point is all trials that differ only in their seed), their scores, the best point,
and the Pareto front: the points than which no other is better in one score and at least as good in all.

A score is named `<setting>/<metric>`, such as `mono/map`; a trial has it on each benchmark.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import rankdata

from hbtrain.config.batching import Shares
from hbtrain.reporting.metric_names import score_title
from hbtrain.reporting.metric_names import shown as shown_score
from hbtrain.storage import Place
from hbtrain.sweeps.search_methods import is_minimised
from hbtrain.sweeps.space import SEED, Trial, short_name, shown

SCORES = ("mono/map", "cross/map", "multi/map", "multi/rank_distance")  # the scores that every summary shows
LEAST_DEPTH = 10
AT_DEPTH = tuple(f"{setting}/ndcg@{LEAST_DEPTH}" for setting in ("mono", "cross", "multi"))
"""In place of `SCORES` on benchmarks whose candidates an index ranked, which finds the first ones only."""


def title_of(score: str) -> str:
    """What tables and pictures call a score; objectives beyond them go by their names."""
    setting, _, metric = score.partition("/")
    return score_title(metric, setting) if score in (*SCORES, *AT_DEPTH) else score


def title_with_direction(score: str) -> str:
    """`title_of`, with a note where lower is better."""
    return title_of(score) + (" (lower is better)" if is_minimised(score) else "")


@dataclass(frozen=True)
class Finished:
    """A trial that was trained in full, with its scores."""

    trial: Trial
    scores: Mapping[str, float]  # {`<benchmark>/<setting>/<metric>`: score}
    folder: Place  # of its run

    @property
    def values(self) -> dict[str, Any]:
        """{dotted key: value} of the keys that vary, without the seed."""
        return {key: value for key, value in self.trial.values.items() if key != SEED}


@dataclass(frozen=True)
class Point:
    """All finished trials that differ only in their seed."""

    values: dict[str, Any]  # {dotted key: value} of the keys that vary, without the seed
    runs: list[Mapping[str, float]]  # the scores of each seed's trial
    kind_points: Mapping[int, Shares] = field(default_factory=dict)
    """Points {step: {kind of batch: probability}}; a single one if they do not change during training."""

    @property
    def shares(self) -> Shares | None:
        """{kind of batch: probability}; None if they change during training."""
        return next(iter(self.kind_points.values())) if len(self.kind_points) == 1 else None

    @property
    def label(self) -> str:
        """The values of the keys that vary, such as `alpha=0.3`."""
        return " ".join(f"{short_name(key)}={shown(value, key)}" for key, value in self.values.items())

    def of(self, key: str) -> list[float]:
        """The score `key` (`<benchmark>/<setting>/<metric>`) of every seed."""
        return [scores[key] for scores in self.runs]

    def mean(self, key: str) -> float:
        return statistics.mean(self.of(key))

    def shown(self, key: str) -> str:
        """The mean of score `key` and its standard deviation, `0.537 ± 0.003`; of a single seed, the score."""
        values, metric = self.of(key), key.rpartition("/")[2]
        mean = shown_score(self.mean(key), metric)
        return f"{mean} ± {shown_score(spread(values), metric)}" if len(values) > 1 else mean


def points_of(finished: Sequence[Finished]) -> list[Point]:
    """The points of finished trials, in the order of the trials."""
    points: list[Point] = []
    for one in finished:
        known = next((point for point in points if point.values == one.values), None)
        if known is None:
            points.append(Point(one.values, [one.scores], one.trial.config.batching.kind_points))
        else:
            known.runs.append(one.scores)
    return points


def constant_shares(trial: Trial) -> Shares | None:
    """{kind of batch: probability} of a trial; None if it changes during training."""
    first, *others = trial.config.batching.kind_points.values()
    return None if others else first


def losses(points: Sequence[Point], benchmark: str, score: str) -> list[float]:
    """The mean of `score` at each point, negated if higher is better, so that lower always is."""
    sign = 1 if is_minimised(score) else -1
    return [sign * point.mean(f"{benchmark}/{score}") for point in points]


def benchmarks_of(finished: Sequence[Finished]) -> list[str]:
    return list(dict.fromkeys(key.partition("/")[0] for one in finished for key in one.scores))


def scores_of(benchmark: str, points: Sequence[Point], wanted: Sequence[str] | None = None) -> list[str]:
    """The scores, of those `wanted`, that every trial of every point has on `benchmark`; by default of those of every
    summary: `SCORES`, or where there are none `AT_DEPTH`."""
    if wanted is None:
        return scores_of(benchmark, points, SCORES) or scores_of(benchmark, points, AT_DEPTH)
    return [score for score in wanted if all(f"{benchmark}/{score}" in run for p in points for run in p.runs)]


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation (n - 1); NaN of a single value."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def best_point(points: Sequence[Point], benchmark: str, scores: Sequence[str]) -> Point:
    """The point with the lowest mean of its ranks in `scores`; of equals, the first.

    Ranks give scores of different scales equal weight. With one score, it is the point that is best in it.
    """
    ranks = [rankdata(losses(points, benchmark, score)) for score in scores]
    return points[int(np.mean(ranks, axis=0).argmin())]


def pareto_front(points: Sequence[Point], benchmark: str, scores: Sequence[str]) -> list[bool]:
    """For each point, whether no other is at least as good in the means of all `scores` and better in one."""
    losses_by_point = np.array([losses(points, benchmark, score) for score in scores]).T
    return [
        not any((other <= mine).all() and (other < mine).any() for other in losses_by_point) for mine in losses_by_point
    ]


def front_scores(benchmark: str, points: Sequence[Point], objectives: Sequence[str] = ()) -> list[str]:
    """The scores that span the Pareto front: the objectives of a search for several, else those of every summary.

    Empty if there are fewer than two scores or two points.
    """
    scores = scores_of(benchmark, points, objectives if len(objectives) > 1 else None)
    return scores if len(points) > 1 and len(scores) > 1 else []
