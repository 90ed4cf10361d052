"""What a sweep over merges has found: a table for each benchmark, CSV, pictures, and the comparison of all points."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from hbtrain.comparison.compare import compare
from hbtrain.comparison.result import Comparison
from hbtrain.comparison.save import save_comparison
from hbtrain.comparison.tables import marks_legend
from hbtrain.errors import HbtrainError, StorageError
from hbtrain.reporting.console import TextConsole
from hbtrain.reporting.metric_names import ALL
from hbtrain.reporting.table import Cell, Row, Table, markdown, markdown_text, terminal
from hbtrain.reporting.text import say
from hbtrain.storage import Place, write_text
from hbtrain.storage.files import whole
from hbtrain.sweeps.charts import Axis, is_curve, score_curves
from hbtrain.sweeps.marks import BASELINE_SCORES
from hbtrain.sweeps.points import SCORES, Point, best_point, losses, scores_of, title_of

WEIGHT = "weight"


class MergePoint(NamedTuple):
    """One merge of a sweep."""

    label: str  # such as `0.25`, or `0.2,0.3,0.5`; also the name of its folder
    weights: tuple[float, ...]  # of each model
    number: float | None  # the one number that stands for all weights, if there is one


@dataclass(frozen=True)
class MergeSummary:
    """The points that were evaluated."""

    method: str
    models: tuple[str, ...]
    base: str | None
    ends: Mapping[float, str]  # {number of a point: the model that it is}
    merges: tuple[MergePoint, ...] = ()
    points: tuple[Point, ...] = ()  # the same, with their scores
    folders: tuple[Place, ...] = ()  # of their results

    def plus(self, merge: MergePoint, scores: Mapping[str, float], folder: Place) -> MergeSummary:
        """This summary with one point more; its `scores` are {`<benchmark>/<setting>/<metric>`: score}."""
        values = {WEIGHT: merge.label if merge.number is None else merge.number}
        return replace(
            self,
            merges=(*self.merges, merge),
            points=(*self.points, Point(values, [scores])),
            folders=(*self.folders, folder),
        )

    @property
    def benchmarks(self) -> list[str]:
        keys = (key for point in self.points for run in point.runs for key in run)
        return list(dict.fromkeys(key.partition("/")[0] for key in keys))

    @property
    def best(self) -> MergePoint:
        """The point with the best mean of its ranks in the scores of the first benchmark; of equals, the first."""
        benchmark = self.benchmarks[0]
        best = best_point(self.points, benchmark, scores_of(benchmark, self.points))
        return self.merges[self.points.index(best)]

    @property
    def best_command(self) -> str:
        """The command that makes a model of the best point; its output is left to be named."""
        weights = [f"{x:.12g}" for x in self.best.weights]
        base = [] if self.base is None else ["--base", self.base]
        words = [*self.models, "--weights", *weights, "--method", self.method, *base]
        return f"hbtrain merge {shlex.join(words)} --output"

    @cached_property
    def comparison(self) -> Comparison | None:
        """All points against the better of the ends, or where none is among them against the first; None if there is
        one point, or where their results cannot be compared, which is told."""
        if len(self.points) < 2:
            return None
        named = {point.number: point for point in self.merges if point.number in self.ends}
        ends = [self.points[self.merges.index(point)] for point in named.values()]
        baseline = self.merges[0].label
        scores = scores_of(self.benchmarks[0], self.points, BASELINE_SCORES)
        if ends and scores:
            best = best_point(ends, self.benchmarks[0], scores[:1])
            baseline = self.merges[self.points.index(best)].label
        try:
            return compare(
                [str(folder) for folder in self.folders], baseline=baseline, names=[one.label for one in self.merges]
            )
        except HbtrainError as error:
            say(f"no report: {error}")
            return None

    @cached_property
    def _marks(self) -> dict[tuple[str, str], str]:
        """{(label, `<benchmark>/<setting>/<metric>`): mark of significance}."""
        if self.comparison is None:
            return {}
        level = self.comparison.method.level
        return {
            (e.system, f"{e.score.benchmark}/{e.score.setting}/{e.score.metric}"): e.mark(level)
            for e in self.comparison.estimates
            if e.score.part == ALL
        }

    def table(self, benchmark: str) -> Table:
        """A row for each point, the best score of a column in bold."""
        scores = scores_of(benchmark, self.points)
        best = {}
        for score in scores if len(self.points) > 1 else ():
            found = losses(self.points, benchmark, score)
            best[score] = found.index(min(found))
        rows = []
        for number, (merge, point) in enumerate(zip(self.merges, self.points, strict=True)):
            keys = {score: f"{benchmark}/{score}" for score in scores}
            cells = [
                Cell(point.shown(key), mark=self._marks.get((merge.label, key), ""), best=best.get(score) == number)
                for score, key in keys.items()
            ]
            rows.append(Row(merge.label, tuple(cells)))
        title = f"{benchmark}: merges of {', '.join(self.models)} ({self.method})"
        return Table("", title, ("weights", *map(title_of, scores)), tuple(rows), self._note, grid=True)

    @property
    def _note(self) -> str:
        if self.base is not None:
            how = f"each weight times what the models have learned beyond {self.base}, added to it"
        elif len(self.models) == 2:
            how = f"the weight is that of {self.models[0]}; {self.models[1]} has the rest"
        else:
            how = "weights of the models in their order"
        if self.comparison is None or not any(self._marks.values()):
            return how
        return f"{how}. {marks_legend(self.comparison)}"

    def markdown(self) -> str:
        parts = [f"**{markdown_text(t.title)}**\n\n{markdown(t)}" for t in map(self.table, self.benchmarks)]
        return "\n\n".join(parts)

    def save(self, folder: Path) -> list[Path]:
        """Write `summary.md`, `summary.csv`, `merge-curve-*.png` where points are numbers, and `report/`.

        Returns the files and folders that were written. Raises StorageError if they cannot be.
        """
        made = [folder / "summary.md", folder / "summary.csv"]
        ends = {place: name for place, name in self.ends.items() if any(one.number == place for one in self.merges)}
        axis = Axis(WEIGHT, "weight", self._across, f"merges by weight ({self.method})", ends)
        try:
            write_text(made[0], f"{self.markdown()}\n\nBest: `{self.best_command} FOLDER`\n")
            write_text(made[1], self._csv())
            for benchmark in self.benchmarks if is_curve(self.points, axis) else ():
                made.append(folder / f"merge-curve-{benchmark}.png")
                with whole(made[-1]) as path:
                    score_curves(benchmark, self.points, path, axis)
            if self.comparison is not None:
                made.append(folder / "report")
                save_comparison(self.comparison, made[-1])
        except OSError as error:
            raise StorageError(f"cannot write the summary to {folder}: {error.strerror or error}") from error
        return made

    @property
    def _across(self) -> str:
        return "weight of the models" if self.base is not None else f"weight of {Path(self.models[0]).name}"

    def _csv(self) -> str:
        """A row for each benchmark and point: its label, the weight of each model, and all scores of the summary."""
        stream = io.StringIO(newline="")
        writer = csv.writer(stream)
        writer.writerow(["benchmark", "point", *(f"weight of {name}" for name in self.models), *SCORES])
        for benchmark in self.benchmarks:
            for merge, point in zip(self.merges, self.points, strict=True):
                known: Sequence[str] = scores_of(benchmark, [point])
                cells = [f"{point.mean(f'{benchmark}/{score}'):.6f}" if score in known else "" for score in SCORES]
                writer.writerow([benchmark, merge.label, *merge.weights, *cells])
        return stream.getvalue()

    def show(self, folder: Place, run_id: str) -> None:
        console = TextConsole()
        for benchmark in self.benchmarks:
            console.print()
            console.print(terminal(self.table(benchmark)))
        say(f"\nsummary  {folder}\nbest     {self.best_command} FOLDER")
        if self.comparison is not None:
            say(f"report   {folder / 'report' / 'report.html'}")
        say(f"MLflow   run {run_id}")
