"""Tables as Markdown, for a terminal, and scores as CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from hbtrain.comparison.compare import Comparison
from hbtrain.comparison.tables import language_tables, legend, main_tables
from hbtrain.reporting.table import Cell, Row, Table

LABEL_WIDTH = 24
"""Characters of a row's label that are never broken."""

if TYPE_CHECKING:
    from rich.table import Table as RichTable


def markdown(comparison: Comparison, tables: Sequence[Table] | None = None) -> str:
    """All tables, or those given, with how to read them."""
    chosen = [*main_tables(comparison), *language_tables(comparison)] if tables is None else tables
    parts = [f"**{table.title}**\n\n{_markdown(table)}" for table in chosen]
    notes = "".join(f"\n\nNote: {note}." for note in comparison.notes)
    return "\n\n".join([*parts, legend(comparison)]) + notes + "\n"


def terminal(table: Table) -> RichTable:
    """A table for rich's console."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    made = RichTable(
        title=Text(table.title, "bold"),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        caption_justify="left",
        padding=(0, 1, 0, 0),
    )
    labels = max((len(row.label) for row in table.rows), default=0)
    made.add_column("", min_width=min(labels, LABEL_WIDTH), overflow="fold")
    for column, title in enumerate(table.head[1:]):
        whole = [text for row in table.rows for text in _whole(row.cells[column])] + title.split()
        made.add_column(Text(title), justify="right", min_width=max(map(len, whole)))
    for row in table.rows:
        style = {"paper": "dim italic", "part": "bold"}.get(row.kind, "")
        made.add_row(Text(row.label), *(_text(cell) for cell in row.cells), style=style)
    if table.note:
        made.caption = Text(table.note, "dim")
    return made


def as_csv(comparison: Comparison) -> str:
    """One line for each system, benchmark, setting, metric and part."""
    stream = io.StringIO()
    rows = [_flat(comparison, row) for row in as_dict(comparison)["scores"]]
    writer = csv.DictWriter(stream, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """Everything that was found, as JSON takes it."""
    return {
        "baseline": comparison.baseline,
        "method": asdict(comparison.method),
        "notes": list(comparison.notes),
        "systems": [
            {
                "label": system.label,
                "sampling": system.sampling,
                "alpha": system.alpha,
                "trained_languages": None if system.trained_languages is None else list(system.trained_languages),
                "runs": [{"name": r.name, "given": r.given, "mlflow_run_id": r.run_id} for r in system.runs],
            }
            for system in comparison.systems
        ],
        "benchmarks": [
            {
                "name": task.name,
                "candidates_kind": task.candidates_kind,
                "metric": task.metric,
                "questions": len(task.layout.questions),
                "parts": {name: list(languages) for name, languages in task.parts.items()},
            }
            for task in comparison.tasks
        ],
        "scores": [
            {
                "system": e.system,
                **e.score._asdict(),
                "value": e.value,
                "by_run": list(e.by_run),
                "spread": e.spread,
                "low": e.low,
                "high": e.high,
                "mark": e.mark(comparison.method.level),
                "difference": None if e.difference is None else asdict(e.difference),
            }
            for e in comparison.estimates
        ],
    }


def as_json(comparison: Comparison) -> str:
    """`as_dict` as text."""
    return json.dumps(as_dict(comparison), indent=2, ensure_ascii=False) + "\n"


def _flat(comparison: Comparison, row: dict[str, Any]) -> dict[str, Any]:
    flat = {key: value for key, value in row.items() if key not in ("by_run", "difference")}
    flat["runs"] = len(row["by_run"])
    difference = row["difference"] or dict.fromkeys(("value", "low", "high", "p", "p_holm", "seeds_agree"))
    names = {"value": "difference", "low": "difference_low", "high": "difference_high"}
    flat |= {names.get(key, key): value for key, value in difference.items()}
    return {key: "" if value is None else value for key, value in flat.items()}


def _markdown(table: Table) -> str:
    lines = [_line(table.head), f"| --- |{' ---: |' * (len(table.head) - 1)}"]
    lines += [_line([_label(row), *map(_markdown_cell, row.cells)]) for row in table.rows]
    return "\n".join(lines) + (f"\n\n{_escaped(table.note)}" if table.note else "")


def _label(row: Row) -> str:
    label = _escaped(row.label)
    return f"*{label}*" if row.kind == "paper" else label


def _markdown_cell(cell: Cell) -> str:
    text = f"**{cell.text}**" if cell.best else cell.text
    return f"{text} {cell.mark}".rstrip() + "".join(f"<br>{line}" for line in cell.detail.splitlines())


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    for character in "\\|*_`<":
        text = text.replace(character, "\\" + character)
    return text.replace("\n", " ")


def _whole(cell: Cell) -> list[str]:
    """What is not broken into lines."""
    return [f"{cell.text} {cell.mark or ' '}", *cell.detail.split()]


def _text(cell: Cell) -> Any:
    from rich.text import Text

    colour = {"▲": "green", "△": "green", "▼": "red", "▽": "red"}.get(cell.mark, "")
    # A mark's place is kept where there is none, so that numbers stand below each other.
    text = Text.assemble((cell.text, "bold" if cell.best else ""), " ", (cell.mark or " ", colour))
    for line in cell.detail.splitlines():
        text.append(f"\n{line}  ", "dim")
    return text
