"""How the runs in a storage fare, as their folders tell; for processes other than their drivers.

A run whose driver is killed cannot say so. It is `silent` once a few heartbeats are missing, and `lost` once its
driver's process is known to be dead, or nothing was heard of it for `LOST_AFTER_S`.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from hbtrain.errors import HbtrainError, StorageError
from hbtrain.runs.run_folder import PARALLEL_READS, RunFolder
from hbtrain.runs.run_log import utc
from hbtrain.runs.run_status import FINISHED, HEARTBEAT, RUNNING, STOPPED, RunStatus
from hbtrain.storage import Place
from hbtrain.storage.lease import this_machine
from hbtrain.tracking.past_runs import TrackedRuns

SILENT, LOST, UNKNOWN, DAMAGED = "silent", "lost", "unknown", "damaged"
"""States besides those of `hbtrain.runs.run_status`: not heard of; its driver is dead; it has no heartbeat (one of an
earlier version, or just beginning); a file of it cannot be read."""
WELL = (RUNNING, FINISHED, STOPPED, UNKNOWN)
SILENT_AFTER_S = 60.0  # and three heartbeats
LOST_AFTER_S = 600.0
OF_RUN = (HEARTBEAT, "run.json", "config.yaml")  # files by which a folder is known to be that of a run
OF_SWEEP = "space.yaml"


@dataclass(frozen=True)
class Fared:
    """A run or sweep, and how it fares."""

    path: Place  # its folder
    state: str  # one of those of `run_status`, or one of the above
    status: RunStatus | None = None  # its last heartbeat
    silent_s: float | None = None  # seconds since then
    note: str = ""  # a sentence on what is wrong, or empty
    is_sweep: bool = False

    @property
    def is_well(self) -> bool:
        return self.state in WELL


def runs_in(where: Place, now_s: float | None = None) -> list[Fared]:
    """The run or sweep in the folder `where`, or those in the storage `where`; trials follow their sweep.

    Raises:
        StorageError: there is none, or the storage does not answer.
    """
    try:
        folders = list(_folders(where))
    except OSError as error:
        raise StorageError(f"cannot read {where}: {error.strerror or error}") from error
    if not folders:
        raise StorageError(f"{where} holds no run; give the folder of a run or of a sweep, or a storage (`storage`)")
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        return list(pool.map(lambda found: fared(found[0], found[1], now_s), folders))


def _folders(where: Place) -> Iterator[tuple[Place, bool]]:
    """(folder, whether it is that of a sweep) of the runs in a run's folder, a sweep's or a storage."""
    files, folders = _entries(where)
    if OF_SWEEP in files or any(name in files for name in OF_RUN):
        yield where, OF_SWEEP in files
        if OF_SWEEP not in files:
            return
    with ThreadPoolExecutor(PARALLEL_READS) as pool:
        inside = list(pool.map(lambda name: _entries(where / name), folders))
    for name, (below, folders_below) in zip(folders, inside, strict=True):
        if OF_SWEEP in below:
            yield from ((where / name, True), *((where / name / trial, False) for trial in _runs(folders_below)))
        elif any(file in below for file in OF_RUN):
            yield where / name, False


def _runs(names: Iterable[str]) -> list[str]:
    """Names of folders of a sweep without those that hold something else."""
    return [name for name in names if name not in ("tune", "report")]


def _entries(folder: Place) -> tuple[set[str], list[str]]:
    """The names of files and of folders in a folder."""
    if isinstance(folder, Path):
        kinds = {path.name: path.is_dir() for path in folder.iterdir()} if folder.is_dir() else {}
    else:
        kinds = folder.children()
    return {n for n, is_folder in kinds.items() if not is_folder}, sorted(
        n for n, is_folder in kinds.items() if is_folder
    )


def fared(folder: Place, is_sweep: bool = False, now_s: float | None = None) -> Fared:
    """How the run in `folder` fares now, or at `now_s`."""
    now_s = time.time() if now_s is None else now_s
    try:
        status = RunStatus.read(folder)
        finished = RunFolder(folder).state.finished
    except (OSError, ValueError, HbtrainError) as error:
        reason = str(error) if isinstance(error, HbtrainError) else f"{HEARTBEAT} cannot be read"
        return Fared(folder, DAMAGED, note=reason, is_sweep=is_sweep)
    if status is None:
        return Fared(folder, FINISHED if finished else UNKNOWN, is_sweep=is_sweep)
    silent_s = max(0.0, now_s - status.time_s)
    if finished or status.state != RUNNING:
        state = FINISHED if finished else status.state
        return Fared(folder, state, status, silent_s, "" if finished else status.reason, is_sweep)
    dead = silent_s > 2 * status.every_s and status.machine == this_machine() and not _lives(status)
    if dead or silent_s > LOST_AFTER_S:
        why = f"its driver (pid {status.pid}) is dead" if dead else f"no word from its driver on {status.host}"
        return Fared(folder, LOST, status, silent_s, f"{why}; the same command goes on", is_sweep)
    if silent_s > SILENT_AFTER_S + 3 * status.every_s:
        return Fared(folder, SILENT, status, silent_s, f"no word from its driver on {status.host}", is_sweep)
    return Fared(folder, RUNNING, status, silent_s, "", is_sweep)


def _lives(status: RunStatus) -> bool:
    """Whether the driver's process is there, on this machine, and no other one that has its pid by now."""
    try:
        return abs(psutil.Process(status.pid).create_time() - status.process_started_s) < 1.0
    except psutil.Error:
        return False


def mark_lost(runs: Iterable[Fared], uri: str | None = None) -> list[str]:
    """End the MLflow runs of those that are lost and still count as running there; returns sentences on what failed.

    Args:
        runs: as `runs_in` gives them.
        uri: MLflow's address; None: that of each run, or, if there is a password in it, the default one.
    """
    servers: dict[str | None, TrackedRuns | None] = {}
    problems = []
    for run in runs:
        status = run.status
        if run.state != LOST or status is None or status.mlflow_run_id is None:
            continue
        own = status.tracking_uri if status.tracking_uri and "***" not in status.tracking_uri else None
        where = uri or own
        try:
            if where not in servers:
                servers[where] = None
                servers[where] = TrackedRuns(where)
            if (server := servers[where]) is not None:
                server.end_lost(status.mlflow_run_id, f"no heartbeat since {utc(status.time_s)}")
        except HbtrainError as error:
            problems.append(f"MLflow was not told that {run.path.name} is lost: {error}")
    return problems
