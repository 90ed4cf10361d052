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
"""Columns of `per_query.parquet` that identify a row."""

OF_ALL = frozenset({"map", "mrr", "recall", "ndcg"})
"""Metrics, without their cut-offs, that every question has. A rank distance, say, wants two answers."""


class Cell(NamedTuple):
    """All questions in one language on one pool of candidates; a reported mean is a mean over cells."""

    setting: str
    query_language: str
    passage_language: str


@dataclass(frozen=True, eq=False)
class Layout:
    """The questions and cells of a benchmark, which are the same for all runs that can be compared."""

    questions: tuple[str, ...]  # ids, ascending
    cells: tuple[Cell, ...]  # sorted by setting, query language and passage language
    present_UC: npt.NDArray[np.bool_]  # which questions each cell has

    def difference(self, other: Layout) -> str | None:
        """A sentence on how `other` differs; None if it does not."""
        if self is other:
            return None
        if self.cells != other.cells:
            differing = sorted(set(self.cells) ^ set(other.cells))[0]
            return f"only one has {differing.setting} {differing.query_language} → {differing.passage_language}"
        if self.questions != other.questions:
            differing_id = sorted(set(self.questions) ^ set(other.questions))[0]
            return f"{len(self.questions):,} and {len(other.questions):,} questions; only one has {differing_id!r}"
        if not np.array_equal(self.present_UC, other.present_UC):
            unit, cell = np.argwhere(self.present_UC != other.present_UC)[0]
            differing = self.cells[cell]
            return f"only one asks {self.questions[unit]!r} in {differing.setting} {differing.query_language}"
        return None


@dataclass(frozen=True, eq=False)
class Scores:
    """One run's scores on one benchmark."""

    layout: Layout
    values: dict[str, Floats]
    """{metric: [U, C]}; NaN where the cell does not have the question, or the setting not the metric."""


@dataclass(frozen=True, eq=False)
class _RowIndex:
    """Where the rows of a file belong."""

    rows: dict[str, npt.NDArray[np.int64]]  # {benchmark: numbers of its rows}
    unit: npt.NDArray[np.int64]  # the question of each row, as an index of its layout's questions
    cell: npt.NDArray[np.int64]  # the cell of each row, as an index of its layout's cells
    layouts: dict[str, Layout]  # {benchmark: layout}


class ScoreReader:
    """Reads the scores of many runs. Mostly their files have the same rows, whose layout is then worked out once."""

    def __init__(self) -> None:
        self._keys: pa.Table | None = None
        self._separate: frozenset[str] = frozenset()
        self._index: _RowIndex | None = None

    def read(
        self, path: Path, run: str, wanted: Sequence[str], separate: frozenset[str] = frozenset()
    ) -> dict[str, Scores]:
        """{benchmark: scores} from a `per_query.parquet`, in the metrics that are `wanted` and there.

        A question id means another question in every language in the benchmarks `separate`, as in MIRACL.

        Raises:
            DataError: no such file, no parquet file, a missing column, two equal rows, or a score that is no number.
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
        index = self._index_of(table.select(list(KEYS)), f"run {run}: {path}", separate)
        metrics = [metric for metric in wanted if metric in columns]
        return {
            benchmark: Scores(
                layout, {metric: _score_table(table, metric, index, benchmark, run) for metric in metrics}
            )
            for benchmark, layout in index.layouts.items()
        }

    def _index_of(self, keys: pa.Table, place: str, separate: frozenset[str]) -> _RowIndex:
        if self._index is None or self._keys is None or separate != self._separate or not keys.equals(self._keys):
            self._index = _row_index(keys, place, separate)
            self._keys, self._separate = keys, separate
        return self._index


def _row_index(keys: pa.Table, place: str, separate: frozenset[str]) -> _RowIndex:
    codes, names = {}, {}
    for key in KEYS:
        column = keys.column(key).combine_chunks()
        if column.null_count:
            raise DataError(f"{place} has rows without a {key}; evaluate again")
        encoded = column.dictionary_encode()
        names[key] = [str(name) for name in encoded.dictionary.to_pylist()]
        codes[key] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    unknown = [setting for setting in names["setting"] if setting not in SETTINGS]
    if unknown:
        raise DataError(f"{place} has the setting {unknown[0]!r}; known are {', '.join(SETTINGS)}")
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
    return _RowIndex(rows, unit, cell, layouts)


def _ranked(codes: npt.NDArray[np.int64], names: list[str]) -> tuple[tuple[str, ...], npt.NDArray[np.int64]]:
    """The names that occur, ascending, and the index among them of each code."""
    used, which = np.unique(codes, return_inverse=True)
    found, rank = np.unique(np.array(names, object)[used], return_inverse=True)
    return tuple(found.tolist()), rank[which]


def _score_table(table: pa.Table, metric: str, index: _RowIndex, benchmark: str, run: str) -> Floats:
    """[U, C] scores of a metric, NaN where a question has none. Those of `OF_ALL` must be there for all questions of a
    setting or for none."""
    layout, at = index.layouts[benchmark], index.rows[benchmark]
    try:
        column = table.column(metric).cast("double").to_numpy()[at]
    except Exception as error:
        raise DataError(f"run {run}: column {metric!r} of per_query.parquet does not hold numbers") from error
    values = np.full(layout.present_UC.shape, np.nan)
    values[index.unit[at], index.cell[at]] = column
    missing = layout.present_UC & ~np.isfinite(values)
    for setting in SETTINGS:
        of_setting = np.array([cell.setting == setting for cell in layout.cells])
        gaps = missing[:, of_setting]
        some = gaps.any() and gaps.sum() < layout.present_UC[:, of_setting].sum()
        if np.isinf(values).any() or (some and metric.partition("@")[0] in OF_ALL):
            raise DataError(
                f"run {run}: {metric} of {benchmark}, {setting}, is no number for some questions; evaluate again"
            )
    return values
