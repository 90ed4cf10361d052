"""How a collection's queries rank its candidates: the place where searches of other kinds come in.

Shapes: Q queries, K places of a list.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hbtrain.errors import ModelError
from hbtrain.evaluation.collection import Collection, Int64s
from hbtrain.evaluation.language_share import FIRST_PLACES
from hbtrain.retrieval.partial import Blocks
from hbtrain.retrieval.ranks import Search, exact_search
from hbtrain.retrieval.scores import Floats

Side = Literal["query", "passage"]
Progress = Callable[[Side, int, int], None]
"""Called with the side that is being encoded, the texts done so far and all of them."""


class TextEncoder(Protocol):
    """What can be evaluated; `hbtrain.modeling.encoder.Encoder` is one."""

    def encode(
        self, texts: Sequence[str], side: Side, batch_size: int = ..., progress: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """Unit vectors [N, D] of the texts; `progress` gets the number of texts done so far."""


@dataclass(frozen=True)
class TopLists:
    """The best candidates of every query in the pool of all languages, where not all ranks are known."""

    places: Int64s
    """[Q, K] places in the pool, best first, ties in the pool's order; -1 after the last of a shorter list."""
    scores: Floats | None = None
    """[Q, K] for run files; None: not known."""


class Ranker(Protocol):
    """Ranks a collection's candidates for its queries."""

    @property
    def about(self) -> dict[str, Any]:
        """How it searches, for `about.json`: {"search": "exact" or a factory string, "recall": against exact, ...}."""

    def __call__(self, encoder: TextEncoder, collection: Collection) -> Search | TopLists:
        """The ranks of all relevant candidates, from which follow all metrics, or lists, from which follow those with
        a cut-off no deeper than they are."""


@dataclass(frozen=True)
class ExactRanker:
    """Exact ranks in fp32; every text is embedded once and all embeddings are held in memory."""

    batch_size: int = 128
    """Texts encoded at one time."""
    block_rows: int = 128
    """Queries scored at one time; memory only, the ranks do not depend on it."""
    progress: Progress | None = None
    """Told of the encoding."""
    depth: int = FIRST_PLACES
    """How many of the best candidates of every pool are listed."""

    @property
    def about(self) -> dict[str, Any]:
        """Exact."""
        return {"search": "exact"}

    def __call__(self, encoder: TextEncoder, collection: Collection) -> Search:
        """The ranks of all relevant candidates, and the best of every pool.

        Raises:
            ModelError: an embedding holds NaN or infinity, or the encoder does not give one vector a text.
        """
        q = self._embed(encoder, collection.query_texts, "query")
        p = self._embed(encoder, collection.candidate_texts, "passage")
        codes, blocks = collection.candidate_codes, Blocks(self.block_rows)
        return exact_search(q, p, codes, collection.relevant, self.depth, blocks)

    def _embed(self, encoder: TextEncoder, texts: Sequence[str], side: Side) -> npt.NDArray[np.float32]:
        """[N, D]; a repeated text is encoded once, so that it costs once and its copies tie exactly."""
        places: dict[str, int] = {}
        row = np.array([places.setdefault(text, len(places)) for text in texts], np.int64)
        distinct = list(places)

        def told(done: int) -> None:
            if self.progress is not None:
                self.progress(side, done, len(distinct))

        vectors = np.asarray(encoder.encode(distinct, side, batch_size=self.batch_size, progress=told), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(distinct):
            raise ModelError(
                f"the encoder gave shape {vectors.shape} for {len(distinct)} {side} texts, not one vector each"
            )
        return vectors[row]
