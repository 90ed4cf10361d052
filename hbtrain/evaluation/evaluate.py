"""Evaluate an encoder on a benchmark: rank every collection, score every query, average."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from hbtrain.config import EvaluationConfig
from hbtrain.evaluation.benchmark import Benchmark
from hbtrain.evaluation.metrics import FIRST_PLACES
from hbtrain.evaluation.rankers import ExactRanker, Progress, Ranker, TextEncoder, ranker_of, search_options
from hbtrain.evaluation.scoring import CollectionScores, score_collection
from hbtrain.evaluation.summary import Evaluation, summarise
from hbtrain.evaluation.trec_runs import TrecRunWriter
from hbtrain.retrieval.collection_search import SearchOptions
from hbtrain.retrieval.scores import similarity_of

__all__ = ["Evaluation", "Progress", "TextEncoder", "evaluate", "evaluate_all"]


def evaluate_all(
    encoder: TextEncoder,
    benchmarks: Sequence[Benchmark],
    options: EvaluationConfig,
    search: SearchOptions | None = None,
    *,
    trained_languages: Sequence[str] | None = None,
    trec_runs: Path | None = None,
    system: str = "hbtrain",
) -> list[Evaluation]:
    """Scores of `encoder` on several benchmarks, with the options of a recipe or a command.

    Args:
        encoder: embeds queries and passages.
        benchmarks: those of the options, loaded.
        options: how to evaluate.
        search: how collections are searched; None: as `search_options(options)` says.
        trained_languages: the languages that the model was trained on; None: not known.
        trec_runs: folder of TREC run files, `options.run_depth` deep; None: nothing is written.
        system: what the run files call the model.

    Raises:
        ConfigError: an index that does not fit a collection, or a cluster that is too small.
        HbtrainError: as for `evaluate`.
    """
    search = search or search_options(options)
    writer = (
        TrecRunWriter(trec_runs, system, options.run_depth) if trec_runs is not None and options.run_depth else None
    )
    return [
        evaluate(
            encoder,
            benchmark,
            options.batch_size,
            ranker=ranker_of(options, search),
            trained_languages=trained_languages,
            trec_runs=writer,
        )
        for benchmark in benchmarks
    ]


def evaluate(
    encoder: TextEncoder,
    benchmark: Benchmark,
    batch_size: int = 128,
    block_rows: int = 128,
    progress: Progress | None = None,
    *,
    ranker: Ranker | None = None,
    trained_languages: Sequence[str] | None = None,
    trec_runs: TrecRunWriter | None = None,
) -> Evaluation:
    """Scores of `encoder` in the settings of `benchmark`; passages are ranked by the encoder's own similarity.

    Args:
        encoder: embeds queries and passages.
        benchmark: what is asked of which candidates.
        batch_size: texts encoded at one time.
        block_rows: queries scored at one time; memory only, the scores do not depend on it.
        progress: called while texts are encoded.
        ranker: how candidates are ranked; None: exact ranks in fp32, with the three arguments above.
        trained_languages: the languages that the model was trained on, which get means of their own; None: not known.
        trec_runs: writes what is found as TREC run files, to its own depth; None: nothing is written.

    Raises:
        DataError: a collection cannot be read.
        StorageError: run files cannot be written.
        ModelError: an embedding holds NaN or infinity, or the encoder does not give one vector a text.
    """
    depth = max(FIRST_PLACES, trec_runs.depth if trec_runs else 0)
    ranker = ranker or ExactRanker(batch_size, block_rows, progress, depth)
    scored: list[CollectionScores] = []
    for collection in benchmark.collections():
        ranking = ranker(encoder, collection)
        scored.append(score_collection(benchmark, collection, ranking))
        if trec_runs is not None:
            trec_runs.add(benchmark, collection, ranking)
        del collection, ranking  # before the next one is opened
    evaluation = summarise(benchmark, scored, ranker.about, trained_languages)
    return replace(
        evaluation,
        similarity=similarity_of(encoder),
        precision=getattr(encoder, "precision", None),
        model_notes=tuple(getattr(encoder, "notes", ())),
    )
