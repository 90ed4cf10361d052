from itertools import pairwise

import pytest
import torch

from hbtrain.modeling.gather import SingleProcess
from hbtrain.training.stopping import MOST_STEPS, StopVote


class Counted(SingleProcess):
    """A group of one rank that counts its collectives."""

    votes = 0

    def all_gather(self, x):
        self.votes += 1
        return super().all_gather(x)


def votes_at(step_s, steps, is_requested=lambda: False, every=1):
    """The steps after which the ranks vote, where step i takes `step_s(i)` seconds; and where they stopped."""
    now, group = [0.0], Counted()
    vote = StopVote(group, torch.device("cpu"), is_requested, every, lambda: now[0])
    found = []
    for step in range(1, steps + 1):
        now[0] += step_s(step)
        before = group.votes
        stop = vote.is_stop(step)
        if group.votes > before:
            found.append(step)
        if stop:
            return found, step
    return found, None


def test_ranks_vote_about_once_a_second():
    found, _ = votes_at(lambda step: 0.125, 100)
    assert found[:3] == [1, 2, 10]
    assert {b - a for a, b in pairwise(found[1:])} == {8}
    assert votes_at(lambda step: 30.0, 10)[0] == list(range(1, 11)), "with slow steps, after each"


def test_slow_steps_after_fast_ones_are_noticed_after_few():
    found, _ = votes_at(lambda step: 0.001 if step < 500 else 20.0, 700)
    slow = [step for step in found if step >= 500]
    assert slow[0] < 500 + MOST_STEPS
    assert slow[1:4] == [slow[0] + 1, slow[0] + 2, slow[0] + 3]


def test_the_first_vote_after_the_request_stops():
    asked = iter([False] * 3 + [True] * 100)
    found, stopped = votes_at(lambda step: 0.25, 100, lambda: next(asked))
    assert stopped == found[-1]
    assert len(found) == 4


@pytest.mark.parametrize(("step_s", "stopped"), [(0.5, 30), (1.0, 30), (2.0, 23)])
def test_training_stops_where_figures_are_told_unless_that_is_far(step_s, stopped):
    # The request comes in step 23; figures are told after every 10.
    step = [0]

    def slow(number):
        step[0] = number
        return step_s

    assert votes_at(slow, 100, lambda: step[0] >= 23, every=10)[1] == stopped


def test_nobody_votes_where_nobody_ever_asks():
    assert votes_at(lambda step: 0.1, 50, None) == ([], None)
