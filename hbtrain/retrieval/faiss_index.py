"""FAISS indices from an `index_factory` string, which is checked before any encoding; `faiss_placement` fills them.

Shapes: D dimensions.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib import metadata
from typing import Any

import numpy as np

from hbtrain.errors import ConfigError
from hbtrain.modeling.encoder import Similarity

EXACT = "Flat"  # the factory string of an exact search, which needs no FAISS: see `shards`
TRAINING_VECTORS = 64
"""Vectors that an index is trained on for each of its centroids; FAISS asks for 39 at least, and takes 256 at most."""
FEWEST_SAMPLED = 65_536  # vectors of a training sample, however few the centroids, if the shard has as many
TRIAL_ROWS = 16 * 39  # vectors of the index that is tried: FAISS warns of fewer than 39 for each of its 16 centroids
TRIAL_DEPTH = 10
FRACTIONS = ("k_factor", "k_factor_rf")
"""Search parameters that may be fractions; FAISS would cut others off at the point."""
LARGEST_PARAMETER = 2**31 - 1
EXAMPLES = f"{EXACT}, IVF4096,Flat, HNSW32 and IVF4096,PQ64 are examples"


@lru_cache
def load_faiss() -> Any:
    """The module `faiss`, which an environment must have from one package: the CPU's build, or the GPU's.

    Raises:
        ConfigError: none is installed, or several: most of their files have the same names, and the last one that was
            installed has overwritten the other's.
    """
    again = "pip install 'hbtrain[cpu]', or 'hbtrain[gpu]' for NVIDIA GPUs"
    builds = sorted(set(metadata.packages_distributions().get("faiss", [])))
    if len(builds) > 1:
        raise ConfigError(
            f"FAISS is installed more than once, by {' and '.join(builds)}, which overwrite each other's files: pip "
            f"uninstall {' '.join(builds)}, then {again}"
        )
    try:
        import faiss

        faiss.index_factory  # noqa: B018  # without it, only leftovers of an uninstalled build are there
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"an index other than {EXACT} needs FAISS, which cannot be loaded ({error}): {again}"
        ) from error
    return faiss


def check_factory(
    factory: str,
    parameters: str,
    dimension: int,
    fewest_rows: int,
    similarity: Similarity = "cosine",
    files: int = 1,
) -> None:
    """Raise ConfigError if FAISS has no such index, refuses to fill or search it, or has too few rows to train it.

    Args:
        factory: the `index_factory` string.
        parameters: search parameters such as `nprobe=16`; may be empty.
        dimension: D.
        fewest_rows: rows of the smallest shard.
        similarity: how vectors are compared.
        files: of the largest shard, which are added one after the other.
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
    _try_out(factory, parameters, dimension, similarity, files)


def _try_out(factory: str, parameters: str, dimension: int, similarity: Similarity, files: int) -> None:
    """Train, fill and search an index of the same kind with few centroids: some refusals of FAISS come only then."""
    index = new_index(_with_few_centroids(factory, dimension), dimension, similarity)
    rows = max(TRIAL_ROWS, centroids_of(index))
    vectors = np.random.default_rng(0).standard_normal((rows, dimension), np.float32)
    try:
        if not index.is_trained:
            index.train(vectors)
        for part in np.array_split(vectors, min(files, 2)):
            index.add(part)
    except RuntimeError as error:
        raise ConfigError(f"index {factory!r} cannot be filled: {reason_of(error)}; {EXAMPLES}") from error
    if parameters:
        set_parameters(index, parameters)
    try:
        index.search(vectors[:2], TRIAL_DEPTH)
    except RuntimeError as error:
        given = f" with the search parameters {parameters!r}" if parameters else ""
        raise ConfigError(f"index {factory!r}{given} cannot be searched: {reason_of(error)}") from error


def _with_few_centroids(factory: str, dimension: int) -> str:
    """The factory string of an index of the same kind that is trained in a moment."""
    few = re.sub(r"OPQ\d+(?:_(\d+))?", lambda match: f"RR{match[1] or dimension}", factory)
    few = re.sub(r"IVF\d+", "IVF4", few)
    few = re.sub(r"PQ(\d+)(?:x\d+)?(?:np)?(?![\dx]|fs)", r"PQ\1x4np", few)
    # Additive quantizers take minutes with any number of centroids.
    return re.sub(r"P?(?:RQ|LSQ)\d\w*", "SQ8", few)


def new_index(factory: str, dimension: int, similarity: Similarity) -> Any:
    """An empty index for inner products, or for distances where `similarity` is one.

    Raises:
        ConfigError: FAISS does not make one.
    """
    faiss = load_faiss()
    metric, what = faiss.METRIC_INNER_PRODUCT, "inner products"
    if similarity == "euclidean":
        metric, what = faiss.METRIC_L2, "distances"
    try:
        return faiss.index_factory(dimension, factory, metric)
    except RuntimeError as error:
        raise ConfigError(
            f"index {factory!r} cannot be made for {what} of {dimension} dimensions: {reason_of(error)}; {EXAMPLES}"
        ) from error


def set_parameters(index: Any, parameters: str) -> None:
    """Set search parameters such as `nprobe=16`.

    Raises:
        ConfigError: the index has no such parameter, or it cannot have that value.
    """
    for pair in parameters.split(","):
        name, _, value = pair.partition("=")
        allowed = r"\d+(\.\d+)?" if name.strip() in FRACTIONS else r"\d+"
        if not re.fullmatch(allowed, value.strip()) or float(value) > LARGEST_PARAMETER:
            raise ConfigError(f"search parameter {pair!r}: must be NAME=NUMBER, a whole number such as in nprobe=16")
    space: Any = load_faiss().ParameterSpace()
    try:
        space.set_index_parameters(index, parameters)
    except RuntimeError as error:
        raise ConfigError(
            f"search parameters {parameters!r} do not fit the index: {reason_of(error)}; nprobe=16 (IVF) and "
            "efSearch=64 (HNSW) are examples"
        ) from error


def centroids_of(index: Any) -> int:
    """The fewest vectors that the index can be trained on: k-means needs one for each centroid."""
    faiss = load_faiss()
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


def sample_size(factory: str, dimension: int) -> int:
    """The most vectors that an index is trained on; 0 if it needs no training."""
    index = new_index(factory, dimension, "cosine")
    return 0 if index.is_trained else max(FEWEST_SAMPLED, TRAINING_VECTORS * centroids_of(index))


def reason_of(error: RuntimeError) -> str:
    """FAISS's message without the line of its source code."""
    text = str(error).strip().splitlines()[0]
    words = re.sub(r"^Error in .*? at /?\S+:\d+: ", "", text)
    return re.sub(r"^Error: '.*?' failed: ?", "", words) or words
