"""A command's session with Ray: the connection, room for its processes, detection of loss; and tasks of a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hbtrain.cluster.capacity import Demand, alive, await_room
from hbtrain.cluster.connection import GIVEN_DEVICES, ray_connection
from hbtrain.cluster.lost_cluster import longer_reconnect_timeout, loss_as_error
from hbtrain.cluster.memory import RETRY_VARIABLE, TASK_RETRIES, out_of_memory
from hbtrain.config import Config
from hbtrain.errors import HbtrainError, TrainingError

REMEDY = "lower evaluation.batch_size, let evaluation.actors or index share the work, or use nodes with more memory"
"""What makes a run's task need less memory."""


@contextmanager
def ray_session(
    address: str | None, name: str, demand: Demand, tell: Callable[[str], None] = lambda text: None
) -> Iterator[None]:
    """Connect to Ray or start it, wait for room for the command's processes, and watch the cluster while the body runs.

    The Ray that this process is connected to already is used as it is; else the cluster at `address` or at
    `$RAY_ADDRESS`; else Ray is started on this machine, and ended afterwards.

    Args:
        address: a cluster's address, `auto` or `local`; None where the user gave none.
        name: what the user calls the address, e.g. `resources.address`.
        demand: the processes that need room, and how long to wait for nodes.
        tell: called with a sentence about what is waited for.

    Raises:
        ConfigError: the cluster has too few CPUs or GPUs, or does not answer.
        TrainingError: the cluster was lost while the body ran.
    """
    where = address or os.environ.get("RAY_ADDRESS") or "local"
    with (
        longer_reconnect_timeout(where) as patience_s,
        ray_connection(where, name),
        loss_as_error(where, patience_s),
    ):
        await_room(demand, tell)
        yield


@contextmanager
def connected(config: Config, tell: Callable[[str], None] = lambda text: None) -> Iterator[dict[str, object]]:
    """`ray_session` for a run's workers; yields {MLflow tag: value} about the cluster's hardware.

    Raises:
        ConfigError: the cluster has too few CPUs or GPUs, or does not answer.
        TrainingError: the cluster was lost while the body ran.
    """
    os.environ.setdefault("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
    resources = config.resources
    with ray_session(resources.address, "resources.address", Demand.of(resources), tell):
        import ray

        have = ray.cluster_resources()
        yield {
            "hardware.cluster_cpus": int(have.get("CPU", 0)),
            "hardware.cluster_gpus": int(have.get("GPU", 0)),
            "hardware.accelerators": ", ".join(_accelerators(have)) or "none",
            "hardware.nodes": len(alive()),
        }


def _accelerators(have: dict[str, float]) -> list[str]:
    """Models of the cluster's accelerators by Ray's names, e.g. H200."""
    mark = "accelerator_type:"
    return sorted(name.removeprefix(mark) for name in have if name.startswith(mark))


def run_task(config: Config, function: Any, *arguments: Any, starts_actors: bool = False) -> Any:
    """Run `function` as a Ray task, and return its result.

    The task gets the CPUs of all workers together, as far as one node has them, and a GPU where workers use GPUs. With
    `starts_actors` it gets none, and leaves all resources to the actors that it starts.

    Raises:
        HbtrainError: raised by `function`.
        TrainingError: the task failed in another way.
    """
    import ray

    resources = config.resources
    gpus = 1 if resources.use_gpu and not starts_actors else 0
    # In a mixed cluster the node with most CPUs may have no GPU, and a task is on one node.
    most = max((node.get("CPU", 1) for node in alive() if node.get("GPU", 0) >= gpus), default=1)
    cpus = 0 if starts_actors else max(1, int(min(most, resources.max_workers * resources.cpus_per_worker)))
    # A sweep's trial has a placement group for its driver alone; this task is to be placed outside it.
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 2, "scheduling_strategy": "DEFAULT"}
    task = ray.remote(**options, runtime_env=GIVEN_DEVICES)(function)
    try:
        return ray.get(task.remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HbtrainError):
            raise error.cause from None
        raise TrainingError(f"{function.__name__} failed: {error.cause!r}; Ray's session folder has the log") from error
    except ray.exceptions.OutOfMemoryError as error:
        tried = f"it was tried again {os.environ.get(RETRY_VARIABLE, TASK_RETRIES)} times"
        raise TrainingError(f"{function.__name__} failed: {out_of_memory(str(error))}; {tried}, {REMEDY}") from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"{function.__name__} failed: {reason}; Ray's session folder has the log") from error
