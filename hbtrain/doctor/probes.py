"""What a machine says of itself: probes, each in a process of its own that is killed when it does not answer in time.

A probe may hang for ever (a dead NFS server, a sick GPU) or crash (a library built for another CPU); whoever asks does
neither. Probes give facts as plain data, which `machine_checks` and `cluster_checks` judge.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distributions, requires, version
from pathlib import Path
from typing import Any

import psutil

import hbtrain
from hbtrain.cluster.connection import SESSION_SOCKET
from hbtrain.errors import HbtrainError, StorageError, without_passwords
from hbtrain.storage import RemotePath, cache_root, check_writable, place, write_text

Facts = dict[str, Any]  # what a probe found, as JSON can hold it; {"error": reason} where it failed or did not answer

PACKAGES = (
    *("hbtrain", "ray", "torch", "deepspeed", "transformers", "sentence-transformers", "datasets", "mlflow"),
    *("numpy", "pyarrow"),
)
REQUEST = "HBTRAIN_DOCTOR_PROBE"
"""Environment variable that tells the process of a probe its name and arguments, which are not for `ps` to show."""
PR_SET_PDEATHSIG = 1
SEEN_WITHIN_S = 5.0
"""How long a file may take to appear on another machine; NFS looks again after three seconds or more."""


def run_probes(probes: Mapping[str, tuple[str, Facts]], timeout_s: float) -> dict[str, Facts]:
    """Run probes at the same time; all of them have ended, or are left to the kernel to end, when this returns.

    Args:
        probes: {key: (name in `PROBES`, its arguments)}.
        timeout_s: seconds after which a probe is killed.

    Returns:
        {key: facts}.
    """
    deadline = time.monotonic() + timeout_s
    running: dict[str, subprocess.Popen[str]] = {}
    try:
        for key, (name, arguments) in probes.items():
            running[key] = _start(name, arguments)
        return {key: _facts(process, deadline, timeout_s) for key, process in running.items()}
    finally:
        for process in running.values():
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.poll()  # no wait: a process in an uninterruptible sleep does not even end when it is killed


def _start(name: str, arguments: Facts) -> subprocess.Popen[str]:
    variables = {REQUEST: json.dumps([name, arguments]), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", "hbtrain.doctor.probes"],
        env=os.environ | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C is for the command, which then ends its probes
    )


def _facts(process: subprocess.Popen[str], deadline: float, timeout_s: float) -> Facts:
    try:
        out, err = process.communicate(timeout=max(0.1, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return {"error": f"no answer in {timeout_s:g} s"}
    if process.returncode < 0:
        return {"error": f"its process was ended by {signal.Signals(-process.returncode).name}"}
    lines = (out if process.returncode == 0 else err).strip().splitlines()
    if process.returncode or not lines:
        return {
            "error": without_passwords(lines[-1]) if lines else f"its process ended with exit code {process.returncode}"
        }
    return dict(json.loads(lines[-1]))


def software() -> Facts:
    """Versions of Python and of packages, a digest of hbtrain's own sources, and its requirements that are not met."""
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    found["hbtrain"] = hbtrain.__version__  # that of the sources, which may be a checkout
    digest = hashlib.sha256()
    folder = Path(hbtrain.__file__).parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "python": platform.python_version(),
        "packages": found,
        "sources": digest.hexdigest()[:8],
        "unmet": _unmet_requirements(),
    }


def _unmet_requirements() -> list[str]:
    from packaging.requirements import Requirement

    try:
        lines = requires("hbtrain") or []
    except PackageNotFoundError:
        return []  # a checkout that is not installed
    unmet = []
    for wanted in map(Requirement, lines):
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            unmet.append(f"{wanted.name} is missing (needs {wanted.specifier})")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            unmet.append(f"{wanted.name} {found} (needs {wanted.specifier})")
    return unmet


def machine() -> Facts:
    """Cores, memory, `/dev/shm`, limits, and the folders of temporary files and of the cache; sizes in bytes."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    temporary = os.environ.get("TMPDIR") or "/tmp"
    return {
        "host": socket.gethostname(),
        "cpus": len(os.sched_getaffinity(0)),
        "memory": psutil.virtual_memory().total,
        "shm": shutil.disk_usage("/dev/shm").total if Path("/dev/shm").is_dir() else None,
        "open_files": soft,
        "open_files_hard": hard if hard != resource.RLIM_INFINITY else sys.maxsize,
        "temporary": temporary,
        "temporary_free": shutil.disk_usage(temporary).free if os.access(temporary, os.W_OK) else None,
        "cache": str(cache_root(None).absolute()),
        "socket_bytes": len(os.fsencode(Path(temporary).absolute() / SESSION_SOCKET)),
    }


def gpus() -> Facts:
    """GPUs and driver by `nvidia-smi`, and what torch makes of them."""
    import torch

    facts: Facts = {"listed": [], "driver": None, "torch": torch.__version__, "cuda": torch.version.cuda, "reason": ""}
    if shutil.which("nvidia-smi"):
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        done = subprocess.run(query, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        if done.returncode == 0:
            facts["listed"] = [line.rpartition(", ")[0] for line in lines]
            facts["driver"] = lines[0].rpartition(", ")[2] if lines else None
        else:
            facts["reason"] = (lines or [f"nvidia-smi ends with exit code {done.returncode}"])[0]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        facts["seen"] = [torch.cuda.get_device_name(number) for number in range(seen)]
    if not seen and caught:
        facts["reason"] = str(caught[0].message).strip().splitlines()[0]
    if seen:
        facts["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
    return facts


def search() -> Facts:
    """FAISS: its packages and build, the GPUs that it sees, and whether it finds a vector."""
    import faiss
    import numpy as np

    vectors = np.eye(8, dtype=np.float32)
    index: Any = faiss.IndexFlatIP(8)
    index.add(vectors)
    on_gpu = hasattr(faiss, "StandardGpuResources")
    seen = faiss.get_num_gpus() if on_gpu else 0
    if seen:
        resources = faiss.StandardGpuResources()
        resources.setTempMemory(2**24)  # its default is a gibibyte and more
        index = faiss.index_cpu_to_gpu(resources, 0, index)
    _, found = index.search(vectors, 1)
    installed = {found.name for found in distributions() if found.name.startswith("faiss")}
    return {
        "version": faiss.__version__,
        "packages": sorted(installed),
        "gpu_build": on_gpu,
        "gpus": seen,
        "right": found[:, 0].tolist() == list(range(8)),
    }


def tracking(uri: str | None) -> Facts:
    """Whether MLflow answers at `uri`, or at `$MLFLOW_TRACKING_URI`; {"uri": None} where neither is given."""
    from hbtrain.config import Config, override
    from hbtrain.tracking.past_runs import TrackedRuns
    from hbtrain.tracking.uris import sqlite_file, tracking_uri

    given = uri or os.environ.get("MLFLOW_TRACKING_URI")
    if given is None:
        return {"uri": None}
    full = tracking_uri(override(Config(name="doctor"), {"tracking.uri": given}))
    facts = {"uri": without_passwords(full), "new": False}
    file = sqlite_file(full)
    if file is not None and not file.exists():
        folder = file.parent
        if not os.access(folder, os.W_OK):
            raise StorageError(f"{folder} is not a folder that can be written")
        return facts | {"new": True}
    TrackedRuns(given)
    return facts


def mark(folder: str, name: str) -> Facts:
    """Write the file `name` into a folder or into remote storage, for `read_mark` on other machines.

    Folders that are missing are made, and listed so that `clear` removes them.
    """
    where = place(folder)
    made: list[str] = []
    if isinstance(where, RemotePath):
        check_writable(where, "--storage")
    else:
        made = [str(path) for path in (where, *where.parents) if not path.exists()]
        where.mkdir(parents=True, exist_ok=True)
    write_text(where / name, name)
    return {"made": made} | _free(where)


def read_mark(folder: str, name: str) -> Facts:
    """Whether the file that `mark` has written is seen here, and whether a file can be written beside it."""
    where = place(folder)
    deadline = time.monotonic() + SEEN_WITHIN_S
    while True:
        try:
            shared = (where / name).read_text() == name
            break
        except (FileNotFoundError, NotADirectoryError):
            shared = False
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
    if shared:
        own = where / f"{name}-{socket.gethostname()}-{os.getpid()}"
        write_text(own, name)
        own.unlink()
    return {"shared": shared} | (_free(where) if shared else {})


def clear(folder: str, name: str, made: list[str]) -> Facts:
    """Remove what `mark` has made."""
    (place(folder) / name).unlink(missing_ok=True)
    for path in made:
        with suppress(OSError):  # others have put something there
            Path(path).rmdir()
    return {}


def _free(where: Any) -> Facts:
    return {} if isinstance(where, RemotePath) else {"free": shutil.disk_usage(where).free}


PROBES: dict[str, Callable[..., Facts]] = {
    probe.__name__: probe for probe in (software, machine, gpus, search, tracking, mark, read_mark, clear)
}
MACHINE: dict[str, tuple[str, Facts]] = {name: (name, {}) for name in ("software", "machine", "gpus", "search")}
"""The probes of what any machine has, for `run_probes`."""


def main() -> None:
    """The process of a probe: prints its facts as one line."""
    name, arguments = json.loads(os.environ.pop(REQUEST))
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # ends with whoever asks, also where that is killed
    try:
        facts = PROBES[name](**arguments)
    except HbtrainError as error:
        facts = {"error": str(error)}
    except OSError as error:
        facts = {"error": f"{error.strerror or error}: {error.filename}" if error.filename else str(error)}
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main()
