"""What needs a CUDA device: the gradient computed on it, a whole run on it, the benchmark.

`HBTRAIN_TEST_DEVICE=cpu pytest tests/integration/test_gpu.py` runs the same on a CPU, in some minutes.
"""

import json
import os
import subprocess
import sys

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
