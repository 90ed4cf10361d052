"""The tables of a comparison: those of the paper (arXiv 2408.10536), and the differences from the baseline."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from hbtrain.comparison.curves import NEAR, ScoreCurves
from hbtrain.comparison.estimates import Estimate, Score
from hbtrain.comparison.published import PublishedRow, figure, note_of, shown_rows
from hbtrain.comparison.result import Comparison
from hbtrain.comparison.tasks import Task
from hbtrain.reporting.metric_names import (
    ALL,
    RANK_DISTANCE,
    SEEN,
    SETTINGS,
    SOME,
    UNSEEN,
    metric_title,
    score_title,
    shown,
    shown_difference,
    sign,
)
from hbtrain.reporting.table import EMPTY, Cell, Row, Table

MARKS = {SEEN: "", UNSEEN: "°", SOME: "˟"}  # marks behind a language that say whether it was seen in training


def main_tables(comparison: Comparison) -> list[Table]:
    """Tables 1 and 2, steps to the best, differences from the baseline, and languages seen and unseen in training."""
    tables = [
        _scores(comparison),
        _rank_distance(comparison),
        steps_table(comparison),
        _differences(comparison),
        _zero_shot(comparison),
    ]
    return [table for table in tables if table is not None]


def language_tables(comparison: Comparison) -> list[Table]:
    """Scores by query language, like tables 3 to 8 of the paper: for each benchmark, its settings and rank distance."""
    tables = [_by_language(comparison, task, *column) for task in comparison.tasks for column in task.columns]
    return [table for table in tables if table is not None]


def legend(comparison: Comparison) -> str:
    """How to read marks, intervals and spreads."""
    method = comparison.method
    spread = "± standard deviation over seeds. " if _several(comparison) else ""
    return (
        f"{spread}Below: {method.confidence:.0%} bootstrap interval over questions. {marks_legend(comparison)} "
        "Bold: best of a column."
    )


def marks_legend(comparison: Comparison, than: str | None = None) -> str:
    """How to read marks; `than`: name of what systems are compared with, by default the comparison's baseline."""
    seeds = (
        "Hollow △ ▽: so over questions, but seeds of the two overlap."
        if _several(comparison)
        else "One run each: nothing is said about other seeds."
    )
    return (
        f"▲ better, ▼ worse than {than or comparison.baseline}: paired permutation test over questions, a question in "
        f"all languages being one unit, Holm-adjusted p ≤ {comparison.method.level:g}. {seeds}"
    )


def _several(comparison: Comparison) -> bool:
    """Whether a system has several runs."""
    return max(len(system.runs) for system in comparison.systems) > 1


def language_note(task: Task) -> str:
    """Which languages were trained on, by the marks behind them; empty where all or none were."""
    words = {SEEN: "trained on", UNSEEN: "° not trained on", SOME: "˟ trained on by some systems only"}
    return "; ".join(f"{words[part]}: {' '.join(task.parts[part])}" for part in task.split)


def shown_language(task: Task, language: str) -> str:
    """A language with its mark."""
    return language + next((MARKS[part] for part in task.split if language in task.parts[part]), "")


def shown_p(p: float) -> str:
    """`p < 0.001` or `p = 0.012`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _scores(comparison: Comparison) -> Table:
    """Scores by setting, like Table 1 of the paper."""
    columns = [Score(task.name, setting, task.metric, ALL) for task in comparison.tasks for setting in task.settings]
    metrics = {column.metric for column in columns}
    if len(metrics) == 1:
        title = f"{metric_title(columns[0].metric)} by setting"
        heads = [SETTINGS[column.setting] for column in columns]
    else:
        title = "Scores by setting"
        heads = [f"{SETTINGS[column.setting]} {metric_title(column.metric)}" for column in columns]
    return _headline(comparison, "scores", title, columns, heads)


def _rank_distance(comparison: Comparison) -> Table | None:
    """Rank distance, like Table 2 of the paper."""
    tasks = [task for task in comparison.tasks if task.metric != RANK_DISTANCE]
    columns = _known(comparison, [Score(task.name, "multi", RANK_DISTANCE, ALL) for task in tasks])
    if not columns:
        return None
    title = "Rank distance in the pool of all languages (lower is less language bias)"
    return _headline(comparison, "rank-distance", title, columns, [metric_title(RANK_DISTANCE)] * len(columns))


def _headline(comparison: Comparison, key: str, title: str, columns: Sequence[Score], heads: Sequence[str]) -> Table:
    by_system = zip(*(_column(comparison, column) for column in columns), strict=True)
    rows = [Row(system.label, cells) for system, cells in zip(comparison.systems, by_system, strict=True)]
    beside = _rows_beside(comparison, columns)
    rows += [Row(row.label, _published(row, comparison, columns), "paper") for row in beside]
    note = _note_beside(comparison, columns)
    return Table(key, f"{title}: {_tasks(comparison)}", _head(comparison, columns, heads), tuple(rows), note)


def _head(comparison: Comparison, columns: Sequence[Score], heads: Sequence[str]) -> tuple[str, ...]:
    """The titles of a table's columns; where there are several benchmarks, each begins with its own."""
    if len(comparison.tasks) == 1:
        return ("", *heads)
    return ("", *(f"{column.benchmark} {head}" for column, head in zip(columns, heads, strict=True)))


def _known(comparison: Comparison, scores: Sequence[Score]) -> list[Score]:
    return [score for score in scores if comparison.get(comparison.baseline, *score) is not None]


def _published(row: PublishedRow, comparison: Comparison, columns: Sequence[Score]) -> tuple[Cell, ...]:
    """The cells of a published row; there is no mark on them, and none is the best."""
    tasks = {task.name: task for task in comparison.tasks}
    found = [(figure(row, tasks[column.benchmark], column), column.metric) for column in columns]
    # Rank distances that are printed as whole numbers get no digits.
    return tuple(
        Cell(EMPTY if value is None else f"{value:,}" if isinstance(value, int) else shown(value, metric), value=value)
        for value, metric in found
    )


def _rows_beside(comparison: Comparison, columns: Sequence[Score]) -> list[PublishedRow]:
    return shown_rows(comparison.published, {task.name: task for task in comparison.tasks}, columns)


def _note_beside(comparison: Comparison, columns: Sequence[Score]) -> str:
    return note_of(comparison.published, {task.name: task for task in comparison.tasks}, columns)


def steps_table(comparison: Comparison) -> Table | None:
    """After how many steps each system was near the best of all (see `hbtrain.comparison.curves`); None if no system
    has learning curves."""
    curves = comparison.curves.scores
    if not curves:
        return None
    columns = [Score(*key, ALL) for key in curves]
    by_column = [_steps_column(comparison, of_score) for of_score in curves.values()]
    rows = [
        Row(system.label, cells) for system, cells in zip(comparison.systems, zip(*by_column, strict=True), strict=True)
    ]
    targets = [shown(of_score.target, of_score.metric) for of_score in curves.values()]
    rows.append(Row(f"score at {NEAR:.0%}", tuple(map(Cell, targets)), "part"))
    note = (
        f"The first measured step at which a run has {NEAR:.0%} of the best score of these systems (a rank distance: "
        f"at most the best / {NEAR:g}). The best is the best mean over seeds at any step. Nothing is interpolated: a "
        "step may be late by as many as lie between two evaluations."
        + (" ± standard deviation over seeds." if _several(comparison) else "")
    )
    title = f"Steps to {NEAR:.0%} of the best: {_tasks(comparison)}"
    heads = [score_title(column.metric, column.setting) for column in columns]
    return Table("steps-to-best", title, _head(comparison, columns, heads), tuple(rows), note)


def _steps_column(comparison: Comparison, curves: ScoreCurves) -> list[Cell]:
    """The cells of one score for all systems, in bold the fewest steps of those whose every run came near the best."""
    of_runs = {label: curves.steps(label) for label in curves.of_runs}
    reached = {label: [step for step in steps if step is not None] for label, steps in of_runs.items()}
    means = {label: statistics.mean(steps) for label, steps in reached.items() if len(steps) == len(of_runs[label])}
    cells = []
    for label in (system.label for system in comparison.systems):
        if not reached.get(label):
            cells.append(Cell(f"> {curves.last_step(label):,}" if label in reached else EMPTY))
            continue
        steps, runs = reached[label], len(of_runs[label])
        mean = statistics.mean(steps)
        text = f"{mean:,.0f}" + (f" ± {statistics.stdev(steps):,.0f}" if len(steps) > 1 else "")
        some = "" if len(steps) == runs else f"{len(steps)} of {runs} seeds"
        best = len(of_runs) > 1 and means.get(label) == min(means.values(), default=-1.0)
        cells.append(Cell(text, some, value=mean, best=best))
    return cells


def _differences(comparison: Comparison) -> Table | None:
    others = [system.label for system in comparison.systems if system.label != comparison.baseline]
    if not others:
        return None
    columns = _known(
        comparison, [Score(task.name, *column, ALL) for task in comparison.tasks for column in task.columns]
    )
    heads = [score_title(column.metric, column.setting) for column in columns]
    rows = [
        Row(label, tuple(_difference(comparison.get(label, *column), comparison) for column in columns))
        for label in others
    ]
    note = (
        f"Interval: {comparison.method.confidence:.0%}, bootstrap over questions, paired. p: Holm-adjusted over this "
        "table. It is about other questions of this kind, for these trained models."
    )
    title = f"Difference from {comparison.baseline}"
    return Table("differences", title, _head(comparison, columns, heads), tuple(rows), note)


def _difference(estimate: Estimate | None, comparison: Comparison) -> Cell:
    if estimate is None or estimate.difference is None:
        return Cell(EMPTY)
    d, metric = estimate.difference, estimate.score.metric
    low, high = shown_difference(d.low, metric), shown_difference(d.high, metric)
    mark = estimate.mark(comparison.method.level)
    return Cell(shown_difference(d.value, metric), f"{low} to {high}\n{shown_p(d.p_holm)}", mark, d.value)


def _zero_shot(comparison: Comparison) -> Table | None:
    columns = _known(
        comparison,
        [
            Score(task.name, *column, part)
            for task in comparison.tasks
            for column in task.columns
            for part in task.split
        ],
    )
    if not columns:
        return None
    heads = [f"{metric_title(c.metric) if c.metric == RANK_DISTANCE else c.setting}: {c.part}" for c in columns]
    _, *titles = _head(comparison, columns, heads)
    notes = [f"{task.name}: {language_note(task)}." for task in comparison.tasks if task.split]
    kinds = ["system"] * len(columns)
    return _longer_side_down(
        "zero-shot",
        "Languages seen and unseen in training",
        comparison,
        (titles, columns, kinds),
        " ".join(["By query language.", *notes]),
    )


def _by_language(comparison: Comparison, task: Task, setting: str, metric: str) -> Table | None:
    several = [ALL, *task.split, *task.groups]
    columns = _known(comparison, [Score(task.name, setting, metric, part) for part in [*several, *task.languages]])
    if not columns:
        return None
    titles = [c.part if c.part in several else shown_language(task, c.part) for c in columns]
    kinds = ["part" if c.part in several else "system" for c in columns]
    key = f"{task.name}-{setting}-{metric}".replace("@", "-at-")
    title = f"{task.name}: {score_title(metric, setting)} by query language"
    details = [column for column in columns if column.part != ALL]
    beside = _note_beside(comparison, details) if _rows_beside(comparison, details) else ""
    languages = language_note(task)
    note = f"{languages}. {beside}" if languages and beside else languages or beside
    return _longer_side_down(key, title, comparison, (titles, columns, kinds), note)


def _longer_side_down(
    key: str,
    title: str,
    comparison: Comparison,
    columns: tuple[Sequence[str], Sequence[Score], Sequence[str]],
    note: str,
) -> Table:
    """A table whose columns, given as titles, scores and kinds, become rows where they are more than the systems."""
    titles, scores, kinds = columns
    by_column = [_column(comparison, score, detail=False) for score in scores]
    labels, kinds_of_labels = [system.label for system in comparison.systems], ["system"] * len(comparison.systems)
    # Means over all languages stand in the tables by setting; who has only these would be an empty column here.
    for row in _rows_beside(comparison, [score for score in scores if score.part != ALL]):
        cells = zip(by_column, _published(row, comparison, scores), strict=True)
        by_column = [(*own, cell) for own, cell in cells]
        labels.append(row.label)
        kinds_of_labels.append("paper")
    if len(labels) <= len(titles):
        rows = [Row(t, cells, kind) for t, cells, kind in zip(titles, by_column, kinds, strict=True)]
        return Table(key, title, ("", *labels), tuple(rows), note)
    lines = zip(labels, zip(*by_column, strict=True), kinds_of_labels, strict=True)
    return Table(key, title, ("", *titles), tuple(Row(*line) for line in lines), note)


def _column(comparison: Comparison, score: Score, detail: bool = True) -> tuple[Cell, ...]:
    """The cells of one score for all systems, the best in bold where there is more than one."""
    metric = score.metric
    estimates = [comparison.get(system.label, *score) for system in comparison.systems]
    values = [e.value * sign(metric) for e in estimates if e is not None]
    cells = []
    for e in estimates:
        if e is None:
            cells.append(Cell(EMPTY))
            continue
        text = shown(e.value, metric) + (f" ± {shown(e.spread, metric)}" if detail and e.spread is not None else "")
        below = f"{shown(e.low, metric)} to {shown(e.high, metric)}" if detail else ""
        best = len(values) > 1 and e.value * sign(metric) == max(values)
        cells.append(Cell(text, below, e.mark(comparison.method.level), e.value, best))
    return tuple(cells)


def _tasks(comparison: Comparison) -> str:
    return ", ".join(
        f"{task.name} ({task.candidates_kind} candidates)" if task.candidates_kind else task.name
        for task in comparison.tasks
    )
