"""Compare runs: find them, see that they can be compared, and judge every score."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import TYPE_CHECKING

from hbtrain.comparison.checks import check_distinct, common_benchmarks
from hbtrain.comparison.curves import read_curves
from hbtrain.comparison.estimates import Method, adjusted, estimates_of
from hbtrain.comparison.published import Choice
from hbtrain.comparison.result import Comparison
from hbtrain.comparison.runs import Run, RunFinder
from hbtrain.comparison.scores import ScoreReader, Scores
from hbtrain.comparison.systems import System, in_table_order, systems_of
from hbtrain.comparison.tables import language_tables, legend, main_tables
from hbtrain.comparison.tasks import MAIN_METRICS, Task, task_of
from hbtrain.errors import ConfigError, DataError
from hbtrain.reporting.html import html_page
from hbtrain.reporting.metric_names import RANK_DISTANCE

if TYPE_CHECKING:
    from hbtrain.corpus.data_sets import Notify
    from hbtrain.evaluation.aligned import Candidates
    from hbtrain.evaluation.benchmark import Benchmark


class ShownComparison(Comparison):
    """A comparison that a notebook shows by its tables."""

    def _repr_html_(self) -> str:
        return html_page([*main_tables(self), *language_tables(self)], [legend(self), *self.notes])


def compare(  # noqa: PLR0913 - keywords, each a choice of its own
    runs: Sequence[str | PathLike[str]],
    *,
    baseline: str | None = None,
    metric: str | None = None,
    benchmarks: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    group_by: Sequence[str] | None = None,
    paper: bool = False,
    published: bool = False,
    tracking_uri: str | None = None,
    data: Sequence[str] = (),
    candidates: Candidates = "sentence",
    method: Method | None = None,
    notify: Notify | None = None,
) -> Comparison:
    """Compare every score of `runs` with that of a baseline; a notebook shows the tables of what is returned.

    Args:
        runs: folders that `hbtrain evaluate` wrote, folders of runs or of sweeps, ids (or beginnings of ids) of MLflow
            runs or sweeps, folders of TREC run files; what `hbtrain.train` and `hbtrain.evaluate` return.
        baseline: a system's label, or one of `runs`; by default the first row of the table.
        metric: the main metric, by default the first of MAIN_METRICS that every run has. Rank distance is always
            compared too.
        benchmarks: only these; by default all, which every run must have.
        names: labels for the systems, in the order in which `runs` names them.
        group_by: dotted keys; runs with equal values are one system. By default they differ in their seed only;
            `run` sets every run apart.
        paper: whether tables show the figures of arXiv 2408.10536 too, where they are on the same questions.
        published: whether they show those of other published systems as well.
        tracking_uri: of MLflow, by default `$MLFLOW_TRACKING_URI` or SQLite in the folder `runs`.
        data: the benchmarks of run files, by name or as FORM=PATH; see `load_benchmarks`.
        candidates: what a candidate of these benchmarks is, as for `hbtrain evaluate`.
        method: tests, intervals and levels.
        notify: told which data sets are fetched.

    Raises:
        DataError: a run that cannot be read or is not finished, or runs that cannot be compared.
        ConfigError: a baseline, name or key that does not fit.
        TrackingError: an unknown id, or a tracking server that does not answer.
    """
    method = method or Method()
    questions: Sequence[Benchmark] = ()
    if data:
        from hbtrain.evaluation.benchmarks import load_benchmarks

        questions = load_benchmarks(data, candidates=candidates, notify=notify)
    with tempfile.TemporaryDirectory(prefix="hbtrain-compare-") as downloads:
        finder = RunFinder(tracking_uri, Path(downloads), questions)
        found = _find(finder, [fspath(run) for run in runs])
        flat = [run for group in found.values() for run in group]
        scores = _read(flat, [metric, RANK_DISTANCE] if metric else [*MAIN_METRICS, RANK_DISTANCE])
    systems = in_table_order(systems_of(flat, group_by, names))
    beside: Choice = "all" if published else "paper" if paper else None
    if len(systems) < 2 and beside is None:
        raise ConfigError(
            f"the {len(flat)} runs are one system ({systems[0].label}), so there is nothing to compare; name others, "
            "set every run apart with --group-by run, or compare with --published"
        )
    reference = _baseline(baseline, systems, found)
    tasks, estimates = [], []
    for benchmark in common_benchmarks(flat, list(scores.values()), benchmarks):
        of_run = {run: scores[run][benchmark] for run in flat}
        task, metrics = task_of(benchmark, metric, systems, of_run)
        tasks.append(task)
        grouped = [(system.label, [of_run[run] for run in system.runs]) for system in systems]
        estimates += estimates_of(benchmark, grouped, systems.index(reference), metrics, task.parts, method)
    notes = [*finder.notes, *_unknown_languages(systems), *_other_precision(flat), *_other_data(flat, tasks)]
    notes += _other_search(flat, tasks)
    return ShownComparison(
        tuple(systems),
        reference.label,
        tuple(tasks),
        tuple(adjusted(estimates)),
        method,
        tuple(notes),
        beside,
        read_curves(systems, tasks, lambda: finder.server),
    )


def _read(runs: Sequence[Run], metrics: Sequence[str]) -> dict[Run, dict[str, Scores]]:
    """{run: {benchmark: its scores by question}}."""
    reader, wanted = ScoreReader(), list(dict.fromkeys(metrics))
    return {
        run: reader.read(run.results / "per_query.parquet", run.given, wanted, run.unrelated_questions) for run in runs
    }


def _find(finder: RunFinder, texts: Sequence[str]) -> dict[str, list[Run]]:
    """{what the user wrote: the runs it means}."""
    if not texts:
        raise ConfigError("no runs are named; give folders, or ids of MLflow runs")
    found = {}
    for text in texts:
        if text in found:
            raise DataError(f"run {text} is named twice; name it once")
        found[text] = finder.find(text)
    check_distinct([run for group in found.values() for run in group])
    return found


def _baseline(text: str | None, systems: Sequence[System], found: dict[str, list[Run]]) -> System:
    if text is None:
        return systems[0]
    for system in systems:
        if system.label == text:
            return system
    for system in systems:
        of_system = {id(run) for run in system.runs}
        named = [run for given, runs in found.items() if given == text for run in runs]
        named += [run for runs in found.values() for run in runs if run.run_id and run.run_id.startswith(text)]
        if named and all(id(run) in of_system for run in named):
            return system
    labels = ", ".join(repr(system.label) for system in systems)
    raise ConfigError(f"--baseline {text!r} is no system of this comparison; they are {labels}")


def _unknown_languages(systems: Sequence[System]) -> list[str]:
    unknown = [system.label for system in systems if system.trained_languages is None]
    if not unknown or len(unknown) == len(systems):
        return []
    return [f"languages seen in training are those of the other systems; {', '.join(unknown)} does not say"]


def _other_precision(runs: Sequence[Run]) -> list[str]:
    found = {str(run.about["precision"]) for run in runs if run.about.get("precision")}
    if len(found) < 2:
        return []
    return [f"models embedded texts in different precisions: {', '.join(sorted(found))}; rounding alone moves scores"]


def _other_data(runs: Sequence[Run], tasks: Sequence[Task]) -> list[str]:
    """Notes on benchmarks that are data sets of the catalogue, where runs read other revisions or files of them."""
    notes = []
    for task in tasks:
        found: dict[str, set[str]] = {}
        for run in runs:
            for source, revision in run.about_benchmark(task.name).get("data", {}).get("sources", {}).items():
                found.setdefault(source, set()).add(revision)
        changed = [f"{source} at {' and '.join(sorted(x))}" for source, x in found.items() if len(x) > 1]
        if changed:
            notes.append(f"on {task.name} runs read different data: {changed[0]}; evaluate them again on one")
    return notes


def _other_search(runs: Sequence[Run], tasks: Sequence[Task]) -> list[str]:
    notes = []
    for task in tasks:
        searches = {str(run.about_benchmark(task.name).get("search") or "exact") for run in runs}
        if len(searches) > 1:
            notes.append(f"on {task.name} runs were searched in different ways: {', '.join(sorted(searches))}")
    return notes
