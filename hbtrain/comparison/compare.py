"""Compare runs: find them, see that they can be compared, and judge every score."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from hbtrain.comparison.checks import check_distinct, check_means, check_metric, check_same_task, common_benchmarks
from hbtrain.comparison.estimates import Estimate, Method, Score, adjusted, estimates_of
from hbtrain.comparison.runs import Run, RunFinder
from hbtrain.comparison.scores import Floats, Layout, ScoreReader, Scores
from hbtrain.comparison.systems import System, in_table_order, systems_of
from hbtrain.comparison.words import ALL, RANK_DISTANCE, SEEN, SOME, UNSEEN
from hbtrain.errors import ConfigError, DataError

MAIN_METRICS = ("map", "ndcg@10", "recall@10")
"""What is compared where no metric is named: the first that every run has."""


@dataclass(frozen=True, eq=False)
class Task:
    """A benchmark, as all systems answered it."""

    name: str
    candidates_kind: str | None
    languages: tuple[str, ...]
    metric: str
    """The main one."""
    parts: dict[str, tuple[str, ...]]
    """{name: its query languages}: all, seen and unseen ones where that is known, and every language."""
    layout: Layout
    pair_means: dict[str, Floats]
    """{system: [L, L]} the main metric by query and passage language; NaN where nothing was asked."""
    top10_shares: dict[str, dict[str, tuple[float, float]]]
    """{system: {language: (share in the top 10, share in the pool)}}; empty where the evaluation did not count them."""

    @property
    def settings(self) -> tuple[str, ...]:
        """Those it has, in the order of tables."""
        return tuple(dict.fromkeys(cell.setting for cell in self.layout.cells))

    @property
    def groups(self) -> tuple[str, ...]:
        """The benchmark's own groups of languages, such as MIRACL's by resources."""
        return tuple(part for part in self.parts if part not in (ALL, SEEN, UNSEEN, SOME, *self.languages))

    @property
    def split(self) -> tuple[str, ...]:
        """The parts that tell trained languages from others; empty where there is nothing to tell."""
        return tuple(part for part in (SEEN, UNSEEN, SOME) if part in self.parts)


@dataclass(frozen=True, eq=False)
class Comparison:
    """What `compare` found. `save_comparison` writes it into a folder."""

    systems: tuple[System, ...]
    baseline: str
    """Label of the system that the others are judged against."""
    tasks: tuple[Task, ...]
    estimates: tuple[Estimate, ...]
    method: Method
    notes: tuple[str, ...] = ()
    """What a reader must know: runs left out, training languages unknown."""
    paper: bool = False
    """Whether the paper's figures stand beside these."""

    @cached_property
    def _by_score(self) -> dict[tuple[str, Score], Estimate]:
        return {(e.system, e.score): e for e in self.estimates}

    def get(self, system: str, benchmark: str, setting: str, metric: str, part: str = ALL) -> Estimate | None:
        """An estimate, or None if the benchmark has no such score."""
        return self._by_score.get((system, Score(benchmark, setting, metric, part)))


def compare(  # noqa: PLR0913 - keywords, each a choice of its own
    runs: Sequence[str | Path],
    *,
    baseline: str | None = None,
    metric: str | None = None,
    benchmarks: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    group_by: Sequence[str] | None = None,
    paper: bool = False,
    tracking_uri: str | None = None,
    method: Method | None = None,
) -> Comparison:
    """Judge every score of `runs` against a baseline.

    Args:
        runs: folders that `hbtrain evaluate` wrote, folders of runs or of sweeps, ids (or beginnings of ids) of MLflow
            runs or sweeps.
        baseline: a system's label, or one of `runs`; by default the first row of the table.
        metric: the main one, by default the first of MAIN_METRICS that every run has. Rank distance always is.
        benchmarks: only these; by default all, which every run must have.
        names: labels for the systems, in the order in which `runs` names them.
        group_by: dotted keys; runs with equal values are one system. By default they differ in their seed only;
            `run` sets every run apart.
        paper: put the figures of arXiv 2408.10536 beside these.
        tracking_uri: of MLflow, by default `$MLFLOW_TRACKING_URI` or SQLite in the folder `runs`.
        method: how differences are judged.

    Raises:
        DataError: a run that cannot be read or is not finished, or runs that cannot be compared.
        ConfigError: a baseline, name or key that does not fit.
        TrackingError: an unknown id, or a tracking server that does not answer.
    """
    method = method or Method()
    wanted = [metric, RANK_DISTANCE] if metric else [*MAIN_METRICS, RANK_DISTANCE]
    with tempfile.TemporaryDirectory(prefix="hbtrain-compare-") as downloads:
        finder = RunFinder(tracking_uri, Path(downloads))
        found = _find(finder, [str(run) for run in runs])
        scores = _read(found, list(dict.fromkeys(wanted)))
    flat = list(scores)
    systems = in_table_order(systems_of(flat, group_by, names))
    if len(systems) < 2 and not paper:
        raise ConfigError(
            f"the {len(flat)} runs are one system ({systems[0].label}), so there is nothing to compare; name others, "
            "set every run apart with --group-by run, or compare with --paper"
        )
    reference = _baseline(baseline, systems, found)
    tasks, estimates = [], []
    for benchmark in common_benchmarks(flat, list(scores.values()), benchmarks):
        of_run = {run: scores[run][benchmark] for run in flat}
        task, metrics = _task(benchmark, metric, systems, of_run)
        tasks.append(task)
        grouped = [(system.label, [of_run[run] for run in system.runs]) for system in systems]
        estimates += estimates_of(benchmark, grouped, systems.index(reference), metrics, task.parts, method)
    notes = [*finder.left_out, *_unknown_languages(systems), *_other_search(flat, tasks)]
    return Comparison(
        tuple(systems), reference.label, tuple(tasks), tuple(adjusted(estimates)), method, tuple(notes), paper
    )


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


def _read(found: dict[str, list[Run]], metrics: Sequence[str]) -> dict[Run, dict[str, Scores]]:
    reader = ScoreReader()
    flat = [run for group in found.values() for run in group]
    return {
        run: reader.read(run.results / "per_query.parquet", run.given, metrics, run.unrelated_questions) for run in flat
    }


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


def _main_metric(benchmark: str, wanted: str | None, runs: Sequence[Run], scores: Sequence[Scores]) -> str:
    if wanted is not None:
        check_metric(benchmark, wanted, runs, scores)
        return wanted
    for metric in MAIN_METRICS:
        if all(metric in s.values and not np.isnan(s.values[metric]).all() for s in scores):
            check_metric(benchmark, metric, runs, scores)
            return metric
    raise DataError(
        f"the runs have none of {', '.join(MAIN_METRICS)} on {benchmark} in common; choose another with --metric"
    )


def _task(
    benchmark: str, metric: str | None, systems: Sequence[System], scores: dict[Run, Scores]
) -> tuple[Task, list[str]]:
    """The benchmark as all runs answered it, and the metrics to compare, the main one first."""
    runs, of_runs = list(scores), list(scores.values())
    check_same_task(benchmark, runs, of_runs)
    main = _main_metric(benchmark, metric, runs, of_runs)
    metrics = [name for name in dict.fromkeys([main, RANK_DISTANCE]) if all(name in s.values for s in of_runs)]
    for run, of_run in scores.items():
        for name in metrics:
            check_means(benchmark, name, run, of_run)
    layout = of_runs[0].layout
    about = runs[0].about_benchmark(benchmark)
    present = {cell.query_language for cell in layout.cells}
    languages = tuple(x for x in about.get("languages") or sorted(present) if x in present)
    task = Task(
        name=benchmark,
        candidates_kind=about.get("candidates_kind"),
        languages=languages,
        metric=main,
        parts=_parts(languages, systems, about.get("language_groups") or {}),
        layout=layout,
        pair_means={s.label: _pair_means(languages, layout, [scores[r] for r in s.runs], main) for s in systems},
        top10_shares={s.label: _shares(benchmark, s, languages) for s in systems},
    )
    return task, metrics


def _parts(
    languages: Sequence[str], systems: Sequence[System], groups: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """All, seen and unseen languages where that is known and there are both, the benchmark's groups, each language."""
    parts = {ALL: tuple(languages)}
    known = [set(s.trained_languages) for s in systems if s.trained_languages is not None]
    if known:
        seen = tuple(x for x in languages if all(x in trained for trained in known))
        unseen = tuple(x for x in languages if not any(x in trained for trained in known))
        some = tuple(x for x in languages if x not in seen and x not in unseen)
        split = {SEEN: seen, UNSEEN: unseen, SOME: some}
        if sum(map(bool, split.values())) > 1:
            parts |= {name: of_part for name, of_part in split.items() if of_part}
    for name, members in groups.items():
        own = tuple(x for x in languages if x in members)
        if name not in (SEEN, UNSEEN) and own:
            parts[name] = own
    return parts | {language: (language,) for language in languages}


def _pair_means(languages: Sequence[str], layout: Layout, runs: Sequence[Scores], metric: str) -> Floats:
    place = {language: i for i, language in enumerate(languages)}
    means = np.full((len(languages), len(languages)), np.nan)
    cells = [c for c, cell in enumerate(layout.cells) if cell.setting != "multi" and cell.passage_language in place]
    for c in cells:
        cell = layout.cells[c]
        values = [run.values[metric][:, c] for run in runs]
        if not np.isnan(values).all():
            means[place[cell.query_language], place[cell.passage_language]] = np.nanmean(values)
    return means


def _shares(benchmark: str, system: System, languages: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Means over the system's runs of `<benchmark>/multi/top10_share/<language>`; the pool's from its counts."""
    shares = {}
    counts = system.runs[0].about_benchmark(benchmark).get("candidates") or {}
    for language in languages:
        found = [run.metrics.get(f"{benchmark}/multi/top10_share/{language}") for run in system.runs]
        values = [value for value in found if value is not None]
        if len(values) == len(found) and language in counts:
            shares[language] = (float(np.mean(values)), counts[language] / sum(counts.values()))
    return shares


def _unknown_languages(systems: Sequence[System]) -> list[str]:
    unknown = [system.label for system in systems if system.trained_languages is None]
    if not unknown or len(unknown) == len(systems):
        return []
    return [f"languages seen in training are those of the other systems; {', '.join(unknown)} does not say"]


def _other_search(runs: Sequence[Run], tasks: Sequence[Task]) -> list[str]:
    notes = []
    for task in tasks:
        searches = {str(run.about_benchmark(task.name).get("search") or "exact") for run in runs}
        if len(searches) > 1:
            notes.append(f"on {task.name} runs were searched in different ways: {', '.join(sorted(searches))}")
    return notes
