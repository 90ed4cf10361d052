"""The moving average of the weights: its law, its place in the engine, and its files, however weights are divided."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.config import load_config, training_values
from hbtrain.errors import ConfigError, TrainingError
from hbtrain.modeling.card import ModelCard
from hbtrain.planning.memory import Zero, model_states
from hbtrain.planning.shape import static_shape
from hbtrain.training.average import MovingAverage
from hbtrain.training.deepspeed_config import deepspeed_config
from hbtrain.training.engine import Part


class StandIn:
    """An engine whose rank steps some parts of parameters; it counts how often it took over what was written."""

    def __init__(self, parts, zero_stage=1):
        self._parts = [Part(name, start, torch.tensor(numbers)) for name, start, numbers in parts]
        self.zero_stage = zero_stage
        self.taken = 0

    def parts(self):
        return self._parts

    def take_over(self):
        self.taken += 1


def average_of(average):
    """The numbers of the average, as the engine has them while it is in place."""
    with average.in_place():
        return [part.weights.clone() for part in average._engine.parts()]


@given(
    st.lists(st.lists(st.floats(-50, 50, width=32), min_size=3, max_size=3), min_size=1, max_size=12),
    st.floats(0.01, 0.9999),
)
def test_the_average_is_the_sum_with_falling_factors_over_their_sum(way, decay):
    engine = StandIn([("w", 0, [7.0, -7.0, 1e6])])  # the weights before training, which have no share
    (weights,) = [part.weights for part in engine.parts()]
    average = MovingAverage(engine, decay)
    for step, numbers in enumerate(way, 1):
        weights.copy_(torch.tensor(numbers))
        average.update(step)
        factors = np.array([decay ** (step - s) for s in range(1, step + 1)])
        wanted = factors @ np.array(way[:step], np.float64) / factors.sum()
        (found,) = average_of(average)
        np.testing.assert_allclose(found.double().numpy(), wanted, rtol=0, atol=2e-4)
        assert weights.tolist() == numbers, "training goes on with its own weights, to the last bit"


def test_the_first_average_and_one_of_equal_weights_are_the_weights():
    engine = StandIn([("w", 0, [0.1, 0.2]), ("v", 3, [1 / 3])])
    average = MovingAverage(engine, 0.9)
    engine.parts()[0].weights.mul_(3)
    for step in range(1, 6):
        average.update(step)
        found = average_of(average)
        assert all(torch.equal(x, part.weights) for x, part in zip(found, engine.parts(), strict=True))
    assert engine.taken == 10, "after each exchange"


def cut(name, numbers, places):
    """The parts of a parameter that is cut at `places`."""
    bounds = [0, *sorted(places), len(numbers)]
    return [(name, a, numbers[a:b]) for a, b in pairwise(bounds) if a < b]


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_saved_average_is_found_however_it_is_divided_anew(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("checkpoint [1]")
    whole = {name: [float(f"{i}.{i}") for i in range(size)] for name, size in (("a", 7), ("b", 1), ("c", 4))}
    places = st.lists(st.integers(0, 7), max_size=3)
    for rank, parts in enumerate(divided(whole, data.draw, places)):
        MovingAverage(StandIn(parts), 0.5).save(folder, rank)
    for rank, parts in enumerate(divided(whole, data.draw, places)):
        blank = [(name, start, [0.0] * len(numbers)) for name, start, numbers in parts]
        average = MovingAverage(StandIn(blank), 0.5)
        average.load(folder, rank, divided_anew=True)
        assert [x.tolist() for x in average_of(average)] == [torch.tensor(n).tolist() for _, _, n in parts]


def divided(whole, draw, places):
    """The parts that each of some ranks has: of a parameter one at most."""
    ranks = [[] for _ in range(4)]
    for name, numbers in whole.items():
        for rank, part in zip(draw(st.permutations(range(4))), cut(name, numbers, draw(places)), strict=False):
            ranks[rank].append(part)
    return [rank for rank in ranks if rank]


def test_a_rank_reads_its_own_file_or_without_zero_that_of_rank_0(tmp_path):
    for rank in (0, 1):
        MovingAverage(StandIn([("a", 2 * rank, [float(rank), 5.0])]), 0.5).save(tmp_path, rank)
    again = MovingAverage(StandIn([("a", 2, [0.0, 0.0])]), 0.5)
    again.load(tmp_path, 1, divided_anew=False)
    assert average_of(again)[0].tolist() == [1.0, 5.0]
    whole = [("a", 0, [[1.0, 2.0], [3.0, 4.0]])]
    for rank in (0, 1):
        MovingAverage(StandIn(whole, zero_stage=0), 0.5).save(tmp_path / "..", rank)
    assert not (tmp_path / ".." / "average-00001.pt").exists(), "it would be the same once more"
    again = MovingAverage(StandIn([("a", 0, [[0.0, 0.0], [0.0, 0.0]])], zero_stage=0), 0.5)
    again.load(tmp_path / "..", 1, divided_anew=False)
    assert average_of(again)[0].tolist() == whole[0][2]


def test_a_checkpoint_without_all_of_it_is_refused(tmp_path):
    MovingAverage(StandIn([("a", 0, [1.0])]), 0.5).save(tmp_path, 0)
    for parts in ([("a", 0, [1.0, 2.0])], [("b", 0, [1.0])]):
        with pytest.raises(TrainingError, match="does not have the average of all weights"):
            MovingAverage(StandIn(parts), 0.5).load(tmp_path, 0, divided_anew=False)


@pytest.mark.parametrize("decay", [0, 1, -0.5, 1.5, "nan", "much"])
def test_a_decay_that_cannot_be_is_refused(decay):
    with pytest.raises(ConfigError, match=r"training\.average"):
        load_config("quickstart", {"training.average": decay})


def test_weights_that_are_not_kept_in_float32_have_no_average():
    settings = {"bf16": {"bf16_master_weights_and_grads": True}, "zero_optimization": {"stage": 2}}
    overrides = {"encoder.precision": "bf16", "training.deepspeed": settings}
    deepspeed_config(load_config("quickstart", overrides), 1)
    with pytest.raises(ConfigError, match=r"training\.average = 0\.99 is of float32 weights.* leave one of them out"):
        deepspeed_config(load_config("quickstart", overrides | {"training.average": 0.99}), 1)


def test_runs_without_one_keep_their_names_and_one_is_another_run():
    plain, averaged = (training_values(load_config("quickstart", {"training.average": x})) for x in (None, 0.9))
    assert "training.average" not in plain
    assert averaged == {**plain, "training.average": 0.9}


def test_the_plan_of_memory_counts_it():
    shape = static_shape(100, 10)
    for stage, own in ((0, 1000), (2, 250)):
        plain, averaged = (model_states(shape, 1000, 4, Zero(stage), 2, averages=x) for x in (False, True))
        assert averaged.optimizer - plain.optimizer == 4 * own
        assert averaged.standing - plain.standing == 4 * own


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0.0, "| weights | the moving average of the trained ones over the steps (decay 0.99) |"),
        (0.2, "0.2 × those before training + 0.8 × the moving average of the trained ones over the steps (decay 0.99)"),
    ],
)
def test_the_card_says_what_the_weights_are(share, words):
    card = ModelCard(average=0.99, average_with_initial=share)
    assert words in card.render(query_prefix="", passage_prefix="", dimension=3, max_tokens=None)
