"""Search in a collection of any size: its embeddings in a store on disk, each shard of it searched by a worker.

Shapes: N passages, Q queries, D dimensions, K results.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hbtrain.errors import ConfigError, StorageError
from hbtrain.modeling.devices import Device
from hbtrain.modeling.encoder import Encoder, Side, Similarity
from hbtrain.retrieval.counting import Pairs
from hbtrain.retrieval.encoding import Batching, StoredEncoder, block_encoders, cached_embeddings, fill
from hbtrain.retrieval.faiss_index import EXACT, check_factory
from hbtrain.retrieval.manifest import BLOCK_ROWS, ROWS_PER_SHARD, Manifest, StoreType, texts_digest
from hbtrain.retrieval.quantized_search import listed, nearest, quantizer_of, with_quality
from hbtrain.retrieval.quantizing import Quantization, drawn_queries, exactly
from hbtrain.retrieval.ranks import Quality, Search, Vectors, ranks_of
from hbtrain.retrieval.scores import Floats, check_finite, for_inner_products, similarity_of
from hbtrain.retrieval.shard_counts import joined_scores, sum_counts
from hbtrain.retrieval.shards import QuantizedShard, RankShard, ShardIndex, split
from hbtrain.retrieval.store import EmbeddingStore, Mirror, StoreWriter
from hbtrain.retrieval.top import Int64s, Top, merge_top
from hbtrain.retrieval.workers import Factory, LocalWorkers, StartWorkers, Workers
from hbtrain.storage import RemotePath, cache_root

Progress = Callable[[Side, int, int], None]
"""Called with the side that is being encoded, the texts done so far and all of them."""

SAME_SCORE = 1e-5
"""Two inner products that differ by no more than this, or by this share of them where they are more than 1, may be one
score, rounded differently."""


@dataclass(frozen=True)
class SearchOptions:
    """How a collection is encoded and searched.

    `index`, `parameters`, `quantization`, `dtype` and `seed` decide what is found; `batching` and `block_rows` decide
    the last bits of the vectors; nothing else changes the result.
    """

    index: str = EXACT  # an `index_factory` string of FAISS; `Flat` is exact
    parameters: str = ""  # of the index's search, such as `nprobe=16`
    shards: int = 1  # parts with an index each where there are no actors; at most one for each file of the store
    actors: int = 0  # Ray actors that encode, and then hold one shard each; 0: everything is done in this process
    cpus_per_actor: float = 1  # CPUs of an actor; each has a GPU too, or a share of one, where there are any
    dtype: StoreType = "float32"  # type of the stored embeddings; float16 takes half the space, with fewer digits
    batching: Batching = field(default_factory=Batching)  # how texts are batched while they are encoded
    recall_queries: int = 200  # queries on which an index other than `Flat` is compared with exact search
    quantization: Quantization | None = None  # of the candidates, which `Flat` searches or actors rank
    seed: int = 0  # of the random samples on which indices are trained and recall is measured
    rows_per_shard: int = ROWS_PER_SHARD  # rows in a file of the store
    block_rows: int = BLOCK_ROWS  # texts that a worker encodes at one time
    # folder for embeddings that have no `store`, and for those of queries; None is hbtrain's cache
    cache: Path | None = None
    mirror: RemotePath | None = None  # folder in remote storage to which stores are copied, for other machines
    address: str | None = None  # of the actors' Ray cluster; by default `$RAY_ADDRESS`, or one on this machine
    # seconds to wait for nodes where the cluster has too few for the actors; an autoscaler is asked to add them
    wait_s: float = 0.0
    # where this process searches and ranks; where there are actors, they do, each on the device that it has
    devices: tuple[Device, ...] = ("cpu",)

    def __post_init__(self) -> None:
        if self.shards < 1 or self.actors < 0 or self.cpus_per_actor <= 0:
            raise ConfigError(
                f"{self.shards} shards, {self.actors} actors with {self.cpus_per_actor:g} CPUs each: there must be a "
                "shard, 0 or more actors, and a positive number of CPUs"
            )
        if self.quantization is not None and self.index != EXACT:
            raise ConfigError(
                f"--quantize {self.quantization.kind} with --index {self.index}: an index of FAISS has codes of its "
                "own, as IVF4096,SQ8 has bytes; leave out one of the two, or search --index Flat"
            )

    @property
    def parts(self) -> int:
        """The number of shards that are searched, if the store has as many files. What is exact is the same from any
        number of them, and so has one for each device; of an index, each device has a copy."""
        return self.actors or (max(self.shards, len(self.devices)) if self.index == EXACT else self.shards)


@dataclass(frozen=True)
class CollectionSearch:
    """What was found, and how."""

    found: Top  # scores and places [Q, K]
    search: str  # `exact`, or the factory string and the parameters
    recall: float | None  # mean share of a query's K best that the index found; None for exact search
    recall_queries: int  # how many queries it was measured on
    store_type: StoreType  # type of the stored embeddings
    vectors: Vectors
    # where the index was searched: `gpu`, `cpu`, or `cpu, gpu` where shards differ; None for exact search
    device: str | None = None
    device_note: str | None = None  # why it was on the CPU although there is a GPU, or what is different on the GPU
    quality: Quality | None = None  # of quantized vectors


def search_collection(
    encoder: StoredEncoder,
    passages: Sequence[str],
    queries: Sequence[str],
    k: int,
    options: SearchOptions | None = None,
    store: Path | None = None,
    progress: Progress | None = None,
) -> CollectionSearch:
    """The `k` best passages of every query by the encoder's similarity of fp32 vectors; scores are the inner products
    by which they rank.

    Of equal scores the first passage in the pool comes first. Shards, actors, restarts and interruptions do not change
    the result.

    Args:
        encoder: encodes queries and passages where there are no actors.
        passages: read in their order, some thousands at one time; they may lie on disk.
        queries: all in memory.
        k: results of a query, at most the number of passages.
        options: how to encode and search.
        store: folder of the passages' embeddings, on a file system that all actors see; None is a folder in the cache.
            What it has already is not encoded again.
        progress: called while texts are encoded.

    Raises:
        ConfigError: `k` or the index do not fit the collection, or the cluster is too small; before anything is done.
        ModelError: an embedding holds NaN or infinity.
        StorageError: the store holds something else or cannot be written.
        RetrievalError: actors are lost again and again.
    """
    options = options or SearchOptions()
    rows = len(passages)
    if not 1 <= k <= rows:
        raise ConfigError(f"{k} results of a query: must be between 1 and the {rows} passages of the pool")
    similarity = similarity_of(encoder)
    check_index(rows, encoder.dimension, similarity, options)
    with started(options) as start:
        embedded, q_QD = _embed_both(encoder, passages, queries, options, store, start, progress)
        found, recall, devices, quality = _search(embedded, q_QD, k, options, start, similarity)
    measured = 0 if recall is None else min(options.recall_queries, len(queries))
    index = f"{options.index} {options.parameters}".strip()
    search = exactly(options.quantization) if options.index == EXACT else index
    device = ", ".join(sorted({name for name, _ in devices})) or None
    note = next((note for _, note in devices if note), None)
    vectors = Vectors(q_QD, embedded.take, similarity)
    return CollectionSearch(found, search, recall, measured, embedded.manifest.dtype, vectors, device, note, quality)


def check_index(rows: int, dimension: int, similarity: Similarity, options: SearchOptions) -> None:
    """Raise ConfigError if the index of `options` does not fit a collection of so many rows, cut as they say."""
    per_file = options.rows_per_shard
    files = split(-(-rows // per_file), options.parts)
    fewest = min(min(part.stop * per_file, rows) - part.start * per_file for part in files)
    check_factory(options.index, options.parameters, dimension, fewest, similarity, max(map(len, files)))


def rank_collection(
    encoder: StoredEncoder,
    passages: Sequence[str],
    queries: Sequence[str],
    languages: Int64s,
    relevant: Sequence[Int64s],
    depth: int,
    options: SearchOptions,
) -> Search:
    """Exact ranks of all relevant passages and the `depth` best of every pool, spread over shards; see `exact_search`.

    The index of `options` is not used. Shards, actors, restarts and interruptions do not change the result.

    Args:
        encoder: as for `search_collection`; the passages' embeddings go into the cache.
        passages: grouped by language.
        queries: all in memory.
        languages: language codes [N] of the passages.
        relevant: for each query the places of its relevant passages in the pool.
        depth: length of the lists of the best passages.
        options: how to encode.

    Raises:
        ConfigError: the cluster is too small.
        ModelError: an embedding holds NaN or infinity.
        StorageError: the store holds something else or cannot be written.
        RetrievalError: actors are lost again and again.
    """
    with started(options) as start:
        embedded, q_QD = _embed_both(encoder, passages, queries, options, None, start, None)
        similarity = similarity_of(encoder)
        vectors = Vectors(q_QD, embedded.take, similarity)
        quantizer = quantizer_of(embedded, options.quantization)
        asked_QD = for_inner_products(q_QD if quantizer is None else quantizer.queries(q_QD), "query", similarity)
        most = depth if quantizer is None else listed(depth, quantizer.how)
        pairs = Pairs.of(relevant, languages)
        parts = split(len(embedded.manifest.shards), options.parts)
        factories: list[Factory] = [
            partial(RankShard, str(embedded.folder), part, languages, None, similarity, quantizer) for part in parts
        ]
        with start(factories) as workers:
            scores_P = joined_scores(workers.call_all("relevant_scores", asked_QD, pairs))
            counted = sum_counts(workers.call_all("counts", asked_QD, pairs, scores_P, most), most)
            devices = sorted(set(workers.call_all("device")))
            search = Search(ranks_of(pairs, scores_P, counted), counted.top, most, ", ".join(devices), vectors)
            if quantizer is None:
                return search
            drawn = drawn_queries(len(q_QD), options.seed, options.recall_queries)
            return with_quality(workers, embedded, quantizer, search, vectors, depth, drawn)


def embed_collection(
    encoder: StoredEncoder,
    passages: Sequence[str],
    options: SearchOptions,
    store: Path | None = None,
    progress: Progress | None = None,
) -> EmbeddingStore:
    """The store of the passages' embeddings; what it lacks is encoded. For the arguments see `search_collection`."""
    with started(options) as start:
        return _embed_both(encoder, passages, (), options, store, start, progress)[0]


def search_store(
    store: EmbeddingStore, q_QD: Floats, k: int, options: SearchOptions, similarity: Similarity = "cosine"
) -> Found:
    """The `k` best rows of a store for each query vector, with the inner products by which they rank (see
    `for_inner_products`).

    Raises:
        ModelError: a query holds NaN or infinity.
    """
    check_finite("query", q_QD)
    with started(options) as start:
        return _search(store, q_QD, k, options, start, similarity)


def _embed_both(
    encoder: StoredEncoder,
    passages: Sequence[str],
    queries: Sequence[str],
    options: SearchOptions,
    store: Path | None,
    start: StartWorkers,
    progress: Progress | None,
) -> tuple[EmbeddingStore, Floats]:
    """The store of the passages' embeddings, and those of the queries [Q, D]; the same workers encode both."""
    settle_precision(encoder, options, start)
    digest, cache = encoder.digest(), options.cache or cache_root(None)
    told = None if progress is None else partial(progress, "query")
    most = sum(-(-len(texts) // options.block_rows) for texts in (passages, queries))
    with encoders(encoder, digest, options, start, most) as workers:
        embedded = embed(encoder, digest, passages, "passage", options, workers, store, progress)
        if not len(queries):
            return embedded, np.zeros((0, encoder.dimension), np.float32)
        spread = workers if options.actors or len(options.devices) > 1 else None
        q_QD = cached_embeddings(encoder, digest, queries, "query", cache, options.batching, spread, told)
    if told is not None:
        told(len(queries), len(queries))
    return embedded, q_QD


def settle_precision(encoder: StoredEncoder, options: SearchOptions, start: StartWorkers) -> None:
    """Where actors encode and nobody chose a precision, let it be that of their devices, before the digest is taken."""
    if not options.actors or not isinstance(encoder, Encoder):
        return
    if encoder.origin is not None and encoder.origin.precision is None:
        from hbtrain.retrieval.actors import precision_of_actors

        encoder.compute_in(precision_of_actors(start))


@contextmanager
def encoders(
    encoder: StoredEncoder, digest: str, options: SearchOptions, start: StartWorkers, most: int
) -> Iterator[Callable[[], Workers]]:
    """Gives the workers that encode, `most` at most, which start when they are first asked for."""
    with ExitStack() as stack:

        @functools.cache
        def workers() -> Workers:
            factories = block_encoders(encoder, digest, options.batching, min(options.actors, most))
            return stack.enter_context(start(factories))

        yield workers


def embed(
    encoder: StoredEncoder,
    digest: str,
    texts: Sequence[str],
    side: Side,
    options: SearchOptions,
    workers: Callable[[], Workers],
    store: Path | None = None,
    progress: Progress | None = None,
) -> EmbeddingStore:
    """The store of the embeddings of texts, at least one; what it lacks is encoded by `workers`, see `encoders`."""
    manifest = Manifest(
        model=digest,
        side=side,
        prompt=encoder.prefixes[side],
        texts=texts_digest(texts),
        rows=len(texts),
        dimension=encoder.dimension,
        dtype=options.dtype,
        rows_per_shard=options.rows_per_shard,
        block_rows=options.block_rows,
    )
    folder = (store or (options.cache or cache_root(None)) / "embeddings" / manifest.name()).absolute()

    mirror = None if options.mirror is None else Mirror(folder, options.mirror / manifest.name(), manifest)
    if mirror is not None:
        mirror.fetch()

    def report(done: int, total: int) -> None:
        if mirror is not None:
            mirror.push()
        if progress is not None:
            progress(side, done, total)

    try:
        found = EmbeddingStore(folder, manifest)
    except StorageError:  # absent, unfinished or of other content; the writer tells which, and whether it can go on
        with StoreWriter(folder, manifest) as writer:
            if writer.missing:
                fill(writer, texts, workers(), report)
        found = EmbeddingStore(folder, manifest)
    if mirror is not None:
        mirror.push()
    return found


class Found(NamedTuple):
    """What was found in a store."""

    top: Top
    recall: float | None = None  # of the index; None for exact search
    devices: Sequence[tuple[str, str | None]] = ()  # (device, note) of each shard's index
    quality: Quality | None = None  # of quantized vectors


def _search(
    store: EmbeddingStore, q_QD: Floats, k: int, options: SearchOptions, start: StartWorkers, similarity: Similarity
) -> Found:
    if not len(q_QD):
        return Found(Top(np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)))
    quantizer = quantizer_of(store, options.quantization)
    parts = split(len(store.manifest.shards), options.parts)
    copies = options.devices[1:] if len(parts) == 1 and not options.actors else ()
    how = options.index, options.parameters, options.seed, similarity
    folder = str(store.folder)
    factories: list[Factory] = [
        partial(ShardIndex, folder, part, *how, copies=copies)
        if quantizer is None
        else partial(QuantizedShard, folder, part, quantizer, similarity)
        for part in parts
    ]
    drawn = drawn_queries(len(q_QD), options.seed, options.recall_queries)
    with start(factories) as workers:
        if quantizer is not None:
            top, quality = nearest(workers, store, quantizer, q_QD, k, drawn)
            return Found(top, quality=quality)
        found = merge_top(workers.call_all("nearest", q_QD, k), k)
        if options.index == EXACT:
            return Found(found)
        devices = workers.call_all("device")
        exact = merge_top(workers.call_all("exact", q_QD[drawn], k), k)
    return Found(found, recall_of(Top(found.scores[drawn], found.places[drawn]), exact), devices)


def recall_of(found: Top, exact: Top) -> float:
    """Mean share of each query's K best candidates that were found; equals of the K-th best count as well."""
    last_Q1 = exact.scores[:, -1:]
    good = found.scores >= last_Q1 - SAME_SCORE * np.maximum(np.abs(last_Q1), 1)
    return float(np.mean(good)) if good.size else 1.0


@contextmanager
def started(options: SearchOptions) -> Iterator[StartWorkers]:
    """A session in which workers can be started: Ray's, or this process where there are no actors."""
    if not options.actors:
        yield partial(LocalWorkers, devices=options.devices)
        return
    from hbtrain.cluster.capacity import Demand
    from hbtrain.retrieval.actors import actor_session

    demand = Demand(
        asked=f"--actors (evaluation.actors) {options.actors}",
        count=options.actors,
        cpus=options.cpus_per_actor,
        wait_s=options.wait_s,
        wait_option="--wait-s (resources.wait_s)",
    )
    with actor_session(demand, options.address) as start:
        yield start
