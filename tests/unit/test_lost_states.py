"""A state with a loss or a weight that is no number is not saved, whichever rank has it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from hbtrain.batching import GlobalBatch
from hbtrain.errors import TrainingError
from hbtrain.modeling.loss import BatchLoss
from hbtrain.modeling.loss_inputs import Sizes
from hbtrain.training.engine import Engine
from hbtrain.training.feed import Work
from hbtrain.training.meter import Meter
from hbtrain.training.stopwatch import Stopwatch

NAN = float("nan")


class TwoRanks:
    """Rank 0 of two; what rank 1 brings to each sum is given, call by call."""

    rank, world_size = 0, 2

    def __init__(self, other):
        self.other = other

    def all_reduce_sum(self, x):
        return x + torch.tensor(self.other.pop(0)).view_as(x)

    def all_gather(self, x):
        return torch.stack([x, x])


def work(step):
    rows = np.arange(6) + 100 * step
    codes = np.zeros(6, np.int64)
    batch = GlobalBatch(step, "mono", "demo", rows, ("en",), codes, codes, rows, rows)
    return Work(batch, Sizes([3, 3], [0, 0]), [], [], None, tokens=7, computed_tokens=7)


def meter(losses, *other):
    meter = Meter(TwoRanks(list(other)), Stopwatch(torch.device("cpu")), torch.device("cpu"))
    for i, loss in enumerate(losses):
        meter.add(work(i + 4), BatchLoss(torch.tensor(loss), {}))
    return meter


def test_finite_losses_and_weights_pass_and_stay_for_the_reading():
    held = meter([1.0, 2.0], [3.0, 4.0], [0.0], [3.0, 4.0])
    held.check(True)
    assert held.read()["train/loss"] == pytest.approx((2.0 + 3.0) / 2)


@pytest.mark.parametrize(("ours", "theirs"), [(NAN, 1.0), (1.0, NAN), (float("inf"), 1.0)])
def test_a_lost_loss_on_any_rank_names_step_and_rows(ours, theirs):
    with pytest.raises(
        TrainingError, match=r"the loss of step 5 is (nan|inf): mono batch of source demo, rows 500, 501"
    ):
        meter([1.0, ours], [1.0, theirs]).check(True)


@pytest.mark.parametrize(("ours", "theirs"), [(False, 0.0), (True, 1.0)])
def test_lost_weights_on_any_rank_are_found_though_every_loss_was_finite(ours, theirs):
    with pytest.raises(TrainingError, match="weights are not finite after step 5: .* rows 500, 501"):
        meter([1.0, 1.0], [1.0, 1.0], [theirs]).check(ours)


def test_lost_weights_are_found_right_after_a_reading():
    held = meter([1.0], [1.0], [1.0])
    held.read()
    with pytest.raises(TrainingError, match="weights are not finite after step 4"):
        held.check(True)


@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf")])
def test_an_engine_sees_its_weights_and_its_partitions(bad):
    module = nn.Linear(3, 2)
    engine = SimpleNamespace(module=module)
    assert Engine.is_finite(engine)
    with torch.no_grad():
        module.weight[1, 2] = bad
    assert not Engine.is_finite(engine)
    # Under ZeRO-3 the parameter itself is empty.
    module = nn.Linear(3, 2)
    for parameter in module.parameters():
        parameter.ds_tensor = parameter.detach().clone()
        parameter.data = torch.empty(0)
    engine = SimpleNamespace(module=module)
    assert Engine.is_finite(engine)
    module.bias.ds_tensor[0] = bad
    assert not Engine.is_finite(engine)
