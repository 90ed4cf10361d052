"""From exact ranks to an evaluation: scores of every query, and their means over queries, then over languages.

Settings: `mono` asks in x the candidates in x; `cross` asks in x the candidates in another language y; `multi` asks in
x the pool of all languages. Shapes: L languages, G rankings (query x candidates asked).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hbtrain.evaluation.metrics import METRICS, Floats, Int64s, Rankings, rank_distance
from hbtrain.evaluation.pool import Benchmark, CandidatesKind

if TYPE_CHECKING:
    import pyarrow as pa

    from hbtrain.retrieval.ranks import Ranks

SETTINGS = ("mono", "cross", "multi")
RANK_DISTANCE = "rank_distance"
ALL_LANGUAGES = "all"
"""The `passage_language` of the multi setting."""


@dataclass(frozen=True)
class Evaluation:
    """What one model scores on one benchmark."""

    benchmark: str
    candidates_kind: CandidatesKind
    languages: tuple[str, ...]
    query_counts: dict[str, int]
    candidate_counts: dict[str, int]
    metrics: dict[str, float]
    """`<benchmark>/<setting>/<metric>` is the macro mean, `<benchmark>/<setting>/<metric>/<language>` the mean of a
    query language (in `cross`, over its passage languages). Settings or languages without queries have no key."""
    pair_map: npt.NDArray[np.float64]
    """[L, L] mAP by query language and passage language; NaN where there are no queries."""
    per_query: pa.Table
    """One row per query and setting (in `cross`, per passage language): benchmark, setting, query_language,
    passage_language ("all" in multi), question_id, map, recall@1, recall@10, mrr, ndcg@10, rank_distance (null except
    in multi)."""

    @property
    def macro(self) -> dict[str, float]:
        """The macro means among `metrics`."""
        return {key: value for key, value in self.metrics.items() if key.count("/") == 2}


@dataclass(frozen=True)
class _Rows:
    """Scores of G rankings."""

    query: Int64s
    passage_code: Int64s
    """The passages' language; in the multi setting 0 throughout."""
    scores: dict[str, Floats]


def summarise(benchmark: Benchmark, ranks: Ranks) -> Evaluation:
    """The evaluation that follows from the ranks of all relevant candidates."""
    size = len(benchmark.languages)
    by_language = Rankings.of(ranks.query * size + ranks.language, ranks.in_language)
    pairs = _Rows(by_language.group // size, by_language.group % size, _scores(by_language))
    pool = Rankings.of(ranks.query, ranks.in_pool)
    multi = _Rows(pool.group, np.zeros_like(pool.group), {**_scores(pool), RANK_DISTANCE: rank_distance(pool)})
    codes = benchmark.query_codes
    metrics: dict[str, float] = {}
    for name, scores in pairs.scores.items():
        means = _means(codes[pairs.query], pairs.passage_code, scores, (size, size))
        mono = np.where(np.eye(size, dtype=bool), means, np.nan)
        cross = np.where(np.eye(size, dtype=bool), np.nan, means)
        metrics |= _keys(benchmark, "mono", name, mono) | _keys(benchmark, "cross", name, cross)
    for name, scores in multi.scores.items():
        means = _means(codes[multi.query], multi.passage_code, scores, (size, 1))
        metrics |= _keys(benchmark, "multi", name, means)
    return Evaluation(
        benchmark=benchmark.name,
        candidates_kind=benchmark.candidates_kind,
        languages=benchmark.languages,
        query_counts=benchmark.query_counts(),
        candidate_counts=benchmark.candidate_counts(),
        metrics={key: metrics[key] for key in sorted(metrics, key=_key_order)},
        pair_map=_means(codes[pairs.query], pairs.passage_code, pairs.scores["map"], (size, size)),
        per_query=_table(benchmark, pairs, multi),
    )


def _scores(rankings: Rankings) -> dict[str, Floats]:
    return {name: metric(rankings) for name, metric in METRICS.items()}


def _means(row: Int64s, column: Int64s, values: Floats, shape: tuple[int, int]) -> Floats:
    """Means of `values` by (row, column); NaN where there are none."""
    cell = row * shape[1] + column
    counts = np.bincount(cell, minlength=shape[0] * shape[1])
    sums = np.bincount(cell, weights=values, minlength=shape[0] * shape[1])
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan).reshape(shape)


def _keys(benchmark: Benchmark, setting: str, metric: str, means: Floats) -> dict[str, float]:
    """The macro mean over the cells of `means` [L, languages asked] and over each row; cells of NaN do not count."""
    if np.isnan(means).all():
        return {}
    key = f"{benchmark.name}/{setting}/{metric}"
    keys = {key: float(np.nanmean(means))}
    for language, row in zip(benchmark.languages, means, strict=True):
        if not np.isnan(row).all():
            keys[f"{key}/{language}"] = float(np.nanmean(row))
    return keys


def _key_order(key: str) -> tuple[bool, int]:
    """Macro means before single languages, settings in their order; otherwise as they came."""
    parts = key.split("/")
    return len(parts) > 3, SETTINGS.index(parts[1])


def _table(benchmark: Benchmark, pairs: _Rows, multi: _Rows) -> pa.Table:
    import pyarrow as pa

    languages = np.array(benchmark.languages, object)
    codes = benchmark.query_codes
    mono = codes[pairs.query] == pairs.passage_code
    query = np.concatenate([pairs.query, multi.query])
    setting = np.concatenate([np.where(mono, "mono", "cross"), np.full(len(multi.query), "multi")])
    asked = np.concatenate([languages[pairs.passage_code], np.full(len(multi.query), ALL_LANGUAGES, object)])
    distance = np.concatenate([np.full(len(pairs.query), np.nan), multi.scores[RANK_DISTANCE]])
    columns = {
        "benchmark": pa.array([benchmark.name] * len(query), pa.string()),
        "setting": pa.array(setting, pa.string()),
        "query_language": pa.array(languages[codes[query]], pa.string()),
        "passage_language": pa.array(asked, pa.string()),
        "question_id": pa.array(np.array(benchmark.question_ids, object)[query], pa.string()),
    }
    for name in METRICS:
        columns[name] = pa.array(np.concatenate([pairs.scores[name], multi.scores[name]]))
    columns[RANK_DISTANCE] = pa.array(distance, mask=np.isnan(distance))
    return pa.table(columns)
