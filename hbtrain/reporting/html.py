"""Tables in HTML, as notebooks show the results that they are given (`_repr_html_`)."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from hbtrain.reporting.table import TREND, Cell, Row, Table

# Styles stand with each element: a notebook's page is not ours, and some viewers leave style sheets out.
NUMBER = "text-align:right;vertical-align:top;font-variant-numeric:tabular-nums"
TEXT = "text-align:left;vertical-align:top"
PALE = "color:gray;font-size:85%"
COLOURS = {1: "color:#00724f", -1: "color:#b03a00"}  # of better and worse
ROW_STYLES = {"part": "font-weight:600", "group": "font-style:italic", "paper": "font-style:italic;color:gray"}


def html(table: Table) -> str:
    """The table, with its title above and its note below; every text in it is escaped."""
    head = "".join(_element("th", _lines(name), _aligned(table, place)) for place, name in enumerate(table.head))
    rows = "".join(_row(table, row) for row in table.rows)
    title = _element("caption", escape(table.title), f"{TEXT};font-weight:600;caption-side:top") if table.title else ""
    note = _element("p", escape(table.note), PALE) if table.note else ""
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>{note}"


def html_page(tables: Iterable[Table], notes: Iterable[str] = (), heading: str = "") -> str:
    """Several tables under one heading, with notes in a paragraph each behind them."""
    parts = [_element("p", _element("b", escape(heading)))] if heading else []
    parts += map(html, tables)
    parts += (_element("p", escape(note), PALE) for note in notes)
    return f"<div>{''.join(parts)}</div>"


def _row(table: Table, row: Row) -> str:
    cells: list[str | Cell] = [row.label, *row.cells]
    return _element(
        "tr",
        "".join(
            _element("td", _lines(cell) if isinstance(cell, str) else _content(cell), _aligned(table, place))
            for place, cell in enumerate(cells)
        ),
        ROW_STYLES.get(row.kind, ""),
    )


def _content(cell: Cell) -> str:
    text = _element("b", escape(cell.text)) if cell.best else _lines(cell.text)
    if cell.trend:
        text = _element("span", text, COLOURS[cell.trend])
    if cell.mark:
        text += " " + _element("span", escape(cell.mark), COLOURS.get(TREND.get(cell.mark, 0), ""))
    return text + "".join("<br>" + _element("span", escape(line), PALE) for line in cell.detail.splitlines())


def _aligned(table: Table, place: int) -> str:
    return TEXT if place < table.labels else NUMBER


def _lines(text: str) -> str:
    return "<br>".join(map(escape, text.splitlines()))


def _element(name: str, content: str, style: str = "") -> str:
    return f'<{name} style="{style}">{content}</{name}>' if style else f"<{name}>{content}</{name}>"
