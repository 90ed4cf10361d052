"""What the tests' commands rest on: a fork is the process that Python would be, and ends when it is to."""

import json
import os
import re
import signal
import subprocess
import time

import psutil
import pytest

from tests.integration.command import PATHS, PATIENCE_S, fork

TELL = """
import json, os, sys
print(json.dumps([sys.argv, sys.path[:2], os.getcwd(), os.environ["MINE"], sys.stdin.read(), __name__]))
print("deepspeed" in sys.modules, file=sys.stderr)
sys.exit(3)
"""
SLEEP = f"import time; print('asleep', flush=True); time.sleep({PATIENCE_S})"
# Ray starts its workers so, by the name of their program.
WORK = f"""
import os, subprocess, sys, time
def work(*arguments):
    return subprocess.Popen([sys.executable, "-u", "default_worker.py", *arguments])
print("ended with", work().wait({PATIENCE_S}), flush=True)
os.environ["HBTRAIN_TEST_FORKS"], server = "/nowhere", os.environ["HBTRAIN_TEST_FORKS"]
print("without a server", work().wait({PATIENCE_S}), flush=True)
os.environ["HBTRAIN_TEST_FORKS"] = server
print("started", work("long").pid, flush=True)
time.sleep({PATIENCE_S})
"""
WORKER = f"""
import os, sys, time
if "deepspeed" not in sys.modules:
    sys.exit(6)
from ray._raylet import UniqueID
print("id", UniqueID.from_random().hex(), flush=True)
if sys.argv[1:]:
    print("at work in", os.getpid())
    time.sleep({PATIENCE_S})
sys.exit(5)
"""


@pytest.fixture
def start(tmp_path):
    """Starts the text of a program as a fork."""
    started = []

    def start(text, *arguments):
        (tmp_path / "program.py").write_text(text)
        environment = os.environ | {"PYTHONPATH": PATHS, "PYTHONUNBUFFERED": "1", "MINE": "ours"}
        command = [str(tmp_path / "program.py"), *arguments]
        with (tmp_path / "log").open("w") as out:
            started.append(fork(command, environment, tmp_path, out.fileno()))
        return started[-1]

    yield start
    for process in started:
        process.kill()


def output(folder, words):
    """What a program in `folder` has printed, when it holds `words`."""
    deadline = time.monotonic() + PATIENCE_S
    while words not in (said := (folder / "log").read_text()):
        assert time.monotonic() < deadline, said
        time.sleep(0.05)
    return said


def test_it_has_what_it_was_given_and_ends_with_its_own_code(start, tmp_path):
    assert start(TELL, "-x", "ä b").wait(PATIENCE_S) == 3
    told, imported = output(tmp_path, "True").splitlines()
    path = [str(tmp_path), PATHS.split(os.pathsep)[0]]
    assert json.loads(told) == [[f"{tmp_path}/program.py", "-x", "ä b"], path, str(tmp_path), "ours", "", "__main__"]
    assert imported == "True"
    assert "MINE" not in os.environ


def test_its_output_may_be_a_pipe(tmp_path):
    shown, out = os.pipe()
    (tmp_path / "program.py").write_text("import sys\nsys.stdout.reconfigure(errors='replace')\nprint('shown')")
    with (tmp_path / "errors").open("w") as errors:
        process = fork(["program.py"], os.environ | {"PYTHONPATH": PATHS}, tmp_path, out, errors.fileno())
    os.close(out)
    with os.fdopen(shown) as lines:
        assert lines.read() == "shown\n"
    assert process.wait(PATIENCE_S) == 0
    assert (tmp_path / "errors").read_text() == ""


def test_it_gets_signals_and_is_waited_for(start, tmp_path):
    process = start(SLEEP)
    output(tmp_path, "asleep")
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(PATIENCE_S) == -signal.SIGINT
    assert "KeyboardInterrupt" in output(tmp_path, "asleep")
    process = start(SLEEP)
    process.kill()
    assert process.wait(PATIENCE_S) == process.poll() == -signal.SIGKILL


def test_its_workers_are_forks_with_ids_of_their_own_that_end_with_what_ray_started(start, tmp_path):
    (tmp_path / "default_worker.py").write_text(WORKER)
    process = start(WORK)
    said = output(tmp_path, "started")
    assert "ended with 5" in said
    assert "without a server 6" in said
    started = psutil.Process(int(output(tmp_path, "started").split("started ")[1].split()[0]))
    (worker,) = (psutil.Process(int(pid)) for pid in re.findall(r"at work in (\d+)", output(tmp_path, "at work")))
    assert worker.pid != started.pid
    assert worker in psutil.Process(process.pid).children(recursive=True)
    first, second = re.findall(r"id (\w+)", output(tmp_path, "at work"))
    assert first != second
    started.kill()
    worker.wait(PATIENCE_S)
