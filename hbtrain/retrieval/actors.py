"""Workers that are Ray actors, the one place of retrieval that knows Ray.

A killed actor is started again by Ray, elsewhere if its node is gone, and its unfinished tasks are done again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hbtrain.cluster.capacity import Demand
from hbtrain.cluster.connection import GIVEN_DEVICES, head_answers
from hbtrain.cluster.session import ray_session
from hbtrain.errors import ConfigError, HbtrainError, RetrievalError
from hbtrain.modeling.devices import Device, evaluation_precision
from hbtrain.retrieval.workers import TASKS_AHEAD, Factory, StartWorkers, Workers

if TYPE_CHECKING:
    from hbtrain.config.encoder import Precision

RESTARTS = 3  # times that an actor is started again; one that dies more often dies of its task
IDLE_TIMEOUT_S = 20.0  # how long to wait for CPUs and GPUs that the cluster has and others use


@contextmanager
def actor_session(demand: Demand, address: str | None = None) -> Iterator[StartWorkers]:
    """A Ray session in which workers can be started, each with a GPU, or a share of one, if the cluster has any.

    Args:
        demand: the most actors at one time, and the CPUs of each.
        address: of a Ray cluster; by default `$RAY_ADDRESS`, or one on this machine.

    Raises:
        ConfigError: the cluster has too little for them, or does not answer.
        TrainingError: the cluster was lost.
    """

    @contextmanager
    def start(factories: Sequence[Factory]) -> Iterator[Workers]:
        workers = RayWorkers(factories, demand.cpus, gpus)
        try:
            yield workers
        finally:
            workers.close()

    with ray_session(address, "--address", demand):
        gpus = _gpus_of_an_actor(demand)
        yield start


def precision_of_actors(start: StartWorkers) -> Precision | None:
    """The precision in which the actors of a session embed texts where nobody chose one; see `evaluation_precision`."""
    import ray

    if not ray.cluster_resources().get("GPU", 0):
        return None
    with start([_Precision]) as workers:
        precision: Precision | None = workers.call_all("of_device")[0]
    return precision


class _Precision:
    def __init__(self, device: Device) -> None:
        self._device = device

    def of_device(self) -> Precision | None:
        return evaluation_precision(None, self._device)


class RayWorkers:
    """Ray actors as workers; Ray must be connected."""

    def __init__(self, factories: Sequence[Factory], cpus: float, gpus: float) -> None:
        import ray

        # Where a placement group holds this driver, it has no room for them.
        options = {
            "num_cpus": cpus,
            "num_gpus": gpus,
            "max_restarts": RESTARTS,
            "max_task_retries": RESTARTS,
            "scheduling_strategy": "DEFAULT",
            "runtime_env": GIVEN_DEVICES,
        }
        actor = ray.remote(**options)(_RetrievalActor)
        device: Device = "cuda" if gpus else "cpu"
        self._actors = [actor.remote(factory, device) for factory in factories]

    def map_unordered(self, method: str, tasks: Iterable[tuple[Any, ...]]) -> Iterator[tuple[int, Any]]:
        import ray

        numbered = enumerate(tasks)
        running: dict[Any, tuple[int, Any]] = {}

        def give(actor: Any) -> None:
            for number, arguments in numbered:
                running[actor.call.remote(method, *arguments)] = (number, actor)
                return

        for _ in range(TASKS_AHEAD):
            for actor in self._actors:
                give(actor)
        while running:
            (done,), _ = ray.wait(list(running), num_returns=1)
            number, actor = running.pop(done)
            result = _result(done)
            give(actor)
            yield number, result

    def call_all(self, method: str, *arguments: Any) -> list[Any]:
        import ray

        stored = [ray.put(argument) for argument in arguments]  # once for all actors
        return [_result(call) for call in [actor.call.remote(method, *stored) for actor in self._actors]]

    def processes(self) -> list[int]:
        """Process ids of the actors, each on its own machine."""
        return self.call_all("__process__")

    def close(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)


class _RetrievalActor:
    """An actor. It makes its object at the first call, so that what goes wrong is raised where that call is awaited."""

    def __init__(self, factory: Factory, device: Device) -> None:
        self._factory = factory
        self._device: Device = device
        self._made: Any = None

    def call(self, method: str, *arguments: Any) -> Any:
        if method == "__process__":
            return os.getpid()
        if self._made is None:
            self._made = self._factory(self._device)
        return getattr(self._made, method)(*arguments)


def _result(reference: Any) -> Any:
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HbtrainError):
            raise error.cause from None
        raise RetrievalError(f"an actor failed: {error.cause!r}; Ray's session folder has the log") from error
    except ray.exceptions.RayError as error:
        if not head_answers():
            raise  # the cluster is lost, and the session says so
        reason = str(error).strip().splitlines()[0]
        raise RetrievalError(
            f"an actor was lost {RESTARTS + 1} times: {reason}; where memory is short, lower the tokens of a batch or "
            "the number of actors; the same command goes on from the shards that are finished"
        ) from error


def _gpus_of_an_actor(demand: Demand) -> float:
    """GPUs of an actor: 1, the share of one, or 0.

    Raises:
        ConfigError: other jobs use the CPUs that the actors need.
    """
    idle = _idle(demand)
    if (short := demand.shortage([idle])) is not None and demand.count * demand.cpus > idle.get("CPU", 0):
        raise ConfigError(f"{short} that are idle; take fewer actors, or wait until others have ended")
    gpus = idle.get("GPU", 0)
    if gpus >= demand.count:
        return 1
    # Ray counts in ten-thousandths. Whole GPUs are divided: an actor cannot have a part of each of two.
    return int(10_000 / -(-demand.count // int(gpus))) / 10_000 if gpus >= 1 else 0


def _idle(demand: Demand) -> dict[str, float]:
    """The idle resources of the cluster, after a short wait for the CPUs and GPUs that the actors can use.

    When a training has ended, Ray gives its CPUs and its GPUs back after a moment, and not always together.
    """
    import ray

    wanted = {
        "CPU": demand.count * demand.cpus,
        "GPU": min(demand.count, ray.cluster_resources().get("GPU", 0)),
    }
    deadline = time.monotonic() + IDLE_TIMEOUT_S
    while time.monotonic() < deadline:
        idle = ray.available_resources()
        if all(idle.get(kind, 0) >= amount for kind, amount in wanted.items()):
            break
        time.sleep(0.2)
    return dict(ray.available_resources())
