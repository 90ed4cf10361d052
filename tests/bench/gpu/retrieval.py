"""Stages about evaluation: encoding against sentence-transformers, exact ranks, FAISS; and the loss alone."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

from hbtrain.config.loss import LossConfig
from hbtrain.modeling import Encoder
from hbtrain.modeling.gather import SingleProcess
from hbtrain.modeling.loss import batch_loss
from hbtrain.modeling.loss_inputs import Embedded, Sizes
from hbtrain.retrieval.encoding import Batching
from hbtrain.retrieval.faiss_index import sample_size
from hbtrain.retrieval.faiss_placement import PlacedIndex, build
from hbtrain.retrieval.ranks import Ranks, exact_search
from tests.bench.gpu.campaign import LeftOut, Line
from tests.bench.gpu.machine import best_s, has_flash_attention
from tests.bench.gpu.samples import model_folder, texts
from tests.bench.gpu.settings import Settings

THEIR_BATCHES = {"cuda": (128, 512), "cpu": (32,)}
REPEATS = 2
DEPTH = 100
RELEVANT = 2  # candidates of a query
LANGUAGES = 10


def encoding(settings: Settings) -> Iterator[Line]:
    """Passages/s of texts of mixed lengths, in bf16 and float32, against `SentenceTransformer.encode`, which is given
    the best of some batch sizes and flash attention where it is installed."""
    passages = texts(settings.sizes.encoded, 160, settings.sizes.vocabulary, 3)
    folder, device = str(model_folder(settings)), str(settings.device)
    vectors = {}
    for precision in ("bf16", "fp32"):
        encoder = Encoder.load(folder, device=device, precision=precision)
        size = Batching().batch_size
        encode = lambda encoder=encoder, size=size: encoder.encode(passages, "passage", batch_size=size)  # noqa: E731
        vectors[precision] = encode()
        seconds = best_s(settings, encode, REPEATS)
        yield {"case": f"hbtrain, {precision}", "passages_per_s": len(passages) / seconds}
        if precision == "bf16":
            their_s = {}
            for name, work in their_encoders(settings, folder, passages).items():
                their_s[name] = best_s(settings, work, REPEATS)
                yield {"case": f"sentence-transformers, {name}", "passages_per_s": len(passages) / their_s[name]}
            yield {"case": "bf16, ratio to their best", "times_their_passages_per_s": min(their_s.values()) / seconds}
        del encoder, encode
    off = np.einsum("nd,nd->n", vectors["bf16"], vectors["fp32"])
    yield {"case": "bf16 against float32", "least_cosine": float(off.min()), "mean_cosine": float(off.mean())}


def their_encoders(settings: Settings, folder: str, passages: list[str]) -> dict[str, Callable[[], object]]:
    """{attention and batch size: encodes the passages in bf16 with sentence-transformers}."""
    from sentence_transformers import SentenceTransformer

    found = {}
    for attention in ("flash_attention_2", "sdpa") if has_flash_attention() else ("sdpa",):
        options = {"attn_implementation": attention, "dtype": torch.bfloat16}
        model = SentenceTransformer(folder, device=str(settings.device), model_kwargs=options)
        for size in THEIR_BATCHES[settings.device.type]:
            found[f"{attention}, batches of {size}"] = lambda model=model, size=size: model.encode(
                passages, batch_size=size, show_progress_bar=False
            )
    return found


def unit(settings: Settings, rows: int, seed: int) -> np.ndarray:
    """Random unit vectors, drawn on the device: a CPU would take as long for them as the device for the search."""
    generator = torch.Generator(settings.device).manual_seed(seed)
    x_RD = torch.randn(rows, settings.sizes.dimension, generator=generator, device=settings.device)
    return normalize(x_RD, dim=1).cpu().numpy()


def ranks(settings: Settings) -> Iterator[Line]:
    """Exact ranks and lists over a large pool on the GPU, and whether they are those of the CPU for some queries."""
    sizes = settings.sizes
    q_QD, p_ND = unit(settings, sizes.queries, 1), unit(settings, sizes.candidates, 2)
    codes = np.sort(np.arange(sizes.candidates) % LANGUAGES)
    rng = np.random.default_rng(3)
    relevant = [rng.choice(sizes.candidates, RELEVANT, replace=False) for _ in range(sizes.queries)]
    gpus = ("cuda",) if settings.device.type == "cuda" else ()

    def searched(count: int, on: tuple[str, ...]) -> tuple[Ranks, float]:
        start = time.perf_counter()
        found = exact_search(q_QD[:count], p_ND, codes, relevant[:count], DEPTH, gpus=on).ranks
        return found, time.perf_counter() - start

    pool = f"{sizes.candidates:,} candidates of {sizes.dimension} dimensions"
    whole, seconds = searched(sizes.queries, gpus)
    operations = 2 * sizes.queries * sizes.candidates * sizes.dimension
    yield {
        "case": f"{sizes.queries} queries, {pool}", "seconds": seconds, "tflops": operations / seconds / 1e12,
    }  # fmt: skip
    if not gpus:
        raise LeftOut("ranks of a GPU are not compared with those of a CPU: there is no GPU")
    few = min(sizes.queries, 512)
    on_cpu, cpu_s = searched(few, ())
    same = whole.in_pool[: len(on_cpu.in_pool)] == on_cpu.in_pool
    yield {
        "case": f"the first {few} queries on the CPU",
        "seconds": cpu_s,
        "ranks_equal": float(same.mean()),
        "largest_difference": int(np.abs(whole.in_pool[: len(same)] - on_cpu.in_pool).max()),
        "times_as_fast_on_the_gpu": cpu_s / few * sizes.queries / seconds,
    }


def faiss(settings: Settings) -> Iterator[Line]:
    """An index trained, filled and searched on the CPU and on the GPU, as hbtrain does it."""
    if importlib.util.find_spec("faiss") is None:
        raise LeftOut("neither faiss-gpu nor faiss-cpu is installed")
    sizes = settings.sizes
    p_ND, q_QD = unit(settings, sizes.faiss_vectors, 4), unit(settings, sizes.queries, 5)
    sample = p_ND[: sample_size(sizes.faiss, sizes.dimension)]
    for device in ("cuda", "cpu") if settings.device.type == "cuda" else ("cpu",):
        start = time.perf_counter()
        index, built_note = build(sizes.faiss, "nprobe=4", "cosine", lambda: iter([p_ND]), sample, device)
        built_s = time.perf_counter() - start
        placed = PlacedIndex(index, "nprobe=4", [device])
        search_s = best_s(settings, lambda placed=placed: placed.search(q_QD, DEPTH), REPEATS)
        yield {
            "case": f"{sizes.faiss} of {sizes.faiss_vectors:,} vectors, asked for on {device}",
            "searched_on": placed.device,
            "trained_and_filled_s": built_s,
            "queries_per_s": len(q_QD) / search_s,
            "note": built_note or placed.note,
        }


def loss(settings: Settings) -> Iterator[Line]:
    """The loss alone of a large batch, forwards and backwards, in blocks of rows and by one full matrix of scores."""
    pairs, dimension = settings.sizes.loss_pairs, settings.sizes.dimension
    torch.manual_seed(0)
    q_BD, p_BD = (normalize(torch.randn(pairs, dimension, device=settings.device), dim=1) for _ in range(2))
    q_BD.requires_grad_(), p_BD.requires_grad_()
    config, empty = LossConfig(), q_BD.new_zeros(0, dimension)

    def blocks() -> None:
        batch_loss(Embedded(q_BD, p_BD, empty), Sizes([pairs], [0]), SingleProcess(), config, None).total.backward()

    def matrix() -> None:
        target_B = torch.arange(pairs, device=settings.device)
        cross_entropy(q_BD @ p_BD.T / config.temperature, target_B).backward()

    found = {}
    for name, work in {"blocks": blocks, "one matrix": matrix}.items():
        q_BD.grad = p_BD.grad = None
        work()
        found[name] = q_BD.grad.clone()
        if settings.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = best_s(settings, work, REPEATS)
        gib = torch.cuda.max_memory_allocated() / 2**30 if settings.device.type == "cuda" else None
        yield {"case": f"{pairs:,} pairs of {dimension} dimensions, {name}", "ms": seconds * 1000, "peak_gib": gib}
    off = float((found["blocks"] - found["one matrix"]).norm() / found["one matrix"].norm())
    yield {"case": "gradients", "relative_difference": off}
