"""Checks of one machine: what its probes found, judged; what is wrong comes with a remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from hbtrain.cluster.connection import SOCKET_PATH_BYTES
from hbtrain.doctor.probes import Facts
from hbtrain.reporting.text import GIB, byte_size, counted

OK, WARNING, FAILURE = "ok", "warning", "failure"
SEVERITY = (OK, WARNING, FAILURE)

OBJECT_STORE_SHARE = 0.3  # the share of memory that Ray's object store takes in `/dev/shm`
GPU_SHM_BYTES = GIB  # NCCL's processes on one machine exchange data in `/dev/shm`, and end where it is full
FEWEST_OPEN_FILES, OPEN_FILES = 4096, 65536
"""Below the first, Ray itself warns; the second is what `ray.init` raises the limit to, where it may."""
FREE_BYTES = 5 * GIB


@dataclass(frozen=True)
class Finding:
    """A line of the table."""

    check: str  # what was looked at, in a word or two
    status: str  # `ok`, `warning` or `failure`
    found: str  # what was seen
    remedy: str = ""  # what to do about it; empty where all is well
    nodes: tuple[str, ...] = ()  # names of the nodes that it holds for; empty where it holds for all


Check = Callable[[Facts], Finding]  # judges a node: {probe: facts}


def on_nodes(check: Check, nodes: Mapping[str, Facts]) -> list[Finding]:
    """The findings of a check over all nodes: one if all is well, else one for all nodes of which the same is found."""
    groups: dict[tuple[str, str], list[str]] = {}
    findings: dict[tuple[str, str], Finding] = {}
    for name, facts in nodes.items():
        finding = check(facts)
        # What is well differs in amounts, such as free space.
        key = (finding.status, "" if finding.status == OK else finding.found)
        groups.setdefault(key, []).append(name)
        if key in findings and finding.found not in findings[key].found.split("; "):
            finding = replace(finding, found=f"{findings[key].found}; {finding.found}")
        elif key in findings:
            finding = findings[key]
        findings[key] = finding
    if len(groups) == 1:
        return list(findings.values())
    worst_first = sorted(findings, key=lambda key: -SEVERITY.index(key[0]))
    return [replace(findings[key], nodes=tuple(groups[key])) for key in worst_first]


def judged(name: str, probe: str, judge: Check, remedy: str = "") -> Check:
    """A check of one probe's facts by `judge`; a failure where the probe itself failed."""

    def check(node: Facts) -> Finding:
        facts = node[probe]
        if "error" in facts:
            return Finding(name, FAILURE, facts["error"], remedy)
        return judge(node)

    return check


def gpus(node: Facts) -> Finding:
    """GPUs, their driver, CUDA against torch's, and how many Ray hands out."""
    facts = node["gpus"]
    seen, torch = facts["seen"], facts["torch"]
    unusable = _unusable_gpus(facts)
    if unusable is not None:
        return unusable
    handed_out = int(node["ray"].get("GPU", 0)) if "ray" in node else len(seen)
    if handed_out > len(seen):
        return Finding(
            "GPUs", FAILURE, f"Ray hands out {counted(handed_out, 'GPU')}, and torch sees {len(seen)}",
            f"start Ray with --num-gpus {len(seen)}, or give this node's processes (its container) the GPUs",
        )  # fmt: skip
    if handed_out < len(seen):
        return Finding(
            "GPUs", WARNING, f"{_kinds(seen)}, of which Ray hands out {handed_out}",
            "start Ray without --num-gpus, or with the number of GPUs",
        )  # fmt: skip
    if not seen:
        return Finding("GPUs", OK, f"none; torch {torch} computes on CPUs")
    driver, nccl = facts["driver"] or "unknown", facts["nccl"]
    return Finding("GPUs", OK, f"{_kinds(seen)}, driver {driver}, CUDA {facts['cuda']} in torch, NCCL {nccl}")


def _unusable_gpus(facts: Facts) -> Finding | None:
    """What keeps torch from using the GPUs that there are; None if nothing does."""
    if facts["seen"]:
        return None
    have, torch, cuda = _kinds(facts["listed"]), facts["torch"], facts["cuda"]
    if facts["listed"] and cuda is None:
        return Finding(
            "GPUs", FAILURE, f"{have}, but torch {torch} is built without CUDA",
            "install a torch with CUDA, such as PyPI's: pip install --force-reinstall torch",
        )  # fmt: skip
    if facts["listed"]:
        return Finding(
            "GPUs", FAILURE, f"{have} with driver {facts['driver']}, but torch {torch} can use none: "
            f"{facts['reason'] or 'no reason given'}",
            f"install a driver for CUDA {cuda}, or a torch for the driver's CUDA (nvidia-smi shows it); look for a "
            "CUDA_VISIBLE_DEVICES that hides them",
        )  # fmt: skip
    if facts["reason"]:
        return Finding("GPUs", FAILURE, facts["reason"], "see to the driver until nvidia-smi shows the GPUs")
    return None


def faiss(node: Facts) -> Finding:
    """FAISS's build, and the device that it searches on."""
    facts = node["search"]
    packages = " and ".join(facts["packages"]) or "faiss"
    build = f"{packages} {facts['version']}"
    if len(facts["packages"]) > 1:
        return Finding(
            "FAISS", FAILURE, f"{packages} are installed over each other",
            f"pip uninstall -y {' '.join(facts['packages'])}, then install one of them again",
        )  # fmt: skip
    if not facts["right"]:
        return Finding("FAISS", FAILURE, f"{build} does not find a vector that is there", "install it again")
    on_machine = len(node["gpus"].get("seen", ()))
    if on_machine and not facts["gpu_build"]:
        return Finding(
            "FAISS", WARNING, f"{build} has no code for GPUs, and searches on CPUs",
            "install the build for GPUs: pip uninstall -y faiss-cpu, then pip install 'hbtrain[gpu]'",
        )  # fmt: skip
    if on_machine and not facts["gpus"]:
        return Finding(
            "FAISS", WARNING, f"{build} sees no GPU, and searches on CPUs",
            "its CUDA needs a newer driver; or install a build for the driver's CUDA",
        )  # fmt: skip
    return Finding("FAISS", OK, f"{build}, searches on {counted(facts['gpus'], 'GPU') if facts['gpus'] else 'CPUs'}")


def shared_memory(node: Facts) -> Finding:
    """Size of `/dev/shm`."""
    facts = node["machine"]
    size, wanted = facts["shm"], facts["memory"] * OBJECT_STORE_SHARE
    remedy = (
        f"make it {byte_size(wanted)}: docker run --shm-size, in Kubernetes a volume with emptyDir.medium Memory, "
        "else mount -o remount,size=... /dev/shm"
    )
    if size is None:
        return Finding("/dev/shm", FAILURE, "there is none: Ray keeps its objects on disk", remedy)
    if size < GPU_SHM_BYTES and len(node["gpus"].get("seen", ())) > 1:
        return Finding("/dev/shm", FAILURE, f"{byte_size(size)}: too small for NCCL between this node's GPUs", remedy)
    if size < wanted:
        share = f"less than Ray's {OBJECT_STORE_SHARE:.0%} of {byte_size(facts['memory'])} of memory"
        return Finding("/dev/shm", WARNING, f"{byte_size(size)}: {share}, so its objects may go to disk", remedy)
    return Finding("/dev/shm", OK, byte_size(size))


def open_files(node: Facts) -> Finding:
    """The limit on open files; `ray.init` raises its own as far as it may, `ray start` does not."""
    facts = node["machine"]
    limit = facts["open_files"]
    if not node.get("joined"):
        limit = max(limit, min(facts["open_files_hard"], OPEN_FILES))
    if limit < FEWEST_OPEN_FILES:
        where = "before ray start" if node.get("joined") else "in this shell"
        return Finding(
            "open files", WARNING, f"at most {limit:,} in a process: connections of Ray fail beyond that",
            f"ulimit -n {OPEN_FILES} {where}, or LimitNOFILE of its service; see /etc/security/limits.conf",
        )  # fmt: skip
    return Finding("open files", OK, f"at most {limit:,} in a process")


def temporary_files(node: Facts) -> Finding:
    """The folder of temporary files: its path, in which Ray's sockets lie, and the room in it."""
    facts = node["machine"]
    folder, free = facts["temporary"], facts["temporary_free"]
    if free is None:
        return Finding("temporary", FAILURE, f"{folder} cannot be written", "set TMPDIR to a folder that can")
    path = facts["socket_bytes"]
    beyond = path - SOCKET_PATH_BYTES
    if beyond > 0:
        return Finding(
            "temporary", WARNING,
            f"{folder} is too long for Ray's sockets below it: {path} bytes, and Linux takes {SOCKET_PATH_BYTES}",
            f"set a TMPDIR whose path is {beyond} bytes shorter, or start Ray with --temp-dir /tmp/ray",
        )  # fmt: skip
    if free < FREE_BYTES:
        return _little_room("temporary", folder, free)
    return Finding("temporary", OK, f"{folder}, {byte_size(free)} free")


def folder_check(folder: str, use: str) -> Check:
    """A check of a folder or URI that all nodes use: a file written on one of them can be read on the others."""

    def check(node: Facts) -> Finding:
        facts = node[folder]
        if "error" in facts:
            return Finding(use, FAILURE, f"{folder} cannot be used: {facts['error']}", f"mend that, {_remedy_of(use)}")
        if facts.get("shared") is False:
            return Finding(
                use, FAILURE, f"{folder} is another folder there: a file written by this process is not seen",
                f"put it on a file system that all nodes mount at the same path, {_remedy_of(use)}",
            )  # fmt: skip
        if facts.get("free", FREE_BYTES) < FREE_BYTES:
            return _little_room(use, folder, facts["free"])
        free = f", {byte_size(facts['free'])} free" if "free" in facts else ""
        shared = "read and written on every node" if "shared" in facts else "can be written"
        return Finding(use, OK, f"{folder}, {shared}{free}")

    return check


def _remedy_of(use: str) -> str:
    return "or set HBTRAIN_CACHE to another" if use == "cache" else "or name another with --storage"


def _little_room(check: str, folder: str, free: int) -> Finding:
    return Finding(check, WARNING, f"{folder} has {byte_size(free)} left", "make room there, or choose another disk")


def _kinds(names: list[str]) -> str:
    """E.g. `8 × NVIDIA H200`."""
    return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names)) or "no GPU"
