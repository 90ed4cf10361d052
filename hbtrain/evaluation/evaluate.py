"""Evaluate an encoder on a benchmark: embed each text once, rank exactly, average."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from hbtrain.errors import ModelError
from hbtrain.evaluation.pool import Benchmark
from hbtrain.evaluation.summary import Evaluation, summarise
from hbtrain.retrieval.ranks import exact_ranks

__all__ = ["Evaluation", "Progress", "TextEncoder", "evaluate"]

Side = Literal["query", "passage"]
Progress = Callable[[Side, int, int], None]
"""Called with the side that is being encoded, the texts done so far and all of them."""


class TextEncoder(Protocol):
    """What can be evaluated; `hbtrain.modeling.encoder.Encoder` is one."""

    def encode(
        self, texts: Sequence[str], side: Side, batch_size: int = ..., progress: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """Unit vectors [N, D] of the texts; `progress` gets the number of texts done so far."""


def evaluate(
    encoder: TextEncoder,
    benchmark: Benchmark,
    batch_size: int = 128,
    block_rows: int = 128,
    progress: Progress | None = None,
) -> Evaluation:
    """Scores of `encoder` in the monolingual, cross-lingual and multilingual settings, from exact ranks in fp32.

    Args:
        encoder: embeds queries and passages; scores are inner products.
        benchmark: what is asked of which candidates.
        batch_size: texts encoded at one time.
        block_rows: queries scored at one time; memory only, the scores do not depend on it.
        progress: told of the encoding.

    Raises:
        ModelError: an embedding holds NaN or infinity, or the encoder does not give one vector a text.
    """
    q = _embed(encoder, benchmark.query_texts, "query", batch_size, progress)
    p = _embed(encoder, benchmark.candidate_texts, "passage", batch_size, progress)
    return summarise(benchmark, exact_ranks(q, p, benchmark.candidate_codes, benchmark.relevant, block_rows))


def _embed(
    encoder: TextEncoder, texts: Sequence[str], side: Side, batch_size: int, progress: Progress | None
) -> npt.NDArray[np.float32]:
    """[N, D]; a repeated text is encoded once, so that it costs once and its copies tie exactly."""
    places: dict[str, int] = {}
    row = np.array([places.setdefault(text, len(places)) for text in texts], np.int64)
    distinct = list(places)

    def told(done: int) -> None:
        if progress is not None:
            progress(side, done, len(distinct))

    vectors = np.asarray(encoder.encode(distinct, side, batch_size=batch_size, progress=told), np.float32)
    if vectors.ndim != 2 or len(vectors) != len(distinct):
        raise ModelError(
            f"the encoder gave shape {vectors.shape} for {len(distinct)} {side} texts, not one vector each"
        )
    return vectors[row]
