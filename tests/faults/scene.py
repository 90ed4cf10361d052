"""The surroundings of a run that faults happen to at random: its storage, MLflow, terminal and processes."""

import contextlib
import os
import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

from tests import s3
from tests.faults.disks import small_disk
from tests.faults.draws import CHECKPOINT_EVERY, LOG_EVERY, STEPS
from tests.faults.gate import Gate
from tests.faults.hurt import ListeningCommand
from tests.faults.server import MlflowServer
from tests.integration.command import ROOT

ROOM = "400m"
"""Of the storage, where it can run full."""

SMALL = [
    "--training.checkpoint_every", CHECKPOINT_EVERY, "--training.log_every", LOG_EVERY, "--training.step_timeout_s", 30,
    "--batching.global_batch_size", 64, "--encoder.static.dimension", 16, "--encoder.static.vocabulary_size", 500,
    "--evaluation.before", "false", "--tracking.log_model", "false",
]  # fmt: skip
SEARCHES = {
    "pbt": ["alpha-pbt", "--search.population", 2, "--search.intervals", 2, "--batching.alpha", 0.1, 0.9],
    "sweep": ["alpha-grid", "--batching.alpha", 0, 1, "--seed", 5],
}


class Scene:
    """Where a run is stored and tracked, and its command, which `start` gives again and again.

    Attributes:
        runs: folder of its runs on this machine; for a bucket a copy of them, made by `fetch`.
        bucket: the bucket that they are in, or None.
        gates: {`S3` or `MLflow`: the gate in front of its server}.
        database: file of MLflow's database.
        resize: gives the storage another size, where it can run full.
    """

    def __init__(self, run, folder, pace_s=0.0):
        self.run, self.folder, self.pace_s = run, Path(folder), pace_s
        self.runs = self.folder / "disk" / "runs"
        self.storage = str(self.runs)
        self.bucket, self.gates, self.resize = None, {}, None
        self.database = self.folder / "mlflow.db"
        self.uri = f"sqlite:///{self.database}"
        self.variables = {"HBTRAIN_PACE_S": str(pace_s)}

    @contextmanager
    def set_up(self, faults=()):
        """Everything there that these faults need; at the end all that was started has ended."""
        kinds = {fault.what for fault in faults}
        with contextlib.ExitStack() as stack:
            stack.callback(self.end_processes)
            if "full disk" in kinds:
                self.resize = stack.enter_context(small_disk(self.folder / "disk", ROOM))
            if self.run.storage == "s3":
                self._use_bucket(stack, stack.enter_context(s3.server()))
            if kinds & {"MLflow away", "MLflow throttled"}:
                server = stack.enter_context(MlflowServer(self.folder / "server"))
                self.database = server.folder / "server.db"
                self.gates["MLflow"] = Gate(server.port)
                stack.callback(self.gates["MLflow"].close)
                self.uri = self.gates["MLflow"].address
            yield self

    def _use_bucket(self, stack, endpoint):
        gate = self.gates["S3"] = Gate(int(endpoint.rsplit(":", 1)[1]))
        stack.callback(gate.close)
        self.bucket = s3.Bucket(endpoint)
        self.storage = f"{self.bucket.uri}/runs"
        self.variables |= s3.environment(gate.address) | {"HBTRAIN_CACHE": str(self.folder / "cache")}

    def start(self, **variables):
        """A process of the command, and its terminal."""
        for file in self.folder.glob("faults/*"):
            file.unlink()
        where = ["--storage", self.storage, "--tracking.uri", self.uri, "--data.cache", self.folder / "cache"]
        common = [*SMALL, *where, "--resources.workers", self.run.workers]
        terminal = Terminal()
        # No forks: `end_processes` finds processes by their environment, and a fork shows that of its server.
        options = {"stdout": terminal.input, "forked": False, **self.variables, **variables}
        if self.run.kind == "plain":
            zero = ["--training.deepspeed.zero_optimization.stage", self.run.zero]
            command = ["train", "quickstart", "--training.steps", STEPS, *zero, *common]
        else:
            options["program"] = [ROOT / "tune" / "sweep.py"]
            command = [*SEARCHES[self.run.kind], "--training.steps", STEPS // 3, *common]
        started = ListeningCommand(self.folder, *command, **options)
        terminal.show_in(started.log)
        return started, terminal

    def fetch(self):
        """Where the runs are in a bucket: copy them to `runs`."""
        for key in [] if self.bucket is None else self.bucket.keys("runs/"):
            file = self.runs.parent / key
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.bucket.get(key))

    def files(self):
        """Names of all files of the storage."""
        if self.bucket is not None:
            return self.bucket.keys("runs/")
        return sorted(str(file.relative_to(self.runs.parent)) for file in self.runs.rglob("*") if file.is_file())

    def change(self, name, change):
        """Put `change(content)` in place of a file's content; delete the file where that is None."""
        file = self.runs.parent / name
        content = change(file.read_bytes() if self.bucket is None else self.bucket.get(name))
        if content is None:
            file.unlink() if self.bucket is None else self.bucket.delete(name)
        elif self.bucket is None:
            file.write_bytes(content)
        else:
            self.bucket.put(name, content)

    def full(self):
        """Leave next to no room in the storage."""
        self.resize(f"{shutil.disk_usage(self.folder / 'disk').used // 1024 + 64}k")

    def end_processes(self):
        """kill -9 all that any process of the command started, and is still there."""
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HBTRAIN_FAULTS") == str(self.folder / "faults"):
                    process.kill()


class Terminal:
    """What a command's output goes to; it may be lost."""

    def __init__(self):
        self._output, self.input = os.pipe()
        self._is_lost = False

    def show_in(self, file):
        """Write what comes to a file."""
        os.close(self.input)
        threading.Thread(target=self._copy, args=(file,), daemon=True).start()

    def lose(self):
        """From now on nobody takes the output."""
        self._is_lost = True

    def _copy(self, file):
        os.set_blocking(self._output, False)
        with file.open("ab", buffering=0) as out:
            while not self._is_lost:
                try:
                    part = os.read(self._output, 65536)
                except BlockingIOError:
                    time.sleep(0.02)
                    continue
                if not part:
                    break
                out.write(part)
        os.close(self._output)
