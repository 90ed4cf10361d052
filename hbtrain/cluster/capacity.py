"""Whether a cluster has the CPUs and GPUs for a command's processes, and waiting for nodes where it has not."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hbtrain.config.schema import ResourcesConfig
from hbtrain.errors import ConfigError

CHECK_EVERY_S = 1.0
ROUNDING = 1e-6
"""Ray counts resources in ten-thousandths; rounding errors of their sums in binary are smaller than this."""

Node = Mapping[str, float]
"""{Ray's name of a resource: amount that the node has in all}, e.g. {"CPU": 8, "GPU": 1}."""


@dataclass(frozen=True)
class Demand:
    """The resources that a command needs: a number of equal processes, each of which runs on one node."""

    asked: str  # the user's setting, for messages, e.g. `resources.workers = 4` or `--actors 4`
    count: int  # the fewest processes that are enough
    cpus: float  # CPUs of one process
    gpus: float = 0.0  # GPUs of one process
    wait_s: float = 0.0  # seconds to wait for nodes, which an autoscaler is asked for; 0: not at all
    wait_option: str = "--wait-s"  # name of the option that sets `wait_s`, e.g. `resources.wait_s`
    noun: str = "actors"  # what messages call the processes

    @classmethod
    def of(cls, resources: ResourcesConfig) -> Demand:
        """The demand of the fewest workers that a run goes on with."""
        return cls(
            asked=f"resources.workers = {resources.workers}",
            count=resources.min_workers,
            cpus=resources.cpus_per_worker,
            gpus=1.0 if resources.use_gpu else 0.0,
            wait_s=resources.wait_s,
            wait_option="resources.wait_s",
            noun="workers",
        )

    @property
    def bundle(self) -> dict[str, float]:
        """{Ray's name of a resource: amount} of one process."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})

    @property
    def total(self) -> str:
        """What all processes need, e.g. `8 CPUs and 8 GPUs`."""
        return _listed((kind, self.count * of_one) for kind, of_one in self.bundle.items())

    def found_on(self, nodes: Sequence[Node]) -> str:
        """How much of these resources the nodes have, e.g. `2 CPUs and 0 GPUs`."""
        return _listed((kind, sum(node.get(kind, 0) for node in nodes)) for kind in self.bundle)

    def room(self, nodes: Sequence[Node]) -> int:
        """How many such processes fit on the nodes when nothing else runs."""
        return sum(
            min(int(node.get(kind, 0) / of_one + ROUNDING) for kind, of_one in self.bundle.items()) for node in nodes
        )

    def shortage(self, nodes: Sequence[Node]) -> str | None:
        """Why `count` processes do not fit on the nodes; None if they do."""
        fit = self.room(nodes)
        if fit >= self.count:
            return None
        text = f"{self.asked} needs {self.total}, and the cluster has {self.found_on(nodes)}"
        for kind, of_one in self.bundle.items():
            if sum(node.get(kind, 0) for node in nodes) + ROUNDING < self.count * of_one:
                return text
        return f"{text}, but on nodes that hold {fit} {self.noun} of {_listed(self.bundle.items())} each"


def await_room(demand: Demand, tell: Callable[[str], None]) -> None:
    """Return once the cluster's nodes are large enough for the demand; others may be using them.

    Args:
        demand: the processes, and how long to wait for nodes.
        tell: called with a sentence about what is waited for.

    Raises:
        ConfigError: the cluster is too small, and `demand.wait_s` is 0 or has passed.
    """
    short = demand.shortage(alive())
    if short is None:
        return
    if demand.wait_s == 0:
        raise ConfigError(
            f"{short}; lower it, join nodes to the cluster, or wait for them with {demand.wait_option}, in seconds"
        )
    tell(f"waiting up to {demand.wait_s:g} s for {demand.total}: the cluster has {demand.found_on(alive())}")
    deadline = time.monotonic() + demand.wait_s
    with _autoscaler_request(demand):
        while (short := demand.shortage(alive())) is not None:
            if time.monotonic() >= deadline:
                raise ConfigError(
                    f"{short} after {demand.wait_option} = {demand.wait_s:g} s; join nodes to the cluster"
                )
            time.sleep(CHECK_EVERY_S)
    tell(f"the cluster has {demand.found_on(alive())}")


def alive() -> list[Node]:
    """The living nodes of the cluster that this process is connected to."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextmanager
def _autoscaler_request(demand: Demand) -> Iterator[None]:
    """Have an autoscaler add nodes for the demand while the body runs.

    Ray learns of the demand by a placement group, as from Ray Train: those of several runs add up, and each ends with
    its process. `ray.autoscaler.sdk.request_resources` holds one request for the whole cluster, which Ray Train and Ray
    Data set as well, and which outlives the process that made it.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    group: Any = placement_group([demand.bundle] * demand.count)
    try:
        yield
    finally:
        remove_placement_group(group)


def _listed(amounts: Iterable[tuple[str, float]]) -> str:
    return " and ".join(f"{amount:g} {kind}" if amount == 1 else f"{amount:g} {kind}s" for kind, amount in amounts)
