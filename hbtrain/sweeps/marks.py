"""Compares the points of a sweep, with significance, as `hbtrain compare` does.

Points are compared with the best sampling of a single kind (only monolingual or cross-lingual batches, mixed languages,
or English only), as the question of a sweep is whether a ratio between kinds is better than that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hbtrain.comparison.compare import compare
from hbtrain.comparison.result import Comparison
from hbtrain.comparison.tables import marks_legend
from hbtrain.config import Config
from hbtrain.reporting.metric_names import ALL
from hbtrain.sweeps.points import Finished, benchmarks_of, best_point, points_of, scores_of

BASELINE_SCORES = ("multi/map", "cross/map", "mono/map", "multi/ndcg@10", "cross/ndcg@10", "mono/ndcg@10")
"""The first of these that all trials have decides which sampling of a single kind is the best."""

KINDS = ("batching.mode", "batching.alpha", "batching.mixture")  # the keys that say how often a batch is of which kind


@dataclass(frozen=True)
class Judged:
    """The comparison of a sweep's points, and the marks of significance for its summary."""

    comparison: Comparison
    marks: Mapping[tuple[str, str], str]
    """{(a point's label, `<benchmark>/<setting>/<metric>`): ▲, ▼, △ or ▽} of the scores that have a mark."""
    legend: str  # how to read the marks; empty if there are none, as no point has a sampling of a single kind


def judge(finished: Sequence[Finished]) -> Judged | None:
    """Compare the finished trials; None if they are of fewer than two points.

    Marks compare points that differ only in the kinds of their batches: those of a backbone, or of a batch size, with
    the best sampling of the same.

    Raises:
        HbtrainError: a run's results cannot be read.
    """
    if len(points_of(finished)) < 2:
        return None
    whole = _compared(finished)
    groups = _groups(finished)
    marks: dict[tuple[str, str], str] = {}
    legend = ""
    for group in groups:
        if len(points_of(group)) > 1 and _baseline(group) is not None:
            comparison = whole if len(groups) == 1 else _compared(group)
            marks |= _marks(comparison, group)
            than = None if len(groups) == 1 else "the best sampling of a single kind beside it"
            legend = marks_legend(comparison, than)
    return Judged(whole, marks, legend)


def _groups(finished: Sequence[Finished]) -> list[list[Finished]]:
    """Group the trials by the values of all keys that vary, except those that say of which kinds batches are."""
    groups: dict[str, list[Finished]] = {}
    for one in finished:
        others = {key: value for key, value in one.values.items() if not key.startswith(KINDS)}
        groups.setdefault(repr(others), []).append(one)
    return list(groups.values())


def _compared(finished: Sequence[Finished]) -> Comparison:
    uri = finished[0].trial.config.tracking.uri
    return compare([str(one.folder) for one in finished], baseline=_baseline(finished), tracking_uri=uri)


def _marks(comparison: Comparison, finished: Sequence[Finished]) -> dict[tuple[str, str], str]:
    labels = {
        str(one.folder): point.label for point in points_of(finished) for one in finished if one.values == point.values
    }
    level = comparison.method.level
    of_system = {system.label: labels[system.runs[0].given] for system in comparison.systems}
    return {
        (of_system[e.system], f"{e.score.benchmark}/{e.score.setting}/{e.score.metric}"): e.mark(level)
        for e in comparison.estimates
        if e.score.part == ALL and e.mark(level)
    }


def _baseline(finished: Sequence[Finished]) -> str | None:
    """The folder of a run with the best sampling of a single kind, by the mean over seeds; None if there is none."""
    single = [one for one in finished if is_single_kind(one.trial.config)]
    benchmark = benchmarks_of(finished)[0]
    scores = scores_of(benchmark, points_of(finished), BASELINE_SCORES)
    if not single or not scores:
        return None
    best = best_point(points_of(single), benchmark, scores[:1])
    return next(str(one.folder) for one in single if one.values == best.values)


def is_single_kind(config: Config) -> bool:
    """Whether all batches of a run are of one kind."""
    return len(config.batching.kinds) == 1
