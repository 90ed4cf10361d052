"""Search in a collection of any size: its embeddings in a store on disk, each shard of it searched by a worker.

`PassageIndex` searches the passages of a parallel corpus: it answers a question in any language with passages in all.

Shapes: N passages, Q queries, D dimensions, K results.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError, StorageError
from hbtrain.modeling.devices import Device
from hbtrain.modeling.encoder import Encoder, Side, Similarity
from hbtrain.retrieval.counting import Pairs
from hbtrain.retrieval.encoding import Batching, StoredEncoder, block_encoders, cached_embeddings, fill
from hbtrain.retrieval.faiss_index import EXACT, check_factory
from hbtrain.retrieval.manifest import BLOCK_ROWS, ROWS_PER_SHARD, Manifest, StoreType, texts_digest
from hbtrain.retrieval.ranks import Search, ranks_of
from hbtrain.retrieval.scores import Floats, check_finite, for_inner_products, similarities, similarity_of
from hbtrain.retrieval.shard_counts import joined_scores, sum_counts
from hbtrain.retrieval.shards import RankShard, ShardIndex, split
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

    `index`, `parameters`, `dtype` and `seed` decide what is found; `batching` and `block_rows` decide the last bits of
    the vectors; nothing else changes the result.
    """

    index: str = EXACT  # an `index_factory` string of FAISS; `Flat` is exact
    parameters: str = ""  # of the index's search, such as `nprobe=16`
    shards: int = 1  # parts with an index each where there are no actors; at most one for each file of the store
    actors: int = 0  # Ray actors that encode, and then hold one shard each; 0: everything is done in this process
    cpus_per_actor: float = 1  # CPUs of an actor; each has a GPU too, or a share of one, where there are any
    dtype: StoreType = "float32"  # type of the stored embeddings; float16 takes half the space, with fewer digits
    batching: Batching = field(default_factory=Batching)  # how texts are batched while they are encoded
    recall_queries: int = 200  # queries on which an index other than `Flat` is compared with exact search
    seed: int = 0  # of the random samples on which indices are trained and recall is measured
    rows_per_shard: int = ROWS_PER_SHARD  # rows in a file of the store
    block_rows: int = BLOCK_ROWS  # texts that a worker encodes at one time
    # folder for embeddings that have no `store`, and for those of queries; None is hbtrain's cache
    cache: Path | None = None
    mirror: RemotePath | None = None  # folder in remote storage to which stores are copied, for other machines
    address: str | None = None  # of the actors' Ray cluster; by default `$RAY_ADDRESS`, or one on this machine
    # seconds to wait for nodes where the cluster has too few for the actors; an autoscaler is asked to add them
    wait_s: float = 0.0
    # where this process searches; where there are actors, they do, each on the device that it has
    device: Device = "cpu"

    def __post_init__(self) -> None:
        if self.shards < 1 or self.actors < 0 or self.cpus_per_actor <= 0:
            raise ConfigError(
                f"{self.shards} shards, {self.actors} actors with {self.cpus_per_actor:g} CPUs each: there must be a "
                "shard, 0 or more actors, and a positive number of CPUs"
            )

    @property
    def parts(self) -> int:
        """The number of shards that are searched, if the store has as many files."""
        return self.actors or self.shards


@dataclass(frozen=True)
class CollectionSearch:
    """What was found, and how."""

    found: Top  # scores and places [Q, K]
    search: str  # `exact`, or the factory string and the parameters
    recall: float | None  # mean share of a query's K best that the index found; None for exact search
    recall_queries: int  # how many queries it was measured on
    store_type: StoreType  # type of the stored embeddings
    # where the index was searched: `gpu`, `cpu`, or `cpu, gpu` where shards differ; None for exact search
    device: str | None = None
    device_note: str | None = None  # why it was on the CPU although there is a GPU, or what is different on the GPU


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
    rows, per_file = len(passages), options.rows_per_shard
    if not 1 <= k <= rows:
        raise ConfigError(f"{k} results of a query: must be between 1 and the {rows} passages of the pool")
    files = split(-(-rows // per_file), options.parts)
    fewest = min(min(part.stop * per_file, rows) - part.start * per_file for part in files)
    similarity = similarity_of(encoder)
    check_factory(options.index, options.parameters, encoder.dimension, fewest, similarity, max(map(len, files)))
    with _started(options, encoder) as start:
        embedded, q_QD = _embed_both(encoder, passages, queries, options, store, start, progress)
        found, recall, devices = _search(embedded, q_QD, k, options, start, similarity)
    measured = 0 if recall is None else min(options.recall_queries, len(queries))
    search = "exact" if options.index == EXACT else f"{options.index} {options.parameters}".strip()
    device = ", ".join(sorted({name for name, _ in devices})) or None
    note = next((note for _, note in devices if note), None)
    return CollectionSearch(found, search, recall, measured, embedded.manifest.dtype, device, note)


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
    with _started(options, encoder) as start:
        embedded, q_QD = _embed_both(encoder, passages, queries, options, None, start, None)
        similarity = similarity_of(encoder)
        q_QD = for_inner_products(q_QD, "query", similarity)
        pairs = Pairs.of(relevant, languages)
        parts = split(len(embedded.manifest.shards), options.parts)
        factories: list[Factory] = [
            partial(_rank_shard, str(embedded.folder), part, languages, similarity) for part in parts
        ]
        with start(factories) as workers:
            scores_P = joined_scores(workers.call_all("relevant_scores", q_QD, pairs))
            counted = sum_counts(workers.call_all("counts", q_QD, pairs, scores_P, depth), depth)
    return Search(ranks_of(pairs, scores_P, counted), counted.top, depth)


def _rank_shard(folder: str, files: range, languages: Int64s, similarity: Similarity, device: Device) -> RankShard:
    return RankShard(folder, files, languages, similarity=similarity)  # which counts on the CPU whatever the worker has


def embed_collection(
    encoder: StoredEncoder,
    passages: Sequence[str],
    options: SearchOptions,
    store: Path | None = None,
    progress: Progress | None = None,
) -> EmbeddingStore:
    """The store of the passages' embeddings; what it lacks is encoded. For the arguments see `search_collection`."""
    with _started(options, encoder) as start:
        return _embed_both(encoder, passages, (), options, store, start, progress)[0]


def search_store(
    store: EmbeddingStore, q_QD: Floats, k: int, options: SearchOptions, similarity: Similarity = "cosine"
) -> tuple[Top, float | None]:
    """The `k` best rows of a store for each query vector, with the inner products by which they rank (see
    `for_inner_products`), and the recall of the index (None for exact search).

    Raises:
        ModelError: a query holds NaN or infinity.
    """
    check_finite("query", q_QD)
    with _started(options) as start:
        return _search(store, q_QD, k, options, start, similarity)[:2]


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
    digest, cache = encoder.digest(), options.cache or cache_root(None)
    told = None if progress is None else partial(progress, "query")
    most = sum(-(-len(texts) // options.block_rows) for texts in (passages, queries))
    with _encoders(encoder, digest, options, start, most) as workers:
        embedded = _embed(encoder, digest, passages, options, store, workers, progress)
        if not len(queries):
            return embedded, np.zeros((0, encoder.dimension), np.float32)
        spread = workers if options.actors else None
        q_QD = cached_embeddings(encoder, digest, queries, "query", cache, options.batching, spread, told)
    if told is not None:
        told(len(queries), len(queries))
    return embedded, q_QD


@contextmanager
def _encoders(
    encoder: StoredEncoder, digest: str, options: SearchOptions, start: StartWorkers, most: int
) -> Iterator[Callable[[], Workers]]:
    """Gives the workers that encode, `most` at most, which start when they are first asked for."""
    with ExitStack() as stack:

        @functools.cache
        def workers() -> Workers:
            factories = block_encoders(encoder, digest, options.batching, min(options.actors, most))
            return stack.enter_context(start(factories))

        yield workers


def _embed(
    encoder: StoredEncoder,
    model: str,
    passages: Sequence[str],
    options: SearchOptions,
    store: Path | None,
    workers: Callable[[], Workers],
    progress: Progress | None,
) -> EmbeddingStore:
    manifest = Manifest(
        model=model,
        side="passage",
        prompt=encoder.prefixes["passage"],
        texts=texts_digest(passages),
        rows=len(passages),
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
            progress("passage", done, total)

    try:
        found = EmbeddingStore(folder, manifest)
    except StorageError:  # absent, unfinished or of other content; the writer tells which, and whether it can go on
        with StoreWriter(folder, manifest) as writer:
            if writer.missing:
                fill(writer, passages, workers(), report)
        found = EmbeddingStore(folder, manifest)
    if mirror is not None:
        mirror.push()
    return found


def _search(
    store: EmbeddingStore, q_QD: Floats, k: int, options: SearchOptions, start: StartWorkers, similarity: Similarity
) -> tuple[Top, float | None, list[tuple[str, str | None]]]:
    """What was found, the recall of the index (None for exact search), and (device, note) of each shard's index."""
    if not len(q_QD):
        return Top(np.zeros((0, k), np.float32), np.zeros((0, k), np.int64)), None, []
    parts = split(len(store.manifest.shards), options.parts)
    factories: list[Factory] = [
        partial(ShardIndex, str(store.folder), part, options.index, options.parameters, options.seed, similarity)
        for part in parts
    ]
    with start(factories) as workers:
        found = merge_top(workers.call_all("nearest", q_QD, k), k)
        if options.index == EXACT:
            return found, None, []
        devices = workers.call_all("device")
        drawn = np.random.default_rng(options.seed).choice(
            len(q_QD), min(options.recall_queries, len(q_QD)), replace=False
        )
        exact = merge_top(workers.call_all("exact", q_QD[drawn], k), k)
    return found, recall_of(Top(found.scores[drawn], found.places[drawn]), exact), devices


def recall_of(found: Top, exact: Top) -> float:
    """Mean share of each query's K best candidates that were found; equals of the K-th best count as well."""
    last_Q1 = exact.scores[:, -1:]
    good = found.scores >= last_Q1 - SAME_SCORE * np.maximum(np.abs(last_Q1), 1)
    return float(np.mean(good)) if good.size else 1.0


@contextmanager
def _started(options: SearchOptions, encoder: StoredEncoder | None = None) -> Iterator[StartWorkers]:
    """A session in which workers can be started, with the precision of `encoder` settled: where nobody chose it and
    actors encode, it is that of their devices."""
    if not options.actors:
        yield partial(LocalWorkers, device=options.device)
        return
    from hbtrain.cluster.capacity import Demand
    from hbtrain.retrieval.actors import actor_session, precision_of_actors

    demand = Demand(
        asked=f"--actors (evaluation.actors) {options.actors}",
        count=options.actors,
        cpus=options.cpus_per_actor,
        wait_s=options.wait_s,
        wait_option="--wait-s (resources.wait_s)",
    )
    with actor_session(demand, options.address) as start:
        if isinstance(encoder, Encoder) and encoder.origin is not None and encoder.origin.precision is None:
            encoder.compute_in(precision_of_actors(start))
        yield start


@dataclass(frozen=True)
class Passage:
    """A passage in one language: row `row` of source `source`."""

    source: str
    row: int
    language: str
    text: str


@dataclass(frozen=True)
class Hit:
    """A passage that was found, with its similarity to the question, as the model compares them."""

    passage: Passage
    score: float


class PassageIndex:
    """Exact search in all passages of a corpus.

    The embeddings go into the cache, so that later questions to the same model and corpus are answered at once.
    """

    def __init__(self, encoder: StoredEncoder, corpus: ParallelCorpus, device: Device = "cpu") -> None:
        """Encode what the cache lacks, with `encoder`; `device` is where questions are compared with the passages."""
        self._encoder = encoder
        self._passages = distinct_passages(corpus)
        self._options = SearchOptions(device=device)
        self._store = embed_collection(encoder, [p.text for p in self._passages], self._options)

    def __len__(self) -> int:
        return len(self._passages)

    def search(self, question: str, top: int = 10) -> list[Hit]:
        """The `top` most similar passages, best first; of equal ones the first in the corpus."""
        q_1D, similarity = self._encoder.encode([question], "query"), similarity_of(self._encoder)
        found, _ = search_store(self._store, q_1D, min(top, len(self)), self._options, similarity)
        pairs = zip(found.places[0].tolist(), similarities(found.scores[0], similarity).tolist(), strict=True)
        return [Hit(self._passages[place], score) for place, score in pairs]


def distinct_passages(corpus: ParallelCorpus) -> list[Passage]:
    """Every passage of the corpus in every language it has; a text that several rows share is there once."""
    found: dict[tuple[str, str], Passage] = {}
    for source in corpus.sources.values():
        for row, language, text in source.passages():
            found.setdefault((language, text), Passage(source.name, row, language, text))
    return list(found.values())
