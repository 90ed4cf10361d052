"""Where the time of training goes: waiting for data, encoder, loss, backward pass, communication, optimizer.

A device computes while Python runs on, so on a GPU the marks between phases are CUDA events, which cost nothing until
they are read; on a CPU they are readings of the clock.

Measuring how long training waits for other ranks: in hbtrain's own collectives, and in DeepSpeed's.

What overlaps with computing costs no time and is not counted: a collective that runs on counts from where its result
is waited for.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from hbtrain.modeling.gather import Group
from hbtrain.training.worker import PhaseCallback, ignore_phase

T = TypeVar("T")

OTHER = "other"
"""What is in none of the phases."""


class Stopwatch:
    """Divides the time between two readings among phases; each moment counts for the innermost phase it lies in."""

    def __init__(self, device: torch.device, on_phase: PhaseCallback = ignore_phase) -> None:
        """Measure on `device`; `on_phase` is told of every phase as it begins, and of the one around it as it ends."""
        self._on_phase = on_phase
        self._on_gpu = device.type == "cuda"
        self._running: list[str] = [OTHER]
        self._whole = False
        self._marks: list[tuple[str, float | torch.cuda.Event]] = [(OTHER, self._now())]

    @contextmanager
    def phase(self, name: str, whole: bool = False) -> Iterator[None]:
        """The body belongs to phase `name`; phases within it count for themselves, unless `name` takes the whole."""
        if self._whole:
            self._on_phase(name)
            yield
            return
        self._whole = whole
        self._running.append(name)
        self._on_phase(name)
        self._marks.append((name, self._now()))
        try:
            yield
        finally:
            self._whole = False
            self._running.pop()
            self._on_phase(self._running[-1])
            self._marks.append((self._running[-1], self._now()))

    def each(self, items: Iterable[T], name: str) -> Iterator[T]:
        """The items; waiting for them belongs to phase `name`."""
        iterator = iter(items)
        try:
            while True:
                with self.phase(name):
                    item = next(iterator)
                yield item
        except StopIteration:
            return

    def read(self) -> dict[str, float]:
        """Seconds of each phase since the last reading."""
        self._marks.append((self._running[-1], self._now()))
        if self._on_gpu:
            torch.cuda.synchronize()
        seconds: dict[str, float] = defaultdict(float)
        for (name, start), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            seconds[name] += _between_s(start, end)
        self._marks = self._marks[-1:]
        return dict(seconds)

    def _now(self) -> float | torch.cuda.Event:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def _between_s(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, torch.cuda.Event):
        return float(start.elapsed_time(end)) / 1000.0  # type: ignore[arg-type]
    assert isinstance(end, float)
    return end - start


COMMUNICATION = "communication"
"""The phase's name."""

COLLECTIVES = (
    "all_gather",
    "all_gather_coalesced",
    "all_gather_into_tensor",
    "all_reduce",
    "all_reduce_coalesced",
    "broadcast",
    "reduce",
    "reduce_scatter",
    "reduce_scatter_tensor",
)


class TimedGroup:
    """A group whose collectives are phases of a stopwatch."""

    def __init__(self, group: Group, stopwatch: Stopwatch) -> None:
        self.rank = group.rank
        self.world_size = group.world_size
        self._group = group
        self._stopwatch = stopwatch

    def all_gather(self, x: Tensor) -> Tensor:
        """[W, *x.shape]: the tensors of all ranks, which have one shape."""
        with self._stopwatch.phase(COMMUNICATION):
            return self._group.all_gather(x)

    def all_reduce_sum(self, x: Tensor) -> Tensor:
        """The sum over ranks; may overwrite `x`."""
        with self._stopwatch.phase(COMMUNICATION):
            return self._group.all_reduce_sum(x)


def time_deepspeed(stopwatch: Stopwatch) -> None:
    """Make DeepSpeed's collectives of this process phases of a stopwatch, in place of an earlier one."""
    from deepspeed.comm import comm

    backend = comm.cdb
    for name in COLLECTIVES:
        vars(backend).pop(name, None)
        if callable(collective := getattr(backend, name, None)):
            setattr(backend, name, _timed(collective, stopwatch))


def _timed(collective: Callable[..., Any], stopwatch: Stopwatch) -> Callable[..., Any]:
    def timed(*arguments: Any, **options: Any) -> Any:
        with stopwatch.phase(COMMUNICATION):
            handle = collective(*arguments, **options)
        return _TimedHandle(handle, stopwatch) if hasattr(handle, "wait") else handle

    return timed


class _TimedHandle:
    """A collective that runs on; waiting for it is communication."""

    def __init__(self, handle: Any, stopwatch: Stopwatch) -> None:
        self._handle = handle
        self._stopwatch = stopwatch

    def wait(self, *arguments: Any, **options: Any) -> Any:
        with self._stopwatch.phase(COMMUNICATION):
            return self._handle.wait(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)
