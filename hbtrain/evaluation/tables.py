"""Evaluations as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hbtrain.evaluation.metrics import METRICS
from hbtrain.evaluation.summary import RANK_DISTANCE, SETTINGS, Evaluation

if TYPE_CHECKING:
    from rich.table import Table

_TITLES = {"map": "mAP", "recall@1": "R@1", "recall@10": "R@10", "mrr": "MRR", "ndcg@10": "nDCG@10"}
_SETTING_TITLES = {"mono": "monolingual", "cross": "cross-lingual", "multi": "multilingual"}


def evaluation_table(evaluation: Evaluation) -> Table:
    """Every setting's metrics, macro means first, then a row per query language."""
    table = _new_table(evaluation)
    table.add_column("setting", no_wrap=True)
    table.add_column("lang", no_wrap=True)
    for name in METRICS:
        table.add_column(_TITLES[name], justify="right")
    table.add_column("rank\ndistance", justify="right")
    for setting in SETTINGS:
        if f"{evaluation.benchmark}/{setting}/map" not in evaluation.metrics:
            continue
        table.add_row(_SETTING_TITLES[setting], "all", *_cells(evaluation, setting, ""), style="bold")
        for language in evaluation.languages:
            if f"{evaluation.benchmark}/{setting}/map/{language}" in evaluation.metrics:
                table.add_row("", language, *_cells(evaluation, setting, f"/{language}"))
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


def _cells(evaluation: Evaluation, setting: str, suffix: str) -> list[str]:
    start = f"{evaluation.benchmark}/{setting}"
    cells = [f"{evaluation.metrics[f'{start}/{name}{suffix}']:.3f}" for name in METRICS]
    distance = evaluation.metrics.get(f"{start}/{RANK_DISTANCE}{suffix}")
    return [*cells, "" if distance is None else f"{distance:,.1f}"]
