"""The summary of a sweep: mean and standard deviation over seeds of each point's scores, as tables, CSV and pictures;
and the best point as a recipe for `hbtrain train`.
"""

from __future__ import annotations

import csv
import io
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from hbtrain.config import Config
from hbtrain.errors import StorageError
from hbtrain.reporting.table import Cell, Row, Table, markdown, terminal
from hbtrain.storage import write_text
from hbtrain.storage.files import whole
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
    from rich.table import Table as RichTable

WHERE_IT_RAN = {"tracking": ("uri", "parent_run_id", "run_name"), "resources": ("address",)}
"""{section: keys} of a trial's configuration that say where it ran, not what was trained; left out of recipes."""


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
        table = markdown(_table(benchmark, points, judged, objectives))
        parts.append(f"**{benchmark}**, mean ± standard deviation over seeds, best mean in bold\n\n{table}")
    if judged is not None and judged.legend:
        parts.append(judged.legend)
    if failures:
        parts.append("Failed:\n\n" + "\n".join(f"- {label}: {reason}" for label, reason in failures.items()))
    return "\n\n".join(parts)


def summary_tables(
    finished: Sequence[Finished], judged: Judged | None = None, objectives: Sequence[Score] = ()
) -> list[RichTable]:
    """The tables of `summary_markdown` for a terminal."""
    points = points_of(finished)
    return [terminal(_table(benchmark, points, judged, objectives)) for benchmark in benchmarks_of(finished)]


def save_summary(
    finished: Sequence[Finished],
    failures: Mapping[str, str],
    folder: Path,
    judged: Judged | None = None,
    objectives: Sequence[Score] = (),
) -> list[Path]:
    """Write the tables (`summary.md`, `.csv`), pictures (`alpha-curve-*.png`, `pareto-front-*.png`) and `best.yaml`.

    Returns the files that were written; which they are depends on the sweep.

    Raises:
        StorageError: the folder cannot be written.
    """
    points = points_of(finished)
    made = [folder / "summary.md", folder / "summary.csv"]
    try:
        write_text(made[0], summary_markdown(finished, failures, judged, objectives) + "\n")
        write_text(made[1], _csv(benchmarks_of(finished), points, with_objectives(objectives)))
        for benchmark in benchmarks_of(finished):
            if is_curve(points):
                made.append(folder / f"alpha-curve-{benchmark}.png")
                with whole(made[-1]) as path:
                    alpha_curve(benchmark, points, path)
            front = front_scores(benchmark, points, objectives)
            if front:
                made.append(folder / f"pareto-front-{benchmark}.png")
                with whole(made[-1]) as path:
                    front_picture(benchmark, points, path, front)
        if finished:
            made.append(folder / "best.yaml")
            save_recipe(finished, made[-1], objectives)
    except OSError as error:
        raise StorageError(f"cannot write the summary to {folder}: {error.strerror or error}") from error
    return made


def save_recipe(finished: Sequence[Finished], path: Path, objectives: Sequence[Score] = ()) -> None:
    """Write the best point's configuration as a recipe, with a comment that says why it is the best.

    Args:
        finished: trials with at least one score.
        path: of the YAML file.
        objectives: scores on the first benchmark that decide; none: all that every point has.

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
    write_text(path, f"{head}\n{recipe_of(config)}")


def recipe_of(config: Config) -> str:
    """YAML of the values of `config` that differ from the defaults, without those that say where it ran."""
    tree = config.model_dump(mode="json", exclude_defaults=True, exclude={"storage"})
    for section, keys in WHERE_IT_RAN.items():
        for key in keys:
            tree.get(section, {}).pop(key, None)
    changed = {key: value for key, value in tree.items() if value != {} and key != "name"}
    return yaml.safe_dump({"name": f"{config.name}-best", **changed}, sort_keys=False, allow_unicode=True)


def _table(benchmark: str, points: Sequence[Point], judged: Judged | None, objectives: Sequence[Score]) -> Table:
    """A row for each point, the best mean of a column in bold if there are several points."""
    scores = scores_of(benchmark, points, with_objectives(objectives))
    keys = list(points[0].values)
    head = (*map(short_name, keys), "seeds", *(score.title for score in scores))
    marks = judged.marks if judged is not None else {}
    best: dict[str, int] = {}
    for score in scores if len(points) > 1 else ():
        of_points = losses(points, benchmark, score)
        best[score.key] = of_points.index(min(of_points))
    rows = []
    for number, point in enumerate(points):
        first, *others = [*map(shown, point.values.values()), str(len(point.runs))]
        cells = [Cell(text) for text in others]
        for score in scores:
            key = f"{benchmark}/{score.key}"
            mark = marks.get((point.label, key), "")
            cells.append(Cell(point.shown(key, score.form), mark=mark, best=best.get(score.key) == number))
        rows.append(Row(first, tuple(cells)))
    title = f"{benchmark}: mean ± standard deviation over seeds"
    return Table("", title, head, tuple(rows), labels=len(keys), grid=True)


def _csv(benchmarks: Sequence[str], points: Sequence[Point], wanted: Sequence[Score]) -> str:
    """CSV with a row for each benchmark and point: values, number of seeds, mean and standard deviation of scores."""
    names = [score.key for score in wanted]
    stream = io.StringIO(newline="")
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
    return stream.getvalue()
