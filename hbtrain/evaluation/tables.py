"""Evaluations as tables, for the terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from hbtrain.evaluation.summary import Evaluation
from hbtrain.reporting.metric_names import (
    LANGUAGE_AWARE,
    LANGUAGE_BIAS,
    OWN_BEFORE,
    OWN_FIRST,
    PEER,
    QUERY_ALIGNMENT,
    RANK_CORRELATION,
    RANK_DISTANCE,
    SETTINGS,
    metric_title,
    score_title,
    shown,
    shown_difference,
    sign,
)
from hbtrain.reporting.table import Cell, Row, Table, markdown, table_of, terminal

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from hbtrain.evaluation.out_of_domain import DomainScore

COLUMNS = ("map", "recall@1", "recall@10", "recall@100", "mrr", "mrr@10", "ndcg@10", RANK_DISTANCE)
"""Metrics in the order of the columns."""

LANGUAGE_COLUMNS = (
    LANGUAGE_BIAS,
    OWN_FIRST,
    OWN_BEFORE,
    LANGUAGE_AWARE,
    PEER,
    RANK_CORRELATION,
    QUERY_ALIGNMENT,
    "passage_alignment",
    "query_cka",
)
"""Measures in the order of the columns of the table of language bias."""


def evaluation_table(evaluation: Evaluation) -> RichTable:
    """`scores_table` for a terminal."""
    return terminal(scores_table(evaluation))


def scores_table(evaluation: Evaluation) -> Table:
    """Every setting's metrics: macro means first, then groups of languages, then a row per query language.

    Where the training languages are known, others are marked with a star. A benchmark of translations (only
    cross-lingual, always from or to one language) gets its accuracy in both directions instead.
    """
    if {cell.setting for cell in evaluation.cells} == {"cross"} and (hub := _hub(evaluation)):
        return _table(evaluation, *_accuracies(evaluation, hub))
    known = {name for cell in evaluation.cells for name in cell.means}
    # MRR@10 is shown only where the uncut MRR is not known.
    names = [name for name in COLUMNS if name in known and (name != "mrr@10" or "mrr" not in known)]
    rows: list[Row] = []
    for setting in SETTINGS:
        of_setting: list[Row] = []
        for part in ("", *_proper_groups(evaluation), *evaluation.languages):
            keys = [f"{evaluation.benchmark}/{setting}/{name}" + (f"/{part}" if part else "") for name in names]
            scores = [evaluation.metrics.get(key) for key in keys]
            if any(score is not None for score in scores):
                cells = ["" if x is None else shown(x, name) for x, name in zip(scores, names, strict=True)]
                label = _marked(evaluation, part) if part else "all"
                kind = "group" if part in evaluation.groups else "system" if part else "part"
                of_setting.append(Row("" if part else setting, tuple(map(Cell, [label, *cells])), kind))
        rows += of_setting[:-1] + [replace(row, last=True) for row in of_setting[-1:]]
    titles = [metric_title(name).replace("nDCG@", "nDCG\n@").replace(" ", "\n") for name in names]
    return _table(evaluation, ("setting", "lang", *titles), rows, labels=2)


def language_table(evaluation: Evaluation) -> RichTable | None:
    """`bias_table` for a terminal."""
    table = bias_table(evaluation)
    return None if table is None else terminal(table)


def bias_table(evaluation: Evaluation) -> Table | None:
    """Measures of language bias in the pool of all languages: of all, groups, and a row per language; None where there
    are none."""
    prefix = f"{evaluation.benchmark}/multi"
    names = [name for name in LANGUAGE_COLUMNS if f"{prefix}/{name}" in evaluation.metrics]
    if len(evaluation.languages) < 2 or not names:
        return None
    rows: list[Row] = []
    for part in ("", *_proper_groups(evaluation), *evaluation.languages):
        scores = [evaluation.metrics.get(f"{prefix}/{name}" + (f"/{part}" if part else "")) for name in names]
        if any(score is not None for score in scores):
            cells = ["" if x is None else shown(x, name) for x, name in zip(scores, names, strict=True)]
            kind = "group" if part in evaluation.groups else "system" if part else "part"
            rows.append(Row(_marked(evaluation, part) if part else "all", tuple(map(Cell, cells)), kind))
    titles = [metric_title(name).replace(" ", "\n") for name in names]
    title = f"language bias on {evaluation.benchmark}, all languages in one pool"
    note = "own: the query's language; alignment: distance of translations"
    return Table("languages", title, ("lang", *titles), tuple(rows), note, grid=True)


def domain_table(scores: Sequence[DomainScore], in_domain: str | None) -> RichTable:
    """MRR of benchmarks and domains by setting, and the drop against the in-domain one."""
    rows = []
    for score in scores:
        own, inside = score.name == in_domain, score.mrr + (score.drop or 0.0)
        drop = "in-domain" if own else "" if score.drop is None else shown_difference(score.drop, "mrr")
        share = "" if score.drop is None or not inside else f"{score.drop / inside:+.0%}"
        cells = (score.name, f"{score.queries:,}", shown(score.mrr, "mrr"), drop, share)
        rows.append(Row(score.setting, tuple(map(Cell, cells)), "part" if own else "system"))
    title = "MRR by benchmark and domain" if in_domain is None else f"MRR outside {in_domain}"
    note = "" if in_domain is None else "drop: in-domain MRR less this one, over the languages both have"
    head = ("setting", "benchmark or domain", "queries", "MRR", "drop", "drop %")
    return terminal(Table("domains", title, head, tuple(rows), note, labels=2, grid=True))


def before_after_table(before: Evaluation, after: Evaluation) -> RichTable:
    """`changes_table` for a terminal."""
    return terminal(changes_table(before, after))


def changes_table(before: Evaluation, after: Evaluation) -> Table:
    """mAP of the settings and the rank distance, before and after, with the change; for one benchmark."""
    rows = []
    for title, key, metric in _headline(after):
        if key in before.metrics:
            old, new = before.metrics[key], after.metrics[key]
            change = shown_difference(new - old, metric)
            better = 0 if float(change.replace(",", "")) == 0 else sign(metric) if new > old else -sign(metric)
            rows.append(Row(title, (Cell(shown(old, metric)), Cell(shown(new, metric)), Cell(change, trend=better))))
    return _table(after, ("", "before", "after", "change"), rows)


def scores_markdown(before: Sequence[Evaluation], after: Sequence[Evaluation]) -> str:
    """mAP of the settings and the rank distance of each benchmark as Markdown tables; `before` may be empty."""
    first = {evaluation.benchmark: evaluation.metrics for evaluation in before}
    tables = []
    for evaluation in after:
        columns = {"before": first.get(evaluation.benchmark, {}), "after": evaluation.metrics}
        columns = {name: metrics for name, metrics in columns.items() if metrics}
        rows = [
            (title, *(shown(metrics[key], metric) for metrics in columns.values()))
            for title, key, metric in _headline(evaluation)
        ]
        tables.append(markdown(table_of("", (_title(evaluation), *columns), rows)))
    return "\n\n".join(tables)


def _headline(evaluation: Evaluation) -> list[tuple[str, str, str]]:
    """(title, key, metric) of the most important scores of this kind of benchmark."""
    settings = {cell.setting for cell in evaluation.cells}
    if settings == {"mono"}:
        rows = [(metric_title(name), "mono", name) for name in ("ndcg@10", "recall@100", "mrr", "mrr@10")]
    elif settings == {"cross"}:
        rows = [("accuracy", "cross", "recall@1")]
    else:
        rows = [(score_title("map", setting), setting, "map") for setting in SETTINGS]
        rows.append((f"{metric_title(RANK_DISTANCE)} (lower is better)", "multi", RANK_DISTANCE))
    keys = [(title, f"{evaluation.benchmark}/{setting}/{name}", name) for title, setting, name in rows]
    return [row for row in keys if row[1] in evaluation.metrics]


def _table(evaluation: Evaluation, head: Sequence[str], rows: Sequence[Row], labels: int = 1) -> Table:
    note = "* not seen in training" if evaluation.groups.get("unseen") else ""
    return Table(evaluation.benchmark, _title(evaluation), tuple(head), tuple(rows), note, labels, grid=True)


def _title(evaluation: Evaluation) -> str:
    """The benchmark, what its candidates are, and how they were searched."""
    return f"{evaluation.benchmark} ({evaluation.candidates_kind} candidates, {evaluation.search['search']} search)"


def _proper_groups(evaluation: Evaluation) -> dict[str, tuple[str, ...]]:
    """The groups that hold some of the languages, but not all."""
    return {name: members for name, members in evaluation.groups.items() if set(members) != set(evaluation.languages)}


def _marked(evaluation: Evaluation, part: str) -> str:
    return f"{part} *" if part in evaluation.groups.get("unseen", ()) else part


def _hub(evaluation: Evaluation) -> str | None:
    """The language that every cell has on one side, if there is one."""
    sides = [{cell.query_language, cell.passage_language} for cell in evaluation.cells]
    common = set.intersection(*sides)
    return next((language for language in evaluation.languages[::-1] if language in common), None)


def _accuracies(evaluation: Evaluation, hub: str) -> tuple[tuple[str, ...], list[Row]]:
    """Head and rows of a table of accuracies: into the hub language, out of it, and both."""
    accuracy = {(cell.query_language, cell.passage_language): cell.means["recall@1"] for cell in evaluation.cells}
    languages = [language for language in evaluation.languages if language != hub]
    groups = {name: [x for x in members if x != hub] for name, members in _proper_groups(evaluation).items()}
    rows = []
    for part, members in {"all": languages, **groups, **{language: [language] for language in languages}}.items():
        to = [accuracy[x, hub] for x in members if (x, hub) in accuracy]
        back = [accuracy[hub, x] for x in members if (hub, x) in accuracy]
        if to + back:
            means = [shown(sum(x) / len(x), "recall@1") if x else "" for x in (to, back, to + back)]
            kind = "part" if part == "all" else "group" if part in groups else "system"
            rows.append(Row(_marked(evaluation, part), tuple(map(Cell, means)), kind))
    return ("lang", *(f"accuracy\n{way}" for way in (f"to {hub}", f"from {hub}", "both"))), rows
