"""The process group of a run's workers: over the network by which their nodes know each other.

Gloo connects by the address that a machine's own name stands for. In the files of many systems that is 127.0.1.1, and
on a machine in several networks it may be one that the others do not reach. Import this where Ray is needed anyway.
"""

from __future__ import annotations

import os
from typing import Any

import psutil
from ray.train.torch.config import TorchConfig, _TorchBackend

INTERFACE = "GLOO_SOCKET_IFNAME"


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
