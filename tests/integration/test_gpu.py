"""What needs a CUDA device: the gradient computed on it, a whole run on it, exact ranks, FAISS, the benchmark.

`HBTRAIN_TEST_DEVICE=cpu pytest tests/integration/test_gpu.py` runs the same on a CPU, in some minutes.
"""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.integration.command import ROOT, Command

pytestmark = [pytest.mark.gpu, pytest.mark.ray]

DEVICE = os.environ.get("HBTRAIN_TEST_DEVICE", "cuda")
ON_DEVICE = ["--resources.workers", "1", "--resources.use_gpu", str(DEVICE == "cuda").lower()]
TRANSFORMER = ["--encoder.backbone", "transformer", "--training.learning_rate", "0.001"]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("stage", [0, 2, 3])
def test_the_gradient_on_a_gpu_is_right(tmp_path, precision, stage):
    layout = ["--encoder.precision", precision, "--training.deepspeed.zero_optimization.stage", stage]
    layout += ["--training.chunks", "3", "--data.cache", tmp_path / "cache"]
    with Command(tmp_path, "verify", "quickstart", *ON_DEVICE, *TRANSFORMER, *layout) as command:
        assert command.finish() == 0, command.output


def test_a_run_on_a_gpu_learns(tmp_path):
    short = ["--training.steps", "100", "--data.cache", tmp_path / "cache"]
    with Command(tmp_path, "train", "quickstart", *ON_DEVICE, *TRANSFORMER, *short) as command:
        assert command.finish() == 0, command.output
    (folder,) = (tmp_path / "runs").glob("quickstart-*")
    before, after = (
        json.loads((folder / results / "metrics.json").read_text()) for results in ("results-before", "results")
    )
    assert after["demo/multi/map"] > before["demo/multi/map"]


def test_the_campaign_runs_on_a_gpu(tmp_path):
    output = tmp_path / "lines.jsonl"
    arguments = ["--device", DEVICE, "--shape", "tiny", "--budget", "360", "--output", str(output)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.bench_gpu", *arguments],
        cwd=ROOT, capture_output=True, text=True, timeout=395, check=True,
    )  # fmt: skip
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert not [line for line in lines if "failed" in line]
    assert "| --- |" in done.stdout


@pytest.mark.parametrize("free", [None, 0])
def test_exact_ranks_on_a_gpu_are_those_of_products_in_float64(monkeypatch, free):
    from hbtrain.retrieval import device_counts
    from hbtrain.retrieval.ranks import exact_search

    if free is not None:  # then as few vectors as possible are on the device at one time
        monkeypatch.setattr(device_counts, "free_bytes", lambda where: free)
    rng = np.random.default_rng(0)
    q, p = (rng.integers(-512, 513, (rows, 768)).astype(np.float32) for rows in (1100, 40_000))
    p[30_000:30_100] = p[:100]
    relevant = [rng.choice(len(p), rng.integers(0, 6), replace=False) for _ in range(len(q))]
    relevant[0] = np.arange(100)
    found = exact_search(
        q, p, np.repeat([1, 0], [25_000, 15_000]), relevant, 10, gpus=[{"cpu": "cpu:0"}.get(DEVICE, DEVICE)]
    )
    ranks = iter(zip(found.ranks.in_pool.tolist(), found.ranks.equal_in_pool.tolist(), strict=True))
    for start in range(0, len(q), 100):
        # Whole numbers: these sums are exact in whatever order.
        scores = (q[start : start + 100].astype(np.float64) @ p.T.astype(np.float64)).astype(np.float32)
        for row, wanted in zip(scores, relevant[start : start + 100], strict=True):
            for candidate in wanted.tolist():
                ahead = np.count_nonzero(row > row[candidate]) + np.count_nonzero(row[:candidate] == row[candidate])
                assert next(ranks) == (1 + ahead, np.count_nonzero(row == row[candidate]))
        best = np.lexsort((np.broadcast_to(np.arange(len(p)), scores.shape), -scores), axis=1)[:, :10]
        np.testing.assert_array_equal(found.pool.places[start : start + 100], best)


@pytest.mark.skipif(DEVICE == "cpu", reason="FAISS has no other GPU to build an index on")
@pytest.mark.parametrize("factory", ["IVF64,Flat", "IVF64,PQ32", "IVF64,PQ64"])
def test_an_index_is_built_and_searched_on_a_gpu(factory):
    from hbtrain.retrieval.faiss_placement import PlacedIndex, build

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((300, 128), np.float32)
    p = np.repeat(centres, 100, axis=0) + rng.standard_normal((30_000, 128), np.float32) / 8
    index, note = build(factory, "nprobe=8", "cosine", lambda: iter(np.array_split(p, 3)), p[:9000], DEVICE)
    assert (index.ntotal, note) == (len(p), None)
    placed = PlacedIndex(index, "nprobe=8", [DEVICE])
    assert placed.device == "gpu"
    own = placed.search(p[::100], 10) // 100 == np.arange(300)[:, None]
    assert own.mean() > 0.8
