"""Collections too large for exact ranks: embeddings in a store on disk, an index over each part, the best of a query.

Scores with a cut-off follow from the lists; uncut ones are left out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.errors import ConfigError, ModelError
from hbtrain.evaluation.collection import Collection
from hbtrain.evaluation.ranking import Progress, Ranker, TextEncoder, TopLists
from hbtrain.retrieval.collection import CollectionSearch, SearchOptions, search_collection
from hbtrain.retrieval.encoding import StoredEncoder
from hbtrain.retrieval.merge import NONE

DEPTH = 100
"""Candidates of a query's list, as recall@100 asks."""


def rankers(options: SearchOptions | None, depth: int = DEPTH) -> Callable[[], Ranker | None]:
    """What makes the ranker of each benchmark; without options that is None, the exact one."""
    if options is None:
        return lambda: None
    return lambda: SearchRanker(options, depth)


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
        if not isinstance(encoder, StoredEncoder):
            raise ModelError(
                f"an encoder of type {type(encoder).__name__} has no digest, prefixes or dimension, by which a store "
                "knows its model; load it with hbtrain.Encoder"
            )
        depth = min(self._depth, len(collection.candidate_texts))
        search = search_collection(
            encoder,
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
