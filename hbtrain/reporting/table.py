"""Tables of scores and how they are drawn: in a terminal and as Markdown; a report in HTML draws the same tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

EMPTY = "–"
"""What stands where nothing is known."""

LABEL_WIDTH = 24
"""Characters of a row's label that are never broken in a terminal."""

TREND = {"▲": 1, "△": 1, "▼": -1, "▽": -1}
"""Marks by whether they say better or worse."""


@dataclass(frozen=True)
class Cell:
    """What stands at one place.

    Attributes:
        text: in full.
        detail: smaller lines below.
        mark: one of TREND, behind the text.
        value: to sort by.
        best: in bold.
        trend: 1 where the text says better, -1 where it says worse: green or red in a terminal.
    """

    text: str
    detail: str = ""
    mark: str = ""
    value: float | None = None
    best: bool = False
    trend: int = 0


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        label: of its first column.
        cells: of the others.
        kind: `system`; `paper`; `part` or `group` for a row that stands for several languages.
        last: a line is drawn below in a terminal.
    """

    label: str
    cells: tuple[Cell, ...]
    kind: str = "system"
    last: bool = False


@dataclass(frozen=True)
class Table:
    """A table with a title above and a note below.

    Attributes:
        key: short, for links and files.
        title: what it shows.
        head: titles of all columns, the labels' first.
        rows: from top to bottom.
        note: how to read it.
        labels: columns that say what a row is, aligned to the left; the others hold numbers.
        grid: drawn with lines around its cells in a terminal.
    """

    key: str
    title: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]
    note: str = ""
    labels: int = 1
    grid: bool = False


def table_of(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], note: str = "", labels: int = 1) -> Table:
    """A table of plain texts, one for each column."""
    made = (Row(label, tuple(map(Cell, cells))) for label, *cells in rows)
    return Table("", title, tuple(head), tuple(made), note, labels)


def markdown(table: Table) -> str:
    """The table, its note below, without its title."""
    lines = [
        _line(map(_escaped, table.head)),
        "|" + " --- |" * table.labels + " ---: |" * (len(table.head) - table.labels),
    ]
    for row in table.rows:
        label = _escaped(row.label)
        lines.append(_line([f"*{label}*" if row.kind == "paper" else label, *map(_markdown_cell, row.cells)]))
    return "\n".join(lines) + (f"\n\n{_escaped(table.note)}" if table.note else "")


def terminal(table: Table) -> RichTable:
    """The table for rich's console; numbers and the beginnings of labels are never broken."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    note = Text(table.note, "" if table.grid else "dim") if table.note else None
    if table.grid:
        made = RichTable(title=Text(table.title), caption=note)
    else:
        made = RichTable(
            title=Text(table.title, "bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            caption=note,
            caption_justify="left",
            padding=(0, 1, 0, 0),
        )
    marks = any(cell.mark for row in table.rows for cell in row.cells)
    lines = [[Text(row.label), *(_text(cell, marks) for cell in row.cells)] for row in table.rows]
    for column, title in enumerate(table.head):
        texts = [line[column].plain for line in lines]
        if column < table.labels:
            widest = max(map(len, texts), default=0)
            made.add_column(Text(title), min_width=min(widest, LABEL_WIDTH), overflow="fold")
        else:
            whole = max(map(len, [*title.split(), *(part for text in texts for part in text.splitlines())]), default=0)
            made.add_column(Text(title), justify="right", min_width=whole)
    styles = {"paper": "dim italic", "part": "bold", "group": "italic"}
    for row, line in zip(table.rows, lines, strict=True):
        made.add_row(*line, style=styles.get(row.kind, ""), end_section=row.last)
    return made


def facts(rows: Iterable[tuple[str, str]], title: str | None = None) -> RichTable:
    """Names and what is so called, for rich's console; texts may hold its markup."""
    from rich.table import Table as RichTable

    made = RichTable(title=title, title_justify="left", title_style="bold", box=None, show_header=False)
    for name, text in rows:
        made.add_row(name, text)
    return made


def _markdown_cell(cell: Cell) -> str:
    text = f"**{_escaped(cell.text)}**" if cell.best else _escaped(cell.text)
    return f"{text} {cell.mark}".rstrip() + "".join(f"<br>{line}" for line in cell.detail.splitlines())


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """In one line, without what Markdown would take for its own; an underscore inside a word it leaves alone."""
    return re.sub(r"[\\|*`<]|(?<!\w)_|_(?!\w)", r"\\\g<0>", text).replace("\n", " ")


def _text(cell: Cell, marks: bool) -> Text:
    from rich.text import Text

    colours = {1: "green", -1: "red"}
    text = Text(cell.text, colours.get(cell.trend, "bold" if cell.best else ""))
    if marks:
        # A mark's place is kept where there is none, so that numbers stand below each other.
        text.append(" ").append(cell.mark or " ", colours.get(TREND.get(cell.mark, 0), ""))
    for line in cell.detail.splitlines():
        text.append(f"\n{line}{'  ' if marks else ''}", "dim")
    return text
