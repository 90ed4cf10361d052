"""Workers that share tasks or each do their part: the interface of Ray's actors, and the same in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

Factory = Callable[[], Any]
"""Makes the object that a worker holds; it can be pickled."""
StartWorkers = Callable[[Sequence[Factory]], AbstractContextManager["Workers"]]
"""Starts a worker for each object; they end with the context."""


class Workers(Protocol):
    """Objects whose methods are called, wherever they are."""

    def map_unordered(self, method: str, tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Call `method` of any of the objects for every tuple of arguments: (number of the task, result) as they are
        done. Tasks are read as they are needed.
        """

    def call_all(self, method: str, *arguments: Any) -> list[Any]:
        """Call `method` of every object with the same arguments: the results in the order of the objects."""


class LocalWorkers:
    """Workers in this process, one after another; an object is made when it is first needed."""

    def __init__(self, factories: Sequence[Factory]) -> None:
        self._factories = list(factories)
        self._made: dict[int, Any] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.clear()

    def map_unordered(self, method: str, tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """See `Workers`; the first object does all."""
        for number, arguments in enumerate(tasks):
            yield number, getattr(self._object(0), method)(*arguments)

    def call_all(self, method: str, *arguments: Any) -> list[Any]:
        """See `Workers`."""
        return [getattr(self._object(worker), method)(*arguments) for worker in range(len(self._factories))]

    def _object(self, worker: int) -> Any:
        if worker not in self._made:
            self._made[worker] = self._factories[worker]()
        return self._made[worker]
