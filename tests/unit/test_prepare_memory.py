"""What a preparation sorts and joins stays on disk, but for a bounded part."""

import subprocess
import sys

import pytest

from hbtrain.corpus.prepare.database import Database, NumberWriter, parquet

GROWTH = """
import resource, sys
from pathlib import Path
import numpy as np
from hbtrain.corpus.prepare import database
from hbtrain.corpus.prepare.database import Database, NumberWriter, parquet

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

database.MEMORY = "100MiB"
folder, rows = Path(sys.argv[1]), 8_000_000
with NumberWriter(folder / "numbers", ("a", "b", "c")) as writer:
    random = np.random.default_rng(0)
    for _ in range(rows // 500_000):
        writer.extend(*random.integers(0, rows, (3, 500_000)))
with Database(folder) as db, db.session() as session:
    session.rows("SELECT 1")
    before, last, done, spilled = peak_mib(), -1, 0, False
    for a, _, _ in session.blocks(f"SELECT a, b, c FROM {parquet(folder / 'numbers')} ORDER BY a, b"):
        assert a[0] >= last and (np.diff(a) >= 0).all()
        last, done = a[-1], done + len(a)
        spilled = spilled or any((folder / "spill").iterdir())
    grown = peak_mib() - before
assert done == rows and spilled, (done, spilled)
print(grown)
"""


def test_a_sort_of_more_than_memory_holds(tmp_path):
    """Of 192 MB of numbers, which a sort in memory would hold twice."""
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, tmp_path], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 180
    assert [path.name for path in tmp_path.iterdir()] == ["numbers"], "what did not fit is gone"


def test_a_folder_for_what_does_not_fit_that_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr("hbtrain.corpus.prepare.database.MEMORY", "20MiB")
    (tmp_path / "file").touch()
    with (
        pytest.raises(OSError, match=r".") as error,
        Database(tmp_path / "file") as db,
        db.session() as session,
    ):
        session.table("numbers", "SELECT range AS a, hash(range) AS b FROM range(20_000_000) ORDER BY b")
    assert error.value.strerror
    assert "\n" not in error.value.strerror


@pytest.mark.parametrize("name", ["it's", "a[1]*?", "key=1", "ü b"])
def test_names_of_folders_are_no_patterns(tmp_path, name):
    path = tmp_path / name / "numbers.parquet"
    path.parent.mkdir()
    (tmp_path / "a1").mkdir()
    with NumberWriter(path, ("key", "number")) as writer:
        writer.append((7, 8))
    with Database(path.parent) as db, db.session() as session:
        assert session.rows(f"SELECT * FROM {parquet(path)}") == [(7, 8)]
        session.table("numbers", f"SELECT key FROM {parquet([path, path])}")
        assert session.rows("SELECT count(*) FROM numbers") == [(2,)]
