"""Runs a function on gloo ranks, each a process of its own, and brings back what it returns.

Ranks are forks of a process that has imported what is slow to import, and done nothing else: each begins as clean as a
new interpreter, whatever earlier tests did in theirs, without the seconds that it takes to import torch. The converter
of checkpoints that a rank starts is such a fork, too.
"""

import importlib
import os
import pickle
import sys
import tempfile
import time
import traceback
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path

import torch
import torch.distributed as dist

from tests.integration.command import PATHS, ROOT, fork
from tests.ports import free_port

ANSWER = 3
"""The descriptor that a rank answers on."""


def run_ranks(function, world_size, *arguments, timeout_s=900, connect=True):
    """[function(*arguments) of rank 0, of rank 1, ...]; `function` must be importable. An error on a rank is raised.

    With `connect` the ranks have a process group; without, the environment variables to make one.
    """
    environment = os.environ | {
        "PYTHONPATH": PATHS,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "WORLD_SIZE": str(world_size),
    }
    answers, processes = [], []
    with tempfile.NamedTemporaryFile(prefix="ranks-") as asked:
        asked.write(pickle.dumps((connect, _importable(function), arguments)))
        asked.flush()
        program = ["-m", "tests.distributed.ranks", asked.name]
        for rank in range(world_size):
            receiver, sender = Pipe(duplex=False)
            own = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            processes.append(fork(program, own, Path.cwd(), 1, 2, {ANSWER: sender.fileno()}))
            sender.close()  # so that the end of the rank is the end of what can be received
            answers.append(receiver)
        return _answers(answers, processes, timeout_s)


def _importable(function):
    """The function by the name of its module: that of a program is called `__main__` in its own process alone."""
    if function.__module__ != "__main__":
        return function
    module = Path(sys.modules["__main__"].__file__).resolve().relative_to(ROOT).with_suffix("")
    return getattr(importlib.import_module(".".join(module.parts)), function.__name__)


def _answers(answers, processes, timeout_s):
    """What the ranks return, when all have; they end with this."""
    results = {}
    try:
        deadline = time.monotonic() + timeout_s
        while len(results) < len(answers):
            left = [answer for rank, answer in enumerate(answers) if rank not in results]
            ready = wait(left, max(deadline - time.monotonic(), 0))
            assert ready, f"only ranks {sorted(results)} of {len(answers)} answered in {timeout_s} s"
            for answer in ready:
                rank = answers.index(answer)
                try:
                    results[rank], error = answer.recv()
                except EOFError:
                    error = f"it ended with exit code {processes[rank].wait(10)}"
                if error:
                    raise AssertionError(f"rank {rank} failed:\n{error}")
    finally:
        for process, answer in zip(processes, answers, strict=True):
            process.kill()
            process.wait()
            answer.close()
    return [results[rank] for rank in range(len(answers))]


def _rank(file):
    """Do what `file` asks for, as one of the ranks."""
    answer = Connection(ANSWER)
    torch.set_num_threads(1)
    try:
        connect, function, arguments = pickle.loads(Path(file).read_bytes())
        if connect:
            dist.init_process_group("gloo")
        answer.send((function(*arguments), None))
        if dist.is_initialized():
            dist.destroy_process_group()
    except BaseException:
        answer.send((None, traceback.format_exc()))
        raise


if __name__ == "__main__":
    _rank(sys.argv[1])
