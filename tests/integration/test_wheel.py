"""What is released: the sdist is what git holds, and the wheel, built from it, runs outside the checkout."""

import os
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path, PurePosixPath

import pytest

import hbtrain
from tests.integration.command import ROOT, built

PROGRAM = """
import hbtrain
from hbtrain.corpus import ParallelCorpus
config = hbtrain.load_config("quickstart", {"data.cache": "cache"})
print(hbtrain.__file__)
print(hbtrain.BatchPlan.from_config(config).batch(0).source, ParallelCorpus.open(["demo-heldout"], "cache").languages)
"""
SPACES = """
from hbtrain.cluster.jobs import sources
from hbtrain.sweeps.space import probes_of, trials_of
from hbtrain.sweeps.space_file import SPACES, load_space, space_names
print(SPACES)
print(sources())
for name in space_names():
    space = load_space(name)
    print(name, len(probes_of(space) if space.search else trials_of(space)))
"""


def held(*folders):
    """The files of the checkout that git holds, or would."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {name for name in names if (ROOT / name).is_file()}  # not what was deleted a moment ago


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """The sdist and the wheel."""
    return built(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def site(packages, tmp_path_factory):
    """A folder for a Python path into which the wheel was unpacked."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(packages[1]) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def run(site, tmp_path):
    """Runs Python in an empty folder with the wheel on its path; what it prints."""

    def python(*arguments, code=0):
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(site)},
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    return python


def test_the_sdist_is_what_git_holds(packages):
    with tarfile.open(packages[0]) as archive:
        names = {PurePosixPath(file.name) for file in archive if file.isfile()}
    (top,) = {name.parts[0] for name in names}
    assert top == f"hbtrain-{hbtrain.__version__}"
    assert {str(name.relative_to(top)) for name in names} == held() | {"PKG-INFO"}


def test_the_wheel_is_the_package_and_nothing_else(packages):
    with zipfile.ZipFile(packages[1]) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = message_from_string(archive.read(metadata).decode())
    spaces = {name.replace("tune/spaces", "hbtrain/sweeps/spaces") for name in held("tune/spaces")}
    package = {name for name in names if not name.startswith(str(PurePosixPath(metadata).parent))}
    assert package == held("hbtrain") | spaces
    for kind in ("recipes/paper", "sweeps/spaces", "comparison/report.html", "hub/catalogue", "py.typed"):
        assert any(name.startswith(f"hbtrain/{kind}") for name in package), kind
    assert names - package == {
        str(PurePosixPath(metadata).parent / name)
        for name in ("METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE")
    }
    assert about["Version"] == hbtrain.__version__
    assert about["License-Expression"] == "Apache-2.0"
    assert {"cpu", "gpu", "s3", "postgres"} <= set(about.get_all("Provides-Extra"))
    assert about.get_payload() == (ROOT / "README.md").read_text()


def test_the_wheel_is_whole(run, site):
    where, what = run("-c", PROGRAM).splitlines()
    assert Path(where).is_relative_to(site)
    assert what == "demo ('ar', 'de', 'en', 'es', 'ru', 'zh')"
    entry = next(site.glob("*.dist-info/entry_points.txt")).read_text()
    assert "hbtrain = hbtrain.cli.main:main" in entry


def test_every_space_is_in_it_and_can_be_tried(run, site):
    where, sent, *spaces = run("-c", SPACES).splitlines()
    assert Path(where).is_relative_to(site)
    assert sent == str({"py_modules": [str(site / "hbtrain")]}), "a job gets the package"
    counts = dict(line.split() for line in spaces)
    assert counts.keys() == {path.stem for path in (ROOT / "tune" / "spaces").glob("*.yaml")}
    assert (counts["alpha-grid"], counts["samplings"]) == ("33", "15")
    said = run("-m", "hbtrain.cli.main", "sweep", "--help")
    assert all(name in said for name in counts)


def test_a_job_is_given_no_file_of_this_machine(run, tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 1")
    said = run("-m", "hbtrain.cli.main", "submit", "train", "mine.yaml", "--storage", "/shared", code=2)
    assert said == "error: mine.yaml: a job gets no files from here; give an absolute path that all nodes see\n"
