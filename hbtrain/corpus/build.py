"""Building a source from parallel rows with their texts in them, as JSON lines hold them: for the cache."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.corpus.columns import ColumnWriter
from hbtrain.corpus.conflicts import Int64s, cluster_order, clusters
from hbtrain.corpus.jsonl import ParallelRow
from hbtrain.corpus.negatives import NegativesWriter, digest_number
from hbtrain.errors import DataError

FORMAT = 2
"""Version of the folder's layout; a new one makes new folders."""


def build_source(rows: Iterator[ParallelRow], folder: Path, place: str) -> None:
    """Stream `rows` into `folder`: texts go to disk, a few numbers a row stay in memory until the end."""
    writer, negatives = ColumnWriter(folder), NegativesWriter(folder)
    languages: dict[str, int] = {}
    patterns: dict[tuple[int, int], int] = {}
    query_ids, passage_ids, pattern_of_row = array("q"), array("q"), array("I")
    sentences: bool | None = None
    for row in rows:
        form = row.passage is row.query
        sentences = form if sentences is None else sentences
        if form != sentences:
            raise DataError(
                f"{place}: row {row.id!r} differs from those before it: text, or query and passage, not both"
            )
        values = {f"query.{language}": text for language, text in row.query.items()}
        if not sentences:
            values |= {f"passage.{language}": text for language, text in row.passage.items()}
        writer.append(values)
        negatives.append(len(query_ids), row.negatives)
        key = (_bits(row.query, languages), _bits(row.passage, languages))
        pattern_of_row.append(patterns.setdefault(key, len(patterns)))
        query_ids.append(digest_number(row.id))
        passage_ids.append(digest_number(row.passage_id))
    writer.close()
    if not query_ids:
        raise DataError(f"source {place} holds no rows")
    manifest: dict[str, Any] = {"rows": len(query_ids), "sentences": sentences}
    manifest |= _save_patterns(folder, languages, patterns, pattern_of_row)
    manifest |= _save_conflicts(folder, np.array(query_ids, np.int64), np.array(passage_ids, np.int64))
    saved_ids = load_array(folder, "passage_ids")
    manifest["negative_languages"] = negatives.close(
        sorted(folder.glob("query.*.arrow" if sentences else "passage.*.arrow")),
        lambda numbers: numbers if saved_ids is None else saved_ids[numbers],
        len(query_ids),
    )
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")


def load_array(folder: Path, name: str) -> Any:
    """A `.npy` file of a source, memory-mapped; None if it has none of that name."""
    path = folder / f"{name}.npy"
    return np.load(path, mmap_mode="r") if path.exists() else None


def _bits(texts: dict[str, str], languages: dict[str, int]) -> int:
    bits = 0
    for language in texts:
        bits |= 1 << languages.setdefault(language, len(languages))
    return bits


def _save_patterns(
    folder: Path, languages: dict[str, int], patterns: dict[tuple[int, int], int], pattern_of_row: array[int]
) -> dict[str, Any]:
    names = sorted(languages)
    codes = np.array(pattern_of_row, np.uint32)
    if len(patterns) > 1:
        np.save(folder / "pattern_of_row.npy", codes.astype(np.uint16) if len(patterns) < 2**16 else codes)
    return {
        "languages": names,
        "query_patterns": [[bool(query >> languages[name] & 1) for name in names] for query, _ in patterns],
        "passage_patterns": [[bool(passage >> languages[name] & 1) for name in names] for _, passage in patterns],
        "pattern_counts": np.bincount(codes, minlength=len(patterns)).tolist(),
    }


def _save_conflicts(folder: Path, query_ids: Int64s, passage_ids: Int64s) -> dict[str, Any]:
    for name, ids in (("query_ids", query_ids), ("passage_ids", passage_ids)):
        if len(np.unique(ids)) < len(ids):
            np.save(folder / f"{name}.npy", ids)
    cluster = clusters(query_ids, passage_ids)
    if len(np.unique(cluster)) == len(cluster):
        return {"classes": None}
    order, classes = cluster_order(np.arange(len(cluster), dtype=np.int64), cluster, passage_ids)
    np.save(folder / "order.npy", order)
    return {"classes": [(c.size, c.clusters, c.start) for c in classes]}
