"""Frozen layers under every ZeRO stage, on two gloo ranks: trained, checkpointed, resumed and exported."""

import shutil
from pathlib import Path

import pytest
import torch

from hbtrain.config import from_tree, to_tree
from hbtrain.training.checkpoint_files import checkpoints_in, step_of
from hbtrain.training.loop import Trainer
from tests.distributed.backbones import assert_same_training, configure, plainly_trained, weights, worker
from tests.distributed.ranks import run_ranks
from tests.unit.tiny_models import save_labse


def trained_and_resumed(tree, folder, checkpoints):
    """Leaves `model`, trained in one go, and `resumed`, from its second step on."""
    config = from_tree(tree)
    own = worker(folder, "model", checkpoints)
    Trainer(config, own).run()
    own.group.all_reduce_sum(torch.zeros(1))  # the checkpoints are whole when all ranks have come here
    if own.group.rank == 0:
        for name in checkpoints_in(Path(checkpoints)):
            if step_of(name) != 2:
                shutil.rmtree(Path(checkpoints) / name)
    own.group.all_reduce_sum(torch.zeros(1))
    own = worker(folder, "resumed", checkpoints)
    Trainer(config, own).run()


@pytest.mark.parametrize(("stage", "precision"), [(0, "fp32"), (1, "bf16"), (2, "fp32"), (3, "fp32"), (3, "bf16")])
def test_what_is_frozen_stays_to_the_last_bit(tmp_path, stage, precision):
    config = configure(
        tmp_path,
        save_labse(tmp_path / "labse"),
        stage,
        **{
            "encoder.freeze_layers": 1,
            "encoder.freeze_embeddings": True,
            "encoder.precision": precision,
            "training.checkpoint_every": 2,
        },
    )
    run_ranks(trained_and_resumed, 2, to_tree(config), str(tmp_path), str(tmp_path / "checkpoints"))
    before, after, resumed = (weights(tmp_path / model) for model in ("initial", "model", "resumed"))
    assert before.keys() == after.keys()
    for name, weight in before.items():
        frozen = "embeddings" in name or "layer.0." in name
        if "pooler" not in name:  # which nothing uses, nor freezes
            assert torch.equal(after[name], weight) is frozen, name
        torch.testing.assert_close(resumed[name], after[name], atol=1e-6, rtol=0)
    if precision == "fp32":
        assert_same_training(after, plainly_trained(config, tmp_path))
