"""Tables, and how they look in a terminal and in Markdown; reports in HTML draw the same tables."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable
    from rich.text import Text

EMPTY = "–"  # the text of a cell without a value

LABEL_WIDTH = 24  # in a terminal, so many characters of a row's label are never broken

TREND = {"▲": 1, "△": 1, "▼": -1, "▽": -1}  # {mark: 1 if it means better, -1 if it means worse}


@dataclass(frozen=True)
class Cell:
    """The content of a cell."""

    text: str
    detail: str = ""  # smaller lines below it
    mark: str = ""  # one of TREND, shown behind the text
    value: float | None = None  # number to sort by
    best: bool = False  # whether the text is in bold
    trend: int = 0  # 1 for better (green in a terminal), -1 for worse (red), 0 for neither


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    label: str  # text of the first column
    cells: tuple[Cell, ...]  # of the other columns
    kind: str = "system"  # `system`; `paper`; `part` or `group` for a row on several languages
    last: bool = False  # whether a line is drawn below the row in a terminal


@dataclass(frozen=True)
class Table:
    """A table with a title above and a note below."""

    key: str  # short name for links and files
    title: str
    head: tuple[str, ...]  # titles of all columns, the labels' first
    rows: tuple[Row, ...]  # from top to bottom
    note: str = ""  # how to read the table
    labels: int = 1  # how many columns, from the left, hold texts and are aligned to the left; the others hold numbers
    grid: bool = False  # whether lines are drawn around the cells in a terminal


def table_of(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], note: str = "", labels: int = 1) -> Table:
    """A table from plain texts, one for each column of each row."""
    made = (Row(label, tuple(map(Cell, cells))) for label, *cells in rows)
    return Table("", title, tuple(head), tuple(made), note, labels)


def markdown(table: Table) -> str:
    """The table in Markdown, with its note and without its title."""
    lines = [
        _line(map(markdown_text, table.head)),
        "|" + " --- |" * table.labels + " ---: |" * (len(table.head) - table.labels),
    ]
    for row in table.rows:
        label = markdown_text(row.label)
        lines.append(_line([f"*{label}*" if row.kind == "paper" else label, *map(_markdown_cell, row.cells)]))
    return "\n".join(lines) + (f"\n\n{markdown_text(table.note)}" if table.note else "")


def markdown_text(text: str) -> str:
    """The text in one line, with Markdown's special characters escaped; underscores inside words are not special."""
    return re.sub(r"[\\|*`<&~\[\]]|(?<!\w)_|_(?!\w)", r"\\\g<0>", " ".join(text.splitlines()))


def terminal(table: Table) -> RichTable:
    """The table for rich's console; numbers and the beginnings of labels are never broken."""
    from rich import box
    from rich.table import Table as RichTable

    note = _as_text(table.note, "" if table.grid else "dim") if table.note else None
    if table.grid:
        made = RichTable(title=_as_text(table.title), caption=note)
    else:
        made = RichTable(
            title=_as_text(table.title, "bold"),
            title_justify="left",
            box=box.SIMPLE_HEAD,
            caption=note,
            caption_justify="left",
            padding=(0, 1, 0, 0),
        )
    marks = any(cell.mark for row in table.rows for cell in row.cells)
    lines = [[_as_text(row.label), *(_text(cell, marks) for cell in row.cells)] for row in table.rows]
    for column, title in enumerate(table.head):
        texts = [line[column].plain for line in lines]
        if column < table.labels:
            widest = max(map(len, texts), default=0)
            made.add_column(_as_text(title), min_width=min(widest, LABEL_WIDTH), overflow="fold")
        else:
            whole = max(map(len, [*title.split(), *(part for text in texts for part in text.splitlines())]), default=0)
            made.add_column(_as_text(title), justify="right", min_width=whole)
    styles = {"paper": "dim italic", "part": "bold", "group": "italic"}
    for row, line in zip(table.rows, lines, strict=True):
        made.add_row(*line, style=styles.get(row.kind, ""), end_section=row.last)
    return made


def facts(rows: Iterable[tuple[str | Text, str | Text]], title: str | None = None) -> RichTable:
    """Two columns, name and text, for a `TextConsole`."""
    from rich.table import Table as RichTable

    made = RichTable(title=title, title_justify="left", title_style="bold", box=None, show_header=False)
    for name, text in rows:
        made.add_row(name, text)
    return made


def _markdown_cell(cell: Cell) -> str:
    text = f"**{markdown_text(cell.text)}**" if cell.best else markdown_text(cell.text)
    return f"{text} {cell.mark}".rstrip() + "".join(f"<br>{markdown_text(line)}" for line in cell.detail.splitlines())


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _as_text(text: str, style: str = "") -> Text:
    from rich.text import Text

    from hbtrain.reporting.console import visible

    return Text(visible(text), style)


def _text(cell: Cell, marks: bool) -> Text:
    colours = {1: "green", -1: "red"}
    text = _as_text(cell.text, colours.get(cell.trend, "bold" if cell.best else ""))
    if marks:
        # A cell without a mark gets a blank in its place, so that numbers are aligned.
        text.append(" ").append(cell.mark or " ", colours.get(TREND.get(cell.mark, 0), ""))
    for line in cell.detail.splitlines():
        text.append(_as_text(f"\n{line}{'  ' if marks else ''}", "dim"))
    return text
