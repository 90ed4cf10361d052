"""ZeRO-3 with parameters spread while they are loaded, on two gloo ranks, against whole models."""

import numpy as np
import pytest
import torch

from hbtrain.config import from_tree, to_tree
from hbtrain.training.export import load_on_rank
from hbtrain.training.verify import compare, plain_gradient
from tests.distributed.backbones import assert_same_training, configure, on_two_ranks, plainly_trained, weights, worker
from tests.distributed.ranks import run_ranks
from tests.unit.tiny_models import save_decoder, save_labse

BACKBONES = {
    "labse": lambda folder: save_labse(folder / "labse"),
    "decoder": lambda folder: save_decoder(folder / "decoder"),
    "transformer": lambda folder: "transformer",
    "static": lambda folder: "static",
}


def held_after_loading(tree, folder):
    """{parameter: (whole size, elements on this rank, type)} right after loading, and what transformers then does."""
    from transformers import AutoModel
    from transformers.integrations import is_deepspeed_zero3_enabled

    encoder = load_on_rank(from_tree(tree), worker(folder))
    held = {
        name: (p.ds_numel, p.ds_tensor.numel() + p.numel(), str(p.ds_tensor.dtype)) if hasattr(p, "ds_id") else None
        for name, p in encoder.model.named_parameters()
    }
    again = AutoModel.from_pretrained(f"{folder}/initial")
    whole = is_deepspeed_zero3_enabled() or any(hasattr(p, "ds_id") for p in again.parameters())
    return held, whole, encoder.dimension


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_rank_holds_half_of_a_transformer_from_the_start(tmp_path, precision):
    config = configure(tmp_path, save_labse(tmp_path / "labse"), 3, **{"encoder.precision": precision})
    before = weights(tmp_path / "initial")
    for held, partitioned_for_good, dimension in run_ranks(held_after_loading, 2, to_tree(config), str(tmp_path)):
        assert not partitioned_for_good, "models loaded later are whole"
        assert dimension == 10
        assert {name.removeprefix("model.") for name in held} == before.keys()
        dense = {name for name, parts in held.items() if parts is None}
        assert dense == {"2.linear.weight", "2.linear.bias"}, "sentence-transformers' own modules come later"
        parts = {name: part for name, part in held.items() if part is not None}
        for name, (whole, mine, dtype) in parts.items():
            assert whole == before[name].numel()
            assert mine == -(-whole // 2), "each rank has half, rounded up, and nothing else"
            assert dtype == {"fp32": "torch.float32", "bf16": "torch.bfloat16"}[precision]


@pytest.mark.parametrize("backbone", BACKBONES)
def test_gradient_and_weights_are_those_of_a_whole_model(tmp_path, backbone):
    options = {
        "encoder.gradient_checkpointing": backbone in {"decoder", "transformer"},
        "loss.learn_temperature": backbone == "labse",
    }
    config = configure(tmp_path, BACKBONES[backbone](tmp_path), 3, **options, **SIZES)
    plain = plain_gradient(config, tmp_path / "initial", 0, torch.device("cpu"))
    for got, losses in on_two_ranks(config, tmp_path):
        assert set(got) >= set(plain)
        agreement = compare({n: torch.from_numpy(g) for n, g in got.items()}, plain, "fp32")
        assert agreement.holds, agreement
        assert np.isfinite(losses).all()
    before, after, want = weights(tmp_path / "initial"), weights(tmp_path / "model"), plainly_trained(config, tmp_path)
    assert_same_training(after, want)
    assert max((want[name] - before[name]).abs().max() for name in want) > 0.02, "four steps of 0.01"


SIZES = {
    "encoder.transformer": {"layers": 2, "hidden_size": 16, "heads": 2, "intermediate_size": 24, "max_positions": 64}
    | {"vocabulary_size": 300},
    "encoder.static": {"dimension": 16, "vocabulary_size": 300},
}
