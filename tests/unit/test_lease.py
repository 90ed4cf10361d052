"""One driver at a time: on a disk, on a disk without locks, and in a bucket."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import filelock
import psutil
import pytest

from hbtrain.errors import LeaseLostError, StorageError
from hbtrain.storage import lease as leases
from hbtrain.storage import place
from hbtrain.storage.files import LOCK
from hbtrain.storage.lease import EXPIRES_AFTER_S, LEASE, RENEW_EVERY_S, SETTLE_S, WATCHED_S, leased, read_lease

NOW = 1_800_000_000.0
BUSY = "another process is at work in .*: process {} on host .*, since .* UTC; wait for its end, or stop it; then"

DRIVER = """
import sys
from hbtrain.storage import place
from hbtrain.storage.lease import leased
with leased(place(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["disk", "disk without locks", "bucket"])
def folder(request, tmp_path, monkeypatch):
    """A folder whose lease can be taken."""
    if request.param == "disk without locks":
        native = sys.modules[filelock.UnixFileLock.__module__]

        def no_locks(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(native.fcntl, "flock", no_locks)
    if request.param == "bucket":
        return place(f"{request.getfixturevalue('bucket').uri}/runs/it")
    return tmp_path / "runs" / "it"


class Clock:
    """Time that passes while somebody sleeps; `meanwhile` is called then, once."""

    def __init__(self, meanwhile=lambda: None):
        self.now, self.meanwhile, self.slept = NOW, meanwhile, []

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now += seconds
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()


def take(folder, clock=None):
    clock = clock or Clock()
    return leased(folder, clock, clock.sleep)


def held_elsewhere(folder, age=0.0, **fields):
    """Have a process of another machine hold the lease, last heard of `age` seconds ago."""
    if not str(folder).startswith("s3:"):
        folder.mkdir(parents=True, exist_ok=True)
    holder = leases.Holder("far", "other", 42, NOW - 3600, NOW - age, 3)
    holder = replace(holder, **fields)
    leases._write(folder, holder)
    return holder


def test_one_at_a_time_and_given_back_after_an_error(folder):
    with pytest.raises(ZeroDivisionError), take(folder) as lease:
        assert read_lease(folder) == lease.holder
        assert (lease.holder.pid, lease.holder.started, lease.holder.generation) == (os.getpid(), NOW, 1)
        with pytest.raises(StorageError, match=BUSY.format(os.getpid())) as error, take(folder):
            pass
        assert error.value.exit_code == 2
        assert "\n" not in str(error.value)
        lease.check()
        raise ZeroDivisionError
    assert read_lease(folder) is None
    with take(folder):
        pass


def test_what_the_file_says(tmp_path):
    with take(tmp_path):
        found = json.loads((tmp_path / LEASE).read_text())
    assert found.keys() == {"host", "machine", "pid", "started", "heartbeat", "generation"}
    assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK]


@pytest.mark.parametrize(
    ("folder", "end"), [("disk", "killed"), ("disk", "stopped"), ("bucket", "killed")], indirect=["folder"]
)
def test_a_process_of_this_machine_has_it_as_long_as_it_lives(folder, end):
    with subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as driver:
        assert driver.stdout.readline() == "held\n"
        later = Clock()
        later.now = time.time() + 100 * EXPIRES_AFTER_S
        driver.send_signal(signal.SIGSTOP if end == "stopped" else signal.SIGKILL)
        if end == "stopped":
            with pytest.raises(StorageError, match=BUSY.format(driver.pid)), take(folder, later):
                pass
            driver.kill()
        while psutil.Process(driver.pid).status() != psutil.STATUS_ZOMBIE:  # nobody has asked for its exit code yet
            time.sleep(0.01)
        with take(folder, later) as lease:
            assert lease.holder.generation == 2
        assert WATCHED_S not in later.slept, "whoever is gone for certain is not waited for"


def test_a_process_that_has_only_got_the_number_of_one_that_is_gone(tmp_path):
    held_elsewhere(tmp_path, machine=leases.this_machine(), pid=os.getpid(), started=1000.0)
    with take(tmp_path) as lease:
        assert lease.holder.generation == 4


def test_one_elsewhere_is_named_with_what_to_do_until_it_has_been_silent_for_long(folder):
    held_elsewhere(folder, EXPIRES_AFTER_S - 1)
    with pytest.raises(StorageError, match="process 42 on host far") as error, take(folder):
        pass
    assert str(error.value).endswith(
        ": process 42 on host far, since 2027-01-15 07:00:00 UTC; wait for its end, or stop it; then the same command "
        "goes on, and if that host is gone, 60 s after it was last heard of at 07:59:01 UTC"
    )
    held_elsewhere(folder, EXPIRES_AFTER_S)
    clock = Clock()
    with take(folder, clock) as lease:
        assert lease.holder.generation == 4
    assert clock.slept[0] == WATCHED_S > RENEW_EVERY_S


def test_clocks_that_differ_take_nothing_from_the_living(folder):
    """Its sign of life looks old, and another one comes while it is watched."""
    held_elsewhere(folder, 10 * EXPIRES_AFTER_S)
    clock = Clock(lambda: held_elsewhere(folder, 10 * EXPIRES_AFTER_S - RENEW_EVERY_S))
    with pytest.raises(StorageError, match="process 42 on host far"), take(folder, clock):
        pass


def drive_together(folder, count, sleep):
    """What became of drivers that begin at the same time; who has the lease holds it until all have tried."""
    start, end = threading.Barrier(count), threading.Barrier(count)
    found = []

    def drive(number):
        start.wait()
        try:
            with leased(folder, lambda: NOW + number, sleep):
                found.append("has it")
                end.wait()
        except StorageError as error:
            found.append(str(error))
            end.wait()

    drivers = [threading.Thread(target=drive, args=(number,)) for number in range(count)]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    return sorted(found)


def test_of_several_who_take_a_free_lease_one_has_it(tmp_path):
    told, *others, winner = drive_together(tmp_path, 4, lambda _: pytest.fail("there is a lock"))
    assert winner == "has it"
    assert all(text.startswith("another process is at work in ") for text in [told, *others])


@pytest.mark.parametrize("folder", ["disk without locks", "bucket"], indirect=True)
def test_without_locks_the_last_of_several_writers_has_it(folder, monkeypatch):
    """All find it free before any of them writes."""
    together, write = threading.Barrier(4), leases._write
    settled = threading.Barrier(4)

    def all_at_once(*arguments):
        together.wait()
        write(*arguments)

    monkeypatch.setattr(leases, "_write", all_at_once)
    *others, winner = drive_together(folder, 4, lambda _: settled.wait())
    assert winner == "has it"
    assert all(text.startswith("another process is at work in ") for text in others)


@pytest.mark.parametrize("folder", ["disk without locks", "bucket"], indirect=True)
def test_without_locks_it_is_read_again_after_it_was_written(folder):
    clock = Clock(lambda: held_elsewhere(folder))
    with pytest.raises(StorageError, match="process 42 on host far"), take(folder, clock):
        pass
    assert clock.slept == [SETTLE_S]
    assert read_lease(folder).pid == 42, "it is not given back by one who does not have it"


def test_who_lost_it_stops_before_a_change_and_does_not_give_it_back(folder):
    with (
        pytest.raises(LeaseLostError, match="process 42 on host far, since .* has taken over") as error,
        take(folder) as lease,
    ):
        held_elsewhere(folder)
        lease.check()
    assert error.value.exit_code == 1
    assert read_lease(folder).pid == 42
    (folder / LEASE).unlink()
    with pytest.raises(LeaseLostError, match="its lease.json is gone"):
        lease.check()


def test_signs_of_life_come_until_the_end(folder, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.01)
    clock = Clock()
    with take(folder, clock) as lease:
        clock.now += 33
        while read_lease(folder).heartbeat != clock.now:
            time.sleep(0.01)
        lease.check()
        assert lease.holder.is_same(read_lease(folder))
    assert read_lease(folder) is None


def test_no_sign_of_life_is_written_over_another_holder(folder):
    turns = iter([False, False, True])
    with take(folder) as lease:
        other = held_elsewhere(folder)
        leases._renew(lease, Clock(), SimpleNamespace(wait=lambda _: next(turns)))
        assert read_lease(folder) == other
    assert list(turns) == [False, True], "it has stopped at once"


def test_a_renewal_that_fails_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(leases, "RENEW_EVERY_S", 0.01)
    failures = iter([OSError(errno.EIO, "no answer"), StorageError("busy")])
    write = leases._write

    def flaky(*arguments):
        error = next(failures, None)
        if error is not None:
            raise error
        write(*arguments)

    clock = Clock()
    with take(tmp_path, clock):
        monkeypatch.setattr(leases, "_write", flaky)
        clock.now += 5
        while read_lease(tmp_path).heartbeat != clock.now:
            time.sleep(0.01)


def test_a_damaged_file_is_one_line_with_a_way_out(folder):
    held_elsewhere(folder)
    for text in ("", "{", "[]", '{"pid": 3}'):
        leases.write_text(folder / LEASE, text)
        damaged = pytest.raises(
            StorageError, match=r"lease\.json is damaged: delete it when no other process is at work"
        )
        with damaged, take(folder):
            pass


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    refused = pytest.raises(StorageError, match=rf"{tmp_path}/file/run/lease\.json cannot be written: Not a directory")
    with refused, leased(tmp_path / "file" / "run"):
        pass
