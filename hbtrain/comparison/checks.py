"""Checks that runs can be compared; the error says in one line why they cannot."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hbtrain.comparison.runs import Run
from hbtrain.comparison.scores import Scores
from hbtrain.errors import DataError
from hbtrain.reporting.metric_names import SETTINGS
from hbtrain.storage import resolved

ROUNDING = 1e-6  # largest difference between a mean in `metrics.json` and that of the rows in `per_query.parquet`


UNCUT = frozenset({"map", "mrr"})  # metrics of whole rankings


def check_distinct(runs: Sequence[Run]) -> None:
    """Raise DataError if one run is named twice, even under different names."""
    known: dict[str, Run] = {}
    for run in runs:
        names = [str(resolved(run.results))] + ([run.run_id] if run.run_id else [])
        for name in names:
            if name in known:
                raise DataError(f"runs {known[name].given} and {run.given} are the same run; name it once")
            known[name] = run


def common_benchmarks(
    runs: Sequence[Run], scores: Sequence[dict[str, Scores]], wanted: Sequence[str] | None
) -> list[str]:
    """The benchmarks to compare: `wanted`, or all. Raises DataError if a run lacks one that another has."""
    first = list(scores[0])
    for run, found in zip(runs, scores, strict=True):
        for benchmark in wanted or ():
            if benchmark not in found:
                raise DataError(f"run {run.given} was not evaluated on {benchmark!r}; it has {', '.join(found)}")
        if wanted is None and set(found) != set(first):
            shared = sorted(set.intersection(*map(set, scores)))
            hint = f"--benchmarks {' '.join(shared)} compares what all have" if shared else "they share none"
            have = f"run {runs[0].given} was evaluated on {', '.join(first)}, run {run.given} on {', '.join(found)}"
            raise DataError(f"{have}: {hint}")
    return list(wanted or first)


_TAKEN_DIFFERENTLY = {
    "own_documents_left_out": "--ignore-identical-ids",
    "relevant_never_found": "--allow-missing-documents",
}
"""Counts in about.json that depend on a flag; those of earlier versions have neither."""


def check_same_task(benchmark: str, runs: Sequence[Run], scores: Sequence[Scores]) -> None:
    """Raise DataError unless all runs answer the same questions from the same candidates."""
    first, known = runs[0], runs[0].about_benchmark(benchmark)
    for run, of_run in zip(runs[1:], scores[1:], strict=True):
        about = run.about_benchmark(benchmark)
        who = f"runs {first.given} and {run.given} cannot be compared on {benchmark}"
        for key, what in (("candidates_kind", "candidates"), ("languages", "languages")):
            if about.get(key) != known.get(key):
                raise DataError(f"{who}: {what} are {_shown(known.get(key))} and {_shown(about.get(key))}")
        if about.get("candidates") != known.get("candidates"):
            raise DataError(f"{who}: their pools of candidates differ in size")
        for key, flag in _TAKEN_DIFFERENTLY.items():
            if about.get(key, 0) != known.get(key, 0):
                raise DataError(
                    f"{who}: {known.get(key, 0)} {key.replace('_', ' ')} in one, {about.get(key, 0)} in the other; "
                    f"evaluate both with {flag} or both without"
                )
        difference = scores[0].layout.difference(of_run.layout)
        if difference is not None:
            raise DataError(f"{who}: their queries differ ({difference})")


def check_metric(benchmark: str, metric: str, runs: Sequence[Run], scores: Sequence[Scores]) -> None:
    """Raise DataError unless every run has numbers for a metric, in the same settings."""
    settings = None
    for run, of_run in zip(runs, scores, strict=True):
        values = of_run.values.get(metric)
        if values is None or np.isnan(values).all():
            raise DataError(
                f"run {run.given} has no {metric!r} on {benchmark}; choose another --metric or evaluate it again"
            )
        has = {cell.setting for c, cell in enumerate(of_run.layout.cells) if not np.isnan(values[:, c]).all()}
        if settings is not None and has != settings:
            differing = sorted(settings ^ has)[0]
            raise DataError(
                f"run {run.given}: only some runs have {metric} of {benchmark}, {differing}; evaluate it again"
            )
        settings = has


def unlike_cuts(benchmark: str, metric: str, runs: Sequence[Run]) -> str | None:
    """Why an uncut metric cannot be compared: some runs know whole rankings, others only their tops. Else None."""
    if metric not in UNCUT:
        return None
    cuts = [str(run.about_benchmark(benchmark).get("map") or "mAP").removeprefix("mAP") for run in runs]
    if len(set(cuts)) == 1:
        return None
    cut = next(i for i, text in enumerate(cuts) if text)
    return (
        f"run {runs[cut].given}: its run files hold a ranking's first places, so its {metric} on {benchmark} is "
        f"{metric}{cuts[cut]}, which is not the others'; compare ndcg@10 or recall@10 with --metric"
    )


def check_means(benchmark: str, metric: str, run: Run, scores: Scores) -> None:
    """Raise DataError if `metrics.json` and `per_query.parquet` are of two evaluations, since their means differ."""
    values, layout = scores.values[metric], scores.layout
    for setting in SETTINGS:
        asked = (c for c, cell in enumerate(layout.cells) if cell.setting == setting)
        cells = [c for c in asked if not np.isnan(values[:, c]).all()]
        reported = run.metrics.get(f"{benchmark}/{setting}/{metric}")
        if not cells or reported is None:
            continue
        mean = float(np.nanmean(values[:, cells], axis=0).mean())
        if not math.isclose(mean, reported, rel_tol=ROUNDING, abs_tol=ROUNDING):
            raise DataError(
                f"run {run.given}: metrics.json has {benchmark}/{setting}/{metric} = {reported:.4f}, but the rows of "
                f"per_query.parquet give {mean:.4f}; they are of two evaluations, evaluate again"
            )


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else repr(value)
