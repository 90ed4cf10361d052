"""Ray nodes on this machine, each with its own processes, that come and go."""

import os
import re
import time
from pathlib import Path

import psutil

from tests.integration.command import PATHS, PATIENCE_S, fork
from tests.ports import free_port

QUICK = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "4",
}
"""A dead node is noticed in some 20 seconds; a busy one that is slow to answer is not taken for dead."""


class Node:
    """`ray start`, in the foreground of a process of its own; ends with everything below it."""

    def __init__(self, folder, name, *arguments, host=None, **environment):
        """`host` is one of `Hosts`, or None for this machine itself."""
        self.log = folder / f"node-{name}.txt"
        command = ["start", "--block", "--num-cpus", "1", "--disable-usage-stats", *map(str, arguments)]
        environment = os.environ | QUICK | {"PYTHONPATH": PATHS} | environment
        address = [] if host is None else ["--node-ip-address", host.address]
        with self.log.open("w") as out:
            command = ["-m", "ray.scripts.scripts", *command, *address]
            self.process = fork(command, environment, Path.cwd(), out.fileno(), host=host)

    @classmethod
    def head(cls, folder, *arguments, port=None, **environment):
        """The first node; `folder` has a short path, for sockets lie below it."""
        ports = ["--port", port or free_port(), "--dashboard-port", free_port()]
        return cls(folder, "head", "--head", *ports, "--temp-dir", folder, *arguments, **environment)

    @classmethod
    def head_on(cls, host, folder, *arguments, **environment):
        """The first node of a cluster over several hosts; each has the ports to itself."""
        temporary = ["--temp-dir", host.local / "ray"]
        return cls(folder, host.name, "--head", *temporary, *arguments, host=host, **environment)

    def join(self, folder, name, *arguments, host=None, **environment):
        """Another node of this one's cluster."""
        environment = {"RAY_AUTH_MODE": "token"} | environment
        return Node(folder, name, "--address", self.address, *arguments, host=host, **environment)

    @property
    def address(self):
        """Where a head node answers."""
        return re.search(r"ray start --address='([^']+)'", self.log.read_text())[1]

    def __enter__(self):
        self.wait_for("Ray runtime started")
        return self

    def __exit__(self, *_):
        self.kill()

    def wait_for(self, words, timeout_s=PATIENCE_S):
        """Wait until the node's output holds `words`."""
        deadline = time.monotonic() + timeout_s
        while words not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    def kill(self):
        """kill -9 the node and all that runs on it, as when a machine goes."""
        try:
            processes = [*psutil.Process(self.process.pid).children(recursive=True), self.process]
        except psutil.NoSuchProcess:
            return
        for process in processes:
            try:
                process.kill()
            except psutil.Error:
                continue
        self.process.wait(10)
