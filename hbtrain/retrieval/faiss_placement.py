"""FAISS indices on a process's GPUs or its CPU: where they are trained and filled, and where they are searched.

Where FAISS can, an index is trained and filled on a GPU, copied to the CPU, and searched on all GPUs of the process,
each of which has a copy and takes a part of the queries. Where it cannot, since this build of FAISS uses no GPU, has no
such index for GPUs, or the index does not fit into the memory of one, the CPU does it with all threads that the process
was given, and a note says why.

Shapes: Q queries, D dimensions, K neighbours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hbtrain.errors import ConfigError
from hbtrain.modeling.devices import Device
from hbtrain.modeling.encoder import Similarity
from hbtrain.retrieval.faiss_index import load_faiss, new_index, reason_of, set_parameters
from hbtrain.retrieval.scores import Floats
from hbtrain.retrieval.workers import each

GPU_DEPTH = 2048  # the most neighbours that FAISS finds on a GPU, and the most lists that it searches there

Blocks = Callable[[], Iterator[Floats]]
"""Gives the vectors of an index, some at a time, in their order."""


def build(
    factory: str, parameters: str, similarity: Similarity, blocks: Blocks, sample: Floats, device: Device = "cpu"
) -> tuple[Any, str | None]:
    """Train an index and add all vectors of `blocks`: on the GPU if that is the device and FAISS can, else on the CPU.

    The same index has other centroids from a GPU than from a CPU, both from the same sample.

    Args:
        factory: the `index_factory` string.
        parameters: search parameters; may be empty.
        similarity: how vectors are compared.
        blocks: the vectors.
        sample: vectors to train the index on.
        device: where it is built.

    Returns:
        The index, on the CPU, and why it was built there although there is a GPU; None where neither is so.

    Raises:
        ConfigError: FAISS cannot train it on the sample.
    """
    index, note = new_index(factory, sample.shape[1], similarity), None
    if device != "cpu" and (note := _without_gpus()) is None:
        try:
            index = _built_on_gpu(index, blocks, sample, device)
        except RuntimeError as error:
            index = new_index(factory, sample.shape[1], similarity)
            note = f"FAISS could not build it on the GPU: {reason_of(error)}"
    if not index.is_trained:
        try:
            index.train(np.ascontiguousarray(sample))
        except RuntimeError as error:
            raise ConfigError(
                f"index {factory!r} cannot be trained on {len(sample)} vectors of a shard: {reason_of(error)}; take "
                f"another one, or fewer shards"
            ) from error
    if not index.ntotal:
        for block in blocks():
            index.add(np.ascontiguousarray(block))
    if parameters:
        set_parameters(index, parameters)
    return index, note


def _built_on_gpu(index: Any, blocks: Blocks, sample: Floats, device: Device) -> Any:
    """The index, trained and filled on a GPU, and copied to the CPU. Raises RuntimeError where FAISS cannot."""
    faiss = load_faiss()
    lists = faiss.try_extract_index_ivf(index)
    # Codes do not depend on a search's tables, and vectors kept as they are would lose digits.
    has_tables = lists is not None and isinstance(faiss.downcast_index(lists), faiss.IndexIVFPQ)
    (on_gpu,), _ = _copies(index, [device], "", (False, True) if has_tables else (False,))
    on_gpu.train(np.ascontiguousarray(sample))
    for block in blocks():
        on_gpu.add(np.ascontiguousarray(block))
    return faiss.index_gpu_to_cpu(on_gpu)


def _copies(index: Any, devices: Sequence[Device], parameters: str, halves: Sequence[bool]) -> tuple[list[Any], bool]:
    """Copies of an index on GPUs, and whether a product quantizer's tables are in float16 there: the first of `halves`
    with which FAISS does it. Raises RuntimeError where it does not."""
    import torch

    faiss = load_faiss()
    torch.cuda.empty_cache()  # FAISS has memory of its own, and torch holds back what encoding has used
    refused = None
    for half in halves:
        options = faiss.GpuClonerOptions()
        options.useFloat16 = half  # GpuIndexIVFPQConfig.useFloat16LookupTables
        copies = []
        try:
            for device in devices:
                number = torch.device(device).index or 0
                copies.append(faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), number, index, options))
                if parameters:
                    faiss.GpuParameterSpace().set_index_parameters(copies[-1], parameters)
        except RuntimeError as error:
            refused = refused or error
            continue
        return copies, half
    raise refused or RuntimeError("nothing was tried")


def _without_gpus() -> str | None:
    """Why this build of FAISS can use no GPU; None where it can."""
    faiss = load_faiss()
    if hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0:
        return None
    return "this build of FAISS uses no GPU: pip uninstall faiss-cpu, then pip install 'hbtrain[gpu]'"


class PlacedIndex:
    """A filled index where it is searched: on GPUs, or on this process's CPU."""

    def __init__(self, index: Any, parameters: str, devices: Sequence[Device]) -> None:
        """Args:
        index: filled; it stays on the CPU as well.
        parameters: of the search; may be empty.
        devices: `cpu`, or the GPUs of this process, each of which gets a copy and searches for a part of the queries.
        """
        self._index = index
        self._on_gpus: list[Any] = []
        self.device = "cpu"  # or `gpu`
        self.note: str | None = None
        """Why it is on the CPU although there is a GPU, or what is different on the GPU; None where neither is."""
        if "cpu" in devices:
            return
        self.note = _without_gpus()
        if self.note is None and (lists := _searched_lists(index)) > GPU_DEPTH:
            self.note = f"on a GPU, FAISS searches {GPU_DEPTH} lists at most, and nprobe is {lists}"
        if self.note is not None:
            return
        try:
            self._on_gpus, half = _copies(index, devices, parameters, (False, True))
        except RuntimeError as error:
            self.note = f"FAISS could not put it on the GPU: {reason_of(error)}"
            return
        self.device = "gpu"
        self.note = "its tables are float16 on the GPU; what it finds is scored anew in float32" if half else None

    def search(self, q_QD: Floats, k: int) -> npt.NDArray[np.int64]:
        """Places [Q, K] of the nearest, -1 where fewer are found. Where a GPU cannot, the CPU searches."""
        if self._on_gpus and k <= GPU_DEPTH:
            parts = np.array_split(q_QD, min(len(self._on_gpus), max(1, len(q_QD))))
            work = list(zip(self._on_gpus, parts, strict=False))
            try:
                return np.concatenate(each(lambda one: one[0].search(np.ascontiguousarray(one[1]), k)[1], work))
            except RuntimeError as error:
                self._leave_gpu(f"FAISS could not search it on the GPU: {reason_of(error)}")
        elif self._on_gpus:
            self._leave_gpu(f"on a GPU, FAISS finds {GPU_DEPTH} neighbours at most, and {k} are asked for")
        places_QK: npt.NDArray[np.int64] = self._index.search(q_QD, k)[1]
        return places_QK

    def _leave_gpu(self, note: str) -> None:
        self._on_gpus, self.device, self.note = [], "cpu", note


def _searched_lists(index: Any) -> int:
    """How many inverted lists a search looks through, which is set to no more than there are; 0 without any."""
    lists = load_faiss().try_extract_index_ivf(index)
    if lists is None:
        return 0
    lists.nprobe = min(lists.nprobe, lists.nlist)
    return int(lists.nprobe)
