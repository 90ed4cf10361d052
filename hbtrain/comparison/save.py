"""A comparison on disk: Markdown, CSV, JSON, pictures and the report."""

from __future__ import annotations

import base64
import shutil
import tempfile
from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path

from hbtrain.comparison.compare import Comparison
from hbtrain.comparison.pictures import pictures_of
from hbtrain.comparison.render import as_csv, as_json, markdown
from hbtrain.comparison.tables import language_tables, legend, main_tables
from hbtrain.errors import StorageError
from hbtrain.reporting.colours import colours_of
from hbtrain.reporting.table import Cell, Row, Table


def save_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write `comparison.md`, `.csv`, `.json`, `report.html` and PNGs into `folder`, made if it is not there.

    Files are written beside the folder first, so that none is half there. Returns their paths.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".comparison-") as temporary:
            made = Path(temporary)
            pictures = pictures_of(comparison)
            for picture in pictures:
                picture.draw(made / picture.file)
            for name, text in (
                ("comparison.md", markdown(comparison)),
                ("comparison.csv", as_csv(comparison)),
                ("comparison.json", as_json(comparison)),
                ("report.html", report(comparison, [(p.title, made / p.file) for p in pictures])),
            ):
                (made / name).write_text(text, encoding="utf-8")
            return [Path(shutil.move(path, folder / path.name)) for path in sorted(made.iterdir())]
    except OSError as error:
        raise StorageError(
            f"cannot write the comparison to {folder}: {error.strerror or error}; choose a folder that can be written"
        ) from error


def keep_comparison(comparison: Comparison, run: str, tracking_uri: str | None = None) -> None:
    """Store the same files with an MLflow run, as artifacts under `comparison`.

    Raises:
        TrackingError: an unknown id, or a server that does not take them.
    """
    from hbtrain.tracking.past_runs import TrackedRuns

    server = TrackedRuns(tracking_uri)
    found = server.find(run)
    with tempfile.TemporaryDirectory(prefix="hbtrain-compare-") as temporary:
        save_comparison(comparison, Path(temporary))
        server.keep(found, Path(temporary), "comparison")


def report(comparison: Comparison, pictures: Sequence[tuple[str, Path]]) -> str:
    """The page, with `pictures` (title, PNG file) inside it."""
    main, by_language = main_tables(comparison), language_tables(comparison)
    names = ", ".join(task.name for task in comparison.tasks)
    colours = colours_of(comparison.systems)
    sections = [
        _section(
            "Scores",
            "".join(_table(table, colours) for table in main) + f"<p class=note>{escape(legend(comparison))}</p>",
        ),
        _section("Pictures", "".join(_picture(title, path) for title, path in pictures)),
        _section("By query language", "".join(_table(table, colours) for table in by_language)),
        _section("What was compared", _systems(comparison) + _method(comparison)),
    ]
    page = (resources.files("hbtrain") / "comparison" / "report.html").read_text(encoding="utf-8")
    title = f"{len(comparison.systems)} systems on {names}"
    return (
        page.replace("{{title}}", escape(title))
        .replace("{{lead}}", _lead(comparison))
        .replace("{{body}}", "\n".join(sections))
    )


def _lead(comparison: Comparison) -> str:
    runs = sum(len(system.runs) for system in comparison.systems)
    words = f"{runs} runs; every difference is from <b>{escape(comparison.baseline)}</b>."
    notes = "".join(f"<p class=warn>{escape(note)}.</p>" for note in comparison.notes)
    return f"<p>{words}</p>{notes}"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def _table(table: Table, colours: dict[str, str]) -> str:
    head = "".join(
        f"<th scope=col{' class=first' if i == 0 else ''}>{_dot(t, colours)}{escape(t)}</th>"
        for i, t in enumerate(table.head)
    )
    rows = "".join(_row(row, colours) for row in table.rows)
    note = f"<p class=note>{escape(table.note)}</p>" if table.note else ""
    return (
        f'<figure id="{escape(table.key)}"><figcaption>{escape(table.title)}</figcaption>'
        f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>{note}</figure>"
    )


def _row(row: Row, colours: dict[str, str]) -> str:
    cells = "".join(map(_cell, row.cells))
    return f"<tr class={row.kind}><th scope=row>{_dot(row.label, colours)}{escape(row.label)}</th>{cells}</tr>"


def _cell(cell: Cell) -> str:
    value = "" if cell.value is None else f' data-value="{cell.value!r}"'
    text = f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text)
    way = {"▲": "up", "△": "up", "▼": "down", "▽": "down"}.get(cell.mark, "none")
    detail = "".join(f"<small>{escape(line)}</small>" for line in cell.detail.splitlines())
    return f"<td{value}>{text}<i class={way}>{cell.mark}</i>{detail}</td>"


def _dot(label: str, colours: dict[str, str]) -> str:
    return f'<span class=dot style="background:{colours[label]}"></span>' if label in colours else ""


def _picture(title: str, path: Path) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<figure class=picture><img alt="{escape(title)}" src="data:image/png;base64,{data}"></figure>'


def _systems(comparison: Comparison) -> str:
    lines = []
    for system in comparison.systems:
        runs = "<br>".join(
            escape(run.name) + (f" <code>{escape(run.run_id)}</code>" if run.run_id else "") for run in system.runs
        )
        languages = "not known" if system.trained_languages is None else " ".join(system.trained_languages)
        cells = f"<td class=text>{runs}</td><td class=text>{escape(languages)}</td>"
        lines.append(f"<tr><th scope=row>{escape(system.label)}</th>{cells}</tr>")
    head = "<th class=first>system</th><th class=text>runs</th><th class=text>trained on</th>"
    table = f"<table class=plain><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"
    return f"<div class=scroll>{table}</div>"


def _method(comparison: Comparison) -> str:
    method = comparison.method
    texts = [
        "The unit of all statistics is the question: asked in several languages, of several pools, it is one "
        "observation, flipped or drawn as a whole. The statistic is the macro mean as reported.",
        f"Tests: paired permutation tests, two-sided, {method.flips:,} sign flips (all, where they are fewer), seed "
        f"{method.seed}. Holm's correction in two families: every score over all languages, and every score of single "
        f"languages and of seen or unseen ones. Marks: adjusted p ≤ {method.level:g}.",
        f"Intervals: {method.confidence:.0%} percentile bootstrap, {method.resamples:,} resamples of the questions.",
        "Where a system has several runs, each question's scores are averaged over them first. A mark therefore says "
        "that these trained models would differ on other questions of the kind. What other seeds would give shows in "
        "the spread (standard deviation, n − 1); a mark is hollow unless every run of the one system is on the same "
        "side of every run of the other.",
    ]  # fmt: skip
    return "".join(f"<p class=note>{escape(text)}</p>" for text in texts)
