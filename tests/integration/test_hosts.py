"""Several hosts, for real: training and evaluation spread over them, and one that loses power."""

import json
import secrets
import subprocess
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from tests.integration.command import PATIENCE_S, ROOT, Command, called
from tests.integration.hosts import Hosts, NoHosts
from tests.integration.nodes import Node
from tests.integration.test_elastic import histories, resumed

pytestmark = pytest.mark.ray

STEPS = 300
TRAIN = [
    "train", "quickstart", "--training.steps", STEPS, "--training.checkpoint_every", "50", "--training.log_every", "10",
    "--batching.global_batch_size", "64", "--encoder.static.dimension", "128", "--resources.workers", "2",
    "--evaluation.before", "false", "--tracking.log_model", "false",
]  # fmt: skip
ELSEWHERE = "203.0.113.1"
"""An address of a range for documentation (RFC 5737)."""
SMALL = ["--object-store-memory", 100_000_000]


@pytest.fixture
def hosts():
    """A switch without hosts, in a folder with a short path: Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="hb", ignore_cleanup_errors=True) as folder:
        try:
            made = Hosts(Path(folder))
        except NoHosts as reason:
            pytest.skip(str(reason))
        with made:
            yield made


def counts(words, *hosts):
    """How many processes of each host call themselves so."""
    return [len(called(words, host.processes())) for host in hosts]


def test_a_host_loses_power_and_another_takes_its_place(hosts):
    folder = hosts.folder
    first, second, third = hosts.add(), hosts.add(), hosts.add()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with (
        Node.head_on(first, folder, *SMALL, **token) as head,
        head.join(folder, "second", *SMALL, host=second, **token),
    ):
        variables = {"RAY_ADDRESS": f"{first.address}:6379", "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15", **token}
        with Command(folder, *TRAIN, "--data.cache", folder / "cache", host=first, **variables) as command:
            command.wait_for("checkpoint of step 50 kept")
            assert counts("RayTrainWorker", first, second) == [1, 1]
            second.lose_power()
            with head.join(folder, "third", *SMALL, host=third, **token):
                command.wait_for("goes on from the checkpoint of step")
                assert counts("RayTrainWorker", first, third) == [1, 1]
                assert command.finish() == 0, command.output
                check_trained(folder, command.output)
                check_spread_evaluation(folder, first, third, variables)


def check_trained(folder, output):
    assert f"step {STEPS}/{STEPS}" in output
    assert "Traceback" not in output
    ((step, workers),) = resumed(output)
    assert step in range(50, STEPS, 50)
    assert workers == 2
    run, losses = histories(folder, "train/loss")
    assert run.info.status == "FINISHED"
    assert run.data.tags["hardware.nodes"] == "2"
    assert sorted({step for step, _ in losses}) == list(range(10, STEPS + 1, 10))


def check_spread_evaluation(folder, one, other, variables):
    """A shard on each host gives the scores that the run itself found in one process."""
    (run,) = (folder / "runs").glob("quickstart-*")
    program = [ROOT / "tests" / "integration" / "evaluate_spread.py"]
    seen = set()
    with Command(folder, run / "model", folder / "store", program=program, host=one, **variables) as command:
        deadline = time.monotonic() + PATIENCE_S
        while command.process.poll() is None and time.monotonic() < deadline:
            seen.add(tuple(counts("_RetrievalActor", one, other)))
            time.sleep(0.1)
        assert command.finish(1) == 0, command.output
        scores = json.loads(command.output.splitlines()[-1])
    # Those of a collection that is done may still be ending as those of the next begin: more than one, for a moment.
    assert (1, 1) in seen
    wanted = json.loads((run / "results" / "metrics.json").read_text())
    assert len(scores) > 10
    assert scores.items() <= wanted.items()


def test_hosts_share_a_folder_and_nothing_else(hosts, tmp_path):
    """What the other test rests on; and nothing is left of them."""
    first, second = hosts.add(), hosts.add()
    reach = "import socket, sys; socket.create_connection((sys.argv[1], 22), 2)"

    def on(host, script):
        return subprocess.run(host.command("sh", "-c", script), capture_output=True, text=True, timeout=30, check=False)

    (hosts.folder / "shared").write_text("seen")
    for host, other in ((first, second), (second, first)):
        assert on(host, "hostname").stdout == f"{host.name}\n"
        assert on(host, f"cat {hosts.folder / 'shared'}").stdout == "seen"
        assert on(host, f"ls {host.local}; echo mine > {host.local / host.name}").stdout == "hosts\n"
        answer = on(host, f"python3 -c '{reach}' {other.address} 2>&1").stdout
        assert "ConnectionRefusedError" in answer, "a packet goes there, and an answer comes back"
        assert "Error" in on(host, f"python3 -c '{reach}' {ELSEWHERE} 2>&1").stdout
    second.lose_power()
    assert "ConnectionRefusedError" not in on(first, f"python3 -c '{reach}' {second.address} 2>&1").stdout
    left = [process.pid for process in first.processes()]
    hosts.close()
    assert left
    assert not any(psutil.pid_exists(pid) for pid in left)
