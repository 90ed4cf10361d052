"""Rankers: how the candidates of a collection are ranked for its queries.

`ExactRanker` and `SpreadRanker` (over actors) give exact ranks, from which all metrics follow. `SearchRanker` lists the
best candidates that an index finds, from which metrics with a cut-off follow.

Shapes: Q queries, K entries of a list.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from hbtrain.config import EvaluationConfig
from hbtrain.config.schema import FLAGS, called
from hbtrain.errors import ConfigError, ModelError
from hbtrain.evaluation.benchmark import Collection, Int64s
from hbtrain.evaluation.metrics import FIRST_PLACES
from hbtrain.evaluation.own_documents import deep_enough, top_without_own, with_own, without_own
from hbtrain.modeling.devices import Device
from hbtrain.retrieval.collection_search import CollectionSearch, SearchOptions, rank_collection, search_collection
from hbtrain.retrieval.encoding import Batching, StoredEncoder
from hbtrain.retrieval.faiss_index import EXACT, check_factory
from hbtrain.retrieval.manifest import StoreType
from hbtrain.retrieval.quantized_search import quantized_search
from hbtrain.retrieval.quantizing import Quantization, about_quantized, exactly
from hbtrain.retrieval.ranks import Quality, Search, Vectors, exact_search
from hbtrain.retrieval.scores import Floats, for_inner_products, similarity_of
from hbtrain.retrieval.shard_counts import Blocks
from hbtrain.retrieval.top import NONE
from hbtrain.storage import RemotePath, check_writable

ANY_DIMENSION = 1536
"""Dimension with which an index is checked before the model is loaded; most product quantizers divide it."""

DEPTH = 100  # candidates in the list of a query: recall@100 needs so many


def check_search(options: EvaluationConfig, flags: bool = False) -> None:
    """Check that FAISS knows the index and that remote storage can be written, before any model is loaded.

    Args:
        options: how to evaluate.
        flags: whether messages name the flags of a command instead of the keys of a recipe.

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
    quantization: Quantization | None = None,
    devices: tuple[Device, ...] = ("cpu",),
) -> SearchOptions:
    """How the collections of an evaluation are encoded and searched.

    Args:
        options: how to evaluate.
        dtype: type of the stored embeddings.
        cpus_per_actor: CPUs of each actor.
        address: of the actors' Ray cluster; by default `$RAY_ADDRESS`, or one on this machine.
        wait_s: seconds to wait for nodes where the cluster has too few for the actors.
        cache: folder for embeddings; None is hbtrain's cache.
        quantization: of the candidates' vectors; None: they are ranked as they are.
        devices: where this process searches and ranks, without actors.
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
        quantization=quantization,
        devices=devices,
    )


def ranker_of(options: EvaluationConfig, search: SearchOptions, depth: int = FIRST_PLACES) -> Ranker:
    """A new ranker for one benchmark. Its lists have `depth` candidates at least; those of an index as many as the
    options say."""
    if options.index is not None:
        return SearchRanker(search, options.depth)
    if options.actors:
        return SpreadRanker(search, max(options.run_depth, depth))
    gpus = tuple(device for device in search.devices if device != "cpu")
    return ExactRanker(options.batch_size, depth=depth, gpus=gpus, quantization=search.quantization)


@dataclass(frozen=True)
class SpreadRanker:
    """Exact ranks, computed by actors: `rank_collection`, whose errors it raises."""

    options: SearchOptions  # how texts are encoded
    depth: int = FIRST_PLACES  # length of the lists of the best candidates
    _devices: set[str] = field(default_factory=set, repr=False, compare=False)  # of the actors: `gpu`, `cpu`
    _qualities: dict[str, Quality] = field(default_factory=dict, repr=False, compare=False)  # of each collection

    @property
    def about(self) -> dict[str, Any]:
        on_gpus = {"device": ", ".join(sorted(self._devices))} if "gpu" in self._devices else {}
        return _about(self.options.quantization, self._qualities) | {"embeddings": self.options.dtype} | on_gpus

    def __call__(self, encoder: TextEncoder, collection: Collection) -> Search:
        found = rank_collection(
            _stored(encoder),
            collection.candidate_texts,
            collection.query_texts,
            collection.candidate_codes,
            with_own(collection),
            deep_enough(collection, self.depth),
            self.options,
        )
        self._devices.update(found.device.split(", "))
        if found.quality is not None:
            self._qualities[collection.name] = found.quality
        return without_own(collection, found, self.depth)


class SearchRanker:
    """Lists of the best candidates from `search_collection`; one ranker for one benchmark."""

    def __init__(
        self,
        options: SearchOptions,
        depth: int = DEPTH,
        folder: Callable[[str], Path | None] = lambda name: None,
        progress: Progress | None = None,
    ) -> None:
        """Args:
        options: how collections are encoded and searched.
        depth: length of the lists; a collection with fewer candidates is listed whole.
        folder: gives the store's folder for a collection's name; None is a folder in the cache.
        progress: called while texts are encoded.

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
        devices = sorted({search.device for search in self._searches.values() if search.device is not None})
        qualities = {name: search.quality for name, search in self._searches.items() if search.quality is not None}
        return _about(options.quantization, qualities) | {
            "search": next((search.search for search in self._searches.values()), options.index),
            "device": ", ".join(devices) or None,
            "device_note": next((s.device_note for s in self._searches.values() if s.device_note is not None), None),
            "depth": self._depth,
            "embeddings": options.dtype,
            "recall": float(np.mean(list(recalls.values()))) if recalls else None,
            "recall_of_collections": recalls,
            "recall_queries": {name: self._searches[name].recall_queries for name in recalls},
        }

    def __call__(self, encoder: TextEncoder, collection: Collection) -> TopLists:
        depth = min(deep_enough(collection, self._depth), len(collection.candidate_texts))
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
        # A pool that is listed whole is known to any depth.
        scores, places = top_without_own(collection, search.found, self._depth)
        padding = ((0, 0), (0, self._depth - places.shape[1]))
        return TopLists(
            np.pad(places, padding, constant_values=NONE),
            np.pad(scores, padding, constant_values=-np.inf),
            search.vectors,
        )


def _about(quantization: Quantization | None, qualities: dict[str, Quality]) -> dict[str, Any]:
    """The search of exact ranks, and what is known of quantized vectors."""
    quantized = {} if quantization is None else {"quantized": about_quantized(quantization, qualities)}
    return {"search": exactly(quantization)} | quantized


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
    """An encoder that can be evaluated, such as `hbtrain.modeling.encoder.Encoder`."""

    def encode(
        self, texts: Sequence[str], side: Side, batch_size: int = ..., progress: Callable[[int], None] | None = None
    ) -> npt.NDArray[np.float32]:
        """Unit vectors [N, D] of the texts; `progress` gets the number of texts done so far."""


@dataclass(frozen=True)
class TopLists:
    """The best candidates of every query in the pool of all languages, where not all ranks are known."""

    places: Int64s  # [Q, K] places in the pool, best first, ties in the pool's order; -1 fills up a short list
    scores: Floats | None = None  # [Q, K], for run files; None: not known
    vectors: Vectors | None = None  # None: they are not known


class Ranker(Protocol):
    """Ranks a collection's candidates for its queries."""

    @property
    def about(self) -> dict[str, Any]:
        """How it searched, for `about.json`: {"search": "exact" or a factory string, "recall": of an index, ...}."""

    def __call__(self, encoder: TextEncoder, collection: Collection) -> Search | TopLists:
        """The ranks of all relevant candidates, or lists of the best candidates.

        Raises:
            ConfigError: the index does not fit the collection.
            ModelError: the vectors are not finite, or not one for each text.
            StorageError: the store cannot be written.
        """


@dataclass(frozen=True)
class ExactRanker:
    """Exact ranks, with all embeddings in memory; equal texts are encoded once."""

    batch_size: int | None = None  # the most texts encoded at one time; None is the encoder's default
    block_rows: int = 128  # queries scored at one time; the ranks do not depend on it
    progress: Progress | None = None  # called while texts are encoded
    depth: int = FIRST_PLACES  # length of the lists of the best candidates
    gpus: tuple[Device, ...] = ()  # that compute the ranks, by the rule of `device_counts`; none: the CPU
    quantization: Quantization | None = None  # of the candidates
    _qualities: dict[str, Quality] = field(default_factory=dict, repr=False, compare=False)  # of each collection

    @property
    def about(self) -> dict[str, Any]:
        return _about(self.quantization, self._qualities) | ({"device": "gpu"} if self.gpus else {})

    def __call__(self, encoder: TextEncoder, collection: Collection) -> Search:
        q, p = self.embed(encoder, collection)
        similarity = similarity_of(encoder)
        exact = partial(exact_search, blocks=Blocks(self.block_rows), gpus=self.gpus)
        what = collection.candidate_codes, with_own(collection), deep_enough(collection, self.depth)
        if self.quantization is not None:
            found = quantized_search(exact, q, p, *what, self.quantization, similarity)
            if found.quality is not None:
                self._qualities[collection.name] = found.quality
        else:
            vectors = Vectors(q, p.__getitem__, similarity)
            q, p = for_inner_products(q, "query", similarity), for_inner_products(p, "passage", similarity)
            found = exact(q, p, *what)._replace(vectors=vectors)
        return without_own(collection, found, self.depth)

    def embed(self, encoder: TextEncoder, collection: Collection) -> tuple[Floats, Floats]:
        """Vectors of the queries [Q, D] and of the candidates [N, D]."""
        return (
            self._embed(encoder, collection.query_texts, "query"),
            self._embed(encoder, collection.candidate_texts, "passage"),
        )

    def _embed(self, encoder: TextEncoder, texts: Sequence[str], side: Side) -> npt.NDArray[np.float32]:
        """Vectors [N, D]; equal texts are encoded once, which saves time and makes their scores exactly equal."""
        places: dict[str, int] = {}
        row = np.array([places.setdefault(text, len(places)) for text in texts], np.int64)
        distinct = list(places)

        def report(done: int) -> None:
            if self.progress is not None:
                self.progress(side, done, len(distinct))

        given = {} if self.batch_size is None else {"batch_size": self.batch_size}
        vectors = np.asarray(encoder.encode(distinct, side, progress=report, **given), np.float32)
        if vectors.ndim != 2 or len(vectors) != len(distinct):
            raise ModelError(
                f"the encoder gave shape {vectors.shape} for {len(distinct)} {side} texts, not one vector each"
            )
        return vectors[row]
