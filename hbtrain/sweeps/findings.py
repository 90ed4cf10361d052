"""The summary of a sweep: mean and standard deviation over seeds of each point's scores, as tables, CSV and pictures;
and the best point as a recipe for `hbtrain train`.
"""

from __future__ import annotations

import csv
import io
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from hbtrain.comparison.pictures import learning_pictures
from hbtrain.comparison.tables import steps_table
from hbtrain.config import Config
from hbtrain.errors import StorageError
from hbtrain.reporting.table import Cell, Row, Table, markdown, markdown_text, terminal
from hbtrain.storage import write_text
from hbtrain.storage.files import whole
from hbtrain.sweeps.charts import front_picture, is_curve, score_curves
from hbtrain.sweeps.marks import Judged
from hbtrain.sweeps.points import (
    SCORES,
    Finished,
    Point,
    benchmarks_of,
    best_point,
    front_scores,
    losses,
    points_of,
    scores_of,
    spread,
    title_of,
)
from hbtrain.sweeps.space import Trial, short_name, shown
from hbtrain.sweeps.triangle import corners_of, triangles

if TYPE_CHECKING:
    from rich.table import Table as RichTable

WHERE_IT_RAN = {"tracking": ("uri", "parent_run_id", "run_name"), "resources": ("address",)}
"""{section: keys} of a trial's configuration that say where it ran, not what was trained; left out of recipes."""


@dataclass(frozen=True)
class Summary:
    """What a sweep has found."""

    finished: Sequence[Finished]
    failures: Mapping[str, str] = field(default_factory=dict)  # {label: why it failed}
    judged: Judged | None = None  # the marks of significance
    objectives: Sequence[str] = ()  # of a search; they stand first, and decide which point is the best
    failed: Sequence[Trial] = ()  # trials of `failures`, which the picture of mixtures shows

    @cached_property
    def points(self) -> list[Point]:
        return points_of(self.finished)

    @cached_property
    def benchmarks(self) -> list[str]:
        return benchmarks_of(self.finished)

    def markdown(self) -> str:
        """A table for each benchmark, the best mean of a column in bold, with marks of significance; what failed."""
        parts = [
            f"**{markdown_text(benchmark)}**, mean ± standard deviation over seeds, best mean in bold\n\n"
            f"{markdown(self._table(benchmark))}"
            for benchmark in self.benchmarks
        ]
        if self.judged is not None and self.judged.legend:
            parts.append(markdown_text(self.judged.legend))
        if (steps := self._steps()) is not None:
            parts.append(f"**{markdown_text(steps.title)}**\n\n{markdown(steps)}")
        if self.failures:
            failures = (f"- {markdown_text(f'{label}: {reason}')}" for label, reason in self.failures.items())
            parts.append("Failed:\n\n" + "\n".join(failures))
        return "\n\n".join(parts)

    def tables(self) -> list[RichTable]:
        """The same tables for a terminal."""
        steps = self._steps()
        tables = [self._table(benchmark) for benchmark in self.benchmarks] + ([steps] if steps is not None else [])
        return [terminal(table) for table in tables]

    def save(self, folder: Path) -> list[Path]:
        """Write the tables (`summary.md`, `.csv`), `best.yaml`, and pictures (`alpha-curve-*.png`,
        `mixture-triangle-*.png`, `pareto-front-*.png`, `learning-curves-*.png`).

        Returns the files that were written; which they are depends on the sweep.

        Raises:
            StorageError: the folder cannot be written.
        """
        made = [folder / "summary.md", folder / "summary.csv"]
        try:
            write_text(made[0], self.markdown() + "\n")
            write_text(made[1], self._csv())
            for benchmark in self.benchmarks:
                if is_curve(self.points):
                    made.append(folder / f"alpha-curve-{benchmark}.png")
                    with whole(made[-1]) as path:
                        score_curves(benchmark, self.points, path)
                front = front_scores(benchmark, self.points, self.objectives)
                if corners_of(self.points, self.failed):
                    made.append(folder / f"mixture-triangle-{benchmark}.png")
                    with whole(made[-1]) as path:
                        triangles(benchmark, self.points, self.failed, path, front)
                if front:
                    made.append(folder / f"pareto-front-{benchmark}.png")
                    with whole(made[-1]) as path:
                        front_picture(benchmark, self.points, path, front)
            for picture in learning_pictures(self.judged.comparison) if self.judged is not None else ():
                made.append(folder / picture.file)
                with whole(made[-1]) as path:
                    picture.draw(path)
            if self.finished:
                made.append(folder / "best.yaml")
                write_text(made[-1], self.best_recipe())
        except OSError as error:
            raise StorageError(f"cannot write the summary to {folder}: {error.strerror or error}") from error
        return made

    def best_recipe(self) -> str:
        """The best point's configuration as a recipe, with a comment that says why it is the best.

        The objectives on the first benchmark decide, or all scores that every point has if there are none.
        """
        points, benchmark = self.points, self.benchmarks[0]
        known, deciding = scores_of(benchmark, points), self._deciding
        best = best_point(points, benchmark, deciding)
        config = self.best.trial.config
        names = ", ".join(map(title_of, deciding))
        rule = names if len(deciding) == 1 else f"the mean of its ranks in {names}"
        has = ", ".join(f"{title_of(score)} {best.shown(f'{benchmark}/{score}')}" for score in known)
        seeds = f"mean ± standard deviation of {len(best.runs)} seeds" if len(best.runs) > 1 else "one seed"
        why = f"{best.label}, the best of {len(points)} points on {benchmark} by {rule}. It has {has} ({seeds})."
        head = textwrap.fill(why, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        return f"{head}\n{recipe_of(config)}"

    @property
    def best(self) -> Finished:
        """The first trial of the best point, by the rule of `best_recipe`; there must be a finished one."""
        best = best_point(self.points, self.benchmarks[0], self._deciding)
        return next(one for one in self.finished if one.values == best.values)

    @property
    def _deciding(self) -> list[str]:
        """The scores on the first benchmark that say which point is the best."""
        return list(self.objectives) or scores_of(self.benchmarks[0], self.points)

    def _scores(self, benchmark: str) -> list[str]:
        """The objectives that all trials have on a benchmark, then the other scores of every summary."""
        points = self.points
        return list(dict.fromkeys([*scores_of(benchmark, points, self.objectives), *scores_of(benchmark, points)]))

    def _table(self, benchmark: str) -> Table:
        """A row for each point, the best mean of a column in bold if there are several points."""
        points, scores = self.points, self._scores(benchmark)
        marks = self.judged.marks if self.judged is not None else {}
        best: dict[str, int] = {}
        for score in scores if len(points) > 1 else ():
            of_points = losses(points, benchmark, score)
            best[score] = of_points.index(min(of_points))
        rows = []
        for number, point in enumerate(points):
            first, *others = [*(shown(value, key) for key, value in point.values.items()), str(len(point.runs))]
            cells = [Cell(text) for text in others]
            for score in scores:
                key = f"{benchmark}/{score}"
                mark = marks.get((point.label, key), "")
                cells.append(Cell(point.shown(key), mark=mark, best=best.get(score) == number))
            rows.append(Row(first, tuple(cells)))
        keys = list(points[0].values)
        head = (*map(short_name, keys), "seeds", *map(title_of, scores))
        title = f"{benchmark}: mean ± standard deviation over seeds"
        return Table("", title, head, tuple(rows), labels=len(keys), grid=True)

    def _steps(self) -> Table | None:
        """After how many steps each point was near the best; None where no scores were measured during training."""
        return steps_table(self.judged.comparison) if self.judged is not None else None

    def _csv(self) -> str:
        """A row for each benchmark and point: values, number of seeds, mean and standard deviation of scores."""
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)
        keys = list(self.points[0].values) if self.points else []
        scores_by = {benchmark: self._scores(benchmark) for benchmark in self.benchmarks}
        columns = list(dict.fromkeys([*self.objectives, *SCORES, *chain.from_iterable(scores_by.values())]))
        writer.writerow(["benchmark", *keys, "seeds", *(f"{x} {of}" for x in columns for of in ("mean", "std"))])
        for benchmark, known in scores_by.items():
            for point in self.points:
                cells: list[str] = []
                for score in columns:
                    values = point.of(f"{benchmark}/{score}") if score in known else []
                    cells.append(f"{statistics.mean(values):.6f}" if values else "")
                    cells.append(f"{spread(values):.6f}" if len(values) > 1 else "")
                writer.writerow(
                    [benchmark, *(shown(value, key) for key, value in point.values.items()), len(point.runs), *cells]
                )
        return stream.getvalue()


def recipe_of(config: Config) -> str:
    """YAML of the values of `config` that differ from the defaults, without those that say where it ran."""
    tree = config.model_dump(mode="json", exclude_defaults=True, exclude={"storage"})
    for section, keys in WHERE_IT_RAN.items():
        for key in keys:
            tree.get(section, {}).pop(key, None)
    changed = {key: value for key, value in tree.items() if value != {} and key != "name"}
    return yaml.safe_dump({"name": f"{config.name}-best", **changed}, sort_keys=False, allow_unicode=True)
