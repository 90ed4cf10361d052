"""What a sweep found: mean and standard deviation over seeds of each point's scores, as tables, CSV and pictures; and
the best point as a recipe that `hbtrain train` takes.
"""

from __future__ import annotations

import csv
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from hbtrain.config import Config
from hbtrain.errors import StorageError
from hbtrain.sweeps.charts import alpha_curve, front_picture, is_curve
from hbtrain.sweeps.marks import Judged
from hbtrain.sweeps.points import (
    Finished,
    Point,
    Score,
    benchmarks_of,
    best_point,
    front_scores,
    losses,
    points_of,
    scores_of,
    spread,
    with_objectives,
)
from hbtrain.sweeps.space import short_name, shown

if TYPE_CHECKING:
    from rich.table import Table

PLACE = {"tracking": ("uri", "parent_run_id", "run_name"), "resources": ("address",)}
"""Keys of a trial that say where the sweep ran and not what is trained."""


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


def save_recipe(finished: Sequence[Finished], path: Path, objectives: Sequence[Score] = ()) -> None:
    """Write the best point's configuration as a recipe, which says above why it is the best.

    Args:
        finished: trials with at least one score.
        path: of the YAML file.
        objectives: scores of the first benchmark that decide; by default all that every point has.

    Raises:
        OSError: `path` cannot be written.
    """
    points = points_of(finished)
    benchmark = benchmarks_of(finished)[0]
    scores = list(objectives) or scores_of(benchmark, points)
    best = best_point(points, benchmark, scores)
    config = next(one.trial.config for one in finished if one.values == best.values)
    shown = ", ".join(
        f"{score.title} {best.shown(f'{benchmark}/{score.key}', score.form)}" for score in scores_of(benchmark, points)
    )
    names = ", ".join(score.title for score in scores)
    seeds = f"mean ± standard deviation of {len(best.runs)} seeds" if len(best.runs) > 1 else "one seed"
    rule = names if len(scores) == 1 else f"the mean of its ranks in {names}"
    why = f"{best.label}, the best of {len(points)} points on {benchmark} by {rule}. It has {shown} ({seeds})."
    head = textwrap.fill(why, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    path.write_text(f"{head}\n{recipe_of(config)}", encoding="utf-8")


def recipe_of(config: Config) -> str:
    """YAML of the values of `config` that differ from the defaults, without those that say where it ran."""
    tree = config.model_dump(mode="json", exclude_defaults=True, exclude={"storage"})
    for section, keys in PLACE.items():
        for key in keys:
            tree.get(section, {}).pop(key, None)
    kept = {key: value for key, value in tree.items() if value != {} and key != "name"}
    return yaml.safe_dump({"name": f"{config.name}-best", **kept}, sort_keys=False, allow_unicode=True)


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
