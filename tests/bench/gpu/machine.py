"""Stage about the machine: what is installed, which rates the device reaches, what will be left out and why."""

from __future__ import annotations

import importlib.util
import platform
import time
from collections.abc import Callable, Iterator
from importlib import metadata

import torch

from tests.bench.gpu.campaign import Line
from tests.bench.gpu.settings import Settings

PACKAGES = ("torch", "transformers", "sentence-transformers", "deepspeed", "faiss-gpu", "faiss-cpu", "flash-attn")
PRODUCT = {"cuda": 8192, "cpu": 512}  # side of the square matrices whose product is timed
COPY_MIB = {"cuda": 1024, "cpu": 32}


def environment(settings: Settings) -> Iterator[Line]:
    """Versions; then rates; then whether every extension that hbtrain may use is there. The line at the end of each
    stage says which compilers it started."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    cuda = settings.device.type == "cuda"
    yield {
        "case": "versions",
        "python": platform.python_version(),
        **versions,
        "cuda": torch.version.cuda if cuda else None,
        "gib": torch.cuda.get_device_properties(0).total_memory / 2**30 if cuda else None,
        "cpus": torch.get_num_threads(),
    }
    yield {"case": "rates", **rates(settings)}
    for name, what in missing(settings).items():
        yield {"case": name, "left_out": what}


def rates(settings: Settings) -> Line:
    """What the device reaches: bf16 products, and copies of pinned memory to it."""
    side, kind = PRODUCT[settings.device.type], settings.device.type
    a, b = (torch.randn(side, side, device=settings.device, dtype=torch.bfloat16) for _ in range(2))
    product_s = best_s(settings, lambda: a @ b)
    source = torch.empty(COPY_MIB[kind] * 2**20, dtype=torch.uint8, pin_memory=kind == "cuda")
    target = torch.empty_like(source, device=settings.device, pin_memory=False)
    copy_s = best_s(settings, lambda: target.copy_(source, non_blocking=True))
    return {
        "bf16_tflops": 2 * side**3 / product_s / 1e12,
        "stated_tflops": settings.peak_tflops,
        "copied_gb_per_s": source.numel() / copy_s / 1e9,
    }


def best_s(settings: Settings, work: Callable[[], object], repeats: int = 5) -> float:
    """Seconds of the fastest of some runs, after one that does not count."""
    times = []
    for _ in range(repeats + 1):
        settings.wait()
        start = time.perf_counter()
        work()
        settings.wait()
        times.append(time.perf_counter() - start)
    return min(times[1:])


def missing(settings: Settings) -> Line:
    """{extension: why it is left out}."""
    found = {}
    if not has_flash_attention():
        found["flash attention"] = "the package flash-attn is not installed, or there is no GPU: sdpa is measured"
    if importlib.util.find_spec("faiss") is None:
        found["FAISS"] = "neither faiss-gpu nor faiss-cpu is installed"
    elif not faiss_gpus(settings):
        found["FAISS on a GPU"] = "this build of FAISS has no GPU code, or there is no GPU"
    return found


def has_flash_attention() -> bool:
    """Whether transformers can use flash-attn on this machine's GPU."""
    return importlib.util.find_spec("flash_attn") is not None and torch.cuda.is_available()


def faiss_gpus(settings: Settings) -> int:
    """GPUs that the installed build of FAISS can use; 0 where stages run on a CPU."""
    import faiss

    return faiss.get_num_gpus() if settings.device.type == "cuda" and hasattr(faiss, "get_num_gpus") else 0
