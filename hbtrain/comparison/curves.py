"""Learning curves: scores that runs told MLflow at several steps, and how soon each came near the best of all.

A system's curve is the mean over its runs, at the steps where all of them were measured. The best score of a comparison
is the best value of any system's curve. A run is near it from the first measured step at which its own score is 95 % of
the best, or of a metric that is better when it is lower, at most the best / 0.95; nothing is interpolated.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

from hbtrain.comparison.systems import System
from hbtrain.comparison.tasks import Task
from hbtrain.reporting.metric_names import LOWER_IS_BETTER, sign
from hbtrain.tracking.uris import TrackingError

if TYPE_CHECKING:
    from hbtrain.tracking.past_runs import TrackedRuns

NEAR = 0.95  # the share of the best score that counts as near it
FEWEST_STEPS = 2  # steps after the start at which a run must have been measured to have a curve

Curve = Mapping[int, float]  # {step: score} of a run, in the order of steps


class Measured(NamedTuple):
    """A system's score at a step."""

    step: int
    mean: float  # over runs
    spread: float  # standard deviation (n - 1) over runs; 0 of a single run


@dataclass(frozen=True, eq=False)
class ScoreCurves:
    """The curves of one score."""

    metric: str
    of_runs: Mapping[str, Sequence[Curve]]  # {system: the curve of each of its runs}, of the systems that have curves

    @cached_property
    def of_systems(self) -> dict[str, list[Measured]]:
        return {label: _mean_curve(curves) for label, curves in self.of_runs.items()}

    @cached_property
    def best(self) -> float:
        """The best value of any system's curve."""
        values = [measured.mean for curve in self.of_systems.values() for measured in curve]
        return min(values) if self.metric in LOWER_IS_BETTER else max(values)

    @property
    def target(self) -> float:
        """The score that is near the best: worse by a twentieth, whatever its sign."""
        return self.best * NEAR if (self.best > 0) == (sign(self.metric) > 0) else self.best / NEAR

    def steps(self, system: str) -> list[int | None]:
        """For each run of a system, the first measured step at which it is near the best; None: at none."""
        way = sign(self.metric)
        return [
            next((step for step, score in curve.items() if way * score >= way * self.target), None)
            for curve in self.of_runs[system]
        ]

    def last_step(self, system: str) -> int:
        """The step up to which all runs of a system were measured."""
        return min(max(curve) for curve in self.of_runs[system])


@dataclass(frozen=True, eq=False)
class Curves:
    """The learning curves of a comparison."""

    scores: Mapping[tuple[str, str, str], ScoreCurves] = field(default_factory=dict)
    """{(benchmark, setting, metric): its curves} of the scores that have any."""
    note: str = ""  # what is missing, and how to get it

    def of_task(self, task: Task) -> dict[tuple[str, str], ScoreCurves]:
        """{(setting, metric): its curves} on one benchmark."""
        return {key[1:]: curves for key, curves in self.scores.items() if key[0] == task.name}


def read_curves(systems: Sequence[System], tasks: Sequence[Task], server: Callable[[], TrackedRuns]) -> Curves:
    """The curves of the scores in tables, as far as MLflow has them; `server` connects to it, if that is needed."""
    ids = [run.run_id for system in systems for run in system.runs if run.run_id is not None]
    keys = [(task.name, *column) for task in tasks for column in task.columns]
    histories: dict[tuple[str, str, str], dict[str | None, Curve]] = {key: {} for key in keys}
    reason = ""
    try:
        for key, run_id in product(keys, ids):
            history = server().history(run_id, "/".join(("eval", *key)))
            if sum(step > 0 for step in history) >= FEWEST_STEPS:
                histories[key][run_id] = history
    except TrackingError as error:
        reason = f" ({error})"
    scores = {}
    for key, found in histories.items():
        of_runs = {
            system.label: [found[run.run_id] for run in system.runs]
            for system in systems
            if all(run.run_id in found for run in system.runs)
        }
        if any(_mean_curve(curves) for curves in of_runs.values()):
            scores[key] = ScoreCurves(key[2], {x: curves for x, curves in of_runs.items() if _mean_curve(curves)})
    return Curves(scores, _missing([system.label for system in systems], scores, reason))


def _mean_curve(curves: Sequence[Curve]) -> list[Measured]:
    common = [step for step in curves[0] if all(step in curve for curve in curves)]
    found = []
    for step in common:
        values = [curve[step] for curve in curves]
        found.append(Measured(step, statistics.mean(values), statistics.stdev(values) if len(values) > 1 else 0.0))
    return found


def _missing(labels: Sequence[str], scores: Mapping[tuple[str, str, str], ScoreCurves], reason: str) -> str:
    without = [label for label in labels if not any(label in curves.of_runs for curves in scores.values())]
    if not without:
        return ""
    whose = "" if len(without) == len(labels) else f" of {', '.join(without)}"
    return (
        f"Learning curves, and steps to {NEAR:.0%} of the best,{whose} are left out: MLflow has no scores at several "
        f"steps of a run{reason}. Training with evaluation.every: N measures them every N steps."
    )
