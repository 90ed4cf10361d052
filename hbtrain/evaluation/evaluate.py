"""Evaluate an encoder on a benchmark: rank every collection, score every query, average."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from hbtrain.config import EvaluationConfig
from hbtrain.evaluation.benchmark import Benchmark, Collection
from hbtrain.evaluation.metrics import FIRST_PLACES
from hbtrain.evaluation.rankers import (
    ExactRanker,
    Progress,
    Ranker,
    TextEncoder,
    TopLists,
    ranker_of,
    search_options,
)
from hbtrain.evaluation.scoring import CollectionScores, score_collection
from hbtrain.evaluation.summary import Evaluation, summarise
from hbtrain.evaluation.trec_runs import TrecRunWriter
from hbtrain.retrieval.collection_search import SearchOptions
from hbtrain.retrieval.ranks import Search
from hbtrain.retrieval.scores import similarity_of

__all__ = ["Evaluation", "ListTaker", "Progress", "TextEncoder", "evaluate", "evaluate_all"]


class ListTaker(Protocol):
    """Takes the lists of the best candidates that are found, to write them down or to score them in another way."""

    def depth_for(self, benchmark: Benchmark) -> int:
        """The length of the lists that it needs."""

    def add(self, benchmark: Benchmark, collection: Collection, ranking: Search | TopLists) -> None:
        """Take what was found in a collection."""


def evaluate_all(
    encoder: TextEncoder,
    benchmarks: Sequence[Benchmark],
    options: EvaluationConfig,
    search: SearchOptions | None = None,
    *,
    trained_languages: Sequence[str] | None = None,
    trec_runs: Path | None = None,
    system: str = "hbtrain",
    takers: Sequence[ListTaker] = (),
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
        takers: take the lists of the best candidates too.

    Raises:
        ConfigError: an index that does not fit a collection, or a cluster that is too small.
        HbtrainError: as for `evaluate`.
    """
    search = search or search_options(options)
    if trec_runs is not None and options.run_depth:
        takers = [TrecRunWriter(trec_runs, system, options.run_depth), *takers]
    return [
        evaluate(
            encoder,
            benchmark,
            options.batch_size,
            ranker=ranker_of(options, search, _depth(benchmark, takers)),
            trained_languages=trained_languages,
            takers=takers,
        )
        for benchmark in benchmarks
    ]


def _depth(benchmark: Benchmark, takers: Sequence[ListTaker]) -> int:
    return max([FIRST_PLACES, *(taker.depth_for(benchmark) for taker in takers)])


def evaluate(
    encoder: TextEncoder,
    benchmark: Benchmark,
    batch_size: int | None = None,
    block_rows: int = 128,
    progress: Progress | None = None,
    *,
    ranker: Ranker | None = None,
    trained_languages: Sequence[str] | None = None,
    takers: Sequence[ListTaker] = (),
) -> Evaluation:
    """Scores of `encoder` in the settings of `benchmark`; passages are ranked by the encoder's own similarity.

    Args:
        encoder: embeds queries and passages.
        benchmark: what is asked of which candidates.
        batch_size: the most texts encoded at one time; None is the encoder's default.
        block_rows: queries scored at one time; memory only, the scores do not depend on it.
        progress: called while texts are encoded.
        ranker: how candidates are ranked; None: exact ranks in fp32, with the three arguments above.
        trained_languages: the languages that the model was trained on, which get means of their own; None: not known.
        takers: take the lists of the best candidates, such as a `TrecRunWriter`.

    Raises:
        DataError: a collection cannot be read.
        StorageError: run files cannot be written.
        ModelError: an embedding holds NaN or infinity, or the encoder does not give one vector a text.
    """
    begun = time.monotonic()
    ranker = ranker or ExactRanker(batch_size, block_rows, progress, _depth(benchmark, takers))
    scored: list[CollectionScores] = []
    for collection in benchmark.collections():
        ranking = ranker(encoder, collection)
        scored.append(score_collection(benchmark, collection, ranking))
        for taker in takers:
            taker.add(benchmark, collection, ranking)
        del collection, ranking  # before the next one is opened
    evaluation = summarise(benchmark, scored, ranker.about, trained_languages)
    return replace(
        evaluation,
        similarity=similarity_of(encoder),
        precision=getattr(encoder, "precision", None),
        model_notes=tuple(getattr(encoder, "notes", ())),
        seconds=time.monotonic() - begun,
    )
