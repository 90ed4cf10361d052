"""Made-up results of evaluations, as `hbtrain evaluate --output` and `hbtrain train` leave them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from hbtrain.config import load_config, override, to_yaml

LANGUAGES = ("de", "en", "th")


def rows_of(quality, questions=30, languages=LANGUAGES, seed=0, name="sample", missing=lambda q, x: False):
    """Scores of all settings; a question's difficulty is the same for every seed, `quality` shifts them all."""
    difficulty = np.random.default_rng(5).random(questions)
    luck = np.random.default_rng(seed + 100)
    rows = []
    for x in languages:
        for q in range(questions):
            if missing(q, x):
                continue
            for setting, y in [*(("mono" if y == x else "cross", y) for y in languages), ("multi", "all")]:
                value = float(np.clip(difficulty[q] + quality + luck.normal(0, 0.1), 0, 1))
                rows.append(
                    {
                        "benchmark": name,
                        "setting": setting,
                        "query_language": x,
                        "passage_language": y,
                        "question_id": f"q{q}",
                        "map": value,
                        "recall@10": float(value > 0.5),
                        "rank_distance": 100 * (1 - value) if setting == "multi" else None,
                    }
                )
    return rows


def macro_means(rows):
    """{`<benchmark>/<setting>/<metric>`: mean over cells of the means over questions}, in plain Python."""
    cells = {}
    for row in rows:
        for metric in ("map", "recall@10", "rank_distance"):
            if row.get(metric) is not None:
                cell = (row["benchmark"], row["setting"], metric, row["query_language"], row["passage_language"])
                cells.setdefault(cell, []).append(row[metric])
    means = {}
    for (benchmark, setting, metric, _, _), values in cells.items():
        means.setdefault(f"{benchmark}/{setting}/{metric}", []).append(sum(values) / len(values))
    return {key: sum(values) / len(values) for key, values in means.items()}


def write_results(folder: Path, rows, kind="sentence", about=None, metrics=None) -> Path:
    """The folder that `hbtrain evaluate --output` writes."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "per_query.parquet")
    (folder / "metrics.json").write_text(json.dumps(metrics or macro_means(rows)))
    benchmarks = {
        name: {
            "candidates_kind": kind,
            "languages": sorted({row["query_language"] for row in rows if row["benchmark"] == name}),
            "candidates": dict.fromkeys(sorted({row["query_language"] for row in rows}), 40),
        }
        for name in dict.fromkeys(row["benchmark"] for row in rows)
    }
    (folder / "about.json").write_text(json.dumps({"model": None, "benchmarks": benchmarks} | (about or {})))
    return folder


def write_run(folder: Path, alpha, seed, rows=None, finished=True, run_id=None, **overrides) -> Path:
    """The folder of a training run."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = {"batching.alpha": alpha, "seed": seed, "data.languages": ["de", "en"], "name": folder.name, **overrides}
    (folder / "config.yaml").write_text(to_yaml(override(load_config("quickstart"), keys)))
    memory = {"mlflow_run_id": run_id} | ({"finished": True} if finished else {})
    (folder / "run.json").write_text(json.dumps(memory))
    if finished:
        write_results(folder / "results", rows or rows_of(-0.1 * alpha, seed=seed + int(10 * alpha)))
    return folder
