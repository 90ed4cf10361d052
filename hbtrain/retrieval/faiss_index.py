"""FAISS indices from an `index_factory` string: checked before any encoding, trained on a bounded sample.

Shapes: N vectors of an index, D dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import numpy as np

from hbtrain.errors import ConfigError
from hbtrain.modeling.encoder import Similarity
from hbtrain.retrieval.scores import Floats

EXACT = "Flat"
"""The factory string of an exact search, which needs no FAISS: see `shards`."""
TRAINING_VECTORS = 64
"""Vectors that an index is trained on for each of its centroids; FAISS asks for 39 at least, and takes 256 at most."""
FEWEST_SAMPLED = 65_536
"""Vectors of a training sample, however few the centroids, if the shard has as many."""
GPU_DEPTH = 2048
"""The most neighbours that FAISS finds on a GPU."""


def check_factory(
    factory: str, parameters: str, dimension: int, fewest_rows: int, similarity: Similarity = "cosine"
) -> None:
    """Raise ConfigError if FAISS has no such index, or if a shard has too few rows to train it.

    Args:
        factory: the `index_factory` string.
        parameters: search parameters such as `nprobe=16`; may be empty.
        dimension: D.
        fewest_rows: rows of the smallest shard.
        similarity: how vectors are compared.
    """
    if factory == EXACT:
        if parameters:
            raise ConfigError(f"search parameters {parameters!r}: the exact search {EXACT!r} has none")
        return
    index = new_index(factory, dimension, similarity)
    if parameters:
        set_parameters(index, parameters)
    centroids = centroids_of(index)
    if not index.is_trained and fewest_rows < centroids:
        raise ConfigError(
            f"index {factory!r} needs training on {centroids} vectors or more ({39 * centroids} to be good), and a "
            f"shard has {fewest_rows}; take fewer lists or bits, fewer shards, HNSW32 or {EXACT}"
        )


def new_index(factory: str, dimension: int, similarity: Similarity) -> Any:
    """An empty index for inner products, or for distances where `similarity` is one.

    Raises:
        ConfigError: FAISS does not make one.
    """
    import faiss

    metric, what = faiss.METRIC_INNER_PRODUCT, "inner products"
    if similarity == "euclidean":
        metric, what = faiss.METRIC_L2, "distances"
    try:
        return faiss.index_factory(dimension, factory, metric)
    except RuntimeError as error:
        raise ConfigError(
            f"index {factory!r} cannot be made for {what} of {dimension} dimensions: {_reason(error)}; "
            f"{EXACT}, IVF4096,Flat, HNSW32 and IVF4096,PQ64 are examples"
        ) from error


def set_parameters(index: Any, parameters: str) -> None:
    """Set search parameters such as `nprobe=16`.

    Raises:
        ConfigError: the index has no such parameter.
    """
    import faiss

    space: Any = faiss.ParameterSpace()
    try:
        space.set_index_parameters(index, parameters)
    except RuntimeError as error:
        raise ConfigError(
            f"search parameters {parameters!r} do not fit the index: {_reason(error)}; nprobe=16 (IVF) and "
            "efSearch=64 (HNSW) are examples"
        ) from error


def centroids_of(index: Any) -> int:
    """The fewest vectors that the index can be trained on: k-means needs one for each centroid."""
    import faiss

    needed = [1]
    needed += [getattr(index, name) for name in ("nlist", "ksub") if hasattr(index, name)]
    if hasattr(index, "pq"):
        needed.append(index.pq.ksub)
    if hasattr(index, "rq"):
        needed += [index.d, 2 ** int(faiss.vector_to_array(index.rq.nbits).max())]
    if hasattr(index, "chain"):
        matrices = [faiss.downcast_VectorTransform(index.chain.at(i)) for i in range(index.chain.size())]
        # A rotation learned with a product quantizer trains one; a principal component needs a vector.
        needed += [256 if isinstance(matrix, faiss.OPQMatrix) else matrix.d_out for matrix in matrices]
    inner = [getattr(index, name, None) for name in ("index", "base_index", "storage")]
    needed += [centroids_of(faiss.downcast_index(part)) for part in inner if part is not None]
    return max(needed)


def build(factory: str, parameters: str, similarity: Similarity, blocks: Iterable[Floats], sample: Floats) -> Any:
    """Train an index and add all vectors of `blocks`.

    Args:
        factory: the `index_factory` string.
        parameters: search parameters; may be empty.
        similarity: how vectors are compared.
        blocks: the vectors, in their order.
        sample: vectors to train the index on.

    Raises:
        ConfigError: FAISS cannot train it on the sample.
    """
    index = new_index(factory, sample.shape[1], similarity)
    if not index.is_trained:
        try:
            index.train(np.ascontiguousarray(sample))
        except RuntimeError as error:
            raise ConfigError(
                f"index {factory!r} cannot be trained on {len(sample)} vectors of a shard: {_reason(error)}; take "
                f"another one, or fewer shards"
            ) from error
    for block in blocks:
        index.add(np.ascontiguousarray(block))
    if parameters:
        set_parameters(index, parameters)
    return index


def sample_size(factory: str, dimension: int) -> int:
    """The most vectors that an index is trained on; 0 if it needs no training."""
    index = new_index(factory, dimension, "cosine")
    return 0 if index.is_trained else max(FEWEST_SAMPLED, TRAINING_VECTORS * centroids_of(index))


def on_gpu(index: Any, parameters: str) -> Any:
    """The index on this process's first GPU; unchanged where FAISS sees no GPU or cannot put this index on one."""
    import faiss

    if not hasattr(faiss, "get_num_gpus") or faiss.get_num_gpus() < 1:
        return index
    try:
        moved = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, index)
        if parameters:
            space: Any = faiss.GpuParameterSpace()
            space.set_index_parameters(moved, parameters)
    except (RuntimeError, AttributeError):
        return index
    return moved


def _reason(error: RuntimeError) -> str:
    """FAISS's message without the line of its source code."""
    text = str(error).strip().splitlines()[0]
    words = re.sub(r"^Error in .*? at /?\S+:\d+: ", "", text)
    return re.sub(r"^Error: '.*?' failed: ?", "", words) or words
