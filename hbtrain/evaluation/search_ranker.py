"""Collections whose embeddings are in a store on disk, searched in parts: for exact ranks, or through an index.

From exact ranks follow all scores. An index finds the best of a query, from which follow scores with a cut-off.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.errors import ConfigError, ModelError
from hbtrain.evaluation.collection import Collection
from hbtrain.evaluation.language_share import FIRST_PLACES
from hbtrain.evaluation.ranking import Progress, Ranker, TextEncoder, TopLists
from hbtrain.retrieval.collection import CollectionSearch, SearchOptions, rank_collection, search_collection
from hbtrain.retrieval.encoding import StoredEncoder
from hbtrain.retrieval.merge import NONE
from hbtrain.retrieval.ranks import Search

DEPTH = 100
"""Candidates of a query's list, as recall@100 asks."""


def rankers(
    index: str | None, options: SearchOptions, depth: int = DEPTH, listed: int = 0
) -> Callable[[], Ranker | None]:
    """What makes the ranker of each benchmark; None stands for exact ranks in this process.

    Args:
        index: of FAISS; None is for exact ranks.
        options: how collections are encoded and searched; without an index or actors they do not matter.
        depth: candidates that an index finds.
        listed: the best candidates that are listed beside exact ranks.
    """
    if index is not None:
        return lambda: SearchRanker(replace(options, index=index), depth)
    if options.actors:
        return lambda: SpreadRanker(options, max(listed, FIRST_PLACES))
    return lambda: None


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
