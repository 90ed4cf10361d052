"""`hbtrain doctor` as people call it; what it looks at is made up here, and real in the integration tests."""

import json
import subprocess
import sys

import pytest

from hbtrain.doctor import survey as surveys
from tests.unit.doctor_samples import cluster, node


@pytest.fixture
def seen(monkeypatch):
    """A function that sets what a survey finds."""

    def finds(found):
        monkeypatch.setattr(surveys, "survey", lambda *arguments: found)

    return finds


def test_all_is_well(hbtrain, seen):
    seen(cluster())
    code, out, err = hbtrain("doctor")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["ok", "nodes", "a,", "b:", "32", "CPUs,", "0", "GPUs,", "128", "GiB", "of", "memory"]
    assert lines[-1] == "0 failures, 0 warnings"
    assert all(line.startswith(("ok ", "   ")) for line in lines[:-2])


@pytest.mark.parametrize("width", [80, 120])
def test_what_is_wrong_is_named_with_its_node_and_a_remedy(hbtrain, seen, monkeypatch, width):
    small = node(machine={"shm": 2**26}, clock={"ahead_s": 0.0, "within_s": 0.001})
    seen(cluster(nodes=cluster().nodes | {"node[17]": small}, ray={"version": "2.60.0", "token": False}))
    monkeypatch.setenv("COLUMNS", str(width))
    code, out, _ = hbtrain("doctor")
    assert code == 0, "warnings alone are no failure"
    text = " ".join(out.split())
    assert "warning /dev/shm node[17]: 64 MiB: less than Ray's 30%" in text
    assert "19.2 GiB: docker run --shm-size" in text
    assert "fix: make it" in text
    assert "ok 2 other nodes: 32 GiB" in text
    assert text.endswith("0 failures, 2 warnings")
    assert max(map(len, out.splitlines())) <= width


def test_a_failure_is_exit_code_1_and_json_holds_all(hbtrain, seen):
    seen(cluster(all_gather={"ranks": 2, "error": "b: Connection refused"}))
    assert hbtrain("doctor")[0] == 1
    code, out, _ = hbtrain("doctor", "--json")
    document = json.loads(out)
    assert code == 1
    assert document["status"] == "failure"
    assert document["counts"] == {"ok": 13, "warning": 0, "failure": 1}
    (failure,) = [finding for finding in document["findings"] if finding["status"] == "failure"]
    assert set(failure) == {"check", "status", "found", "remedy", "nodes"}
    assert failure["check"] == "all-gather"
    assert document["facts"]["nodes"]["a"]["machine"]["cpus"] == 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--timeout-s", "0"], "--timeout-s 0: must be from 1 to 3600"),
        (["--wait-s", "nan"], "--gpus 0 --wait-s nan: must be 0 or more"),
        (["--gpus", "-1"], "--gpus -1"),
        (["--storage", "ftp://host/runs"], "'ftp://host/runs': remote storage is s3://bucket/path"),
        (["--address", "127.0.0.1:1"], "--address = '127.0.0.1:1': no Ray cluster answers there"),
    ],
)
def test_bad_input(hbtrain, arguments, words):
    code, out, err = hbtrain("doctor", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert words in err
    assert err.count("\n") == 1


def test_a_call_that_cannot_be_interrupted_ends_the_command():
    program = "import time; from hbtrain.cli.doctor import _ended_within\nwith _ended_within(0.3): time.sleep(600)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("failure: not done in 0.3 s")
