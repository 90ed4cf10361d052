"""Jobs of a Ray cluster on this machine, with token authentication on, that has no hbtrain of its own."""

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.integration.command import PROCESSES, ROOT, Command, fork_server, unpacked_wheel
from tests.ports import free_port
from tests.processes.fork_server import WORKERS

pytestmark = pytest.mark.ray

PORTS = (
    "port", "dashboard-port", "ray-client-server-port", "dashboard-agent-listen-port", "dashboard-agent-grpc-port",
    "metrics-export-port", "runtime-env-agent-port",
)  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The variables by which `cluster/submit` finds the cluster."""
    folder = tmp_path_factory.mktemp("cluster")
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    ports = {name: free_port() for name in PORTS}
    flags = [f"--{name}={port}" for name, port in ports.items()]
    # Ray's sockets lie in its folder, and their paths must be short.
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as short:
        head = ["start", "--head", "--block", "--num-cpus=2", f"--temp-dir={short}", *flags]
        program = ("-m", "ray.scripts.scripts")
        # Workers are forks, of a process that has no hbtrain either.
        variables = access | {"PYTHONPATH": PROCESSES, WORKERS: fork_server().path}
        with Command(folder, *head, program=program, **variables) as command:
            command.wait_for("To terminate the Ray runtime")
            yield access | {"RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{ports['dashboard-port']}"}


def submit(folder, variables, *arguments):
    return Command(folder, *arguments, program=[ROOT / "cluster" / "submit"], PYTHONPATH="", **variables)


def test_a_training_ends_with_0_and_finds_the_tracking_server(cluster, tmp_path):
    variables = cluster | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'tracking.db'}",
        "HBTRAIN_CACHE": str(tmp_path / "cache"),
    }
    arguments = ["--storage", tmp_path / "shared", "--training.steps", "5", "--resources.workers", "1"]
    with submit(tmp_path, variables, "train", "quickstart", *arguments, "--evaluation.before", "false") as command:
        assert command.finish() == 0, command.output
        assert "step 5/5" in command.output
    (run,) = (tmp_path / "shared").glob("quickstart-*")
    assert "demo/multi/map" in json.loads((run / "results" / "metrics.json").read_text())
    assert (tmp_path / "tracking.db").exists()
    assert not (tmp_path / "shared" / "mlflow.db").exists()


def test_a_sweep_and_an_evaluation_end_with_0_and_a_failed_sweep_with_1(cluster, tmp_path):
    variables = cluster | {"HBTRAIN_CACHE": str(tmp_path / "cache")}
    shared = tmp_path / "shared"
    arguments = ["--storage", shared, "--training.steps", "4", "--resources.workers", "1", "--seed", "0"]
    with submit(tmp_path, variables, "sweep", "alpha-grid", *arguments, "--batching.alpha", "0") as command:
        assert command.finish() == 0, command.output
        assert "alpha-grid" in command.output
    (model,) = shared.glob("alpha-grid-*/quickstart-*/model")
    found = tmp_path / "found"
    arguments_of_job = ["evaluate", model, "--benchmark", "demo", "--output", found]
    wheel = unpacked_wheel(tmp_path)  # without a checkout, the package itself is sent
    with (wheel / "hbtrain" / "__init__.py").open("a") as module:
        module.write("print(__file__, flush=True)\n")
    with Command(tmp_path, "submit", *arguments_of_job, **variables, PYTHONPATH=str(wheel)) as command:
        assert command.finish() == 0, command.output
    assert "/py_modules_files/" in command.output, "the job's hbtrain is the one that was sent"
    trained = json.loads((model.parent / "results" / "metrics.json").read_text())
    assert json.loads((found / "metrics.json").read_text()) == pytest.approx(trained, abs=1e-6)
    hot = ["--training.weight_decay", "1e30", "--training.schedule", "constant", "--batching.alpha", "0.5"]
    with submit(tmp_path, variables, "sweep", "alpha-grid", *arguments, *hot) as command:
        assert command.finish() == 1, command.output
        assert "1 of 1 trials failed (alpha=0.5 seed=0: " in command.output


def test_a_job_that_cannot_start_ends_with_its_own_code(cluster, tmp_path):
    missing = ["--storage", tmp_path, "--data.sources", "/nowhere.jsonl"]
    with submit(tmp_path, cluster, "train", "quickstart", *missing) as command:
        assert command.finish() == 2, command.output
        assert "cannot read source /nowhere.jsonl" in command.output
        assert "Traceback" not in command.output


def test_a_job_is_stopped_by_the_command_that_is_shown_and_goes_on_when_submitted_again(cluster, tmp_path, monkeypatch):
    """In a shell that knows where the token is, and nothing else of authentication."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    variables = {key: value for key, value in cluster.items() if key != "RAY_AUTH_MODE"}
    variables["HBTRAIN_CACHE"] = str(tmp_path / "cache")
    arguments = ["--storage", tmp_path / "shared", "--training.steps", "1000", "--training.checkpoint_every", "50"]
    arguments += ["--resources.workers", "1", "--evaluation.before", "false", "--evaluation.benchmarks", "[]"]
    with submit(tmp_path, variables, "train", "quickstart", *arguments) as command:
        command.wait_for("checkpoint of step 50 kept")
        with submit(tmp_path, variables, "train", "quickstart", *arguments) as twice:
            assert twice.finish() == 2, twice.output
            assert "is this command already, and running" in twice.output
        stop = re.search(r"stop it with +(.+)", command.output)[1]
        done = subprocess.run(
            ["bash", "-c", stop], env=os.environ | variables, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        assert command.finish() == 143, command.output
        assert "stopped" in command.output.splitlines()[-1]
    with submit(tmp_path, variables, "train", "quickstart", *arguments) as command:
        assert command.finish() == 0, command.output
        assert "goes on from the checkpoint of step" in command.output
        assert "step 1000/1000" in command.output


def test_a_wrong_token_is_one_line(cluster, tmp_path):
    (tmp_path / "token").write_text(secrets.token_hex(32))
    variables = cluster | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    with submit(tmp_path, variables, "train", "quickstart", "--storage", tmp_path) as command:
        assert command.finish() == 2, command.output
        assert command.output.startswith("error: the cluster asks for a token")
        assert command.output.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "quickstart"], "storage = 'runs': a job's own folder is temporary"),
        (["train", "quickstart", "--seed", "x", "--storage", "/x"], "seed = 'x'"),
        (["sweep", "alpha-grid", "--storage", "runs"], "storage = 'runs': a job's own folder is temporary"),
        (["sweep", "nix"], "unknown space 'nix'"),
        (["evaluate", "m", "--benchmark", "demo", "--output", "out"], "--output = 'out': a job's own folder"),
        (["--env", "NOT_SET_HERE", "train", "quickstart", "--storage", "/x"], "--env NOT_SET_HERE: it is not set"),
        (["--env", "A=http://u:p@host", "train", "quickstart", "--storage", "/x"], "A holds a password"),
        (["train"], "train what?"),
        (
            ["train", "quickstart", "--storage", "/x", "--tracking.uri", "postgresql://me:hunter2@db/x"],
            "postgresql://me:***@db/x holds a password",
        ),
    ],
)
def test_mistakes_are_found_before_a_job_is_sent(arguments, message):
    done = subprocess.run(
        [sys.executable, ROOT / "cluster" / "submit", *arguments],
        env=os.environ | {"RAY_API_SERVER_ADDRESS": "http://127.0.0.1:1"},
        capture_output=True,
        text=True,
        check=False,
        cwd=Path("/"),
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
