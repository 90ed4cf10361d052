"""Whether a cluster has room for a run's workers, and waiting for nodes where it has not yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hbtrain.config.schema import ResourcesConfig
from hbtrain.errors import ConfigError

LOOK_EVERY_S = 1.0
ROUNDING = 1e-6
"""Ray counts in ten-thousandths; sums of them in binary may fall short by less than this."""

Node = Mapping[str, float]
"""What a node has in all, as Ray names it, e.g. {"CPU": 8, "GPU": 1}."""


def await_room(resources: ResourcesConfig, tell: Callable[[str], None]) -> None:
    """Return once the cluster has room for the fewest workers that the run goes on with, used by others or not.

    Args:
        resources: of the run; nodes are asked for and waited for at most `resources.wait_s`.
        tell: told what is waited for.

    Raises:
        ConfigError: there is too little room, and nothing to wait for or not in time.
    """
    short = shortage(resources, alive())
    if short is None:
        return
    if resources.wait_s == 0:
        raise ConfigError(
            f"{short}; lower it, join nodes to the cluster, or wait for them with resources.wait_s (seconds)"
        )
    needed, had = needs(resources), has(resources, alive())
    tell(f"waiting up to {resources.wait_s:g} s for {needed}: the cluster has {had}")
    deadline = time.monotonic() + resources.wait_s
    with _asked_for(resources):
        while (short := shortage(resources, alive())) is not None:
            if time.monotonic() >= deadline:
                raise ConfigError(f"{short} after resources.wait_s = {resources.wait_s:g} s; join nodes to the cluster")
            time.sleep(LOOK_EVERY_S)
    tell(f"the cluster has {has(resources, alive())}")


def alive() -> list[Node]:
    """The nodes of the cluster that Ray is connected to."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def room(resources: ResourcesConfig, nodes: Sequence[Node]) -> int:
    """How many workers of such a size the nodes hold when nothing else runs; a worker is on one node."""
    return sum(min(int(node.get(kind, 0) / of_one + ROUNDING) for kind, of_one in _worker(resources)) for node in nodes)


def shortage(resources: ResourcesConfig, nodes: Sequence[Node]) -> str | None:
    """Why the fewest workers of the run do not fit on the nodes; None if they do."""
    fit = room(resources, nodes)
    if fit >= resources.min_workers:
        return None
    text = f"resources.workers = {resources.workers} needs {needs(resources)}, and the cluster has "
    for kind, of_one in _worker(resources):
        if sum(node.get(kind, 0) for node in nodes) + ROUNDING < resources.min_workers * of_one:
            return text + has(resources, nodes)
    return f"{text}{has(resources, nodes)}, but on nodes that hold {fit} workers of {_size(resources)} each"


def needs(resources: ResourcesConfig) -> str:
    """What the fewest workers need, e.g. `8 CPUs and 8 GPUs`."""
    return _listed((kind, resources.min_workers * of_one) for kind, of_one in _worker(resources))


def has(resources: ResourcesConfig, nodes: Sequence[Node]) -> str:
    """What the nodes have of that, e.g. `2 CPUs and 0 GPUs`."""
    return _listed((kind, sum(node.get(kind, 0) for node in nodes)) for kind, _ in _worker(resources))


@contextmanager
def _asked_for(resources: ResourcesConfig) -> Iterator[None]:
    """While the body runs, Ray knows of the demand, and an autoscaler adds nodes for it.

    By a placement group, as Ray Train's own: what several runs wait for adds up, and it goes when this process does.
    `ray.autoscaler.sdk.request_resources` knows one request for the whole cluster, which Ray Train and Ray Data write
    as well, and which outlives its author.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    bundle: dict[str, float] = dict(_worker(resources))
    group: Any = placement_group([bundle] * resources.min_workers)
    try:
        yield
    finally:
        remove_placement_group(group)


def _worker(resources: ResourcesConfig) -> list[tuple[str, float]]:
    """What one worker takes."""
    return [("CPU", resources.cpus_per_worker), *([("GPU", 1.0)] if resources.use_gpu else [])]


def _size(resources: ResourcesConfig) -> str:
    return _listed(_worker(resources))


def _listed(amounts: Any) -> str:
    return " and ".join(f"{amount:g} {kind}{'s'[: amount != 1]}" for kind, amount in amounts)
