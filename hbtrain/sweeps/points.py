"""The points of a sweep's space (trials that differ in their seed only), the scores that are compared at each, the best
point, and the Pareto front: the points that no other point beats in everything.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import rankdata

from hbtrain.storage import Place
from hbtrain.sweeps.space import SEED, Trial, short_name, shown


@dataclass(frozen=True)
class Score:
    """A score that the summary shows."""

    key: str
    """`<setting>/<metric>`."""
    title: str
    form: str
    higher_is_better: bool = True


SCORES = (
    Score("mono/map", "mAP monolingual", ".3f"),
    Score("cross/map", "mAP cross-lingual", ".3f"),
    Score("multi/map", "mAP multilingual", ".3f"),
    Score("multi/rank_distance", "rank distance", ",.1f", higher_is_better=False),
)


@dataclass(frozen=True)
class Finished:
    """A trial with its scores, {`<benchmark>/<setting>/<metric>`: number}."""

    trial: Trial
    scores: Mapping[str, float]
    folder: Place
    """Its run's."""

    @property
    def values(self) -> dict[str, Any]:
        """{dotted key: value} of the keys that vary, without the seed."""
        return {key: value for key, value in self.trial.values.items() if key != SEED}


@dataclass(frozen=True)
class Point:
    """Trials that differ in their seed only."""

    values: dict[str, Any]
    """{dotted key: value} of the keys that vary, without the seed."""
    runs: list[Mapping[str, float]]
    """Scores of each seed."""

    @property
    def label(self) -> str:
        """What sets it apart, such as `alpha=0.3`."""
        return " ".join(f"{short_name(key)}={shown(value)}" for key, value in self.values.items())

    def of(self, key: str) -> list[float]:
        """The score `key` of every seed."""
        return [scores[key] for scores in self.runs]

    def mean(self, key: str) -> float:
        """The mean of score `key` over seeds."""
        return statistics.mean(self.of(key))

    def shown(self, key: str, form: str) -> str:
        """`0.537 ± 0.003`: the mean of score `key` and its standard deviation; without the second for one seed."""
        values = self.of(key)
        mean = format(self.mean(key), form)
        return f"{mean} ± {format(spread(values), form)}" if len(values) > 1 else mean


def points_of(finished: Sequence[Finished]) -> list[Point]:
    """The points of the space that have a finished trial, in the order of the trials."""
    points: list[Point] = []
    for one in finished:
        known = next((point for point in points if point.values == one.values), None)
        if known is None:
            points.append(Point(one.values, [one.scores]))
        else:
            known.runs.append(one.scores)
    return points


def losses(points: Sequence[Point], benchmark: str, score: Score) -> list[float]:
    """The mean of `score` at each point, with its sign such that less is better."""
    means = [point.mean(f"{benchmark}/{score.key}") for point in points]
    return [-mean for mean in means] if score.higher_is_better else means


def benchmarks_of(finished: Sequence[Finished]) -> list[str]:
    """Names of the benchmarks that were evaluated, in their order."""
    return list(dict.fromkeys(key.partition("/")[0] for one in finished for key in one.scores))


def with_objectives(objectives: Sequence[Score]) -> list[Score]:
    """The scores that a summary shows: what was searched for, then the others."""
    keys = {score.key for score in objectives}
    return [*objectives, *(score for score in SCORES if score.key not in keys)]


def scores_of(benchmark: str, points: Sequence[Point], wanted: Sequence[Score] = SCORES) -> list[Score]:
    """Those of the wanted scores that all points have on `benchmark`."""
    return [score for score in wanted if all(f"{benchmark}/{score.key}" in run for p in points for run in p.runs)]


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation (n - 1); NaN of a single value."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def best_point(points: Sequence[Point], benchmark: str, scores: Sequence[Score]) -> Point:
    """The point whose ranks by the means of `scores` are lowest on average; of equals, the first.

    Ranks weigh scores of different scales alike. With one score it is simply the point that is best in it.
    """
    ranks = [rankdata(losses(points, benchmark, score)) for score in scores]
    means = [statistics.mean(of_point) for of_point in zip(*ranks, strict=True)]
    return points[means.index(min(means))]


def pareto_front(points: Sequence[Point], benchmark: str, scores: Sequence[Score]) -> list[bool]:
    """For each point, whether no other is at least as good in the means of all `scores` and better in one."""
    losses_by_point = np.array([losses(points, benchmark, score) for score in scores]).T
    return [
        not any((other <= mine).all() and (other < mine).any() for other in losses_by_point) for mine in losses_by_point
    ]


def front_scores(benchmark: str, points: Sequence[Point], objectives: Sequence[Score] = ()) -> list[Score]:
    """The scores that are weighed against each other: the objectives of a search for several, else all that are shown.

    Empty where there are fewer than two scores or two points.
    """
    scores = scores_of(benchmark, points, objectives if len(objectives) > 1 else SCORES)
    return scores if len(points) > 1 and len(scores) > 1 else []
