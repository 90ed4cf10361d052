"""What a sweep found: mean and standard deviation over seeds of each point's scores, as tables, CSV and a picture."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hbtrain.errors import StorageError
from tune.findings.best import save_recipe
from tune.findings.curve import alpha_curve, is_curve
from tune.findings.front import front_picture, front_scores
from tune.findings.points import (
    Finished,
    Point,
    Score,
    benchmarks_of,
    losses,
    points_of,
    scores_of,
    spread,
    with_objectives,
)
from tune.findings.report import Judged
from tune.space.space import short_name, shown

if TYPE_CHECKING:
    from rich.table import Table


def summary_markdown(
    finished: Sequence[Finished],
    failures: Mapping[str, str],
    judged: Judged | None = None,
    objectives: Sequence[Score] = (),
) -> str:
    """A table for each benchmark, the best mean of a column in bold, with marks of significance; and what failed."""
    points = points_of(finished)
    parts = []
    for benchmark in benchmarks_of(finished):
        head, rows, best = _cells(benchmark, points, judged, objectives)
        keys = len(points[0].values)
        lines = [f"| {' | '.join(head)} |", f"|{' --- |' * keys}{' ---: |' * (len(head) - keys)}"]
        for i, row in enumerate(rows):
            marked = [f"**{cell}**" if best.get(column) == i else cell for column, cell in enumerate(row)]
            lines.append(f"| {' | '.join(marked)} |")
        parts.append(f"**{benchmark}**, mean ± standard deviation over seeds, best mean in bold\n\n" + "\n".join(lines))
    if judged is not None and judged.legend:
        parts.append(judged.legend)
    if failures:
        parts.append("Failed:\n\n" + "\n".join(f"- {label}: {reason}" for label, reason in failures.items()))
    return "\n\n".join(parts)


def summary_tables(
    finished: Sequence[Finished], judged: Judged | None = None, objectives: Sequence[Score] = ()
) -> list[Table]:
    """The same tables for a terminal."""
    from rich.table import Table
    from rich.text import Text

    points = points_of(finished)
    tables = []
    for benchmark in benchmarks_of(finished):
        head, rows, best = _cells(benchmark, points, judged, objectives)
        table = Table(title=f"{benchmark}: mean ± standard deviation over seeds")
        for column, title in enumerate(head):
            table.add_column(title, justify="left" if column < len(points[0].values) else "right")
        for i, row in enumerate(rows):
            table.add_row(*(Text(cell, "bold" if best.get(column) == i else "") for column, cell in enumerate(row)))
        tables.append(table)
    return tables


def save_summary(
    finished: Sequence[Finished],
    failures: Mapping[str, str],
    folder: Path,
    judged: Judged | None = None,
    objectives: Sequence[Score] = (),
) -> list[Path]:
    """Write the table (`summary.md`, `.csv`), pictures (`alpha-curve-*.png`, `pareto-front-*.png`) and `best.yaml`.

    Returns the files, those that this sweep has.

    Raises:
        StorageError: the folder cannot be written.
    """
    points = points_of(finished)
    made = [folder / "summary.md", folder / "summary.csv"]
    try:
        made[0].write_text(summary_markdown(finished, failures, judged, objectives) + "\n", encoding="utf-8")
        _write_csv(made[1], benchmarks_of(finished), points, with_objectives(objectives))
        for benchmark in benchmarks_of(finished):
            if is_curve(points):
                made.append(folder / f"alpha-curve-{benchmark}.png")
                alpha_curve(benchmark, points, made[-1])
            front = front_scores(benchmark, points, objectives)
            if front:
                made.append(folder / f"pareto-front-{benchmark}.png")
                front_picture(benchmark, points, made[-1], front)
        if finished:
            made.append(folder / "best.yaml")
            save_recipe(finished, made[-1], objectives)
    except OSError as error:
        raise StorageError(f"cannot write the summary to {folder}: {error.strerror or error}") from error
    return made


def _cells(
    benchmark: str, points: Sequence[Point], judged: Judged | None, objectives: Sequence[Score]
) -> tuple[list[str], list[list[str]], dict[int, int]]:
    """Titles, cells, and {column: row of its best mean} where there is more than one row."""
    scores = scores_of(benchmark, points, with_objectives(objectives))
    keys = list(points[0].values)
    head = [*map(short_name, keys), "seeds", *(score.title for score in scores)]
    rows = [
        [
            *map(shown, point.values.values()),
            str(len(point.runs)),
            *(_cell(point, f"{benchmark}/{score.key}", score.form, judged) for score in scores),
        ]
        for point in points
    ]
    best: dict[int, int] = {}
    for column, score in enumerate(scores, start=len(keys) + 1):
        worst_last = losses(points, benchmark, score)
        if len(points) > 1:
            best[column] = worst_last.index(min(worst_last))
    return head, rows, best


def _cell(point: Point, key: str, form: str, judged: Judged | None) -> str:
    mark = judged.marks.get((point.label, key), "") if judged is not None else ""
    return f"{point.shown(key, form)} {mark}".rstrip()


def _write_csv(path: Path, benchmarks: Sequence[str], points: Sequence[Point], wanted: Sequence[Score]) -> None:
    """One row per benchmark and point: its values, the number of seeds, mean and standard deviation of each score."""
    names = [score.key for score in wanted]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        keys = list(points[0].values) if points else []
        writer.writerow(["benchmark", *keys, "seeds", *(f"{name} {of}" for name in names for of in ("mean", "std"))])
        for benchmark in benchmarks:
            known = {score.key for score in scores_of(benchmark, points, wanted)}
            for point in points:
                cells: list[str] = []
                for name in names:
                    values = point.of(f"{benchmark}/{name}") if name in known else []
                    cells.append(f"{statistics.mean(values):.6f}" if values else "")
                    cells.append(f"{spread(values):.6f}" if len(values) > 1 else "")
                writer.writerow([benchmark, *map(shown, point.values.values()), len(point.runs), *cells])
