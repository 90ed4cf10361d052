"""Runs a function on gloo ranks, each a process of its own, and brings back what it returns.

Ranks are forked from a server that has imported what is slow to import, and done nothing else: each begins as clean as
a new interpreter, whatever earlier tests did in theirs, without the seconds that it takes to import torch.
"""

import multiprocessing
import os
import time
import traceback
from multiprocessing import forkserver
from multiprocessing.connection import wait

import pytest
import torch
import torch.distributed as dist

from tests.ports import free_port

CONTEXT = multiprocessing.get_context("forkserver")
# No module of ours: the server finds packages that are installed, which may be another version of hbtrain.
CONTEXT.set_forkserver_preload(["deepspeed", "peft", "sentence_transformers", "transformers.integrations.deepspeed"])


def run_ranks(function, world_size, *arguments, timeout_s=900, connect=True):
    """[function(*arguments) of rank 0, of rank 1, ...]; `function` must be importable. An error on a rank is raised.

    With `connect` the ranks have a process group; without, the environment variables to make one.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DS_ACCELERATOR", "cpu")  # as hbtrain sets it for ranks on CPUs, before it imports DeepSpeed
        forkserver.ensure_running()
    port = free_port()
    environment = dict(os.environ) | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world_size),
    }
    answers, processes = [], []
    for rank in range(world_size):
        receiver, sender = CONTEXT.Pipe(duplex=False)
        own = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        process = CONTEXT.Process(target=_rank, args=(own, connect, function, arguments, sender), daemon=True)
        process.start()
        sender.close()  # so that the end of the rank is the end of what can be received
        answers.append(receiver)
        processes.append(process)
    results = {}
    try:
        deadline = time.monotonic() + timeout_s
        while len(results) < world_size:
            left = [answer for rank, answer in enumerate(answers) if rank not in results]
            ready = wait(left, max(deadline - time.monotonic(), 0))
            assert ready, f"only ranks {sorted(results)} of {world_size} answered in {timeout_s} s"
            for answer in ready:
                rank = answers.index(answer)
                try:
                    results[rank], error = answer.recv()
                except EOFError:
                    processes[rank].join(10)
                    error = f"it ended with exit code {processes[rank].exitcode}"
                if error:
                    raise AssertionError(f"rank {rank} failed:\n{error}")
    finally:
        for process, answer in zip(processes, answers, strict=True):
            process.kill()
            process.join()
            answer.close()
    return [results[rank] for rank in range(world_size)]


def _rank(environment, connect, function, arguments, answer):
    os.environ.clear()
    os.environ.update(environment)
    torch.set_num_threads(1)
    try:
        if connect:
            dist.init_process_group("gloo")
        answer.send((function(*arguments), None))
        if dist.is_initialized():
            dist.destroy_process_group()
    except BaseException:
        answer.send((None, traceback.format_exc()))
        raise
