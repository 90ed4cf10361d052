"""An MLflow server that can be killed and started again at the same place."""

import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil

from tests.ports import free_port


class MlflowServer:
    """`mlflow server` on a port of this machine, with its database and artifacts in a folder."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self.folder.mkdir(exist_ok=True)
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process = None

    def __enter__(self):
        self.start()
        self.wait()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        """Start it, without waiting until it answers."""
        place = ["--backend-store-uri", f"sqlite:///{self.folder / 'server.db'}"]
        place += ["--artifacts-destination", str(self.folder / "artifacts")]
        address = ["--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", *place, *address], stdout=log, stderr=log
            )

    def wait(self, timeout_s=300):
        """Until it answers."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "server.log").read_text()
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=5):
                    return
            except OSError:
                time.sleep(0.2)
        raise AssertionError(f"no answer in {timeout_s} s: {(self.folder / 'server.log').read_text()}")

    def kill(self):
        """kill -9 of it and its children."""
        processes = [self.process, *psutil.Process(self.process.pid).children(recursive=True)]
        for process in processes:
            process.kill()
        self.process.wait(10)
