"""What a run or sweep does now: `heartbeat.json` in its folder, which its driver writes anew every few seconds.

It is for other processes, such as `hbtrain status`: a driver that is killed cannot say so, but its heartbeat grows old.
"""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict

from hbtrain.errors import HbtrainError, LeaseLostError, without_passwords
from hbtrain.storage import Place, write_text
from hbtrain.storage.lease import this_machine

HEARTBEAT = "heartbeat.json"
EVERY_S, REMOTE_EVERY_S = 10.0, 60.0  # seconds between two heartbeats in a folder, and on S3

RUNNING, FINISHED, STOPPED, KILLED, FAILED = "running", "finished", "stopped", "killed", "failed"
"""States: a driver is at work; all was done; a segment was done, and the run goes on later; someone ended it (Ctrl-C, a
signal); an error did."""


class RunStatus(BaseModel):
    """The content of `heartbeat.json`. Unknown names, as a later version may write, are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    state: str = RUNNING  # as its driver last knew
    doing: str = ""  # the current phase, for people
    reason: str = ""  # why it ended, where it was killed or failed
    step: int = 0  # steps done; trials of a sweep
    steps: int = 0  # steps of the whole run; trials of the whole sweep
    steps_per_s: float | None = None  # in this attempt, checkpoints and the like included
    pairs_per_s: float | None = None
    loss: float | None = None
    workers: int | None = None
    host: str = ""  # name of the driver's machine
    machine: str = ""  # what its process id is valid in (`hbtrain.storage.lease.this_machine`)
    pid: int = 0  # of the driver
    process_started_s: float = 0.0  # when that process began: another one may get its pid
    begun_s: float = 0.0  # when this attempt began; all times are seconds since 1970
    time_s: float = 0.0  # when this was written
    every_s: float = EVERY_S  # seconds until the next heartbeat
    # counts over all attempts
    restarts: int = 0  # of all workers, after a death
    hangs: int = 0  # ranks that kept the others waiting
    skipped_steps: int = 0  # as the gradients were not finite
    waits: int = 0  # for room on the cluster
    mlflow_run_id: str | None = None
    tracking_uri: str | None = None  # without passwords

    @classmethod
    def read(cls, folder: Place) -> RunStatus | None:
        """The status in a run's folder; None without one.

        Raises:
            OSError: it cannot be read.
            ValueError: it is damaged.
        """
        try:
            return cls.model_validate_json((folder / HEARTBEAT).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None


class StatusWriter:
    """Keeps `heartbeat.json` of one run or sweep. A storage that fails costs heartbeats, and never ends the run."""

    def __init__(self, folder: Place, **fields: Any) -> None:
        """Begin with `fields`; step and counts go on from those of earlier attempts."""
        before = None
        with suppress(OSError, ValueError):
            before = RunStatus.read(folder)
        lasting = {"step", "restarts", "hangs", "skipped_steps", "waits"}
        known = {} if before is None else before.model_dump(include=lasting)
        self._folder = folder
        self._every_s = EVERY_S if isinstance(folder, Path) else REMOTE_EVERY_S
        self._lock = threading.Lock()
        self._status = RunStatus(
            host=platform.node(),
            machine=this_machine(),
            pid=os.getpid(),
            process_started_s=psutil.Process().create_time(),
            begun_s=time.time(),
            every_s=self._every_s,
            **(known | fields),
        )

    @property
    def status(self) -> RunStatus:
        return self._status

    def set(self, **fields: Any) -> None:
        """Set fields, to be written with the next heartbeat."""
        with self._lock:
            self._status = self._status.model_copy(update=fields)

    def count(self, name: str) -> int:
        """Add one to a count; returns it."""
        with self._lock:
            value = int(getattr(self._status, name)) + 1
            self._status = self._status.model_copy(update={name: value})
        return value

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Write a heartbeat every few seconds while the block runs, and at its end how it ended.

        Where the block lost its lease the file is another driver's, and nothing more is written.
        """
        done = threading.Event()
        thread = threading.Thread(target=self._beat, args=(done,), name="status", daemon=True)
        self._write()
        thread.start()
        ended: dict[str, str] = {"state": FAILED, "reason": "an error of the program"}
        try:
            yield
            ended = {"state": FINISHED if self._status.state == RUNNING else self._status.state}
        except KeyboardInterrupt as error:
            ended = {"state": KILLED, "reason": str(error) or "interrupted by Ctrl-C"}
            raise
        except LeaseLostError:
            ended = {}
            raise
        except HbtrainError as error:
            ended = {"state": FAILED, "reason": str(error)}
            raise
        except BaseException as error:
            ended["reason"] = repr(error)
            raise
        finally:
            done.set()
            thread.join()
            if ended:
                self.set(**ended)
                self._write()

    def _beat(self, done: threading.Event) -> None:
        while not done.wait(self._every_s):
            self._write()

    def _write(self) -> None:
        texts = {name: without_passwords(getattr(self._status, name)) for name in ("doing", "reason")}
        with suppress(OSError):
            now = self._status.model_copy(update={"time_s": time.time(), **texts})
            write_text(self._folder / HEARTBEAT, now.model_dump_json(indent=1))
