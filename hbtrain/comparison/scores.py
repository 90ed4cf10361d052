"""Scores per question of one run, as tables of questions by cells. U questions, C cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from hbtrain.errors import DataError
from hbtrain.reporting.metric_names import SETTINGS

if TYPE_CHECKING:
    import pyarrow as pa

Floats = npt.NDArray[np.float64]

KEYS = ("benchmark", "setting", "query_language", "passage_language", "question_id")
"""Columns of `per_query.parquet` that say what a row is about."""


class Cell(NamedTuple):
    """What a mean is taken over: all questions asked in one language, of one pool."""

    setting: str
    query_language: str
    passage_language: str


@dataclass(frozen=True, eq=False)
class Layout:
    """What a benchmark asks: equal for all runs that can be compared."""

    questions: tuple[str, ...]
    """Ids, ascending."""
    cells: tuple[Cell, ...]
    """By setting, then query and passage language, ascending."""
    present_UC: npt.NDArray[np.bool_]
    """Which questions a cell has."""

    def difference(self, other: Layout) -> str | None:
        """What `other` has otherwise, in words; None if it is the same."""
        if self is other:
            return None
        if self.cells != other.cells:
            odd = sorted(set(self.cells) ^ set(other.cells))[0]
            return f"only one has {odd.setting} {odd.query_language} → {odd.passage_language}"
        if self.questions != other.questions:
            odd_id = sorted(set(self.questions) ^ set(other.questions))[0]
            return f"{len(self.questions):,} and {len(other.questions):,} questions; only one has {odd_id!r}"
        if not np.array_equal(self.present_UC, other.present_UC):
            unit, cell = np.argwhere(self.present_UC != other.present_UC)[0]
            odd = self.cells[cell]
            return f"only one asks {self.questions[unit]!r} in {odd.setting} {odd.query_language}"
        return None


@dataclass(frozen=True, eq=False)
class Scores:
    """One run's scores on one benchmark."""

    layout: Layout
    values: dict[str, Floats]
    """{metric: [U, C]}; NaN where a cell lacks the question, or the setting the metric."""


@dataclass(frozen=True, eq=False)
class _Places:
    """Where the rows of a file belong."""

    rows: dict[str, npt.NDArray[np.int64]]
    """{benchmark: its rows}."""
    unit: npt.NDArray[np.int64]
    cell: npt.NDArray[np.int64]
    layouts: dict[str, Layout]


class ScoreReader:
    """Reads files of many runs; where their rows stand for the same, which is the rule, it is worked out once."""

    def __init__(self) -> None:
        self._keys: pa.Table | None = None
        self._separate: frozenset[str] = frozenset()
        self._places: _Places | None = None

    def read(
        self, path: Path, run: str, wanted: Sequence[str], separate: frozenset[str] = frozenset()
    ) -> dict[str, Scores]:
        """{benchmark: scores} of a `per_query.parquet`, of the metrics among `wanted` that it has.

        Args:
            path: the file.
            run: what messages call the run.
            wanted: names of metrics.
            separate: benchmarks in which a question id means another question in every language, as in MIRACL.

        Raises:
            DataError: no such file, not a parquet file, columns missing, a row twice, a score that is no number.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            columns = set(pq.read_schema(path).names)
            lacking = [key for key in KEYS if key not in columns]
            if lacking:
                raise DataError(f"run {run}: {path} has no column {lacking[0]!r}; write it again with hbtrain evaluate")
            table = pq.read_table(path, columns=[*KEYS, *(metric for metric in wanted if metric in columns)])
        except FileNotFoundError as error:
            raise DataError(f"run {run}: there is no {path}; evaluate it with hbtrain evaluate --output") from error
        except (pa.ArrowException, OSError) as error:
            reason = str(error).splitlines()[0]
            raise DataError(f"run {run}: {path} cannot be read as parquet ({reason}); evaluate again") from error
        if table.num_rows == 0:
            raise DataError(f"run {run}: {path} holds no rows; evaluate again")
        places = self._placed(table.select(list(KEYS)), f"run {run}: {path}", separate)
        metrics = [metric for metric in wanted if metric in columns]
        return {
            benchmark: Scores(layout, {metric: _spread(table, metric, places, benchmark, run) for metric in metrics})
            for benchmark, layout in places.layouts.items()
        }

    def _placed(self, keys: pa.Table, place: str, separate: frozenset[str]) -> _Places:
        if self._places is None or self._keys is None or separate != self._separate or not keys.equals(self._keys):
            self._places = _places(keys, place, separate)
            self._keys, self._separate = keys, separate
        return self._places


def _places(keys: pa.Table, place: str, separate: frozenset[str]) -> _Places:
    codes, names = {}, {}
    for key in KEYS:
        column = keys.column(key).combine_chunks()
        if column.null_count:
            raise DataError(f"{place} has rows without a {key}; evaluate again")
        encoded = column.dictionary_encode()
        names[key] = [str(name) for name in encoded.dictionary.to_pylist()]
        codes[key] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    strange = [setting for setting in names["setting"] if setting not in SETTINGS]
    if strange:
        raise DataError(f"{place} has the setting {strange[0]!r}; known are {', '.join(SETTINGS)}")
    unit, cell = np.zeros(keys.num_rows, np.int64), np.zeros(keys.num_rows, np.int64)
    rows, layouts = {}, {}
    for number, benchmark in enumerate(names["benchmark"]):
        at = np.flatnonzero(codes["benchmark"] == number)
        question, ids = codes["question_id"][at], names["question_id"]
        if benchmark in separate:
            question = question + len(ids) * codes["query_language"][at]
            ids = [f"{language}/{identifier}" for language in names["query_language"] for identifier in ids]
        questions, unit[at] = _ranked(question, ids)
        whole = codes["setting"][at]
        for key in ("query_language", "passage_language"):
            whole = whole * len(names[key]) + codes[key][at]
        distinct, first, which = np.unique(whole, return_index=True, return_inverse=True)
        cells = [Cell(*(names[key][codes[key][at[i]]] for key in KEYS[1:4])) for i in first]
        order = sorted(range(len(distinct)), key=lambda i: (list(SETTINGS).index(cells[i].setting), cells[i]))
        cell[at] = np.argsort(order)[which]
        present = np.zeros((len(questions), len(cells)), bool)
        present[unit[at], cell[at]] = True
        if present.sum() < len(at):
            raise DataError(f"{place} scores a question of {benchmark} twice; evaluate again")
        rows[benchmark] = at
        layouts[benchmark] = Layout(questions, tuple(cells[i] for i in order), present)
    return _Places(rows, unit, cell, layouts)


def _ranked(codes: npt.NDArray[np.int64], names: list[str]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The names that occur, ascending, and for each code its place among them."""
    used, which = np.unique(codes, return_inverse=True)
    found = [names[code] for code in used]
    order = sorted(range(len(found)), key=found.__getitem__)
    return tuple(found[i] for i in order), np.argsort(order)[which]


def _spread(table: pa.Table, metric: str, places: _Places, benchmark: str, run: str) -> Floats:
    """[U, C] of a metric; a setting either has it for all its questions or for none."""
    layout, at = places.layouts[benchmark], places.rows[benchmark]
    try:
        column = table.column(metric).cast("double").to_numpy()[at]
    except Exception as error:
        raise DataError(f"run {run}: column {metric!r} of per_query.parquet does not hold numbers") from error
    values = np.full(layout.present_UC.shape, np.nan)
    values[places.unit[at], places.cell[at]] = column
    missing = layout.present_UC & ~np.isfinite(values)
    for setting in SETTINGS:
        of_setting = np.array([cell.setting == setting for cell in layout.cells])
        gaps = missing[:, of_setting]
        if np.isinf(values).any() or (gaps.any() and gaps.sum() < layout.present_UC[:, of_setting].sum()):
            raise DataError(
                f"run {run}: {metric} of {benchmark}, {setting}, is no number for some questions; evaluate again"
            )
    return values
