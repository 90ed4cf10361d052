"""What probes see of the machine that runs the tests; and those that hang, crash or are given up."""

import os
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from importlib.metadata import version
from pathlib import Path

import psutil
import pytest

from hbtrain.cluster.connection import SESSION_SOCKET
from hbtrain.doctor import probes
from hbtrain.doctor.probes import MACHINE, run_probes
from tests.web import serving


def test_a_machine(cache):
    found = run_probes(MACHINE, 120)
    assert found["software"]["python"] == ".".join(map(str, sys.version_info[:3]))
    packages = found["software"]["packages"]
    assert packages["torch"] == version("torch")
    assert set(packages) == set(probes.PACKAGES)
    assert found["machine"]["memory"] == psutil.virtual_memory().total
    assert found["machine"]["shm"] == os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize
    assert found["search"]["version"] == version(found["search"]["packages"][0])
    assert found["search"]["right"]
    assert found["machine"]["cache"] == str(cache)
    assert found["gpus"]["torch"] == version("torch")


def test_the_digest_is_that_of_the_sources(monkeypatch, tmp_path):
    package = tmp_path / "hbtrain"
    package.mkdir()
    (package / "__init__.py").write_text("")
    monkeypatch.setattr(probes.hbtrain, "__file__", str(package / "__init__.py"))
    before = probes.software()["sources"]
    assert probes.software()["sources"] == before
    (package / "one.py").write_text("one = 1\n")
    assert probes.software()["sources"] != before


def test_requirements_that_are_not_met(monkeypatch):
    lines = ["numpy<1", "torch>=2", "nowhere-to-be-found>=3", "boto3<1; extra == 's3'"]
    monkeypatch.setattr(probes, "requires", lambda name: lines)
    numpy, missing = probes.software()["unmet"]
    assert numpy == f"numpy {version('numpy')} (needs <1)"
    assert missing == "nowhere-to-be-found is missing (needs >=3)"


def test_paths_of_sockets(monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    found = probes.machine()
    assert found["temporary"] == str(tmp_path)
    assert found["socket_bytes"] == len(str(tmp_path / SESSION_SOCKET))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    assert probes.machine()["temporary_free"] is None


def marked(folder, **more):
    return {"it": ("mark", {"folder": str(folder), "name": ".mark"} | more)}


def test_a_folder_is_written_here_and_read_there_and_nothing_is_left(tmp_path):
    folder = tmp_path / "new" / "cache"
    made = run_probes(marked(folder), 60)["it"]["made"]
    assert made == [str(folder), str(folder.parent)]
    assert run_probes({"it": ("read_mark", {"folder": str(folder), "name": ".mark"})}, 60)["it"]["shared"] is True
    run_probes({"it": ("clear", {"folder": str(folder), "name": ".mark", "made": made})}, 60)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_another_machine_does_not_see(tmp_path, monkeypatch):
    monkeypatch.setattr(probes, "SEEN_WITHIN_S", 0.3)
    assert probes.read_mark(str(tmp_path), ".mark") == {"shared": False}
    assert probes.read_mark(str(tmp_path / "missing"), ".mark") == {"shared": False}
    # It may take a moment: a file that appears later is seen.
    monkeypatch.setattr(probes, "SEEN_WITHIN_S", 60)
    threading.Timer(0.5, (tmp_path / ".mark").write_text, [".mark"]).start()
    assert probes.read_mark(str(tmp_path), ".mark")["shared"] is True
    assert [path.name for path in tmp_path.iterdir()] == [".mark"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    found = run_probes(marked(tmp_path / "file"), 60)["it"]
    assert found["error"].startswith("File exists: ")


def keys(bucket):
    return {found["Key"] for found in bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]}


def test_a_bucket(bucket):
    uri = f"{bucket.uri}/runs"
    assert probes.mark(uri, ".mark") == {"made": []}
    assert probes.read_mark(uri, ".mark") == {"shared": True}
    assert keys(bucket) == {"runs/", "runs/.mark"}  # pyarrow makes the first when it deletes what is below it
    probes.clear(uri, ".mark", [])
    assert keys(bucket) == {"runs/"}
    found = run_probes({"it": ("mark", {"folder": f"{bucket.uri}-not/runs", "name": ".mark"})}, 60)["it"]
    assert "cannot be written" in found["error"]


def asked(uri):
    return {"it": ("tracking", {"uri": uri})}


def test_mlflow_in_a_file(tmp_path, monkeypatch):
    assert probes.tracking(None) == {"uri": None}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/a.db")
    assert probes.tracking(None) == {"uri": f"sqlite:///{tmp_path}/a.db", "new": True}
    found = run_probes(asked(f"sqlite:///{tmp_path}/missing/a.db"), 120)["it"]
    assert found == {"error": f"{tmp_path}/missing is not a folder that can be written"}


class NoExperiments(BaseHTTPRequestHandler):
    """MLflow's server, as far as it is asked."""

    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def test_mlflow_that_answers():
    with serving(NoExperiments) as uri:
        assert run_probes(asked(uri), 120)["it"] == {"uri": uri, "new": False}


def test_mlflow_that_refuses_and_mlflow_that_says_nothing():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"http://user:secret@127.0.0.1:{silent.getsockname()[1]}"
        start = time.monotonic()
        assert run_probes(asked(uri), 3) == {"it": {"error": "no answer in 3 s"}}
        assert time.monotonic() - start < 60, "it takes MLflow minutes to give up"
    error = run_probes(asked(uri), 120)["it"]["error"]  # nobody listens any more
    assert "cannot be used" in error
    assert "secret" not in error


def probing(monkeypatch, tmp_path, code):
    """Put a program in the place of the interpreter that runs probes."""
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\n{code}\n")
    program.chmod(0o755)
    monkeypatch.setattr(probes.sys, "executable", str(program))


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("kill -ILL $$", "its process was ended by SIGILL"),
        ("echo 'OSError: libcudart.so.12 is missing' >&2; exit 1", "OSError: libcudart.so.12 is missing"),
        ("exit 3", "its process ended with exit code 3"),
        ("exit 0", "its process ended with exit code 0"),
    ],
)
def test_a_probe_that_crashes(monkeypatch, tmp_path, code, error):
    probing(monkeypatch, tmp_path, code)
    assert run_probes(MACHINE, 60)["gpus"] == {"error": error}


def test_libraries_may_print(monkeypatch, tmp_path):
    probing(monkeypatch, tmp_path, "echo a warning; echo '{\"seen\": []}'")
    assert run_probes(MACHINE, 60)["gpus"] == {"seen": []}


def test_ctrl_c_leaves_no_probe_behind(monkeypatch, tmp_path):
    probing(monkeypatch, tmp_path, f"echo $$ > {tmp_path}/pid; exec sleep 600")

    def interrupted(process, deadline, timeout_s):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            time.sleep(0.02)
        raise KeyboardInterrupt

    monkeypatch.setattr(probes, "_facts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_probes({"it": MACHINE["gpus"]}, 60)
    process = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"
    deadline = time.monotonic() + 60
    while process.exists() and " Z " not in process.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
