"""A password in the tracking URI, and secrets in the environment, are in nothing that a run writes or prints."""

import re
from pathlib import Path

import psutil
import pytest

from hbtrain.config import load_config, to_yaml
from tests.faults.server import MlflowServer
from tests.integration.command import Command, title

pytestmark = pytest.mark.ray

PASSWORD, TOKEN = "hunter2canary", "tokencanary"


def test_a_run_leaves_no_secret_behind(tmp_path):
    with MlflowServer(tmp_path / "server") as server:
        uri = server.uri.replace("http://", f"http://me:{PASSWORD}@")
        recipe = tmp_path / "secret.yaml"
        changes = {"tracking.uri": uri, "training.steps": 12, "data.cache": str(tmp_path / "cache")}
        recipe.write_text(to_yaml(load_config("quickstart", changes)))
        environment = {"AWS_SECRET_ACCESS_KEY": TOKEN, "HF_TOKEN": TOKEN, "MLFLOW_TRACKING_TOKEN_FILE": TOKEN}
        with Command(tmp_path, "train", recipe, "--evaluation.before", "false", **environment) as command:
            command.wait_for("training 12 steps")
            session = session_folder(command)
            assert command.finish() == 0, command.output
            output = command.output
        from mlflow import MlflowClient

        client = MlflowClient(server.uri)
        (run,) = client.search_runs([client.get_experiment_by_name("hbtrain").experiment_id])
    recipe.unlink()
    assert run.info.status == "FINISHED"
    assert run.data.params["tracking.uri"] == f"http://me:***@127.0.0.1:{server.port}"
    assert f"http://me:***@127.0.0.1:{server.port}" in output
    places = {"run": tmp_path / "runs", "server": tmp_path / "server", "cache": tmp_path / "cache", "Ray": session}
    assert all(any(path.is_file() for path in place.rglob("*")) for place in places.values())
    leaks = [str(path) for place in [tmp_path, session] for path in files_with((PASSWORD, TOKEN), place)]
    assert not leaks


def session_folder(command):
    """Ray's folder of this command's cluster."""
    for process in psutil.Process(command.process.pid).children(recursive=True):
        found = re.search(r"/tmp/ray/session_[0-9_-]+", title(process))
        if found and Path(found[0]).is_dir():
            return Path(found[0])
    raise AssertionError("no Ray session below the command")


def files_with(secrets, folder):
    for path in folder.rglob("*"):
        if path.is_file() and any(secret.encode() in path.read_bytes() for secret in secrets):
            yield path


@pytest.mark.parametrize("key", ["storage", "data.sources", "data.validation", "evaluation.benchmarks", "tracking.uri"])
def test_a_uri_that_cannot_be_used_is_told_without_its_password(hbtrain, tmp_path, key):
    value = f"nonsense://me:{PASSWORD}@host/a"
    code, out, err = hbtrain("train", "quickstart", f"--{key}", value)
    assert code == 2, err
    assert "error: " in err
    assert "me:***@host/a" in err
    assert PASSWORD not in out + err
    assert "Traceback" not in out + err
    assert not list(files_with([PASSWORD], tmp_path))
    assert not [path for path in tmp_path.rglob("*") if PASSWORD in path.name]
