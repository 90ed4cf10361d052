"""Leases: which one process drives a run or a sweep, wherever its storage is.

The file `lease.json` in the folder names the process that holds the lease: host, process id, since when, and its last
sign of life, which a thread renews every `RENEW_EVERY_S`. A process that ends gives the lease back. One that is killed
does not: on its own machine the lease is free at once, as its process is gone; for others it is free when no sign of
life has come for `EXPIRES_AFTER_S`, and none comes within `WATCHED_S` more, so that clocks which differ take nothing
away from the living. Whoever takes a free lease counts its generation up.

To read and to replace the file is one act where the folder has file locks. In object storage (pyarrow's client makes no
conditional requests) and on file systems without locks, the file is written, and read again `SETTLE_S` later: the last
of several writers has the lease. A holder reads the file before it changes anything that the run keeps (`Lease.check`),
and stops if another process is named there.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import psutil

from hbtrain.errors import LeaseLostError, StorageError
from hbtrain.storage.files import LOCK, NO_LOCKS, lock_file, make_folder, unwritable, write_text
from hbtrain.storage.place import Place

LEASE = "lease.json"
RENEW_EVERY_S = 10.0
EXPIRES_AFTER_S = 60.0
WATCHED_S = 2 * RENEW_EVERY_S
SETTLE_S = 2.0

AGAIN = "then the same command goes on"


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease: the content of `lease.json`. Times are seconds since 1970, UTC."""

    host: str  # name of its host
    machine: str  # digest of what its process id is valid in: a boot of a machine, and a container's own numbers
    pid: int  # its process id
    started: float  # when it took the lease
    heartbeat: float  # its last sign of life
    generation: int  # how often the lease has passed on without having been given back, counted from 1

    def __str__(self) -> str:
        since = datetime.fromtimestamp(self.started, UTC)
        return f"process {self.pid} on host {self.host}, since {since:%Y-%m-%d %H:%M:%S} UTC"

    def is_same(self, other: Holder | None) -> bool:
        """Whether `other` is the same hold of the lease, at any heartbeat."""
        return other is not None and replace(other, heartbeat=self.heartbeat) == self

    @property
    def is_here(self) -> bool:
        """Whether its process, if it is alive, is one that this process can see."""
        return self.machine == this_machine()

    def is_alive(self, now: float) -> bool:
        """Whether its process is there; of a process elsewhere, whether its last sign of life is recent."""
        if not self.is_here:
            return now - self.heartbeat < EXPIRES_AFTER_S
        try:
            process = psutil.Process(self.pid)
            # A process that began after the lease was taken has only got the number of one that is gone.
            return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= self.started + 1
        except psutil.NoSuchProcess:
            return False
        except psutil.Error:  # another user's
            return True


@dataclass(frozen=True)
class Lease:
    """A lease that a process holds. It can be passed to other processes that work for this one."""

    folder: Place  # what it is for
    holder: Holder  # as it was when the lease was taken

    def check(self) -> None:
        """Call this before a change of what the run keeps.

        Raises:
            LeaseLostError: another process has the lease now.
            OSError: the storage does not answer.
        """
        now = read_lease(self.folder)
        if not self.holder.is_same(now):
            taker = f"{now} has taken over" if now is not None else f"its {LEASE} is gone"
            raise LeaseLostError(
                f"{self.folder} is no longer this process's: {taker}; this one has stopped, and writes nothing more"
            )


@contextmanager
def leased(
    folder: Place, clock: Callable[[], float] = time.time, sleep: Callable[[float], object] = time.sleep
) -> Iterator[Lease]:
    """Hold the lease of a folder, which is made if need be, until the block ends.

    Args:
        folder: of a run or a sweep.
        clock: seconds since 1970.
        sleep: waits so many seconds.

    Raises:
        StorageError: another process holds the lease, or the folder cannot be read or written.
    """
    try:
        if isinstance(folder, Path):
            make_folder(folder)
        lease = _take(folder, clock, sleep)
    except OSError as error:
        raise unwritable(str(folder / LEASE), error) from error
    done = threading.Event()
    thread = threading.Thread(target=_renew, args=(lease, clock, done), name="lease", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        done.set()
        thread.join()
        with suppress(LeaseLostError, OSError, StorageError):
            lease.check()
            (folder / LEASE).unlink()


def read_lease(folder: Place) -> Holder | None:
    """Who holds the lease of a folder; None if nobody does.

    Raises:
        OSError: the storage does not answer.
        StorageError: the file is damaged.
    """
    file = folder / LEASE
    try:
        return Holder(**json.loads(file.read_text(encoding="utf-8")))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        raise StorageError(f"{file} is damaged: delete it when no other process is at work there; {AGAIN}") from error


@cache
def this_machine() -> str:
    """A digest of what process ids are valid in: this boot of the machine, and a container's own numbers."""
    parts = [platform.node()]
    with suppress(OSError):  # where there is no Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _take(folder: Place, clock: Callable[[], float], sleep: Callable[[float], object]) -> Lease:
    """Take the lease of a folder; see `leased`. Raises OSError where the storage cannot be used."""
    seen = read_lease(folder)
    if seen is not None:
        if seen.is_alive(clock()):
            raise StorageError(_busy(folder, seen))
        if not seen.is_here:
            sleep(WATCHED_S)
    with _locked(folder) as is_locked:
        before = read_lease(folder)
        if before is not None and before != seen:
            raise StorageError(_busy(folder, before))
        now = clock()
        generation = 1 if before is None else before.generation + 1
        lease = Lease(folder, Holder(platform.node(), this_machine(), os.getpid(), now, now, generation))
        _write(folder, lease.holder)
    if not is_locked:
        sleep(SETTLE_S)
        after = read_lease(folder)
        if not lease.holder.is_same(after):
            raise StorageError(_busy(folder, after))
    return lease


def _renew(lease: Lease, clock: Callable[[], float], done: threading.Event) -> None:
    """Give signs of life until `done` is set or the lease is lost."""
    while not done.wait(RENEW_EVERY_S):
        try:
            with _locked(lease.folder):
                lease.check()
                _write(lease.folder, replace(lease.holder, heartbeat=clock()))
        except LeaseLostError:
            return
        except (OSError, StorageError):  # the storage may answer the next time
            continue


def _write(folder: Place, holder: Holder) -> None:
    write_text(folder / LEASE, json.dumps(asdict(holder), indent=1) + "\n")


@contextmanager
def _locked(folder: Place) -> Iterator[bool]:
    """While the body runs, no other process reads and replaces the lease; gives whether the folder has locks for that.

    Raises:
        StorageError: another process is just doing that.
        OSError: the folder cannot be written.
    """
    with ExitStack() as stack:
        is_locked = isinstance(folder, Path)
        if isinstance(folder, Path):
            try:
                stack.enter_context(lock_file(folder / LOCK, _busy(folder, None)))
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                is_locked = False
        yield is_locked


def _busy(folder: Place, holder: Holder | None) -> str:
    who = f": {holder}" if holder is not None else ""
    until = ""
    if holder is not None and not holder.is_here:
        heard = datetime.fromtimestamp(holder.heartbeat, UTC)
        until = (
            f", and if that host is gone, {EXPIRES_AFTER_S:.0f} s after it was last heard of at {heard:%H:%M:%S} UTC"
        )
    return f"another process is at work in {folder}{who}; wait for its end, or stop it; {AGAIN}{until}"
