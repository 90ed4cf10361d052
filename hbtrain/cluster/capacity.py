"""Whether a cluster has room for a command's processes, and waiting for nodes where it has not yet."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from hbtrain.config.schema import ResourcesConfig
from hbtrain.errors import ConfigError

LOOK_EVERY_S = 1.0
ROUNDING = 1e-6
"""Ray counts in ten-thousandths; sums of them in binary may fall short by less than this."""

Node = Mapping[str, float]
"""What a node has in all, as Ray names it, e.g. {"CPU": 8, "GPU": 1}."""


@dataclass(frozen=True)
class Demand:
    """Processes of one size, each of which is on one node.

    Attributes:
        asked: what the user asked for, as it was written, e.g. `resources.workers = 4` or `--actors 4`.
        count: the fewest processes that will do.
        cpus: CPUs of each.
        gpus: GPUs of each.
        wait_s: for how many seconds nodes are asked for and waited for; 0 is not at all.
        waiting: what the user calls that, e.g. `resources.wait_s`.
        noun: what the processes are called.
    """

    asked: str
    count: int
    cpus: float
    gpus: float = 0.0
    wait_s: float = 0.0
    waiting: str = "--wait-s"
    noun: str = "actors"

    @classmethod
    def of(cls, resources: ResourcesConfig) -> Demand:
        """The fewest workers that a run goes on with."""
        return cls(
            asked=f"resources.workers = {resources.workers}",
            count=resources.min_workers,
            cpus=resources.cpus_per_worker,
            gpus=1.0 if resources.use_gpu else 0.0,
            wait_s=resources.wait_s,
            waiting="resources.wait_s",
            noun="workers",
        )

    @property
    def bundle(self) -> dict[str, float]:
        """What one process takes, as Ray names it."""
        return {"CPU": self.cpus} | ({"GPU": self.gpus} if self.gpus else {})

    @property
    def total(self) -> str:
        """What all need, e.g. `8 CPUs and 8 GPUs`."""
        return _listed((kind, self.count * of_one) for kind, of_one in self.bundle.items())

    def found_on(self, nodes: Sequence[Node]) -> str:
        """What the nodes have of that, e.g. `2 CPUs and 0 GPUs`."""
        return _listed((kind, sum(node.get(kind, 0) for node in nodes)) for kind in self.bundle)

    def room(self, nodes: Sequence[Node]) -> int:
        """How many processes of that size the nodes hold when nothing else runs."""
        return sum(
            min(int(node.get(kind, 0) / of_one + ROUNDING) for kind, of_one in self.bundle.items()) for node in nodes
        )

    def shortage(self, nodes: Sequence[Node]) -> str | None:
        """Why they do not fit on the nodes; None if they do."""
        fit = self.room(nodes)
        if fit >= self.count:
            return None
        text = f"{self.asked} needs {self.total}, and the cluster has {self.found_on(nodes)}"
        for kind, of_one in self.bundle.items():
            if sum(node.get(kind, 0) for node in nodes) + ROUNDING < self.count * of_one:
                return text
        return f"{text}, but on nodes that hold {fit} {self.noun} of {_listed(self.bundle.items())} each"


def await_room(demand: Demand, tell: Callable[[str], None]) -> None:
    """Return once the cluster has room for the demand, used by others or not.

    Args:
        demand: nodes are asked for and waited for at most `demand.wait_s`.
        tell: told what is waited for.

    Raises:
        ConfigError: there is too little room, and nothing to wait for or not in time.
    """
    short = demand.shortage(alive())
    if short is None:
        return
    if demand.wait_s == 0:
        raise ConfigError(
            f"{short}; lower it, join nodes to the cluster, or wait for them with {demand.waiting} (seconds)"
        )
    tell(f"waiting up to {demand.wait_s:g} s for {demand.total}: the cluster has {demand.found_on(alive())}")
    deadline = time.monotonic() + demand.wait_s
    with _asked_for(demand):
        while (short := demand.shortage(alive())) is not None:
            if time.monotonic() >= deadline:
                raise ConfigError(f"{short} after {demand.waiting} = {demand.wait_s:g} s; join nodes to the cluster")
            time.sleep(LOOK_EVERY_S)
    tell(f"the cluster has {demand.found_on(alive())}")


def alive() -> list[Node]:
    """The nodes of the cluster that Ray is connected to."""
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@contextmanager
def _asked_for(demand: Demand) -> Iterator[None]:
    """While the body runs, Ray knows of the demand, and an autoscaler adds nodes for it.

    By a placement group, as Ray Train's own: what several runs wait for adds up, and it goes when this process does.
    `ray.autoscaler.sdk.request_resources` knows one request for the whole cluster, which Ray Train and Ray Data write
    as well, and which outlives its author.
    """
    from ray.util.placement_group import placement_group, remove_placement_group

    group: Any = placement_group([demand.bundle] * demand.count)
    try:
        yield
    finally:
        remove_placement_group(group)


def _listed(amounts: Iterable[tuple[str, float]]) -> str:
    return " and ".join(f"{amount:g} {kind}" if amount == 1 else f"{amount:g} {kind}s" for kind, amount in amounts)
