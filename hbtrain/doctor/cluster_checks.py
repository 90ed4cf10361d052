"""Checks across nodes, and all findings about a survey in the order of the table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from hbtrain.doctor import machine_checks
from hbtrain.doctor.machine_checks import FAILURE, OK, WARNING, Finding, judged, on_nodes
from hbtrain.doctor.probes import PACKAGES, Facts
from hbtrain.reporting.text import byte_size, counted

if TYPE_CHECKING:
    from hbtrain.doctor.survey import Survey

PRODUCT = "bf16 product"
BUSY = "busy"
HERE = "this command"  # name of the process that asks, beside those of nodes
SLOW_SHARE = 0.7  # a GPU whose rate is below this share of the median of its kind is slow
SLOW_NETWORK_GB_S = 1.0  # between GPUs; less is an ordinary network, on which gradients take longer than computing them
SKEW_S, REFUSED_SKEW_S = 1.0, 300.0
"""Clocks that differ by the first mix up times in MLflow and logs; S3 refuses requests some minutes off."""


def findings(seen: Survey) -> list[Finding]:
    """All findings about a survey."""
    answering = {name: facts for name, facts in seen.nodes.items() if "error" not in facts}
    lines = nodes(seen)
    members = answering if seen.is_local else {HERE: seen.here} | answering
    lines += software({name: facts["software"] for name, facts in members.items()})
    lines += on_nodes(
        judged("GPUs", "gpus", machine_checks.gpus, "see whether python -c 'import torch' works"), answering
    )
    lines += products(seen.ranks) + all_gather(seen)
    lines += on_nodes(judged("FAISS", "search", machine_checks.faiss, "install FAISS again"), answering)
    for name, machine_check in (
        ("/dev/shm", machine_checks.shared_memory),
        ("open files", machine_checks.open_files),
        ("temporary", machine_checks.temporary_files),
    ):
        lines += on_nodes(judged(name, "machine", machine_check), answering)
    for folder, use in seen.folders.items():
        check = machine_checks.folder_check(folder, use)
        unusable = "error" in seen.here[folder]
        lines += [check(seen.here)] if seen.is_local or unusable else on_nodes(check, answering)
        if use == "cache":
            lines += other_caches(folder, answering)
    lines += ray(seen, answering) + mlflow(seen.here["tracking"])
    return lines if seen.is_local else lines + clocks(answering)


def nodes(seen: Survey) -> list[Finding]:
    """What the nodes are, and those that do not answer."""
    lines = []
    answering = [facts for facts in seen.nodes.values() if "error" not in facts]
    machines = [facts["machine"] for facts in answering if "error" not in facts["machine"]]
    if machines:
        cpus, memory = sum(one["cpus"] for one in machines), sum(one["memory"] for one in machines)
        gpus = sum(len(facts["gpus"].get("seen", ())) for facts in answering)
        parts = counted(cpus, "CPU"), counted(gpus, "GPU"), f"{byte_size(memory)} of memory"
        lines.append(Finding("nodes", OK, f"{_listed(seen.nodes)}: {', '.join(parts)}"))
    for name, facts in seen.nodes.items():
        if "error" in facts:
            missing = "No module named 'hbtrain'" in facts["error"]
            remedy = (
                "install hbtrain there, in the Python that Ray runs in" if missing else "see `ray status` and its log"
            )
            lines.append(Finding("nodes", FAILURE, facts["error"], remedy, (name,)))
    return lines


def software(members: Mapping[str, Facts]) -> list[Finding]:
    """Versions of Python and packages: the same everywhere, and those that hbtrain requires."""
    failed = [Finding("packages", FAILURE, own["error"], nodes=(n,)) for n, own in members.items() if "error" in own]
    found = {name: own for name, own in members.items() if "error" not in own}
    if not found:
        return failed
    alike = "; the same everywhere" if len(found) > 1 else ""
    lines = [_version_line("Python", {name: own["python"] for name, own in found.items()}, alike)]
    differing, versions = [], []
    for package in PACKAGES:
        have = {name: own["packages"].get(package, "missing") for name, own in found.items()}
        if package == "hbtrain":
            have = {name: f"{text} (sources {found[name]['sources']})" for name, text in have.items()}
        line = _version_line(package, have)
        versions.append(line.found)
        differing += [] if line.status == OK else [replace(line, check="packages")]
    lines += differing or [Finding("packages", OK, ", ".join(versions) + alike)]
    unmet: dict[str, list[str]] = {}
    for name, own in found.items():
        for text in own["unmet"]:
            unmet.setdefault(text, []).append(name)
    remedy = "install hbtrain with its requirements again: pip install hbtrain"
    return (
        failed
        + lines
        + [
            Finding("packages", FAILURE, text, remedy, () if len(names) == len(found) else tuple(names))
            for text, names in unmet.items()
        ]
    )


def _version_line(package: str, versions: Mapping[str, str], alike: str = "") -> Finding:
    """Whether a package has one version everywhere."""
    by_version: dict[str, list[str]] = {}
    for name, version in versions.items():
        by_version.setdefault(version, []).append(name)
    label = "" if package == "Python" else f"{package} "
    if "missing" in by_version or len(by_version) > 1:
        text = "; ".join(f"{version} on {_listed(names)}" for version, names in by_version.items())
        return Finding(package, FAILURE, f"{label}{text}", "install the same version everywhere")
    return Finding(package, OK, f"{label}{next(iter(by_version))}{alike}")


def other_caches(folder: str, answering: Mapping[str, Facts]) -> list[Finding]:
    """Nodes whose processes take another folder for the cache: their environment decides, and not this command's."""
    nodes: dict[str, list[str]] = {}
    for name, facts in answering.items():
        nodes.setdefault(facts["machine"].get("cache", folder), []).append(name)
    remedy = "set HBTRAIN_CACHE to one folder on a shared file system, for this command and before ray start"
    return [
        Finding("cache", FAILURE, f"Ray's processes take {other}, and this command {folder}", remedy, tuple(names))
        for other, names in nodes.items()
        if other != folder
    ]


def products(ranks: Iterable[Facts]) -> list[Finding]:
    """Rates of matrix products in bf16, on every GPU or on CPUs."""
    by_device: dict[str, list[Facts]] = {}
    failed: Counter[tuple[str, str]] = Counter()
    for rank in ranks:
        if "error" in rank:
            failed[rank["node"], BUSY if rank["gpu"] and rank["error"].startswith("no answer") else rank["error"]] += 1
        else:
            by_device.setdefault(rank["device"], []).append(rank)
    lines = [line for device, own in by_device.items() for line in _rates_of(device, own)]
    for (node, reason), count in failed.items():
        if reason == BUSY:
            found = f"{counted(count, 'GPU')} not measured: others use {'it' if count == 1 else 'them'}"
            lines.append(Finding(PRODUCT, WARNING, found, "ask again when nothing else runs", (node,)))
        else:
            lines.append(Finding(PRODUCT, FAILURE, reason, "see to the GPU: nvidia-smi, and the kernel's log", (node,)))
    return lines


def _rates_of(device: str, ranks: list[Facts]) -> list[Finding]:
    """The rates on one kind of device, and the GPUs that are slow among their kind."""
    middle = median(rank["tflop_s"] for rank in ranks)
    slow = [rank for rank in ranks if rank["gpu"] and rank["tflop_s"] < SLOW_SHARE * middle]
    rates = sorted(rank["tflop_s"] for rank in ranks if rank not in slow)
    span = _rate(rates[0]) if _rate(rates[0]) == _rate(rates[-1]) else f"{_rate(rates[0])} to {_rate(rates[-1])}"
    where = f"{len(rates)} x {device}" if ranks[0]["gpu"] else device
    remedy = "look for heat, a power limit or other users: nvidia-smi -q -d PERFORMANCE"
    return [Finding(PRODUCT, OK, f"{span} TFLOP/s on {where}")] + [
        Finding(
            PRODUCT, WARNING, f"{_rate(rank['tflop_s'])} TFLOP/s, and the median of {device} is {_rate(middle)}",
            remedy, (rank["node"],),
        )
        for rank in slow
    ]  # fmt: skip


def all_gather(seen: Survey) -> list[Finding]:
    """The rate at which GPUs, or processes on CPUs, gather each other's data."""
    facts = seen.all_gather
    if not facts:
        if len(seen.ranks) > 1:
            return [
                Finding("all-gather", WARNING, "not measured: fewer than two could take part", "see the line above")
            ]
        return [Finding("all-gather", OK, "one GPU: nothing to gather")] if seen.ranks else []
    on_gpus = any(rank["gpu"] for rank in seen.ranks)
    between = f"between {facts['ranks']} {'GPUs' if on_gpus else 'processes on CPUs'}"
    if "error" in facts:
        name = "NCCL" if on_gpus else "gloo"
        return [
            Finding(
                "all-gather", FAILURE, f"{name} {between} failed: {facts['error']}",
                f"see whether nodes reach each other at all ports; name their network in {name}_SOCKET_IFNAME"
                + ("; NCCL_DEBUG=INFO on the nodes says more" if on_gpus else ""),
            )
        ]  # fmt: skip
    found = f"{_rate(facts['gb_s'])} GB/s by {facts['backend']} {between}"
    if on_gpus and facts["gb_s"] < SLOW_NETWORK_GB_S:
        remedy = "NCCL_DEBUG=INFO on the nodes says which way it takes; see to InfiniBand, or NCCL_SOCKET_IFNAME"
        return [Finding("all-gather", WARNING, f"{found}: slow", remedy)]
    return [Finding("all-gather", OK, found)]


def ray(seen: Survey, answering: Mapping[str, Facts]) -> list[Finding]:
    """Ray's version, and whether it asks those who connect for a token."""
    if "error" in seen.ray:
        remedy = "see Ray's logs below the folder of temporary files: ray/session_latest/logs"
        return [Finding("Ray", FAILURE, f"does not start: {seen.ray['error']}", remedy)]
    version = seen.ray["version"]
    token = seen.ray["token"] and all(facts.get("token", True) for facts in answering.values())
    if token:
        return [Finding("Ray", OK, f"{version}, asks for a token")]
    remedy = "ray get-auth-token --generate, the same token on all nodes, RAY_AUTH_MODE=token before ray start"
    return [Finding("Ray", WARNING, f"{version} asks for no token: who reaches its ports can run code", remedy)]


def mlflow(facts: Facts) -> list[Finding]:
    """Whether MLflow answers to this command, as to the driver of a run; workers do not talk to it."""
    if "error" in facts:
        remedy = "start its server, or give its address: --tracking-uri or $MLFLOW_TRACKING_URI"
        return [Finding("MLflow", FAILURE, facts["error"], remedy)]
    if facts["uri"] is None:
        return [Finding("MLflow", OK, "no server named; runs keep a SQLite file in their storage")]
    return [Finding("MLflow", OK, f"{facts['uri']} {'is made by the first run' if facts['new'] else 'answers'}")]


def clocks(answering: Mapping[str, Facts]) -> list[Finding]:
    """How far the clocks of nodes, and of this process, are apart."""
    read = {
        name: facts["clock"] for name, facts in answering.items() if "error" not in facts.get("clock", {"error": ""})
    }
    ahead = {HERE: 0.0} | {name: clock["ahead_s"] for name, clock in read.items()}
    within = max((clock["within_s"] for clock in read.values()), default=0.0)
    first, last = min(ahead, key=ahead.__getitem__), max(ahead, key=ahead.__getitem__)
    skew = ahead[last] - ahead[first]
    if skew - 2 * within < SKEW_S:
        return [Finding("clocks", OK, f"at most {skew + within:.3f} s apart")]
    status = FAILURE if skew > REFUSED_SKEW_S else WARNING
    remedy = "have chrony or systemd-timesyncd set the clocks of all nodes"
    return [Finding("clocks", status, f"{last} is {skew:.1f} s ahead of {first}", remedy)]


def _listed(names: Iterable[str], most: int = 4) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = len(listed) - most
    return ", ".join(listed if more <= 0 else [*listed[:most], f"{more} more"])


def _rate(value: float) -> str:
    return f"{value:.3g}"
