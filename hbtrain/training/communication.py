"""Measuring how long training waits for other ranks: in hbtrain's own collectives, and in DeepSpeed's.

What overlaps with computing costs no time and is not counted: a collective that runs on counts from where its result
is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from hbtrain.modeling.gather import Group
from hbtrain.training.stopwatch import Stopwatch

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
