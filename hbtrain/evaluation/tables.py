"""Evaluations as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hbtrain.evaluation.summary import RANK_DISTANCE, SETTINGS, Evaluation

if TYPE_CHECKING:
    from rich.table import Table

    from hbtrain.evaluation.out_of_domain import DomainScore

_TITLES = {
    "map": "mAP",
    "recall@1": "R@1",
    "recall@10": "R@10",
    "recall@100": "R@100",
    "mrr": "MRR",
    "mrr@10": "MRR@10",
    "ndcg@10": "nDCG\n@10",
    RANK_DISTANCE: "rank\ndistance",
}
_FORMATS = {RANK_DISTANCE: ",.1f"}
_SETTING_TITLES = {"mono": "monolingual", "cross": "cross-lingual", "multi": "multilingual"}


def evaluation_table(evaluation: Evaluation) -> Table:
    """Every setting's metrics: macro means first, then groups of languages, then a row per query language.

    Where the training languages are known, others are marked with a star. A benchmark of translations (only
    cross-lingual, always from or to one language) gets its accuracy in both directions instead.
    """
    if {cell.setting for cell in evaluation.cells} == {"cross"} and (hub := _hub(evaluation)):
        return _accuracy_table(evaluation, hub)
    table = _new_table(evaluation)
    table.add_column("setting", no_wrap=True)
    table.add_column("lang", no_wrap=True)
    names = _shown(evaluation)
    for name in names:
        table.add_column(_TITLES[name], justify="right")
    for setting in SETTINGS:
        of_setting = {key for key in evaluation.metrics if key.startswith(f"{evaluation.benchmark}/{setting}/")}
        if not of_setting:
            continue
        table.add_row(setting, "all", *_scores(evaluation, setting, "", names), style="bold")
        for part in (*_proper_groups(evaluation), *evaluation.languages):
            if any(key.endswith(f"/{part}") for key in of_setting):
                style = "italic" if part in evaluation.groups else None
                scores = _scores(evaluation, setting, f"/{part}", names)
                table.add_row("", _marked(evaluation, part), *scores, style=style)
        table.add_section()
    return table


def domain_table(scores: Sequence[DomainScore], in_domain: str | None) -> Table:
    """MRR of benchmarks and domains by setting, and the drop against the in-domain one."""
    from rich.table import Table
    from rich.text import Text

    title = "MRR by benchmark and domain" if in_domain is None else f"MRR outside {in_domain}"
    caption = None if in_domain is None else "drop: in-domain MRR less this one, over the languages both have"
    table = Table(title=Text(title), caption=caption)
    table.add_column("setting", no_wrap=True)
    table.add_column("benchmark or domain")
    for column in ("queries", "MRR", "drop", "drop %"):
        table.add_column(column, justify="right")
    for score in scores:
        own = score.name == in_domain
        drop = "in-domain" if own else "" if score.drop is None else f"{score.drop:+.3f}"
        share = (
            "" if score.drop is None or not score.mrr + score.drop else f"{score.drop / (score.mrr + score.drop):+.0%}"
        )
        cells = (score.setting, score.name, f"{score.queries:,}", f"{score.mrr:.3f}", drop, share)
        table.add_row(*cells, style="bold" if own else None)
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
        head = [f"{evaluation.benchmark} ({_how(evaluation)})", *columns]
        lines = [f"| {' | '.join(head)} |", f"| --- |{' ---: |' * len(columns)}"]
        for title, key, form, _ in _headline(evaluation):
            lines.append(f"| {title} | {' | '.join(format(metrics[key], form) for metrics in columns.values())} |")
        tables.append("\n".join(lines))
    return "\n\n".join(tables)


def _headline(evaluation: Evaluation) -> list[tuple[str, str, str, int]]:
    """(title, key, format, 1 if higher is better else -1) of the scores that say the most of this kind of benchmark."""
    start = evaluation.benchmark
    rows = [(f"mAP {_SETTING_TITLES[setting]}", f"{start}/{setting}/map", ".3f", 1) for setting in SETTINGS]
    rows.append(("rank distance (lower is better)", f"{start}/multi/{RANK_DISTANCE}", ",.1f", -1))
    settings = {cell.setting for cell in evaluation.cells}
    if settings == {"mono"}:
        rows = [
            (_TITLES[name], f"{start}/mono/{name}", ".3f", 1) for name in ("ndcg@10", "recall@100", "mrr", "mrr@10")
        ]
    if settings == {"cross"}:
        rows = [("accuracy", f"{start}/cross/recall@1", ".3f", 1)]
    return [row for row in rows if row[1] in evaluation.metrics]


def _new_table(evaluation: Evaluation) -> Table:
    from rich.table import Table
    from rich.text import Text

    title = f"{evaluation.benchmark} ({_how(evaluation)})"
    unseen = len(evaluation.groups.get("unseen", ()))
    return Table(title=Text(title), caption=Text("* not seen in training") if unseen else None)


def _how(evaluation: Evaluation) -> str:
    """What the candidates are and how they were searched."""
    return f"{evaluation.candidates_kind} candidates, {evaluation.search['search']} search"


def _shown(evaluation: Evaluation) -> list[str]:
    """The metrics that are known; the reciprocal rank with a cut-off only where it is not known without."""
    known = {name for cell in evaluation.cells for name in cell.means}
    return [name for name in _TITLES if name in known and (name != "mrr@10" or "mrr" not in known)]


def _proper_groups(evaluation: Evaluation) -> dict[str, tuple[str, ...]]:
    """The groups that are not all of the languages."""
    return {name: members for name, members in evaluation.groups.items() if set(members) != set(evaluation.languages)}


def _marked(evaluation: Evaluation, part: str) -> str:
    return f"{part} *" if part in evaluation.groups.get("unseen", ()) else part


def _scores(evaluation: Evaluation, setting: str, suffix: str, names: Sequence[str]) -> list[str]:
    start = f"{evaluation.benchmark}/{setting}"
    values = [(evaluation.metrics.get(f"{start}/{name}{suffix}"), _FORMATS.get(name, ".3f")) for name in names]
    return ["" if value is None else format(value, form) for value, form in values]


def _hub(evaluation: Evaluation) -> str | None:
    """The language that all cells are from or to."""
    sides = [{cell.query_language, cell.passage_language} for cell in evaluation.cells]
    common = set.intersection(*sides)
    return next((language for language in evaluation.languages[::-1] if language in common), None)


def _accuracy_table(evaluation: Evaluation, hub: str) -> Table:
    accuracy = {(cell.query_language, cell.passage_language): cell.means["recall@1"] for cell in evaluation.cells}
    table = _new_table(evaluation)
    table.add_column("lang", no_wrap=True)
    for title in (f"to {hub}", f"from {hub}", "both"):
        table.add_column(f"accuracy\n{title}", justify="right")
    languages = [language for language in evaluation.languages if language != hub]
    groups = {name: [x for x in members if x != hub] for name, members in _proper_groups(evaluation).items()}
    for part, members in {"all": languages, **groups, **{language: [language] for language in languages}}.items():
        to = [accuracy[x, hub] for x in members if (x, hub) in accuracy]
        back = [accuracy[hub, x] for x in members if (hub, x) in accuracy]
        if to + back:
            means = [f"{sum(values) / len(values):.3f}" if values else "" for values in (to, back, to + back)]
            style = "bold" if part == "all" else "italic" if part in groups else None
            table.add_row(_marked(evaluation, part), *means, style=style)
    return table
