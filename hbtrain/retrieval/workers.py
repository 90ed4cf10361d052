"""Workers, each of which holds an object whose methods are called: the interface, and workers in this process.

`actors` has workers that are Ray actors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from hbtrain.modeling.devices import Device

Factory = Callable[[Device], Any]
"""Makes the object that a worker holds, which computes on the worker's device; can be pickled."""
StartWorkers = Callable[[Sequence[Factory]], AbstractContextManager["Workers"]]
"""Starts one worker for each factory; they end with the context."""


class Workers(Protocol):
    """A fixed number of workers, each with an object of its own."""

    def map_unordered(self, method: str, tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Call `method` once for every tuple of arguments, each time in whichever worker is free.

        Gives (number of the task, result) in the order in which they are done. `tasks` is read lazily.
        """

    def call_all(self, method: str, *arguments: Any) -> list[Any]:
        """Call `method` in every worker with the same arguments; the results are in the order of the workers."""


class LocalWorkers:
    """Workers in this process, one after another, all on one device. An object is made when it is first called."""

    def __init__(self, factories: Sequence[Factory], device: Device = "cpu") -> None:
        self._factories = list(factories)
        self._device: Device = device
        self._made: dict[int, Any] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.clear()

    def map_unordered(self, method: str, tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        for number, arguments in enumerate(tasks):
            yield number, getattr(self._object(0), method)(*arguments)

    def call_all(self, method: str, *arguments: Any) -> list[Any]:
        return [getattr(self._object(worker), method)(*arguments) for worker in range(len(self._factories))]

    def _object(self, worker: int) -> Any:
        if worker not in self._made:
            self._made[worker] = self._factories[worker](self._device)
        return self._made[worker]
