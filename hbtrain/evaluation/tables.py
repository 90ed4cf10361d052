"""Evaluations as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hbtrain.evaluation.summary import RANK_DISTANCE, SETTINGS, Evaluation

if TYPE_CHECKING:
    from rich.table import Table

_TITLES = {
    "map": "mAP",
    "recall@1": "R@1",
    "recall@10": "R@10",
    "recall@100": "R@100",
    "mrr": "MRR",
    "mrr@10": "MRR@10",
    "ndcg@10": "nDCG@10",
}
_SETTING_TITLES = {"mono": "monolingual", "cross": "cross-lingual", "multi": "multilingual"}


def evaluation_table(evaluation: Evaluation) -> Table:
    """Every setting's metrics, macro means first, then a row per query language."""
    table = _new_table(evaluation)
    table.add_column("setting", no_wrap=True)
    table.add_column("lang", no_wrap=True)
    names = _shown(evaluation)
    for name in names:
        table.add_column(_TITLES[name], justify="right")
    table.add_column("rank\ndistance", justify="right")
    for setting in SETTINGS:
        of_setting = {key for key in evaluation.metrics if key.startswith(f"{evaluation.benchmark}/{setting}/")}
        if not of_setting:
            continue
        table.add_row(setting, "all", *_cells(evaluation, setting, "", names), style="bold")
        for language in evaluation.languages:
            if any(key.endswith(f"/{language}") for key in of_setting):
                table.add_row("", language, *_cells(evaluation, setting, f"/{language}", names))
        table.add_section()
    return table


def before_after_table(before: Evaluation, after: Evaluation) -> Table:
    """mAP of the settings and the rank distance, before and after, with the change; for one benchmark."""
    table = _new_table(after)
    table.add_column("")
    for title in ("before", "after", "change"):
        table.add_column(title, justify="right")
    for title, key, form, better in _headline(after):
        if key in before.metrics:
            old, new = before.metrics[key], after.metrics[key]
            change = format(new - old, f"+{form}")
            colour = "" if float(change.replace(",", "")) == 0 else "green" if (new - old) * better > 0 else "red"
            table.add_row(title, format(old, form), format(new, form), f"[{colour}]{change}[/]" if colour else change)
    return table


def scores_markdown(before: Sequence[Evaluation], after: Sequence[Evaluation]) -> str:
    """mAP of the settings and the rank distance of each benchmark as Markdown tables; `before` may be empty."""
    first = {evaluation.benchmark: evaluation.metrics for evaluation in before}
    tables = []
    for evaluation in after:
        columns = {"before": first.get(evaluation.benchmark, {}), "after": evaluation.metrics}
        columns = {name: metrics for name, metrics in columns.items() if metrics}
        head = [f"{evaluation.benchmark} ({evaluation.candidates_kind} candidates)", *columns]
        lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * len(columns)}"]
        for title, key, form, _ in _headline(evaluation):
            lines.append(f"| {title} | {' | '.join(format(metrics[key], form) for metrics in columns.values())} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _headline(evaluation: Evaluation) -> list[tuple[str, str, str, int]]:
    """(title, key, format, 1 if higher is better else -1) of the scores that say the most."""
    start = evaluation.benchmark
    rows = [(f"mAP {_SETTING_TITLES[setting]}", f"{start}/{setting}/map", ".3f", 1) for setting in SETTINGS]
    rows.append(("rank distance (lower is better)", f"{start}/multi/{RANK_DISTANCE}", ",.1f", -1))
    return [row for row in rows if row[1] in evaluation.metrics]


def _new_table(evaluation: Evaluation) -> Table:
    from rich.table import Table
    from rich.text import Text

    return Table(title=Text(f"{evaluation.benchmark} ({evaluation.candidates_kind} candidates)"))


def _shown(evaluation: Evaluation) -> list[str]:
    """The metrics that are known; the reciprocal rank with a cut-off only where it is not known without."""
    known = {key.split("/")[2] for key in evaluation.metrics}
    return [name for name in _TITLES if name in known and (name != "mrr@10" or "mrr" not in known)]


def _cells(evaluation: Evaluation, setting: str, suffix: str, names: Sequence[str]) -> list[str]:
    start = f"{evaluation.benchmark}/{setting}"
    cells = [_number(evaluation.metrics.get(f"{start}/{name}{suffix}"), ".3f") for name in names]
    return [*cells, _number(evaluation.metrics.get(f"{start}/{RANK_DISTANCE}{suffix}"), ",.1f")]


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
