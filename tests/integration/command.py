"""Runs the command line as a user does, in a process of its own."""

import contextlib
import functools
import os
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from tests.processes.fork_server import WORKERS, Forked, Server

ROOT = Path(__file__).parents[2]
PROCESSES = str(ROOT / "tests" / "processes")
PATHS = os.pathsep.join([PROCESSES, str(ROOT)])
"""The PYTHONPATH of a process of a test."""
HBTRAIN = ("-m", "hbtrain.cli.main")
PATIENCE_S = 900
"""For anything that a test waits for: only a hang takes as long, however busy the machine is."""


class Command:
    """`hbtrain ARGUMENTS`, or another Python program, with its output in a file; ends with everything it started."""

    def __init__(self, folder, *arguments, program=HBTRAIN, host=None, stdout=None, forked=True, **variables):
        """`host` is one of `Hosts`, or None for this machine itself; `stdout` a descriptor in place of the file.

        It is a fork of a process with libraries, and so are its workers, unless it is to be started as by a user: not
        `forked`, or with a PYTHONPATH without `PATHS`.
        """
        self.log = Path(folder) / f"log-{time.monotonic_ns()}.txt"
        environment = os.environ | {
            "PYTHONPATH": PATHS,
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "120",
            "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
            "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a process for every group of workers, of use in clouds
            # The process that built the first model, and has imported what it takes, scores the trained one as well.
            "RAY_idle_worker_killing_time_threshold_ms": "600000",
            **variables,
        }
        command = [*map(str, [*program, *arguments])]
        with self.log.open("w") as file:
            out = file.fileno() if stdout is None else stdout
            if forked and environment["PYTHONPATH"].endswith(PATHS):
                self.process = fork(command, environment, folder, out, host=host)
                return
            assert host is None, "on hosts there are forks only"
            self.process = subprocess.Popen(
                [sys.executable, *command],
                cwd=folder,
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.kill_all()

    @property
    def output(self):
        return self.log.read_text()

    def wait_for(self, words, timeout_s=PATIENCE_S):
        """Wait until the output holds `words`; AssertionError if it ends or takes too long."""
        self.wait_until(lambda output: words in output, timeout_s, repr(words))

    def wait_until(self, holds, timeout_s=PATIENCE_S, what="that"):
        """Wait until `holds` of the output; AssertionError if the command ends or it takes too long."""
        deadline = time.monotonic() + timeout_s
        while not holds(self.output):
            assert self.process.poll() is None, f"ended without {what}:\n{self.output}"
            assert time.monotonic() < deadline, f"no {what} in {timeout_s} s:\n{self.output}"
            time.sleep(0.1)

    def finish(self, timeout_s=PATIENCE_S):
        """Wait for the end; the exit code."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"not done in {timeout_s} s:\n{self.output}") from None

    def train_workers(self, root=None):
        """The Ray Train worker processes below this command, or below process `root` (a node's)."""
        processes = psutil.Process(root or self.process.pid).children(recursive=True)
        return called("TrainWorker", processes)

    def kill_all(self):
        """kill -9 the command and all below it."""
        try:
            processes = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            processes = []
        for process in [self.process, *processes]:
            try:
                process.kill()
            except psutil.Error:
                continue
        self.process.wait(10)


@functools.cache
def fork_server():
    """The server of forks of this session."""
    return Server(os.environ | {"PYTHONPATH": PATHS, "PYTHONUNBUFFERED": "1", "DS_ACCELERATOR": "cpu"})


@contextlib.contextmanager
def workers_are_forks():
    """While the block runs, Ray that is started below this process has forks as its workers; yields a MonkeyPatch."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATHS)
        patch.setenv(WORKERS, fork_server().path)
        yield patch


def fork(command, environment, folder, out, errors=None, more=None, host=None):
    """`python COMMAND` as a fork, with its output for the descriptor `out`, and its errors for it or for `errors`.

    `more` are other open files of its: {descriptor there: descriptor here}. `host` is one of `Hosts`, or None for this
    machine itself.
    """
    server = fork_server()
    if host is not None:
        server, environment = host.fork_server, {**environment, "TMPDIR": str(host.local)}
    with Path(os.devnull).open() as nothing:
        files = {0: nothing.fileno(), 1: out, 2: out if errors is None else errors, **(more or {})}
        return Forked(server.path, [*map(str, command)], environment, files, str(folder))


def built(folder):
    """Builds the sdist of this checkout and, from that as package managers do, the wheel; their paths, in `folder`."""
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = folder.glob("hbtrain-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    sources = folder / sdist.name.removesuffix(".tar.gz")
    subprocess.run([*build, "-t", "wheel"], cwd=sources, check=True, capture_output=True)
    (wheel,) = folder.glob("hbtrain-*.whl")
    return sdist, wheel


def unpacked_wheel(folder):
    """The wheel of this checkout, unpacked below `folder`; the folder for a Python path."""
    with zipfile.ZipFile(built(folder / "dist")[1]) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def mlflow_runs(folder, uri=None):
    """The runs in the tracking store, newest first."""
    from mlflow import MlflowClient

    client = MlflowClient(uri or f"sqlite:///{Path(folder) / 'runs' / 'mlflow.db'}")
    return client.search_runs([client.get_experiment_by_name("hbtrain").experiment_id])


def called(words, processes):
    """Those that call themselves so. What one of them has just forked bears its name until it runs another program."""
    found = {process.pid: process for process in processes if words in title(process)}
    return [process for process in found.values() if parent(process) not in found]


def parent(process):
    """The pid of the process that started this one; None if it has just ended."""
    try:
        return process.ppid()
    except psutil.Error:
        return None


def title(process):
    """What a process calls itself; nothing if it has just ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
