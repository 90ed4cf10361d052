"""What benchmarks share: times of turns taken by two sides, memory, the JSON line."""

from __future__ import annotations

import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil


def seconds(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Time of one call."""
    start = clock()
    work()
    return clock() - start


def in_turns(
    sides: Mapping[str, Callable[[], object]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Median seconds of each side; they take turns, so that another's load on the machine falls on all.

    With `time.process_time` as the clock it is processor time, of all threads, which hardly knows that load.
    """
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(repeats):
        for name, work in sides.items():
            times[name].append(seconds(work, clock))
    return {name: statistics.median(of_side) for name, of_side in times.items()}


def peak_mib() -> float:
    """The most main memory that this process has had, in MiB (Linux; `getrusage` would count its parent's as well)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def memory_mib(work: Callable[[], object]) -> float:
    """Main memory that `work` takes at its peak above what is in use before, in MiB (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again at what is in use
    before = psutil.Process().memory_info().rss
    work()
    return peak_mib() - before / 2**20


def device_name() -> str:
    """The GPU, or the machine's processor."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()


def rounded(figures: Mapping[str, object]) -> dict[str, object]:
    """The figures, numbers with four digits."""
    return {key: float(f"{x:.4g}") if isinstance(x, float) else x for key, x in figures.items()}


def tell(benchmark: str, **figures: object) -> None:
    """Print the benchmark's JSON line; numbers with four digits."""
    print(json.dumps({"benchmark": benchmark, "device": device_name()} | rounded(figures)), flush=True)
