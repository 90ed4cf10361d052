"""The tables of a comparison: those of the paper (arXiv 2408.10536), and the differences from the baseline."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from hbtrain.comparison.compare import Comparison
from hbtrain.comparison.estimates import Estimate
from hbtrain.comparison.tasks import Task
from hbtrain.reporting.metric_names import (
    ALL,
    RANK_DISTANCE,
    SEEN,
    SETTINGS,
    SOME,
    TITLES,
    UNSEEN,
    metric_title,
    score_title,
    shown,
    shown_difference,
    sign,
)
from hbtrain.reporting.table import EMPTY, Cell, Row, Table

MARKS = {SEEN: "", UNSEEN: "°", SOME: "˟"}
"""Marks behind a language that say whether it was seen in training."""


def main_tables(comparison: Comparison) -> list[Table]:
    """Tables 1 and 2, the differences from the baseline, and languages seen and unseen in training."""
    tables = [_scores(comparison), _rank_distance(comparison), _differences(comparison), _zero_shot(comparison)]
    return [table for table in tables if table is not None]


def language_tables(comparison: Comparison) -> list[Table]:
    """Scores by query language, like tables 3 to 8 of the paper: for each benchmark, its settings and rank distance."""
    found: list[Table] = []
    for task in comparison.tasks:
        for setting, metric in [*((s, task.metric) for s in task.settings), ("multi", RANK_DISTANCE)]:
            if metric == RANK_DISTANCE == task.metric and found:
                continue
            table = _by_language(comparison, task, setting, metric)
            if table is not None:
                found.append(table)
    return found


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
    columns = [(task, setting, task.metric) for task in comparison.tasks for setting in task.settings]
    metrics = {task.metric for task in comparison.tasks}
    title = f"{metric_title(min(metrics))} by setting" if len(metrics) == 1 else "Scores by setting"
    return _headline(comparison, "scores", title, columns, lambda task, setting: SETTINGS[setting])


def _rank_distance(comparison: Comparison) -> Table | None:
    """Rank distance, like Table 2 of the paper."""
    columns = [(task, "multi", RANK_DISTANCE) for task in comparison.tasks if task.metric != RANK_DISTANCE]
    columns = [
        column for column in columns if comparison.get(comparison.baseline, column[0].name, column[1], column[2])
    ]
    if not columns:
        return None
    title = "Rank distance in the pool of all languages (lower is less language bias)"
    return _headline(comparison, "rank-distance", title, columns, lambda task, setting: metric_title(RANK_DISTANCE))


def _headline(
    comparison: Comparison,
    key: str,
    title: str,
    columns: Sequence[tuple[Task, str, str]],
    column_title: Callable[[Task, str], str],
) -> Table:
    metrics = {metric for _, _, metric in columns}
    head = []
    for task, setting, metric in columns:
        words = [task.name] if len(comparison.tasks) > 1 else []
        words += [column_title(task, setting)] + ([metric_title(metric)] if len(metrics) > 1 else [])
        head.append(" ".join(words))
    by_column = [
        _column([comparison.get(s.label, task.name, setting, metric) for s in comparison.systems], comparison)
        for task, setting, metric in columns
    ]
    rows = [Row(s.label, cells) for s, cells in zip(comparison.systems, zip(*by_column, strict=True), strict=True)]
    if comparison.paper:
        rows += [row for paper in paper_rows() if (row := _paper_row(paper, columns)) is not None]
    return Table(
        key,
        f"{title}: {_tasks(comparison)}",
        ("", *head),
        tuple(rows),
        _paper_note(comparison) if key == "scores" else "",
    )


def _paper_row(paper: PaperRow, columns: Sequence[tuple[Task, str, str]]) -> Row | None:
    scores = [(paper.scores.get(f"{task.name}/{setting}/{metric}"), metric) for task, setting, metric in columns]
    if all(score is None for score, _ in scores):
        return None
    # Its rank distances are printed as whole numbers: no digits are added to them.
    texts = [EMPTY if x is None else f"{x:,}" if isinstance(x, int) else shown(x, m) for x, m in scores]
    cells = [Cell(text, value=score) for text, (score, _) in zip(texts, scores, strict=True)]
    return Row(paper.label, tuple(cells), "paper")


def _paper_note(comparison: Comparison) -> str:
    if not comparison.paper:
        return ""
    known = {key.partition("/")[0] for row in paper_rows() for key in row.scores}
    notes = ["The paper's figures (arXiv 2408.10536) come from other training data: beside, not compared."]
    for task in comparison.tasks:
        wanted = CANDIDATES.get(task.name)
        if task.name not in known:
            notes.append(f"The paper has no figures for {task.name}.")
        elif wanted and task.candidates_kind not in (None, wanted):
            notes.append(f"On {task.name} it ranks {wanted}s, these runs {task.candidates_kind}.")
    return " ".join(notes)


def _differences(comparison: Comparison) -> Table | None:
    others = [system for system in comparison.systems if system.label != comparison.baseline]
    columns = [
        (task, setting, metric)
        for task in comparison.tasks
        for setting, metric in [*((s, task.metric) for s in task.settings), ("multi", RANK_DISTANCE)]
        if comparison.get(comparison.baseline, task.name, setting, metric) is not None
    ]
    columns = list(dict.fromkeys(columns))
    if not others:
        return None
    head = []
    for task, setting, metric in columns:
        words = [task.name] if len(comparison.tasks) > 1 else []
        head.append(" ".join([*words, score_title(metric, setting)]))
    rows = []
    for system in others:
        cells = [
            _difference(comparison.get(system.label, task.name, setting, metric), comparison)
            for task, setting, metric in columns
        ]
        rows.append(Row(system.label, tuple(cells)))
    note = (
        f"Interval: {comparison.method.confidence:.0%}, bootstrap over questions, paired. p: Holm-adjusted over this "
        "table. It is about other questions of this kind, for these trained models."
    )
    return Table("differences", f"Difference from {comparison.baseline}", ("", *head), tuple(rows), note)


def _difference(estimate: Estimate | None, comparison: Comparison) -> Cell:
    if estimate is None or estimate.difference is None:
        return Cell(EMPTY)
    d, metric = estimate.difference, estimate.score.metric
    low, high = shown_difference(d.low, metric), shown_difference(d.high, metric)
    mark = estimate.mark(comparison.method.level)
    return Cell(shown_difference(d.value, metric), f"{low} to {high}\n{shown_p(d.p_holm)}", mark, d.value)


def _zero_shot(comparison: Comparison) -> Table | None:
    columns = [
        (task, setting, metric, part)
        for task in comparison.tasks
        for setting, metric in dict.fromkeys([*((s, task.metric) for s in task.settings), ("multi", RANK_DISTANCE)])
        for part in task.split
        if comparison.get(comparison.baseline, task.name, setting, metric, part) is not None
    ]
    if not columns:
        return None
    head, by_column = [], []
    for task, setting, metric, part in columns:
        words = [task.name] if len(comparison.tasks) > 1 else []
        what = metric_title(metric) if metric == RANK_DISTANCE else setting
        head.append(" ".join([*words, f"{what}: {part}"]))
        estimates = [comparison.get(s.label, task.name, setting, metric, part) for s in comparison.systems]
        by_column.append(_column(estimates, comparison, detail=False))
    kinds = ["system"] * len(head)
    note = "By query language. " + " ".join(
        f"{task.name}: {language_note(task)}." for task in comparison.tasks if task.split
    )
    title = "Languages seen and unseen in training"
    return _longer_side_down("zero-shot", title, comparison, (head, by_column, kinds), note)


def _by_language(comparison: Comparison, task: Task, setting: str, metric: str) -> Table | None:
    several = [ALL, *task.split, *task.groups]
    names = [*several, *task.languages]
    columns = {
        name: _column(
            [comparison.get(s.label, task.name, setting, metric, name) for s in comparison.systems], comparison, False
        )
        for name in names
        if comparison.get(comparison.baseline, task.name, setting, metric, name) is not None
    }
    if not columns:
        return None
    titles = [name if name in several else shown_language(task, name) for name in columns]
    kinds = ["part" if name in several else "system" for name in columns]
    key, title = (
        f"{task.name}-{setting}-{metric}".replace("@", "-at-"),
        f"{task.name}: {score_title(metric, setting)} by query language",
    )
    return _longer_side_down(key, title, comparison, (titles, list(columns.values()), kinds), language_note(task))


def _longer_side_down(
    key: str,
    title: str,
    comparison: Comparison,
    columns: tuple[Sequence[str], Sequence[tuple[Cell, ...]], Sequence[str]],
    note: str,
) -> Table:
    """A table whose columns, given as titles, cells and kinds, become rows where they are more than the systems."""
    titles, by_column, kinds = columns
    labels = [system.label for system in comparison.systems]
    if len(labels) <= len(titles):
        rows = [Row(t, cells, kind) for t, cells, kind in zip(titles, by_column, kinds, strict=True)]
        return Table(key, title, ("", *labels), tuple(rows), note)
    by_system = zip(*by_column, strict=True)
    return Table(key, title, ("", *titles), tuple(Row(*row) for row in zip(labels, by_system, strict=True)), note)


def _column(estimates: Sequence[Estimate | None], comparison: Comparison, detail: bool = True) -> tuple[Cell, ...]:
    """The cells of one score for all systems, the best in bold where there is more than one."""
    values = [e.value * sign(e.score.metric) for e in estimates if e is not None]
    cells = []
    for e in estimates:
        if e is None:
            cells.append(Cell(EMPTY))
            continue
        metric = e.score.metric
        text = shown(e.value, metric) + (f" ± {shown(e.spread, metric)}" if detail and e.spread is not None else "")
        below = f"{shown(e.low, metric)} to {shown(e.high, metric)}" if detail else ""
        best = len(values) > 1 and e.value * sign(e.score.metric) == max(values)
        cells.append(Cell(text, below, e.mark(comparison.method.level), e.value, best))
    return tuple(cells)


def _tasks(comparison: Comparison) -> str:
    return ", ".join(
        f"{task.name} ({task.candidates_kind} candidates)" if task.candidates_kind else task.name
        for task in comparison.tasks
    )


CANDIDATES = {"xquad-r": "sentence", "mlqa-r": "sentence"}
"""{benchmark: what a candidate is in the paper}."""


@dataclass(frozen=True)
class PaperRow:
    """The scores {`<benchmark>/<setting>/<metric>`: score} of one model in the paper."""

    backbone: str
    sampling: str
    scores: dict[str, float]

    @property
    def label(self) -> str:
        return f"paper: {self.backbone}, {TITLES[self.sampling]}"


@cache
def paper_rows() -> tuple[PaperRow, ...]:
    """The models of the paper, in the order of its tables."""
    text = (resources.files("hbtrain") / "comparison" / "paper_tables.json").read_text(encoding="utf-8")
    return tuple(PaperRow(**row) for row in json.loads(text)["rows"])
