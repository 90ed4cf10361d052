"""Runs a function on gloo ranks, each a process of its own, and brings back what it returns."""

import os
import time
import traceback

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.ports import free_port


def run_ranks(function, world_size, *arguments, timeout_s=900, connect=True):
    """[function(*arguments) of rank 0, of rank 1, ...]; `function` must be importable. An error on a rank is raised.

    With `connect` the ranks have a process group; without, the environment variables to make one.
    """
    context = mp.get_context("spawn")
    answers = context.SimpleQueue()
    port = free_port()
    processes = [
        context.Process(target=_rank, args=(rank, world_size, port, connect, function, arguments, answers), daemon=True)
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    results = {}
    try:
        deadline = time.monotonic() + timeout_s
        while len(results) < world_size and time.monotonic() < deadline:
            if answers.empty():
                time.sleep(0.05)
                continue
            rank, result, error = answers.get()
            if error:
                raise AssertionError(f"rank {rank} failed:\n{error}")
            results[rank] = result
        assert len(results) == world_size, f"only ranks {sorted(results)} of {world_size} answered in {timeout_s} s"
    finally:
        for process in processes:
            process.kill()
    return [results[rank] for rank in range(world_size)]


def _rank(rank, world_size, port, connect, function, arguments, answers):
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(world_size)
    )
    torch.set_num_threads(1)
    try:
        if connect:
            dist.init_process_group("gloo", rank=rank, world_size=world_size)
        answers.put((rank, function(*arguments), None))
        if dist.is_initialized():
            dist.destroy_process_group()
    except BaseException:
        answers.put((rank, None, traceback.format_exc()))
        raise
