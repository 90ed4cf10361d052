"""Numbers on disk stay there."""

import subprocess
import sys

GROWTH = """
import resource, sys
from pathlib import Path
import numpy as np
from hbtrain.corpus.preparation.number_array import NumberArray

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

array = NumberArray.filled(Path(sys.argv[1]), 8_000_000, 7)
at = np.random.default_rng(0).integers(0, len(array), 100_000)
before = peak_mib()
array.put(at, at)
array.count_up(at[:1000])
assert np.array_equal(array.get(at[1000:2000]), at[1000:2000])
print(peak_mib() - before)
"""


def test_looking_all_over_a_file_leaves_little_of_it_in_memory(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", GROWTH, tmp_path / "numbers"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "numbers").stat().st_size == 64_000_000
    assert float(done.stdout) < 20
