"""Collections whose embeddings are in a store on disk, searched in parts: for exact ranks, or through an index.

From exact ranks follow all scores. An index finds the best of a query, from which follow scores with a cut-off.

How a collection's queries rank its candidates: the place where searches of other kinds come in.

Shapes: Q queries, K places of a list.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hbtrain.config import EvaluationConfig
from hbtrain.config.schema import FLAGS, called
from hbtrain.errors import ConfigError, ModelError
from hbtrain.evaluation.benchmark import Collection, Int64s
from hbtrain.evaluation.metrics import FIRST_PLACES
from hbtrain.retrieval.collection_search import CollectionSearch, SearchOptions, rank_collection, search_collection
from hbtrain.retrieval.encoding import Batching, StoredEncoder
from hbtrain.retrieval.faiss_index import EXACT, check_factory
from hbtrain.retrieval.manifest import StoreType
from hbtrain.retrieval.ranks import Search, exact_search
from hbtrain.retrieval.scores import Floats
from hbtrain.retrieval.shard_counts import Blocks
from hbtrain.retrieval.top import NONE
from hbtrain.storage import RemotePath, check_writable

ANY_DIMENSION = 1536
"""Of embeddings, to see whether FAISS knows an index before the encoder is there; a multiple of most codes' parts."""

DEPTH = 100
"""Candidates of a query's list, as recall@100 asks."""


def check_search(options: EvaluationConfig, flags: bool = False) -> None:
    """See that FAISS knows the index, and that remote storage takes the embeddings; before any model is loaded.

    Args:
        options: of the evaluation.
        flags: messages name the flags of a command instead of the keys of a recipe.

    Raises:
        ConfigError: FAISS does not know the index, or its search not the parameters.
        StorageError: the place of embeddings cannot be written.
    """
    if options.index is not None:
        check_factory(options.index, options.index_parameters, ANY_DIMENSION, sys.maxsize)
    if options.embeddings is not None:
        check_writable(RemotePath.parse(options.embeddings), called("embeddings", FLAGS if flags else None))


def search_options(
    options: EvaluationConfig,
    dtype: StoreType = "float32",
    *,
    cpus_per_actor: float = 1,
    address: str | None = None,
    wait_s: float = 0.0,
    cache: str | None = None,
) -> SearchOptions:
    """How the collections of an evaluation are encoded and searched.

    Args:
        options: of the evaluation.
        dtype: of the embeddings on disk.
        cpus_per_actor: CPUs of each of its actors.
        address: of the actors' Ray cluster; by default `$RAY_ADDRESS`, or one on this machine.
        wait_s: seconds to wait for nodes where the cluster has too few for the actors.
        cache: folder of embeddings; None is hbtrain's cache.
    """
    return SearchOptions(
        index=options.index or EXACT,
        parameters=options.index_parameters,
        actors=options.actors,
        cpus_per_actor=cpus_per_actor,
        dtype=dtype,
        batching=Batching(batch_size=options.batch_size),
        cache=None if cache is None else Path(cache),
        mirror=None if options.embeddings is None else RemotePath.parse(options.embeddings),
        address=address,
        wait_s=wait_s,
    )


def ranker_of(options: EvaluationConfig, search: SearchOptions) -> Ranker | None:
    """A new ranker, for one benchmark; None stands for exact ranks in this process.

    Args:
        options: of the evaluation.
        search: the `search_options` of it.
    """
    if options.index is not None:
        return SearchRanker(search, options.depth)
    return SpreadRanker(search, max(options.run_depth, FIRST_PLACES)) if options.actors else None


@dataclass(frozen=True)
class SpreadRanker:
    """Exact ranks by `rank_collection`, spread over actors."""

    options: SearchOptions
    depth: int = FIRST_PLACES
    """How many of the best candidates of every pool are listed."""

    @property
    def about(self) -> dict[str, Any]:
        """Exact, and of which embeddings."""
        return {"search": "exact", "embeddings": self.options.dtype}

    def __call__(self, encoder: TextEncoder, collection: Collection) -> Search:
        """The ranks of all relevant candidates; see `rank_collection` for errors."""
        return rank_collection(
            _stored(encoder),
            collection.candidate_texts,
            collection.query_texts,
            collection.candidate_codes,
            collection.relevant,
            self.depth,
            self.options,
        )


class SearchRanker:
    """Ranks by `search_collection`; of one benchmark, so that `about` speaks of that."""

    def __init__(
        self,
        options: SearchOptions,
        depth: int = DEPTH,
        folder: Callable[[str], Path | None] = lambda name: None,
        progress: Progress | None = None,
    ) -> None:
        """Args:
        options: how collections are encoded and searched.
        depth: the candidates of a list; all of a collection that has fewer.
        folder: of the store for a collection's name; None is one in the cache.
        progress: told of the encoding.

        Raises:
            ConfigError: the depth is not positive.
        """
        if depth < 1:
            raise ConfigError(f"lists of {depth} candidates: must be 1 or more")
        self._options = options
        self._depth = depth
        self._folder = folder
        self._progress = progress
        self._searches: dict[str, CollectionSearch] = {}

    @property
    def about(self) -> dict[str, Any]:
        """How it searched, with the recall of every collection where the index is not exact."""
        recalls = {name: search.recall for name, search in self._searches.items() if search.recall is not None}
        options = self._options
        return {
            "search": next((search.search for search in self._searches.values()), options.index),
            "depth": self._depth,
            "embeddings": options.dtype,
            "recall": float(np.mean(list(recalls.values()))) if recalls else None,
            "recall_of_collections": recalls,
            "recall_queries": {name: self._searches[name].recall_queries for name in recalls},
        }

    def __call__(self, encoder: TextEncoder, collection: Collection) -> TopLists:
        """The best candidates of every query.

        Raises:
            ConfigError: the index does not fit the collection.
            ModelError: the encoder cannot say what it is, or its vectors are no numbers.
            StorageError: the store cannot be written.
        """
        depth = min(self._depth, len(collection.candidate_texts))
        search = search_collection(
            _stored(encoder),
            collection.candidate_texts,
            collection.query_texts,
            depth,
            self._options,
            self._folder(collection.name),
            self._progress,
        )
        self._searches[collection.name] = search
        # A pool that is listed whole is known as deep as is asked.
        padding = ((0, 0), (0, self._depth - depth))
        scores, places = search.found
        return TopLists(np.pad(places, padding, constant_values=NONE), np.pad(scores, padding, constant_values=-np.inf))


def _stored(encoder: TextEncoder) -> StoredEncoder:
    if not isinstance(encoder, StoredEncoder):
        raise ModelError(
            f"an encoder of type {type(encoder).__name__} has no digest, prefixes or dimension, by which a store knows "
            "its model; load it with hbtrain.Encoder"
        )
    return encoder


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
