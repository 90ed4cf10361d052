"""Ray: connecting to a cluster or starting one, what it has, and tasks that run on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hbtrain.cluster.capacity import await_room
from hbtrain.cluster.connection import GIVEN_DEVICES, ray_connection
from hbtrain.cluster.lost_cluster import loss_in_words, outliving
from hbtrain.config import Config
from hbtrain.errors import HbtrainError, TrainingError


@contextmanager
def connected(config: Config, tell: Callable[[str], None] = lambda text: None) -> Iterator[dict[str, object]]:
    """Ray, connected or started; gives what is to be known of its hardware. A cluster started here ends here.

    Args:
        config: its `resources`.
        tell: told what is waited for, where the run waits for nodes.

    Raises:
        ConfigError: the cluster has too few CPUs or GPUs, or does not answer.
        TrainingError: the cluster went away in the meantime.
    """
    os.environ.setdefault("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
    address = config.resources.address or os.environ.get("RAY_ADDRESS") or "local"
    with (
        outliving(address) as patience_s,
        ray_connection(address, "resources.address"),
        loss_in_words(address, patience_s),
    ):
        import ray

        await_room(config.resources, tell)
        have = ray.cluster_resources()
        yield {
            "hardware.cluster_cpus": int(have.get("CPU", 0)),
            "hardware.cluster_gpus": int(have.get("GPU", 0)),
            "hardware.accelerators": ", ".join(_accelerators(have)) or "none",
            "hardware.nodes": len([node for node in ray.nodes() if node["Alive"]]),
        }


def _accelerators(have: dict[str, float]) -> list[str]:
    """Models of the cluster's accelerators, as Ray names them, e.g. H200."""
    mark = "accelerator_type:"
    return sorted(name.removeprefix(mark) for name in have if name.startswith(mark))


def run_task(config: Config, function: Any, *arguments: Any, starts_actors: bool = False) -> Any:
    """Run `function` as a Ray task with the resources of one worker, or more CPUs where a node has them idle.

    One that `starts_actors` leaves all resources to them.
    """
    import ray

    resources = config.resources
    most = max(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"])
    cpus = 0 if starts_actors else max(1, int(min(most, resources.max_workers * resources.cpus_per_worker)))
    gpus = 1 if resources.use_gpu and not starts_actors else 0
    # A sweep's trial has a placement group for its driver alone; this task is to be placed outside it.
    options = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 2, "scheduling_strategy": "DEFAULT"}
    task = ray.remote(**options, runtime_env=GIVEN_DEVICES)(function)
    try:
        return ray.get(task.remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HbtrainError):
            raise error.cause from None
        raise TrainingError(f"{function.__name__} failed: {error.cause!r}; Ray's session folder has the log") from error
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise TrainingError(f"{function.__name__} failed: {reason}; Ray's session folder has the log") from error
