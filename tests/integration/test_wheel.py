"""The wheel runs outside the checkout, with its recipes and demo corpus inside."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROGRAM = """
import hbtrain
from hbtrain.corpus import ParallelCorpus
config = hbtrain.load_config("quickstart", {"data.cache": "cache"})
print(hbtrain.__file__)
print(hbtrain.BatchPlan.from_config(config).batch(0).source, ParallelCorpus.open(["demo-heldout"], "cache").languages)
"""


def test_the_wheel_is_whole(tmp_path):
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = (tmp_path / "dist").glob("hbtrain-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    where, what = done.stdout.splitlines()
    assert Path(where).is_relative_to(tmp_path / "site")
    assert what == "demo ('ar', 'de', 'en', 'es', 'ru', 'zh')"
    entry = next((tmp_path / "site").glob("*.dist-info/entry_points.txt")).read_text()
    assert "hbtrain = hbtrain.cli.main:main" in entry
