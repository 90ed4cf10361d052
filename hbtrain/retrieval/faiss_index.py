"""FAISS indices from an `index_factory` string: checked before any encoding, trained on a bounded sample, put on a GPU.

Shapes: N vectors of an index, D dimensions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from hbtrain.errors import ConfigError
from hbtrain.modeling.devices import Device
from hbtrain.modeling.encoder import Similarity
from hbtrain.retrieval.scores import Floats

EXACT = "Flat"  # the factory string of an exact search, which needs no FAISS: see `shards`
TRAINING_VECTORS = 64
"""Vectors that an index is trained on for each of its centroids; FAISS asks for 39 at least, and takes 256 at most."""
FEWEST_SAMPLED = 65_536  # vectors of a training sample, however few the centroids, if the shard has as many
GPU_DEPTH = 2048  # the most neighbours that FAISS finds on a GPU, and the most lists that it searches there
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
        raise ConfigError(f"index {factory!r} cannot be filled: {_reason(error)}; {EXAMPLES}") from error
    if parameters:
        set_parameters(index, parameters)
    try:
        index.search(vectors[:2], TRIAL_DEPTH)
    except RuntimeError as error:
        given = f" with the search parameters {parameters!r}" if parameters else ""
        raise ConfigError(f"index {factory!r}{given} cannot be searched: {_reason(error)}") from error


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
            f"index {factory!r} cannot be made for {what} of {dimension} dimensions: {_reason(error)}; {EXAMPLES}"
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
            f"search parameters {parameters!r} do not fit the index: {_reason(error)}; nprobe=16 (IVF) and "
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


class PlacedIndex:
    """An index on this process's first GPU, or on its CPU.

    Attributes:
        device: `gpu` or `cpu`.
        note: why it is on the CPU although there is a GPU, or what is different on the GPU; None where neither is.
    """

    def __init__(self, index: Any, parameters: str, device: Device) -> None:
        """Args:
        index: filled; it stays on the CPU as well.
        parameters: of the search; may be empty.
        device: `cpu`, or a GPU where one was given to this process.
        """
        self._index = index
        self._on_gpu: Any = None
        self.device = "cpu"
        self.note: str | None = None
        if device == "cpu":
            return
        faiss = load_faiss()
        if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() < 1:
            self.note = "this build of FAISS uses no GPU: pip uninstall faiss-cpu, then pip install 'hbtrain[gpu]'"
        elif (lists := _searched_lists(index)) > GPU_DEPTH:
            self.note = f"on a GPU, FAISS searches {GPU_DEPTH} lists at most, and nprobe is {lists}"
        else:
            self._move(faiss, parameters)

    def search(self, q_QD: Floats, k: int) -> npt.NDArray[np.int64]:
        """Places [Q, K] of the nearest, -1 where fewer are found. Where the GPU cannot, the CPU searches."""
        places_QK: npt.NDArray[np.int64]
        if self._on_gpu is not None and k <= GPU_DEPTH:
            try:
                _, places_QK = self._on_gpu.search(q_QD, k)
                return places_QK
            except RuntimeError as error:
                self._leave_gpu(f"FAISS could not search it on the GPU: {_reason(error)}")
        elif self._on_gpu is not None:
            self._leave_gpu(f"on a GPU, FAISS finds {GPU_DEPTH} neighbours at most, and {k} are asked for")
        _, places_QK = self._index.search(q_QD, k)
        return places_QK

    def _leave_gpu(self, note: str) -> None:
        self._on_gpu, self.device, self.note = None, "cpu", note

    def _move(self, faiss: Any, parameters: str) -> None:
        """Copy the index to the GPU; a product quantizer with tables in float16, if those in float32 are too large."""
        refused = ""
        for half in (False, True):
            options = faiss.GpuClonerOptions()
            options.useFloat16 = half  # GpuIndexIVFPQConfig.useFloat16LookupTables
            try:
                moved = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, self._index, options)
                if parameters:
                    faiss.GpuParameterSpace().set_index_parameters(moved, parameters)
            except RuntimeError as error:
                refused = refused or _reason(error)
                continue
            self._on_gpu, self.device = moved, "gpu"
            self.note = "its tables are float16 on the GPU; what it finds is scored anew in float32" if half else None
            return
        self.note = f"FAISS could not put it on the GPU: {refused}"


def _searched_lists(index: Any) -> int:
    """How many inverted lists a search looks through, which is set to no more than there are; 0 without any."""
    faiss = load_faiss()
    lists = faiss.try_extract_index_ivf(index)
    if lists is None:
        return 0
    lists.nprobe = min(lists.nprobe, lists.nlist)
    return int(lists.nprobe)


def _reason(error: RuntimeError) -> str:
    """FAISS's message without the line of its source code."""
    text = str(error).strip().splitlines()[0]
    words = re.sub(r"^Error in .*? at /?\S+:\d+: ", "", text)
    return re.sub(r"^Error: '.*?' failed: ?", "", words) or words
