"""Ray Train's trainer, set up so that every worker sees its own device only, and ranks use the cluster's network.

By default, gloo connects to the address that a machine's host name resolves to. On many systems that is 127.0.1.1, and
on a machine in several networks it may be an address that other machines cannot reach. NCCL takes the first network
that it finds, which need not be the one that all machines are in. Importing this imports Ray.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import psutil
from ray.exceptions import OutOfMemoryError
from ray.train import RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer
from ray.train.torch.config import TorchConfig, _TorchBackend

from hbtrain.cluster.connection import GIVEN_DEVICES
from hbtrain.config.schema import ResourcesConfig

GLOO_INTERFACE = "GLOO_SOCKET_IFNAME"
NCCL_INTERFACE = "NCCL_SOCKET_IFNAME"


def torch_trainer(
    loop: Callable[[dict[str, Any]], None],
    settings: dict[str, Any],
    resources: ResourcesConfig,
    workers: int | tuple[int, int],
    timeout_s: int | None = None,
    **run: Any,
) -> TorchTrainer:
    """A trainer that runs `loop(settings)` on every worker.

    Args:
        loop: a function of a module that the workers can import.
        settings: its argument.
        resources: CPUs and GPU of each worker.
        workers: number of workers; a pair (fewest, most) makes the run elastic.
        timeout_s: timeout of a collective operation in seconds; by default Ray Train's.
        run: arguments of `ray.train.RunConfig`.
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
    """Ray Train's, with the network interface chosen by the node's address in the cluster."""

    @property
    def backend_cls(self) -> Any:
        return _ClusterTorchBackend


class _ClusterTorchBackend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: TorchConfig) -> None:
        worker_group.execute(choose_interface)
        super().on_start(worker_group, backend_config)

    def on_shutdown(self, worker_group: Any, backend_config: TorchConfig) -> None:
        with suppress(OutOfMemoryError):  # of a dead worker; that of any other death is no error to Ray Train
            super().on_shutdown(worker_group, backend_config)


def choose_interface() -> None:
    """Have gloo and NCCL use the interface of this node's address in the cluster.

    Where the node's environment names one for gloo or for NCCL, that one uses it.
    """
    import ray

    name = interface_of(ray.util.get_node_ip_address())
    if name is not None:
        os.environ.setdefault(GLOO_INTERFACE, name)
        os.environ.setdefault(NCCL_INTERFACE, f"={name}")  # without "=", NCCL takes all whose names begin so


def interface_of(address: str) -> str | None:
    """The network interface of this machine with the IP address `address`; None without one, as behind a NAT."""
    for name, addresses in psutil.net_if_addrs().items():
        if address in (known.address for known in addresses):
            return name.partition(":")[0]  # gloo knows no aliases such as eth0:1
    return None
