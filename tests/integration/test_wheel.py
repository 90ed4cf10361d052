"""The wheel runs outside the checkout, with its recipes, its sweeps' spaces and its demo corpus inside."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.command import ROOT, unpacked_wheel

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


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    return unpacked_wheel(tmp_path_factory.mktemp("wheel"))


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
