"""A schedule of a population's member, of alpha or of mixtures, as the configuration takes it, is the step function at
every whole step."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.batching import BatchPlan
from hbtrain.batching.catalogue import shares_at
from hbtrain.config import from_tree, load_config, to_tree
from hbtrain.config.batching import KINDS
from hbtrain.corpus.conflicts import SourceIndex
from hbtrain.sweeps.drivers import extended, label_of, member_config, read_schedule, to_value
from hbtrain.sweeps.ranges import Simplex

SIMPLEX = Simplex(("mono", "cross", "multi"))
UNIFORM = st.floats(0, 1, allow_nan=False)
ALPHAS, MIXTURES = UNIFORM, st.lists(UNIFORM, min_size=2, max_size=2).map(SIMPLEX.mixture)
QUICKSTART = load_config("quickstart", {"training.steps": 1000})


@st.composite
def changes(draw, values):
    """[(step, value)], the first at step 0, steps ascending by 1 or more."""
    gaps = draw(st.lists(st.integers(1, 40), max_size=6))
    steps = [0, *np.cumsum(gaps).tolist()]
    return [(step, draw(values)) for step in steps]


CHANGES = st.one_of(changes(ALPHAS), changes(MIXTURES))


def build(steps_and_values):
    schedule = read_schedule(steps_and_values[:1])
    for step, value in steps_and_values[1:]:
        schedule = extended(schedule, step, value)
    return schedule


def batching_of(schedule):
    """As a driver gets it: its configuration travels as a tree."""
    return from_tree(to_tree(member_config(QUICKSTART, schedule))).batching


def shares_of(value):
    """float64 [K]: the probability of each kind, of a value that never changes."""
    return shares_at(batching_of(((0, value),)), np.zeros(1))[:, 0]


@settings(max_examples=40)
@given(CHANGES)
def test_the_batches_see_the_step_function(steps_and_values):
    steps = np.arange(steps_and_values[-1][0] + 20)
    wanted = np.empty((len(KINDS), len(steps)))
    for start, value in steps_and_values:  # painted over, one change after the other
        wanted[:, start:] = shares_of(value)[:, None]
    assert np.array_equal(shares_at(batching_of(build(steps_and_values)), steps), wanted), "to the last bit"


@given(CHANGES)
def test_what_does_not_change_is_not_written_down(steps_and_values):
    schedule = build(steps_and_values)
    values = [value for _, value in schedule]
    assert all(a != b for a, b in pairwise(values))
    assert (to_value(schedule) == values[0]) == (len(schedule) == 1)
    assert label_of(schedule).count("from") == len(schedule) - 1


@settings(max_examples=12)
@pytest.mark.parametrize("values", [ALPHAS, MIXTURES], ids=["alpha", "mixture"])
@given(data=st.data())
def test_the_beginning_of_a_taken_over_schedule_is_the_donors(values, data):
    """Batch for batch, so that the donor's state is the one that a run from scratch would have there."""
    donor = build(data.draw(changes(values)))
    step = donor[-1][0] + data.draw(st.integers(1, 30))
    value = data.draw(values)
    source = SourceIndex.complete("talks", 40, ("de", "en", "sw"))
    changed, before, alone = (
        BatchPlan([source], batching_of(one).model_copy(update={"global_batch_size": 8}))
        for one in (extended(donor, step, value), donor, ((0, value),))
    )
    assert changed.fingerprint(0, step) == before.fingerprint(0, step)
    kinds = [[plan.catalogue.offers[n].kind for n in plan.draws(step, step + 90)] for plan in (changed, alone)]
    assert kinds[0] == kinds[1]
