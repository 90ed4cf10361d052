"""Evaluate an encoder on a benchmark: rank every collection, score every query, average."""

from __future__ import annotations

from collections.abc import Sequence

from hbtrain.evaluation.benchmark import Benchmark
from hbtrain.evaluation.metrics import FIRST_PLACES
from hbtrain.evaluation.rankers import ExactRanker, Progress, Ranker, TextEncoder
from hbtrain.evaluation.runs import RunWriter
from hbtrain.evaluation.scoring import Scored, score
from hbtrain.evaluation.summary import Evaluation, summarise

__all__ = ["Evaluation", "Progress", "TextEncoder", "evaluate"]


def evaluate(
    encoder: TextEncoder,
    benchmark: Benchmark,
    batch_size: int = 128,
    block_rows: int = 128,
    progress: Progress | None = None,
    *,
    ranker: Ranker | None = None,
    trained_languages: Sequence[str] | None = None,
    runs: RunWriter | None = None,
) -> Evaluation:
    """Scores of `encoder` in the settings of `benchmark`; scores of passages are inner products.

    Args:
        encoder: embeds queries and passages.
        benchmark: what is asked of which candidates.
        batch_size: texts encoded at one time.
        block_rows: queries scored at one time; memory only, the scores do not depend on it.
        progress: told of the encoding.
        ranker: searches in place of the exact ranks in fp32, which the arguments above belong to.
        trained_languages: what the model was trained on, if that is known; told apart in tables and means.
        runs: writes what is found, to its own depth; None: nothing is written.

    Raises:
        DataError: a collection cannot be read.
        StorageError: runs cannot be written.
        ModelError: an embedding holds NaN or infinity, or the encoder does not give one vector a text.
    """
    depth = max(FIRST_PLACES, runs.depth if runs else 0)
    ranker = ranker or ExactRanker(batch_size, block_rows, progress, depth)
    scored: list[Scored] = []
    for collection in benchmark.collections():
        ranking = ranker(encoder, collection)
        scored.append(score(benchmark, collection, ranking))
        if runs is not None:
            runs.add(benchmark, collection, ranking)
        del collection, ranking  # before the next one is opened
    return summarise(benchmark, scored, ranker.about, trained_languages)
