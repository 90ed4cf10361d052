"""Optimizer and parameters in the machine's memory rather than the device's, on two gloo ranks."""

import pytest
import torch

from hbtrain.training.verify import compare, plain_gradient
from tests.distributed.backbones import assert_same_training, configure, on_two_ranks, plainly_trained, weights
from tests.unit.tiny_models import save_labse

CPU = {"device": "cpu"}


@pytest.mark.parametrize(
    "zero",
    [
        {"stage": 2, "offload_optimizer": CPU},
        {"stage": 3, "offload_optimizer": CPU},
        {"stage": 3, "offload_optimizer": CPU, "offload_param": CPU},
    ],
)
def test_what_is_offloaded_trains_the_same(tmp_path, zero):
    deepspeed = {"zero_optimization": zero}
    config = configure(tmp_path, save_labse(tmp_path / "labse"), **{"training.deepspeed": deepspeed})
    plain = plain_gradient(config, tmp_path / "initial", 0, torch.device("cpu"))
    for got, _ in on_two_ranks(config, tmp_path):
        assert set(got) >= set(plain)
        agreement = compare({n: torch.from_numpy(g) for n, g in got.items()}, plain, "fp32")
        assert agreement.holds, agreement
    assert_same_training(weights(tmp_path / "model"), plainly_trained(config, tmp_path))
