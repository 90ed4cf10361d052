"""Memory of a node, and processes that were killed because it ran out, by Ray's memory monitor or by the kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import psutil

from hbtrain.reporting.text import byte_size

GIB = 2**30
NEARLY_FULL = 0.9
"""Share of a node's memory from which a process that vanished counts as killed by the kernel: Ray acts at 0.95."""
CGROUP = Path("/sys/fs/cgroup")  # the limits of a container, in the second version of the kernel's groups
RETRY_VARIABLE = "RAY_task_oom_retries"
TASK_RETRIES = "2"  # how often Ray repeats a task that was killed for memory; by its own default, without end

_NODE = re.compile(r"IP: (?P<node>[^,)\s]+)[^)]*\) was (?P<used>[\d.]+)GB used / (?P<limit>[\d.]+)GB limit")
_KILLED = re.compile(r"Selected to kill: \((?P<what>.*?) pid=(?P<pid>\d+), actual memory used=(?P<used>[\d.]+)GB")
_TASK = re.compile(r"task name=(?P<name>[^,]+),")


@dataclass(frozen=True)
class MemoryUse:
    """Bytes of a process and of the node it is on, at one moment."""

    process: int = 0
    node: int = 0  # used by all processes of the node or container
    limit: int = 0  # of the node or container; 0: not known

    def __str__(self) -> str:
        node = f", its node {byte_size(self.node)} of {byte_size(self.limit)}" if self.limit else ""
        return f"it used {byte_size(self.process)}{node}"

    @property
    def is_nearly_full(self) -> bool:
        return self.limit > 0 and self.node >= NEARLY_FULL * self.limit


@dataclass(frozen=True)
class MemoryKill:
    """A process that Ray killed because its node ran out of memory."""

    node: str  # IP address
    pid: int
    name: str  # what ran in it, by Ray's name; empty if Ray does not say
    use: MemoryUse


def memory_kills(message: str) -> list[MemoryKill]:
    """The processes of which the message of Ray's OutOfMemoryError tells; empty if it is in no form that is known."""
    node = _NODE.search(message)
    if node is None:
        return []
    used, limit = _bytes(node["used"]), _bytes(node["limit"])
    kills = []
    for killed in _KILLED.finditer(message):
        task = _TASK.search(killed["what"])
        name = "" if task is None else task["name"].removesuffix(".__init__")
        kills.append(MemoryKill(node["node"], int(killed["pid"]), name, MemoryUse(_bytes(killed["used"]), used, limit)))
    return kills


def out_of_memory(message: str) -> str:
    """The message of Ray's OutOfMemoryError, which is a page, in one sentence: who was killed, and what was used."""
    kills = memory_kills(message)
    if not kills:
        return "a process was killed because its node ran out of memory"
    names = [
        f"{kill.name or 'a process'} (pid {kill.pid}) on node {kill.node} was killed because memory ran out: {kill.use}"
        for kill in kills
    ]
    return "; ".join(names)


def memory_use() -> MemoryUse:
    """What this process, and its node or container, use now."""
    process = psutil.Process().memory_info().rss
    machine = psutil.virtual_memory()
    own = _container()
    if own is not None and own[1] < machine.total:
        return MemoryUse(process, *own)
    return MemoryUse(process, machine.total - machine.available, machine.total)


def _container() -> tuple[int, int] | None:
    """(bytes used, limit) of this process's container; None where it has no limit or none is told."""
    try:
        limit = int((CGROUP / "memory.max").read_text())
        used = int((CGROUP / "memory.current").read_text())
        counts = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        return used - int(counts.get("inactive_file", 0)), limit  # files that the kernel may forget
    except (OSError, ValueError):
        return None


def _bytes(gib: str) -> int:
    return round(float(gib) * GIB)
