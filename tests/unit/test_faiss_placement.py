"""Where an index is built and searched: on GPUs, by a stand-in for the few functions of faiss-gpu, else on the CPU."""

import faiss
import numpy as np
import pytest

from hbtrain.errors import ConfigError
from hbtrain.retrieval.faiss_placement import PlacedIndex, build

DIMENSION, ROWS = 32, 3000
VECTORS = np.random.default_rng(0).standard_normal((ROWS, DIMENSION), np.float32)
QUERIES = VECTORS[:5]


class Gpu:
    """As much of faiss-gpu as is called, with its limits: 48 KiB for a product quantizer's tables, no graphs, and a
    memory of so many vectors. Notes what each of two GPUs did."""

    def __init__(self, monkeypatch, fails="", memory=10**9):
        self.searches, self.fails, self.memory = [], fails, memory
        self.trained, self.added = [], []
        monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2, raising=False)
        for name in ("StandardGpuResources", "GpuParameterSpace"):
            monkeypatch.setattr(faiss, name, faiss.ParameterSpace, raising=False)
        monkeypatch.setattr(
            faiss, "GpuClonerOptions", type("GpuClonerOptions", (), {"useFloat16": False}), raising=False
        )
        monkeypatch.setattr(faiss, "index_cpu_to_gpu", self.clone, raising=False)
        monkeypatch.setattr(faiss, "index_gpu_to_cpu", self.back, raising=False)

    def back(self, index):
        return faiss.clone_index(index)

    def clone(self, resources, device, index, options):
        is_graph, has_tables = isinstance(index, faiss.IndexHNSW), isinstance(index, faiss.IndexIVFPQ)
        if is_graph:
            raise RuntimeError("This index type is not implemented on GPU.")
        if has_tables:
            needed = index.pq.M * index.pq.ksub * (2 if options.useFloat16 else 4)
            if needed > 48 * 1024:
                raise RuntimeError(f"Device 0 has 49152 bytes of shared memory, while it requires {needed} bytes")
        if index.ntotal > self.memory:
            raise RuntimeError("cudaMalloc error out of memory [2]")
        copy = faiss.clone_index(index)
        gpu = self

        class OnGpu(type(copy)):
            def train(self, vectors):
                gpu.trained.append((device, len(vectors)))
                super().train(vectors)

            def add(self, vectors):
                gpu.added.append((device, len(vectors)))
                if self.ntotal + len(vectors) > gpu.memory:
                    raise RuntimeError("cudaMalloc error out of memory [2]")
                super().add(vectors)

            def search(self, queries, k):
                if gpu.fails:
                    raise RuntimeError(gpu.fails)
                gpu.searches.append((device, len(queries), k))
                return super().search(queries, k)

        copy.__class__ = OnGpu
        return copy


def built(factory, parameters=""):
    index = faiss.index_factory(DIMENSION, factory, faiss.METRIC_INNER_PRODUCT)
    index.train(VECTORS)
    index.add(VECTORS)
    if parameters:
        faiss.ParameterSpace().set_index_parameters(index, parameters)
    return index


def test_without_a_gpu_nothing_is_said_and_a_build_without_gpus_beside_a_gpu_is():
    index = built("IVF8,Flat")
    placed = PlacedIndex(index, "", ["cpu"])
    assert (placed.device, placed.note) == ("cpu", None)
    placed = PlacedIndex(index, "", ["cuda"])
    assert placed.device == "cpu"
    assert "hbtrain[gpu]" in placed.note
    np.testing.assert_array_equal(placed.search(QUERIES, 7), index.search(QUERIES, 7)[1])


def test_an_index_goes_to_the_gpu(monkeypatch):
    gpu = Gpu(monkeypatch)
    index = built("IVF8,Flat", "nprobe=3")
    placed = PlacedIndex(index, "nprobe=3", ["cuda"])
    assert (placed.device, placed.note) == ("gpu", None)
    np.testing.assert_array_equal(placed.search(QUERIES, 7), index.search(QUERIES, 7)[1])
    assert gpu.searches == [(0, 5, 7)]


def test_a_product_quantizer_whose_tables_are_too_large_goes_to_the_gpu_with_tables_in_float16(monkeypatch):
    gpu = Gpu(monkeypatch)
    wide = np.random.default_rng(0).standard_normal((300, 64), np.float32)
    index = faiss.index_factory(64, "IVF2,PQ64np", faiss.METRIC_INNER_PRODUCT)
    index.train(wide)
    index.add(wide)
    placed = PlacedIndex(index, "", ["cuda"])
    assert placed.device == "gpu"
    assert "float16" in placed.note
    assert placed.search(wide[:2], 3).shape == (2, 3)
    assert gpu.searches == [(0, 2, 3)]


def test_what_a_gpu_cannot_do_is_done_on_the_cpu_with_the_reason(monkeypatch):
    gpu = Gpu(monkeypatch)
    placed = PlacedIndex(built("HNSW8"), "", ["cuda"])
    assert placed.device == "cpu"
    assert "not implemented on GPU" in placed.note
    index = built("IVF2100,Flat", "nprobe=5000")
    placed = PlacedIndex(index, "nprobe=5000", ["cuda"])
    assert placed.device == "cpu"
    assert "nprobe is 2100" in placed.note
    index = built("IVF8,Flat", "nprobe=5000")  # no more than 8 are searched
    placed = PlacedIndex(index, "nprobe=5000", ["cuda"])
    assert placed.device == "gpu"
    assert placed.search(QUERIES, 2049).shape == (5, 2049)
    assert placed.device == "cpu"
    assert "2049 are asked for" in placed.note
    assert gpu.searches == []
    gpu.fails = "Error in void f() at /x/y.cu:12: CUDA error 2 out of memory"
    placed = PlacedIndex(index, "", ["cuda"])
    np.testing.assert_array_equal(placed.search(QUERIES, 4), index.search(QUERIES, 4)[1])
    assert placed.device == "cpu"
    assert placed.note.endswith("CUDA error 2 out of memory")


def test_every_gpu_searches_a_copy_for_a_part_of_the_queries(monkeypatch):
    gpu = Gpu(monkeypatch)
    index = built("IVF8,Flat", "nprobe=3")
    placed = PlacedIndex(index, "nprobe=3", ["cuda", "cuda:1"])
    np.testing.assert_array_equal(placed.search(QUERIES, 7), index.search(QUERIES, 7)[1])
    assert sorted(gpu.searches) == [(0, 3, 7), (1, 2, 7)]
    np.testing.assert_array_equal(placed.search(QUERIES[:1], 2), index.search(QUERIES[:1], 2)[1])
    assert gpu.searches[2:] == [(0, 1, 2)]


def blocks():
    yield from np.array_split(VECTORS, 3)


@pytest.mark.parametrize("factory", ["IVF8,Flat", "IVF4,PQ8x4", "PCA8,IVF4,SQ8"])
def test_an_index_is_trained_and_filled_on_the_gpu_and_comes_back(monkeypatch, factory):
    gpu = Gpu(monkeypatch)
    on_cpu, _ = build(factory, "nprobe=3", "cosine", blocks, VECTORS[:1000])
    assert gpu.trained == []
    index, note = build(factory, "nprobe=3", "cosine", blocks, VECTORS[:1000], "cuda:1")
    assert note is None
    assert gpu.trained == [(1, 1000)]
    assert gpu.added == [(1, 1000)] * 3
    assert index.ntotal == ROWS
    np.testing.assert_array_equal(index.search(QUERIES, 7)[1], on_cpu.search(QUERIES, 7)[1])


@pytest.mark.parametrize(
    ("factory", "memory", "words"),
    [("HNSW8", 10**9, "not implemented on GPU"), ("IVF8,Flat", 2000, "out of memory"), ("IVF8,Flat", 0, "memory")],
)
def test_an_index_that_a_gpu_cannot_build_or_hold_is_built_on_the_cpu_with_the_reason(
    monkeypatch, factory, memory, words
):
    Gpu(monkeypatch, memory=memory)
    index, note = build(factory, "", "cosine", blocks, VECTORS[:1000], "cuda")
    assert note.startswith("FAISS could not build it on the GPU: ")
    assert words in note
    on_cpu, no_note = build(factory, "", "cosine", blocks, VECTORS[:1000])
    assert no_note is None
    assert index.ntotal == ROWS
    np.testing.assert_array_equal(index.search(QUERIES, 7)[1], on_cpu.search(QUERIES, 7)[1])
    placed = PlacedIndex(index, "", ["cuda"])
    assert (placed.device, words in placed.note) == ("cpu", True)


def test_a_build_of_faiss_without_gpus_fills_on_the_cpu_and_says_what_to_install():
    index, note = build("IVF8,Flat", "", "cosine", blocks, VECTORS[:1000], "cuda")
    assert index.ntotal == ROWS
    assert "hbtrain[gpu]" in note


def test_tables_that_are_too_large_do_not_keep_an_index_from_being_filled_on_the_gpu(monkeypatch):
    gpu = Gpu(monkeypatch)
    wide = np.random.default_rng(0).standard_normal((300, 64), np.float32)
    index, note = build("IVF2,PQ64np", "", "cosine", lambda: iter([wide]), wide, "cuda")
    assert note is None
    assert gpu.added == [(0, 300)]
    assert index.ntotal == 300


def test_a_sample_that_is_too_small_is_an_error_on_gpus_as_on_cpus(monkeypatch):
    Gpu(monkeypatch)
    for device in ("cpu", "cuda"):
        with pytest.raises(ConfigError, match="'IVF64,Flat' cannot be trained on 9 vectors"):
            build("IVF64,Flat", "", "cosine", blocks, VECTORS[:9], device)
