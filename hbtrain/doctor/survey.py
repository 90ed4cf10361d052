"""Looking at this machine, or at every node of a Ray cluster; nothing that hangs there is waited for without end."""

from __future__ import annotations

import os
import platform
import secrets
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hbtrain.cluster.capacity import Demand
from hbtrain.cluster.connection import GIVEN_DEVICES
from hbtrain.cluster.session import ray_session
from hbtrain.doctor.probes import MACHINE, Facts, run_probes
from hbtrain.doctor.ranks import Rank
from hbtrain.reporting.text import counted
from hbtrain.storage import cache_root, place

LOCAL = "local"
START_S = 30.0
"""Seconds for an actor to start. One that has not started by then waits for a GPU that others use."""
ROUND_TRIPS = 5
Key = TypeVar("Key")


@dataclass
class Survey:
    """What was seen, as plain data."""

    where: str  # address of the cluster, or `local`
    folders: dict[str, str]  # {path or URI: what it is for}: the cache and the storage
    # {probe: facts} of this process: `software`, `tracking` and, for each folder, `mark`
    here: dict[str, Facts] = field(default_factory=dict)
    # {name of a node: {probe: facts}}; {"error": reason} where a node does not answer
    nodes: dict[str, Facts] = field(default_factory=dict)
    ray: Facts = field(default_factory=dict)  # {"version", "token"}, and "error" where no Ray starts on this machine
    # of each process that measures, {"node", "gpu"} and what `Rank.product` gave, or "error"
    ranks: list[Facts] = field(default_factory=list)
    # {"ranks", "backend", "gb_s"} or "error"; empty where nothing was to gather
    all_gather: Facts = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Whether this machine alone was looked at."""
        return self.where == LOCAL


class Examiner:
    """A Ray actor on the node that it examines."""

    def clock(self) -> float:
        """Seconds since the epoch by the node's clock."""
        return time.time()

    def ready(self) -> Facts:
        """Whether the node's Ray asks for a token."""
        return {"token": _asks_for_token()}

    def examine(self, probes: dict[str, tuple[str, Facts]], timeout_s: float) -> dict[str, Facts]:
        return run_probes(probes, timeout_s)


def survey(
    address: str | None,
    storage: str | None,
    tracking_uri: str | None,
    demand: Demand,
    timeout_s: float,
    tell: Callable[[str], None],
) -> Survey:
    """Look at every node of the cluster at `address` or `$RAY_ADDRESS`, or at this machine where neither is given.

    Args:
        address: a cluster's address, `auto` or `local`; None where the user gave none.
        storage: folder or URI that is to be looked at beside the cache.
        tracking_uri: MLflow's; by default `$MLFLOW_TRACKING_URI`.
        demand: GPUs that have to be there, and how long to wait for nodes.
        timeout_s: seconds after which a probe, or a group of ranks, is given up.
        tell: called with a few words about what is done next.

    Raises:
        ConfigError: no cluster answers at the address, or it lacks what is demanded.
        StorageError: `storage` is no place.
        TrainingError: the cluster was lost.
    """
    where = address or os.environ.get("RAY_ADDRESS") or LOCAL
    seen = Survey(where, _folders(storage))
    with ExitStack() as stack:
        tell("starting Ray" if seen.is_local else f"connecting to the Ray cluster at {where}")
        _connect(seen, demand, stack, tell)
        tell("examining this machine")
        mark = stack.enter_context(_marked(seen, tracking_uri, timeout_s))
        if "error" in seen.ray:
            return seen
        nodes = _ray_nodes(seen)
        if not seen.is_local:
            tell(f"examining {counted(len(nodes), 'node')}")
            _examine(seen, nodes, mark, timeout_s)
        for name, node in nodes.items():
            seen.nodes[name]["ray"] = node["Resources"]
        tell("measuring matrix products and an all-gather")
        _measure(seen, {name: node for name, node in nodes.items() if "error" not in seen.nodes[name]}, timeout_s)
    return seen


def _folders(storage: str | None) -> dict[str, str]:
    folders = {str(cache_root(None).absolute()): "cache"}
    if storage is not None:
        where = place(storage)
        folders[str(where.absolute() if isinstance(where, Path) else where)] = "storage"
    return folders


def _connect(seen: Survey, demand: Demand, stack: ExitStack, tell: Callable[[str], None]) -> None:
    """Start Ray, or connect to it, until the stack's end; why it does not start on this machine is a thing seen."""
    try:
        stack.enter_context(ray_session(seen.where, "--address", demand, tell))
    except Exception as error:
        if not seen.is_local or demand.count:
            raise
        seen.ray = {"error": _last_line(error)}
        return
    import ray

    seen.ray = {"version": ray.__version__, "token": _asks_for_token()}


def _asks_for_token() -> bool:
    from ray._private.authentication.authentication_utils import is_token_auth_enabled

    return bool(is_token_auth_enabled())


@contextmanager
def _marked(seen: Survey, tracking_uri: str | None, timeout_s: float) -> Iterator[str]:
    """Examine this process's own surroundings; while the block runs, each folder holds a file for others to read.

    Yields the name of these files.
    """
    name = f".hbtrain-doctor-{secrets.token_hex(6)}"
    probes = {"software": MACHINE["software"], "tracking": ("tracking", {"uri": tracking_uri})}
    probes |= {folder: ("mark", {"folder": folder, "name": name}) for folder in seen.folders}
    try:
        seen.here = run_probes(probes | (MACHINE if seen.is_local else {}), timeout_s)
        if seen.is_local:
            seen.nodes = {platform.node(): {probe: seen.here[probe] for probe in MACHINE}}
        yield name
    finally:
        clear: dict[str, tuple[str, Facts]] = {}
        for folder in seen.folders:
            facts = seen.here.get(folder, {})
            if "error" not in facts:
                clear[folder] = ("clear", {"folder": folder, "name": name, "made": facts.get("made", [])})
        run_probes(clear, timeout_s)


def _ray_nodes(seen: Survey) -> dict[str, Any]:
    """{name: the node as Ray describes it} of all living nodes, by host, or by address where hosts have one name."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    if seen.is_local:
        return dict(zip(seen.nodes, nodes, strict=True))
    for name in ("{NodeManagerHostname}", "{NodeManagerAddress}", "{NodeManagerAddress}:{NodeManagerPort}"):
        names = [name.format(**node) for node in nodes]
        if max(Counter(names).values()) == 1:
            break
    return dict(sorted(zip(names, nodes, strict=True)))


def _examine(seen: Survey, nodes: Mapping[str, Any], mark: str, timeout_s: float) -> None:
    """Have every node examine itself, and compare its clock with that of this process."""
    probes = dict(MACHINE)
    for folder in seen.folders:
        if "error" not in seen.here[folder]:
            probes[folder] = ("read_mark", {"folder": folder, "name": mark})
    with _actors(Examiner, [_on(node) for node in nodes.values()]) as actors:
        examiners = dict(zip(nodes, actors, strict=True))
        seen.nodes = _answers({name: actor.ready.remote() for name, actor in examiners.items()}, START_S)
        there = {name: actor for name, actor in examiners.items() if "error" not in seen.nodes[name]}
        clocks = {name: _clock(actor) for name, actor in there.items()}
        # Its probes have ended by then, if the node itself answers.
        found = _answers({n: a.examine.remote(probes, timeout_s) for n, a in there.items()}, timeout_s + START_S)
        for name, facts in found.items():
            seen.nodes[name] |= facts if "error" in facts else facts | {"clock": clocks[name], "joined": True}


def _clock(examiner: Any) -> Facts:
    """{"ahead_s": how far a node's clock is ahead of this one's, "within_s": how sure that is}, or "error"."""
    import ray

    best: Facts = {"error": "no answer"}
    for _ in range(ROUND_TRIPS):
        start = time.time()
        try:
            there = ray.get(examiner.clock.remote(), timeout=START_S)
        except ray.exceptions.RayError:
            return best
        half_s = (time.time() - start) / 2
        if half_s < best.get("within_s", float("inf")):
            best = {"ahead_s": there - start - half_s, "within_s": half_s}
    return best


def _measure(seen: Survey, nodes: Mapping[str, Any], timeout_s: float) -> None:
    """Measure on every GPU of the cluster; without any, by one process a node, or two on a single one."""
    gpus = [name for name, node in nodes.items() for _ in range(int(node["Resources"].get("GPU", 0)))]
    names = gpus or list(nodes) * (2 if len(nodes) == 1 else 1)
    options = [_on(nodes[name]) | {"num_gpus": 1 if gpus else 0, "runtime_env": GIVEN_DEVICES} for name in names]
    seen.ranks = [{"node": name, "gpu": bool(gpus)} for name in names]
    with _actors(Rank, options) as actors:
        addresses = _answers({k: actor.address.remote() for k, actor in enumerate(actors)}, START_S)
        started = [k for k, found in addresses.items() if "error" not in found]
        products = _answers({k: actors[k].product.remote() for k in started}, timeout_s)
        for k, address in addresses.items():
            seen.ranks[k] |= products.get(k, address)
        able = [k for k in started if "error" not in products[k]]
        if len(able) < 2:
            return
        meet_at = addresses[able[0]]["address"]
        calls = {k: actors[k].all_gather.remote(rank, len(able), meet_at, timeout_s) for rank, k in enumerate(able)}
        rates = _answers(calls, timeout_s)
    seen.all_gather = {"ranks": len(able)}
    failed = [f"{names[k]}: {found['error']}" for k, found in rates.items() if "error" in found]
    if failed:
        seen.all_gather["error"] = failed[0]
    else:
        slowest = min(rates.values(), key=lambda found: float(found["gb_s"]))
        seen.all_gather |= slowest


def _on(node: Any) -> dict[str, Any]:
    """Options of an actor that runs on a node, whatever else is at work there."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return {"num_cpus": 0, "scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)}


@contextmanager
def _actors(kind: type, options: Iterable[dict[str, Any]]) -> Iterator[list[Any]]:
    """An actor for each entry of `options`; they are killed when the block ends, also where they hang."""
    import ray

    actors = [ray.remote(kind).options(**own).remote() for own in options]
    try:
        yield actors
    finally:
        for actor in actors:
            ray.kill(actor)


def _answers(calls: Mapping[Key, Any], timeout_s: float) -> dict[Key, Facts]:
    """{key: what the actor's method returned}, or {"error": reason} where it raised, died or took too long."""
    import ray

    done, _ = ray.wait(list(calls.values()), num_returns=len(calls), timeout=timeout_s) if calls else ([], [])
    answers: dict[Key, Facts] = {}
    for key, call in calls.items():
        if call not in done:
            answers[key] = {"error": f"no answer in {timeout_s:g} s"}
            continue
        try:
            answers[key] = ray.get(call)
        except ray.exceptions.RayTaskError as error:
            answers[key] = {"error": _last_line(error.cause)}
        except ray.exceptions.RayError as error:
            answers[key] = {"error": _last_line(error)}
    return answers


def _last_line(error: Exception) -> str:
    """Where a traceback is part of a message, its last line says what happened."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__
