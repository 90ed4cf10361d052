"""When a side of a comparison has trained enough, and what its steps took: time, processor time, kernels, waits."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

import torch

WARM_UP = 2
ESTIMATED = 1  # steps from which the length of the measurement is chosen
PROFILED = 2
LEAST, MOST = 3, 60  # steps that are measured

LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")
WAITS = ("cudaStreamSynchronize", "cudaEventSynchronize")
"""Calls with which the host waits for a device. `cudaDeviceSynchronize` is the benchmark's own."""


@dataclass
class Pace:
    """To be called after every step of a training with the number of steps done; true once it has seen enough."""

    device: torch.device
    target_s: float  # for which steps are measured, about
    profiled: bool = True  # whether steps are profiled as well, see `profile_figures`
    seconds: float = 0.0  # of a step
    processor_s: float = 0.0  # of a step: of all threads of this process
    figures: dict[str, Any] = field(default_factory=dict)  # more of a step
    _stop: int = 0
    _start: tuple[float, float] = (0.0, 0.0)
    _profile: Any = None

    def __call__(self, done: int) -> bool:
        if done == WARM_UP:
            if self.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            self._start = self._now()
        elif done == WARM_UP + ESTIMATED:
            step_s = (self._now()[0] - self._start[0]) / ESTIMATED
            self._stop = done + min(MOST, max(LEAST, round(self.target_s / step_s)))
            self._start = self._now()
        elif done == self._stop:
            steps = done - WARM_UP - ESTIMATED
            now = self._now()
            self.seconds, self.processor_s = ((b - a) / steps for a, b in zip(self._start, now, strict=True))
            if self.device.type == "cuda":
                self.figures["peak_gib"] = torch.cuda.max_memory_allocated() / 2**30
            if not self.profiled:
                return True
            self._profile = torch.profiler.profile()
            self._profile.start()
        elif self._stop and done == self._stop + PROFILED:
            self._now()
            self._profile.stop()
            self.figures |= profile_figures(self._profile, PROFILED, self.device)
            return True
        return False

    def _now(self) -> tuple[float, float]:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


def profile_figures(profile: Any, steps: int, device: torch.device) -> dict[str, float]:
    """Of a step, from a profile of so many: on a GPU kernels, waits of the host and milliseconds of kernels; on a CPU
    milliseconds of the optimizer."""
    events = profile.key_averages()
    if device.type == "cpu":
        optimizer = [event.cpu_time_total for event in events if event.key.startswith("Optimizer.step#")]
        return {"optimizer_ms": sum(optimizer) / 1000 / steps}
    launches = sum(event.count for event in events if event.key.startswith(LAUNCHES))
    waits = sum(event.count for event in events if event.key.startswith(WAITS))
    on_device = (event.self_device_time_total for event in events if event.device_type != torch.autograd.DeviceType.CPU)
    return {"kernels": launches / steps, "waits": waits / steps, "kernel_ms": sum(on_device) / 1000 / steps}
