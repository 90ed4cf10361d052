"""Evaluations on disk: `metrics.json`, `scores.csv`, `per_query.parquet`, `about.json` and a heat map per benchmark."""

from __future__ import annotations

import csv
import json
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hbtrain.errors import DataError, StorageError
from hbtrain.evaluation.metrics import METRICS
from hbtrain.evaluation.plots import heat_map
from hbtrain.evaluation.summary import POOL_METRICS, SETTINGS, Evaluation
from hbtrain.retrieval.ranks import TIE_RULE


def save_evaluation(evaluations: Sequence[Evaluation], output_dir: Path, model: str | None = None) -> None:
    """Write the results of one model on one or more benchmarks into `output_dir`, made if it is not there.

    `metrics.json` is flat, {key: number}; `about.json` says what was evaluated on what. Each file is replaced whole
    or not at all.

    Raises:
        DataError: no evaluation, or two of one benchmark name.
        StorageError: the folder cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = [e.benchmark for e in evaluations]
    if not names or len(set(names)) < len(names):
        raise DataError(f"evaluations of benchmarks {names} cannot share {output_dir}: one or more, of different names")
    metrics = {key: value for e in evaluations for key, value in e.metrics.items()}
    table = pa.concat_tables([e.per_query for e in evaluations])
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for e in evaluations:
            _replace(output_dir / f"heatmap-{e.benchmark}.png", partial(heat_map, e))
        _replace(output_dir / "per_query.parquet", lambda path: pq.write_table(table, path, compression="zstd"))
        _replace(output_dir / "scores.csv", lambda path: _write_csv(path, evaluations))
        _replace(output_dir / "about.json", lambda path: _write_json(path, _about(evaluations, model)))
        # Last, so that whoever sees new metrics sees the rest as well.
        _replace(output_dir / "metrics.json", lambda path: _write_json(path, metrics))
    except OSError as error:
        raise StorageError(
            f"cannot write results to {output_dir}: {error.strerror or error}; choose a folder that can be written"
        ) from error


def _about(evaluations: Sequence[Evaluation], model: str | None) -> dict[str, Any]:
    return {
        "model": model,
        "tie_rule": TIE_RULE,
        "benchmarks": {
            e.benchmark: {
                "candidates_kind": e.candidates_kind,
                "languages": list(e.languages),
                "queries": e.query_counts,
                "candidates": e.candidate_counts,
            }
            for e in evaluations
        },
    }


def _write_csv(path: Path, evaluations: Sequence[Evaluation]) -> None:
    """One row per benchmark, setting and query language (`all`: the macro mean), one column per metric."""
    names = [*METRICS, *POOL_METRICS]
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["benchmark", "setting", "query_language", *names])
        for e in evaluations:
            for setting in SETTINGS:
                for language in ("all", *e.languages):
                    suffix = "" if language == "all" else f"/{language}"
                    values = [e.metrics.get(f"{e.benchmark}/{setting}/{name}{suffix}") for name in names]
                    if any(value is not None for value in values):
                        cells = ["" if value is None else f"{value:.6f}" for value in values]
                        writer.writerow([e.benchmark, setting, language, *cells])


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside `path`, then put it in its place in one move."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}-") as folder:
        temporary = Path(folder) / path.name
        write(temporary)
        temporary.replace(path)
