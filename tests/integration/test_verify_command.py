"""`hbtrain verify` on a real cluster of workers."""

import pytest

from tests.integration.command import Command

pytestmark = pytest.mark.ray


def test_the_gradient_of_two_workers_is_right_and_nothing_stays_behind(tmp_path):
    layout = ["--training.chunks", "3", "--training.deepspeed.zero_optimization.stage", "3", "--step", "2"]
    layout += ["--encoder.backbone", "transformer", "--batching.global_batch_size", "31"]
    with Command(tmp_path, "verify", "quickstart", *layout, "--data.cache", tmp_path / "cache") as command:
        assert command.finish() == 0, command.output
        words = " ".join(command.output.split())
    assert "layout 2 workers, ZeRO 3, 3 chunks, fp32" in words
    assert "verdict right" in words
    assert not any((tmp_path / "runs").iterdir())
