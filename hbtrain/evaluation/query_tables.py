"""Per-query scores as tables that MLflow shows and compares between runs (`mlflow.log_table`'s form)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

from hbtrain.evaluation.geometry import evenly
from hbtrain.evaluation.summary import Evaluation
from hbtrain.storage import write_text

FOLDER = "queries"  # of the tables, below that of an evaluation's results
MOST_ROWS = 5000  # of a table, which the browser reads whole
PLACE = ("setting", "query_language", "passage_language", "question_id")  # columns that say which query it is


def save_query_tables(evaluations: Sequence[Evaluation], folder: Path) -> list[str]:
    """Write a table for each benchmark below `folder`; returns their paths, relative to it.

    A benchmark with more than `MOST_ROWS` rankings is shown by some of its questions, evenly spaced in the order of
    their ids: they are the same for every model. All are in `per_query.parquet`. Metrics that no row has are left out.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    (folder / FOLDER).mkdir(parents=True, exist_ok=True)
    made = []
    for evaluation in evaluations:
        table = evaluation.per_query
        questions = sorted(set(table["question_id"].to_pylist()))
        if table.num_rows > MOST_ROWS:
            most = max(MOST_ROWS * len(questions) // table.num_rows, 1)
            some = pa.array([questions[place] for place in evenly(len(questions), most)])
            table = table.filter(pc.is_in(table["question_id"], value_set=some))
        metrics = [
            name
            for name in table.column_names
            if name not in (*PLACE, "benchmark") and table[name].null_count < table.num_rows
        ]
        columns = [*PLACE, *metrics]
        rows = zip(*(map(_shown, table[name].to_pylist()) for name in columns), strict=True)
        made.append(f"{FOLDER}/{evaluation.benchmark}.json")
        content = {"columns": columns, "data": [list(row) for row in rows]}
        write_text(folder / made[-1], json.dumps(content, ensure_ascii=False))
    return made


def _shown(value: object) -> object:
    """A number with four significant digits; JSON has none that is not finite."""
    if not isinstance(value, float):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else None
