"""Processes that multiply matrices and gather over the network, as the ranks of a training do, with their rates."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from hbtrain.doctor.probes import Facts
from hbtrain.reporting.text import counted

if TYPE_CHECKING:
    import torch

PRODUCT_SIZES = {"cuda": 8192, "cpu": 1024}  # {kind of device: rows and columns of the matrices that are multiplied}
GATHERED_BYTES = {"cuda": 2**30, "cpu": 2**24}  # {kind of device: bytes that all ranks gather together}
REPEATS = 5
WRONG = 0.02
"""Relative difference from a product in float32 from which one in bf16 is wrong; rounding gives about 0.003."""


class Rank:
    """A Ray actor that measures; on the GPU that Ray gave it, or else on CPUs."""

    def address(self) -> Facts:
        """{"address": (IP address of its node in the cluster, a port that is free there)}."""
        import ray

        with socket.socket() as free:
            free.bind(("", 0))
            return {"address": (ray.util.get_node_ip_address(), free.getsockname()[1])}

    def product(self) -> Facts:
        """The device, and its rate in TFLOP/s. Raises RuntimeError where torch cannot use the GPU, or errs on it."""
        import torch

        device = self._device()
        name = (
            torch.cuda.get_device_name(device)
            if device.type == "cuda"
            else f"{counted(torch.get_num_threads(), 'thread')} of a CPU"
        )
        return {"device": name, "tflop_s": product_rate(device)}

    def all_gather(self, rank: int, world_size: int, address: tuple[str, int], timeout_s: float) -> Facts:
        """The rate at which this rank and all others gather, in GB/s. All of them have to call this.

        Args:
            rank: of this process.
            world_size: number of ranks.
            address: what `address` of rank 0 gave.
            timeout_s: seconds after which ranks give up that wait for others.
        """
        import torch.distributed as dist

        from hbtrain.runs.torch_trainer import choose_interface

        choose_interface()
        device = self._device()
        host, port = address
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=f"tcp://{f'[{host}]' if ':' in host else host}:{port}",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=timeout_s),
        )
        return {"backend": dist.get_backend(), "gb_s": all_gather_rate(device)}

    def _device(self) -> torch.device:
        import ray
        import torch

        given = ray.get_gpu_ids()
        if not given:
            return torch.device("cpu")
        if not torch.cuda.is_available():
            raise RuntimeError(f"Ray gave it GPU {given[0]}, and torch sees none")
        return torch.device("cuda", 0)


def product_rate(device: torch.device) -> float:
    """TFLOP/s of a product of two square matrices in bf16, the best of `REPEATS`.

    Raises:
        RuntimeError: the product is not what it is in float32.
    """
    import torch

    size = PRODUCT_SIZES[device.type]
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(size, size, generator=generator).to(device, torch.bfloat16) for _ in range(2))
    result = one @ other
    rows = slice(0, 64)
    exact = one[rows].cpu().float() @ other.cpu().float()
    if not (torch.dist(result[rows].cpu().float(), exact) < WRONG * exact.norm()).item():
        raise RuntimeError("a matrix product in bf16 is wrong")
    return 2 * size**3 / _best_time(device, lambda: one @ other) / 1e12


def all_gather_rate(device: torch.device) -> float:
    """GB/s that each rank receives from the others in an all-gather, the best of `REPEATS`; all ranks call this.

    Raises:
        RuntimeError: what arrives is not what the others have sent.
    """
    import torch
    import torch.distributed as dist

    world_size, rank = dist.get_world_size(), dist.get_rank()
    count = GATHERED_BYTES[device.type] // world_size // 4
    own = torch.full((count,), float(rank), device=device)
    parts = [torch.empty_like(own) for _ in range(world_size)]
    dist.all_gather(parts, own)
    if any((part != float(sender)).any().item() for sender, part in enumerate(parts)):
        raise RuntimeError("an all-gather brings other values than were sent")
    return 4 * count * (world_size - 1) / _best_time(device, lambda: dist.all_gather(parts, own)) / 1e9


def _best_time(device: torch.device, act: Callable[[], Any]) -> float:
    """The least seconds that `act` takes, over `REPEATS` times."""
    import torch

    times = []
    for _ in range(REPEATS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)
