"""What is compared on a benchmark: which metrics, and which groups of languages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hbtrain.comparison.checks import check_means, check_metric, check_same_task, unlike_cuts
from hbtrain.comparison.runs import Run
from hbtrain.comparison.scores import Floats, Layout, Scores
from hbtrain.comparison.systems import System
from hbtrain.errors import DataError
from hbtrain.formats.language_codes import is_among
from hbtrain.reporting.metric_names import ALL, RANK_DISTANCE, SEEN, SOME, UNSEEN

MAIN_METRICS = ("map", "ndcg@10", "recall@10")
"""The first of these that every run has is the main metric, if the user names none."""


@dataclass(frozen=True, eq=False)
class Task:
    """A benchmark on which all systems were evaluated."""

    name: str  # of the benchmark
    candidates_kind: str | None  # what a candidate is; None if the runs do not say
    languages: tuple[str, ...]  # of its queries
    queries: Mapping[str, int]  # {language: how many}; empty if the runs do not say
    metric: str  # the main one
    # {name: query languages} of everything that gets a mean: all languages, those seen and unseen in training if that
    # is known, the benchmark's own groups, and every single language
    parts: dict[str, tuple[str, ...]]
    layout: Layout  # its questions and cells
    # {system: [L, L]}, the main metric by query and passage language; NaN where there are no queries
    pair_means: dict[str, Floats]
    # {system: {language: (share among the first ten candidates, share of the pool)}}; empty for evaluations without
    # these shares
    top10_shares: dict[str, dict[str, tuple[float, float]]]

    @property
    def settings(self) -> tuple[str, ...]:
        """The settings that it has, in the order of tables."""
        return tuple(dict.fromkeys(cell.setting for cell in self.layout.cells))

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(setting, metric) of the scores that tables show: the main metric in all settings, and rank distance."""
        return list(dict.fromkeys([*((s, self.metric) for s in self.settings), ("multi", RANK_DISTANCE)]))

    @property
    def groups(self) -> tuple[str, ...]:
        """The benchmark's own groups of languages, such as MIRACL's by resources."""
        return tuple(part for part in self.parts if part not in (ALL, SEEN, UNSEEN, SOME, *self.languages))

    @property
    def split(self) -> tuple[str, ...]:
        """The parts by seen and unseen languages; empty where all or none were seen, or that is not known."""
        return tuple(part for part in (SEEN, UNSEEN, SOME) if part in self.parts)


def task_of(
    benchmark: str, metric: str | None, systems: Sequence[System], scores: dict[Run, Scores]
) -> tuple[Task, list[str]]:
    """The task, and the metrics to compare, the main one first. Raises DataError if runs cannot be compared."""
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
        queries=about.get("queries") or {},
        metric=main,
        parts=_parts(languages, systems, about.get("language_groups") or {}),
        layout=layout,
        pair_means={s.label: _pair_means(languages, layout, [scores[r] for r in s.runs], main) for s in systems},
        top10_shares={s.label: _shares(benchmark, s, languages) for s in systems},
    )
    return task, metrics


def _main_metric(benchmark: str, wanted: str | None, runs: Sequence[Run], scores: Sequence[Scores]) -> str:
    if wanted is not None:
        check_metric(benchmark, wanted, runs, scores)
        unlike = unlike_cuts(benchmark, wanted, runs)
        if unlike is not None:
            raise DataError(unlike)
        return wanted
    for metric in MAIN_METRICS:
        if unlike_cuts(benchmark, metric, runs) is not None:
            continue
        if all(metric in s.values and not np.isnan(s.values[metric]).all() for s in scores):
            check_metric(benchmark, metric, runs, scores)
            return metric
    raise DataError(
        f"the runs have none of {', '.join(MAIN_METRICS)} on {benchmark} in common; choose another with --metric"
    )


def _parts(
    languages: Sequence[str], systems: Sequence[System], groups: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """{name: languages} of `Task.parts`; seen and unseen languages only where there are both."""
    parts = {ALL: tuple(languages)}
    known = [set(s.trained_languages) for s in systems if s.trained_languages is not None]
    if known:
        seen = tuple(x for x in languages if all(is_among(x, trained) for trained in known))
        unseen = tuple(x for x in languages if not any(is_among(x, trained) for trained in known))
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
    """{language: (share among the first ten candidates, share of the pool)}, means over the system's runs."""
    found = [run.first_ten.get(benchmark, {}) for run in system.runs]
    return {
        language: tuple(np.mean([shares[language] for shares in found], axis=0).tolist())
        for language in languages
        if all(language in shares for shares in found)
    }
