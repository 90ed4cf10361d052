"""Workers, each of which holds an object whose methods are called: the interface, and workers in this process.

`actors` has workers that are Ray actors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, TypeVar

from hbtrain.modeling.devices import Device

Item = TypeVar("Item")
Result = TypeVar("Result")

Factory = Callable[[Device], Any]
"""Makes the object that a worker holds, which computes on the worker's device; can be pickled."""
StartWorkers = Callable[[Sequence[Factory]], AbstractContextManager["Workers"]]
"""Starts one worker for each factory; they end with the context."""


TASKS_AHEAD = 2  # tasks given to a worker at one time, so that it need not wait for the next


class Workers(Protocol):
    """A fixed number of workers, each with an object of its own."""

    def map_unordered(self, method: str, tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        """Call `method` once for every tuple of arguments, each time in whichever worker is free.

        Gives (number of the task, result) in the order in which they are done. `tasks` is read lazily.
        """

    def call_all(self, method: str, *arguments: Any) -> list[Any]:
        """Call `method` in every worker with the same arguments; the results are in the order of the workers."""


class LocalWorkers:
    """Workers in this process, on one device after the other. Where there are several devices, each worker has a thread
    for its tasks, and each device one for calls of all. An object is made when it is first called.
    """

    def __init__(self, factories: Sequence[Factory], devices: Sequence[Device] = ("cpu",)) -> None:
        self._factories = list(factories)
        self._devices = devices
        self._made: dict[int, Any] = {}

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self._made.clear()

    def map_unordered(self, method: str, tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        numbered, workers = enumerate(tasks), min(len(self._devices), len(self._factories))
        if workers == 1:
            yield from ((number, self._call(0, method, arguments)) for number, arguments in numbered)
            return
        running: dict[Future[Any], tuple[int, int]] = {}
        with ExitStack() as stack:
            threads = [stack.enter_context(ThreadPoolExecutor(1)) for _ in range(workers)]

            def give(worker: int) -> None:
                for number, arguments in numbered:
                    running[threads[worker].submit(self._call, worker, method, arguments)] = number, worker
                    return

            for _ in range(TASKS_AHEAD):
                for worker in range(workers):
                    give(worker)
            while running:
                for done in wait(running, return_when=FIRST_COMPLETED).done:
                    number, worker = running.pop(done)
                    give(worker)
                    yield number, done.result()

    def call_all(self, method: str, *arguments: Any) -> list[Any]:
        numbers = range(len(self._factories))

        def call(first: int) -> dict[int, Any]:
            here = numbers[first :: len(self._devices)]
            return {number: self._call(number, method, arguments) for number in here}

        found = each(call, range(min(len(self._devices), len(numbers))))
        return [found[number % len(self._devices)][number] for number in numbers]

    def _call(self, worker: int, method: str, arguments: tuple[Any, ...]) -> Any:
        return getattr(self._object(worker), method)(*arguments)

    def _object(self, worker: int) -> Any:
        if worker not in self._made:
            self._made[worker] = self._factories[worker](self._devices[worker % len(self._devices)])
        return self._made[worker]


def each(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """The results of a function for all items, such as devices, each in a thread of its own where there are several."""
    if len(items) == 1:
        return [function(items[0])]
    with ThreadPoolExecutor(max(1, len(items))) as pool:
        return list(pool.map(function, items))
