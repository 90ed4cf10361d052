"""What a sweep found: mean and standard deviation over seeds of each point's scores, as tables, CSV and a picture."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hbtrain.errors import StorageError
from tune.space import SEED, Trial, short_name, shown

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Score:
    """A score that the summary shows."""

    key: str
    """Of a benchmark, less its name."""
    title: str
    form: str
    higher_is_better: bool = True


SCORES = (
    Score("mono/map", "mAP monolingual", ".3f"),
    Score("cross/map", "mAP cross-lingual", ".3f"),
    Score("multi/map", "mAP multilingual", ".3f"),
    Score("multi/rank_distance", "rank distance", ",.1f", higher_is_better=False),
)


@dataclass(frozen=True)
class Finished:
    """A trial with its scores, {`<benchmark>/<setting>/<metric>`: number}."""

    trial: Trial
    scores: Mapping[str, float]


@dataclass(frozen=True)
class Point:
    """Trials that differ in their seed only."""

    values: dict[str, Any]
    """{dotted key: value} of the keys that vary, less the seed."""
    runs: list[Mapping[str, float]]
    """Scores, one mapping a seed."""

    def of(self, key: str) -> list[float]:
        """The score `key` of every seed."""
        return [scores[key] for scores in self.runs]


def points_of(finished: Sequence[Finished]) -> list[Point]:
    """The points of the space that have a finished trial, in the order of the trials."""
    points: list[Point] = []
    for one in finished:
        values = {key: value for key, value in one.trial.values.items() if key != SEED}
        known = next((point for point in points if point.values == values), None)
        if known is None:
            points.append(Point(values, [one.scores]))
        else:
            known.runs.append(one.scores)
    return points


def benchmarks_of(finished: Sequence[Finished]) -> list[str]:
    """Names of the benchmarks that were evaluated, in their order."""
    return list(dict.fromkeys(key.partition("/")[0] for one in finished for key in one.scores))


def scores_of(benchmark: str, points: Sequence[Point]) -> list[Score]:
    """The scores that all points have on `benchmark`."""
    return [score for score in SCORES if all(f"{benchmark}/{score.key}" in run for p in points for run in p.runs)]


def spread(values: Sequence[float]) -> float:
    """The sample standard deviation (n - 1); NaN of a single value."""
    return statistics.stdev(values) if len(values) > 1 else float("nan")


def mean_and_spread(values: Sequence[float], form: str) -> str:
    """`0.537 ± 0.003`; without the second part for a single value."""
    mean = format(statistics.mean(values), form)
    return f"{mean} ± {format(spread(values), form)}" if len(values) > 1 else mean


def summary_markdown(finished: Sequence[Finished], failures: Mapping[str, str]) -> str:
    """A table for each benchmark, the best mean of a column in bold; and what failed."""
    points = points_of(finished)
    parts = []
    for benchmark in benchmarks_of(finished):
        head, rows, best = _cells(benchmark, points)
        keys = len(points[0].values)
        lines = [f"| {' | '.join(head)} |", f"|{' --- |' * keys}{' ---: |' * (len(head) - keys)}"]
        for i, row in enumerate(rows):
            marked = [f"**{cell}**" if best.get(column) == i else cell for column, cell in enumerate(row)]
            lines.append(f"| {' | '.join(marked)} |")
        parts.append(f"**{benchmark}**, mean ± standard deviation over seeds, best mean in bold\n\n" + "\n".join(lines))
    if failures:
        parts.append("Failed:\n\n" + "\n".join(f"- {label}: {reason}" for label, reason in failures.items()))
    return "\n\n".join(parts)


def summary_tables(finished: Sequence[Finished]) -> list[Table]:
    """The same tables for a terminal."""
    from rich.table import Table
    from rich.text import Text

    points = points_of(finished)
    tables = []
    for benchmark in benchmarks_of(finished):
        head, rows, best = _cells(benchmark, points)
        table = Table(title=f"{benchmark}: mean ± standard deviation over seeds")
        for column, title in enumerate(head):
            table.add_column(title, justify="left" if column < len(points[0].values) else "right")
        for i, row in enumerate(rows):
            table.add_row(*(Text(cell, "bold" if best.get(column) == i else "") for column, cell in enumerate(row)))
        tables.append(table)
    return tables


def save_summary(finished: Sequence[Finished], failures: Mapping[str, str], folder: Path) -> None:
    """Write `summary.md`, `summary.csv` and, for a sweep over alpha, `alpha-curve-<benchmark>.png` into `folder`.

    Raises:
        StorageError: the folder cannot be written.
    """
    from tune.curve import alpha_curve, is_curve

    points = points_of(finished)
    try:
        (folder / "summary.md").write_text(summary_markdown(finished, failures) + "\n", encoding="utf-8")
        _write_csv(folder / "summary.csv", benchmarks_of(finished), points)
        if is_curve(points):
            for benchmark in benchmarks_of(finished):
                alpha_curve(benchmark, points, folder / f"alpha-curve-{benchmark}.png")
    except OSError as error:
        raise StorageError(f"cannot write the summary to {folder}: {error.strerror or error}") from error


def _cells(benchmark: str, points: Sequence[Point]) -> tuple[list[str], list[list[str]], dict[int, int]]:
    """Titles, cells, and {column: row of its best mean} where there is more than one row."""
    scores = scores_of(benchmark, points)
    keys = list(points[0].values)
    head = [*map(short_name, keys), "seeds", *(score.title for score in scores)]
    rows = [
        [
            *map(shown, point.values.values()),
            str(len(point.runs)),
            *(mean_and_spread(point.of(f"{benchmark}/{score.key}"), score.form) for score in scores),
        ]
        for point in points
    ]
    best: dict[int, int] = {}
    for column, score in enumerate(scores, start=len(keys) + 1):
        means = [statistics.mean(point.of(f"{benchmark}/{score.key}")) for point in points]
        if len(points) > 1:
            best[column] = means.index(max(means) if score.higher_is_better else min(means))
    return head, rows, best


def _write_csv(path: Path, benchmarks: Sequence[str], points: Sequence[Point]) -> None:
    """One row per benchmark and point: its values, the number of seeds, mean and standard deviation of each score."""
    names = [score.key for score in SCORES]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        keys = list(points[0].values) if points else []
        writer.writerow(["benchmark", *keys, "seeds", *(f"{name} {of}" for name in names for of in ("mean", "std"))])
        for benchmark in benchmarks:
            known = {score.key for score in scores_of(benchmark, points)}
            for point in points:
                cells: list[str] = []
                for name in names:
                    values = point.of(f"{benchmark}/{name}") if name in known else []
                    cells.append(f"{statistics.mean(values):.6f}" if values else "")
                    cells.append(f"{spread(values):.6f}" if len(values) > 1 else "")
                writer.writerow([benchmark, *map(shown, point.values.values()), len(point.runs), *cells])
