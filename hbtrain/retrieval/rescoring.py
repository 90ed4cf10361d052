"""Scores by a model that reads a query and a passage together: what mined candidates are scored anew with.

Shapes: B queries, n pairs of a query and a text, K candidates, D dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from hbtrain.corpus import Source
from hbtrain.corpus.conflicts import Int64s
from hbtrain.errors import ModelError
from hbtrain.modeling.devices import Device
from hbtrain.retrieval.identities import PassagePool
from hbtrain.retrieval.pool_embeddings import LanguagePart, PoolPart, Ways
from hbtrain.retrieval.scores import Floats
from hbtrain.retrieval.workers import Workers

TASK_PAIRS = 2048  # pairs that a worker scores at one time


@runtime_checkable
class PairScorer(Protocol):
    """A model that scores pairs, such as `hbtrain.modeling.cross_encoder.CrossScorer`."""

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> Floats:
        """float32 [n], a score for each query and the passage beside it."""

    def loader(self, anew: bool) -> Callable[[Device], PairScorer]:
        """Gives this model; or `anew`, for workers with a device each, loads it on theirs, and can be pickled."""


class MiningWorker(PoolPart):
    """The object of a worker that mines: it searches its part of a pool, and scores pairs where there is a `load`."""

    def __init__(
        self,
        parts: Sequence[LanguagePart],
        ways: Ways,
        load: Callable[[Device], PairScorer] | None = None,
        device: Device = "cpu",
    ) -> None:
        super().__init__(parts, ways, device)
        self._load, self._device = load, device
        self._scorer: PairScorer | None = None

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> Floats:
        """See `PairScorer`; the model is loaded at the first call."""
        if self._scorer is None and self._load is not None:
            self._scorer = self._load(self._device)
        if self._scorer is None:
            raise ValueError("this worker has no model that scores pairs")
        return self._scorer.score(queries, passages)


class PairScores:
    """Scores of rows' queries and texts of a pool, computed by workers."""

    def __init__(self, pool: PassagePool, sources: Sequence[Source], workers: Workers) -> None:
        """The objects of `workers` are `MiningWorker`s."""
        self._pool, self._sources, self._workers = pool, sources, workers

    def score(self, source: int, code: int, rows: Int64s, texts: Int64s) -> Floats:
        """float32 [n]: the score of the query of each row in the language and each text of the pool.

        Raises:
            ModelError: a score is NaN or infinity.
        """
        found = np.empty(len(rows), np.float32)
        tasks = range(0, len(rows), TASK_PAIRS)

        def pairs() -> Iterator[tuple[list[str], list[str]]]:
            for start in tasks:
                at = slice(start, start + TASK_PAIRS)
                asked, query_n = np.unique(rows[at], return_inverse=True)
                read, text_n = np.unique(texts[at], return_inverse=True)
                queries = self._sources[source].texts("query", asked, [self._pool.languages[code]] * len(asked))
                passages = self._pool.texts(read)
                yield [queries[i] for i in query_n.tolist()], [passages[i] for i in text_n.tolist()]

        for number, scores_n in self._workers.map_unordered("score", pairs()):
            found[tasks[number] : tasks[number] + len(scores_n)] = scores_n
        if broken := int(np.count_nonzero(~np.isfinite(found))):
            raise ModelError(
                f"--rescore: {broken} of {len(found)} scores are NaN or infinity; use another model, or --precision "
                "fp32"
            )
        return found
