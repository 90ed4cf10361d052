"""Search and exact ranks over quantized vectors, in memory and in a store, compared with those over full vectors.

Shapes: Q queries, N candidates, D dimensions, K places of a list, P (query, relevant candidate) pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from hbtrain.modeling.encoder import Similarity
from hbtrain.retrieval.counting import Pairs
from hbtrain.retrieval.quantizing import (
    RECALL_PLACES,
    Quantization,
    Quantizer,
    drawn_queries,
    quality_of,
    rescored,
    rescored_top,
)
from hbtrain.retrieval.ranks import Quality, Search, Vectors
from hbtrain.retrieval.scores import Floats, check_finite, for_inner_products
from hbtrain.retrieval.shard_counts import sum_counts
from hbtrain.retrieval.store import EmbeddingStore
from hbtrain.retrieval.top import Int64s, Top, merge_top
from hbtrain.retrieval.workers import Workers


def quantizer_of(store: EmbeddingStore, how: Quantization | None) -> Quantizer | None:
    """What quantizes the vectors of a store, all of which `int8` reads once; None: they are searched as they are."""
    if how is None:
        return None
    files = range(len(store.manifest.shards))
    return Quantizer.of(how, (np.asarray(store.shard(file), np.float32) for file in files))


def listed(depth: int, how: Quantization) -> int:
    """The length of lists from which `depth` places follow, scored anew where that is asked for, and the recall."""
    return max(depth, how.rescore, RECALL_PLACES)


def nearest(
    workers: Workers,
    store: EmbeddingStore,
    quantizer: Quantizer,
    q_QD: Floats,
    k: int,
    drawn: Int64s,
) -> tuple[Top, Quality]:
    """The `k` best rows of a store.

    Args:
        workers: hold a `QuantizedShard` of every shard, with `quantizer`.
        store: that is searched.
        quantizer: of its vectors.
        q_QD: queries as they are, at least one.
        k: rows wanted of each, at most those of the store.
        drawn: queries that are searched for by full vectors too.
    """
    rescore = quantizer.how.rescore
    most = min(listed(k, quantizer.how), len(store))
    found = merge_top(workers.call_all("nearest", quantizer.queries(q_QD), most), most)
    if rescore:
        found = rescored_top(found, q_QD, lambda places: quantizer.passages(store.take(places)), rescore)
    width = min(RECALL_PLACES, len(store))
    full = merge_top(workers.call_all("exact", q_QD[drawn], width), width)
    return Top(found.scores[:, :k], found.places[:, :k]), quality_of(found, full, drawn, q_QD.shape[1])


def with_quality(
    workers: Workers,
    store: EmbeddingStore,
    quantizer: Quantizer,
    search: Search,
    vectors: Vectors,
    depth: int,
    drawn: Int64s,
) -> Search:
    """The ranks of quantized vectors, scored anew where that is asked for, and compared with full vectors.

    Args:
        workers: hold a `RankShard` of every shard, with `quantizer`.
        store: that was ranked.
        quantizer: of its vectors.
        search: what the workers counted, with lists of `listed` places.
        vectors: the queries as they are, and the similarity.
        depth: length of the lists wanted.
        drawn: queries that are ranked by full vectors too.
    """
    if rescore := quantizer.how.rescore:
        search = rescored(search, vectors.queries, lambda places: quantizer.passages(store.take(places)), rescore)
    q_RD = for_inner_products(vectors.queries[drawn], "query", vectors.similarity)
    no_pairs = Pairs.of([np.zeros(0, np.int64)] * len(drawn), np.zeros(0, np.int64))
    counted = workers.call_all("counts", q_RD, no_pairs, np.zeros(0, np.float32), RECALL_PLACES, True)
    full = merge_top(list(sum_counts(counted, RECALL_PLACES).top.values()), RECALL_PLACES)
    quality = quality_of(search.pool, full, drawn, q_RD.shape[1])
    return search.cut(depth)._replace(vectors=vectors, quality=quality)


def quantized_search(
    exact: Callable[..., Search],
    q_QD: Floats,
    p_ND: Floats,
    languages: Int64s,
    relevant: Sequence[Int64s],
    depth: int,
    how: Quantization,
    similarity: Similarity,
) -> Search:
    """Exact ranks over the quantized scores of vectors in memory.

    Args:
        exact: `exact_search`, with the arguments that say where and how it computes.
        q_QD: queries as the encoder gave them; this and the next four as for `exact_search`.
        p_ND: candidates.
        languages: their language codes [N].
        relevant: for each query the places of its relevant candidates.
        depth: length of the lists of the best.
        how: how candidates are quantized.
        similarity: how vectors are compared.

    Raises:
        ModelError: an embedding holds NaN or infinity.
    """
    check_finite("passage", p_ND)
    quantizer = Quantizer.of(how, [p_ND])
    few_QD, few_ND = quantizer.queries(q_QD), quantizer.passages(p_ND)
    products = for_inner_products(few_QD, "query", similarity), for_inner_products(few_ND, "passage", similarity)
    search = exact(*products, languages, relevant, listed(depth, how))
    if how.rescore:
        search = rescored(search, q_QD, few_ND.__getitem__, how.rescore)
    drawn = drawn_queries(len(q_QD))
    none = [np.zeros(0, np.int64)] * len(drawn)
    q_RD, all_ND = for_inner_products(q_QD[drawn], "query", similarity), for_inner_products(p_ND, "passage", similarity)
    full = exact(q_RD, all_ND, languages, none, RECALL_PLACES).pool
    vectors = Vectors(q_QD, p_ND.__getitem__, similarity)
    return search.cut(depth)._replace(vectors=vectors, quality=quality_of(search.pool, full, drawn, q_QD.shape[1]))
