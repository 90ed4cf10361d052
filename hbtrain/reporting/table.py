"""A table of scores before it is drawn: as text, Markdown or HTML."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Cell:
    """What stands at one place."""

    text: str
    detail: str = ""
    """Smaller lines below."""
    mark: str = ""
    value: float | None = None
    """To sort by."""
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One line of a table."""

    label: str
    cells: tuple[Cell, ...]
    kind: str = "system"
    """`system`, `paper`, or `part` for a row that stands for several languages."""


@dataclass(frozen=True)
class Table:
    """A table with a title above and a note below."""

    key: str
    """Short, for links and files."""
    title: str
    head: tuple[str, ...]
    """Of all columns, the labels' first."""
    rows: tuple[Row, ...]
    note: str = ""
