"""Ray Train's trainer for a run's workers: each with its own device, joined over the network of their nodes.

Gloo connects by the address that a machine's own name stands for. In the files of many systems that is 127.0.1.1, and
on a machine in several networks it may be one that the others do not reach. Import this where Ray is needed anyway.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import psutil
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.torch.config import TorchConfig, _TorchBackend

from hbtrain.cluster.connection import GIVEN_DEVICES
from hbtrain.config.schema import ResourcesConfig

INTERFACE = "GLOO_SOCKET_IFNAME"


def torch_trainer(
    loop: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    resources: ResourcesConfig,
    workers: int | tuple[int, int],
    timeout_s: int | None = None,
    **run: Any,
) -> TorchTrainer:
    """What runs `loop(settings)` on workers of a size that `resources` says.

    Args:
        loop: imported by the workers.
        settings: what it is told.
        resources: the CPUs of a worker, and whether it has a GPU.
        workers: how many; a pair, the fewest and the most, makes the run elastic.
        timeout_s: of a collective call; Ray Train's own by default.
        run: what `ray.train.RunConfig` takes.
    """
    gpus = {"GPU": 1.0} if resources.use_gpu else {}
    return TorchTrainer(
        loop,
        train_loop_config=settings,
        torch_config=ClusterTorchConfig() if timeout_s is None else ClusterTorchConfig(timeout_s=timeout_s),
        scaling_config=ScalingConfig(
            num_workers=workers,
            use_gpu=resources.use_gpu,
            resources_per_worker={"CPU": resources.cpus_per_worker, **gpus},
        ),
        run_config=RunConfig(worker_runtime_env=GIVEN_DEVICES, **run),
    )


class ClusterTorchConfig(TorchConfig):
    """Ray Train's, for workers on machines whose names need not lead to each other."""

    @property
    def backend_cls(self) -> Any:
        """What sets the process group up."""
        return _ClusterTorchBackend


class _ClusterTorchBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(_choose_interface)
        super().on_start(worker_group, backend_config)


def _choose_interface() -> None:
    """On a worker: have gloo use the interface of the node's address in the cluster, unless the node says otherwise."""
    import ray

    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault(INTERFACE, name)


def interface_of(address: str) -> str | None:
    """The network interface of this machine that has `address`; None if it has none, as behind a forwarded address."""
    for name, addresses in psutil.net_if_addrs().items():
        if address in (known.address for known in addresses):
            return name.partition(":")[0]  # an alias of it, as eth0:1 is, is none to gloo
    return None
