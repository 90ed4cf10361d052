"""What is sent along with a job."""

import zipfile

import pytest
from ray._private.ray_constants import get_runtime_env_default_excludes
from ray._private.runtime_env.packaging import create_package

from hbtrain.cli.submit import _check
from hbtrain.cluster import jobs
from tests.integration.command import ROOT


def test_a_checkout_is_sent_with_its_whole_package_and_without_what_no_job_runs(tmp_path):
    sent = jobs.sources()
    assert sent["working_dir"] == str(ROOT)
    excludes = [*get_runtime_env_default_excludes(), *sent["excludes"]]  # as Ray puts them together
    create_package(str(ROOT), tmp_path / "sent.zip", include_gitignore=True, excludes=excludes)
    names = set(zipfile.ZipFile(tmp_path / "sent.zip").namelist())
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "hbtrain").rglob("*.py")}
    assert package | {"tune/sweep.py", "tune/spaces/alpha-grid.yaml"} <= names
    assert not [name for name in names if name.startswith(("cluster/", "docs/", "tests/", ".git/"))]


def test_an_installed_package_is_sent_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(jobs, "CHECKOUT", None)
    assert jobs.sources() == {"py_modules": [str(ROOT / "hbtrain")]}


@pytest.mark.parametrize("command", [["train", "quickstart"], ["sweep", "alpha-grid"]])
def test_a_job_may_go_on_with_changed_inputs(command):
    kind, first = command
    _check(kind, [first, "--accept-changed-inputs", "--storage", "/shared/runs"])
