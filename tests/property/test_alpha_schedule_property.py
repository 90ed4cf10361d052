"""A schedule of a population's member, as the configuration takes it, is the step function at every whole step."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.batching.catalogue import shares_at
from hbtrain.config import load_config
from hbtrain.sweeps.drivers import extended, label_of, read_schedule, to_alpha

ALPHAS = st.floats(0, 1, allow_nan=False)


@st.composite
def changes(draw):
    """[(step, alpha)], the first at step 0, steps ascending by 1 or more."""
    gaps = draw(st.lists(st.integers(1, 40), max_size=6))
    steps = [0, *np.cumsum(gaps).tolist()]
    return [(step, draw(ALPHAS)) for step in steps]


def build(steps_and_alphas):
    schedule = read_schedule(steps_and_alphas[:1])
    for step, alpha in steps_and_alphas[1:]:
        if step > schedule[-1][0]:
            schedule = extended(schedule, step, alpha)
    return schedule


@given(changes())
def test_the_batches_see_the_step_function(steps_and_alphas):
    schedule = build(steps_and_alphas)
    batching = load_config("quickstart", {"batching.alpha": to_alpha(schedule)}).batching
    steps = np.arange(steps_and_alphas[-1][0] + 20)
    wanted = np.empty(len(steps))
    for start, alpha in steps_and_alphas:  # painted over, one change after the other
        wanted[start:] = alpha
    assert np.array_equal(shares_at(batching, steps)[0], wanted), "to the last bit"


@given(changes())
def test_what_does_not_change_is_not_written_down(steps_and_alphas):
    schedule = build(steps_and_alphas)
    alphas = [alpha for _, alpha in schedule]
    assert all(a != b for a, b in pairwise(alphas))
    assert isinstance(to_alpha(schedule), float) == (len(schedule) == 1)
    assert label_of(schedule).count("from") == len(schedule) - 1


@given(changes(), st.integers(1, 30), ALPHAS)
def test_the_beginning_of_a_taken_over_schedule_is_the_donors(steps_and_alphas, gap, alpha):
    donor = build(steps_and_alphas)
    step = donor[-1][0] + gap
    taker = extended(donor, step, alpha)
    batching = [load_config("quickstart", {"batching.alpha": to_alpha(one)}).batching for one in (taker, donor)]
    assert np.array_equal(*(shares_at(one, np.arange(step))[0] for one in batching))
    assert shares_at(batching[0], np.array([step]))[0] == alpha
