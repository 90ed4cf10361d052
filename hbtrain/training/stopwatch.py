"""Measuring the time of training by phase: waiting for data, encoder, loss, backward pass, communication, optimizer.

A GPU computes while Python runs on, so there the boundaries of phases are CUDA events, which cost nothing until they
are read; on a CPU they are readings of the clock. All events lie on one stream, that of the computing: between events
of two streams, whose work overlaps (ZeRO-3, `overlap_comm`), times could be negative.

Communication is the time for which training waits in collectives, hbtrain's own and DeepSpeed's. What overlaps with
computing is not counted: an asynchronous collective counts from the point where its result is waited for.
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

OTHER = "other"  # name of the phase for time outside all others


class Stopwatch:
    """Divides the time between two readings among phases; with nested phases, time counts for the innermost."""

    def __init__(self, device: torch.device, on_phase: PhaseCallback = ignore_phase) -> None:
        """Measure on `device`; `on_phase` is told of every phase as it begins, and of the one around it as it ends."""
        self._on_phase = on_phase
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._running: list[str] = [OTHER]
        self._whole = False
        self._marks: list[tuple[str, float | torch.cuda.Event]] = [(OTHER, self._now())]

    @contextmanager
    def phase(self, name: str, whole: bool = False) -> Iterator[None]:
        """Count the body's time for phase `name`; with `whole`, also that of phases nested in it."""
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
        """The items, with the time of waiting for them counted for phase `name`."""
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
        if self._stream is not None:
            self._stream.synchronize()
        seconds: dict[str, float] = defaultdict(float)
        for (name, start), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            seconds[name] += _between_s(start, end)
        self._marks = self._marks[-1:]
        return dict(seconds)

    def _now(self) -> float | torch.cuda.Event:
        if self._stream is None:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record(self._stream)
        return event


def _between_s(start: float | torch.cuda.Event, end: float | torch.cuda.Event) -> float:
    if isinstance(start, torch.cuda.Event):
        return float(start.elapsed_time(end)) / 1000.0  # type: ignore[arg-type]
    assert isinstance(end, float)
    return end - start


COMMUNICATION = "communication"

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
    """A group whose collectives are timed by a stopwatch."""

    def __init__(self, group: Group, stopwatch: Stopwatch) -> None:
        self.rank = group.rank
        self.world_size = group.world_size
        self._group = group
        self._stopwatch = stopwatch

    def all_gather(self, x: Tensor) -> Tensor:
        with self._stopwatch.phase(COMMUNICATION):
            return self._group.all_gather(x)

    def all_reduce_sum(self, x: Tensor) -> Tensor:
        with self._stopwatch.phase(COMMUNICATION):
            return self._group.all_reduce_sum(x)

    def reduce_scatter_sum(self, x: Tensor) -> Tensor:
        with self._stopwatch.phase(COMMUNICATION):
            return self._group.reduce_scatter_sum(x)


def time_deepspeed(stopwatch: Stopwatch) -> None:
    """Time DeepSpeed's collectives in this process by a stopwatch, which replaces an earlier one."""
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
    """Handle of an asynchronous collective; the time in `wait` counts as communication."""

    def __init__(self, handle: Any, stopwatch: Stopwatch) -> None:
        self._handle = handle
        self._stopwatch = stopwatch

    def wait(self, *arguments: Any, **options: Any) -> Any:
        with self._stopwatch.phase(COMMUNICATION):
            return self._handle.wait(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handle, name)
