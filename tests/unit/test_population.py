"""Decisions of a population, on stand-ins for Tune's trials: who takes over whom, with which alpha."""

import random
from types import SimpleNamespace

import pytest
from ray.tune.experiment import Trial

from hbtrain.sweeps.drivers import INTERVAL, SCHEDULE, read_schedule
from hbtrain.sweeps.population import Population, first_values, perturbed
from hbtrain.sweeps.ranges import Choices, Numbers
from hbtrain.sweeps.search_methods import Pbt

ENDS = (3, 6, 9, 12)
WHOLE = Numbers(0, 1)


class Member:
    """As much of a Tune trial as the scheduler looks at."""

    def __init__(self, number, alpha):
        self.trial_id, self.experiment_tag = f"t{number}", f"t{number}"
        self.config = {SCHEDULE: [[0, alpha]]}
        self.status = Trial.RUNNING
        self.last_result = {}
        self.checkpoint = f"state of {number}"
        self.temporary_state = SimpleNamespace(saving_to=None)
        manager = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None), _latest_checkpoint_result=None)
        self.run_metadata = SimpleNamespace(checkpoint_manager=manager)

    @property
    def schedule(self):
        return read_schedule(self.config[SCHEDULE])

    def is_finished(self):
        return self.status in (Trial.TERMINATED, Trial.ERROR)

    def set_experiment_tag(self, tag):
        self.experiment_tag = tag

    def set_config(self, config):
        self.config = config


class Controller:
    search_alg = None

    def __init__(self, members):
        self.members = members

    def get_trials(self):
        return self.members

    def get_live_trials(self):
        return {member for member in self.members if member.status != Trial.TERMINATED}

    def pause_trial(self, member, should_checkpoint=True):
        member.status = Trial.PAUSED

    def _schedule_trial_save(self, member, result=None):
        return member.checkpoint


def population(search, draw=WHOLE):
    members = [Member(number, alpha) for number, alpha in enumerate(first_values(draw, search))]
    controller, scheduler = Controller(members), Population(search, draw, ENDS)
    for member in members:
        scheduler.on_trial_add(controller, member)
    return scheduler, controller, members


def report(scheduler, controller, member, interval, score):
    member.status = Trial.RUNNING
    result = {INTERVAL: interval, "multi/map": score}
    decision = scheduler.on_trial_result(controller, member, result)
    member.last_result = result
    if decision == "PAUSE":
        member.status = Trial.PAUSED


def play(search, scores, draw=WHOLE):
    """Schedules of the members after intervals with `scores`, one list an interval."""
    scheduler, controller, members = population(search, draw)
    for interval, row in enumerate(scores, start=1):
        for member, score in zip(members, row, strict=True):
            report(scheduler, controller, member, interval, score)
    return [member.schedule for member in members]


SEARCH = Pbt(method="pbt", population=4)
SCORES = [[0.1, 0.4, 0.3, 0.2], [0.5, 0.1, 0.2, 0.3]]


def test_the_worst_take_over_the_best_and_go_on_with_another_alpha():
    first = first_values(WHOLE, SEARCH)
    after_one = play(SEARCH, SCORES[:1])
    assert after_one[1:] == [((0, alpha),) for alpha in first[1:]], "these keep their own"
    (start, changed) = after_one[0]
    assert start == (0, first[1]), "the best member's past"
    assert changed[0] == ENDS[0]
    assert changed[1] != first[1]
    assert 0 <= changed[1] <= 1
    after_two = play(SEARCH, SCORES)
    assert after_two[1][:2] == after_one[0], "a taken over past is taken over again"
    assert after_two[1][2][0] == ENDS[1]
    assert after_two[0] == after_one[0]


def test_the_same_scores_lead_to_the_same_decisions_and_another_seed_elsewhere():
    random.seed(3)
    first = play(SEARCH, SCORES)
    random.seed(4)
    assert play(SEARCH, SCORES) == first
    assert play(SEARCH.model_copy(update={"seed": 1}), SCORES) != first


def test_others_random_numbers_are_left_alone():
    random.seed(11)
    wanted = random.random()
    random.seed(11)
    play(SEARCH, SCORES)
    assert random.random() == wanted


def test_nobody_goes_on_before_all_have_come():
    scheduler, controller, members = population(SEARCH)
    for member in members[:3]:
        report(scheduler, controller, member, 1, 0.5)
    assert {member.status for member in members[:3]} == {Trial.PAUSED}
    assert scheduler.choose_trial_to_run(controller) is None
    report(scheduler, controller, members[3], 1, 0.1)
    assert scheduler.choose_trial_to_run(controller) is not None


def test_a_member_whose_driver_died_too_often_is_not_waited_for():
    scheduler, controller, members = population(SEARCH)
    for member in members[:3]:
        report(scheduler, controller, member, 1, float(member.trial_id[1:]))
    members[3].status = Trial.ERROR
    chosen = scheduler.choose_trial_to_run(controller)
    assert chosen in members[:3]
    assert members[0].schedule[0] == members[2].schedule[0], "the best of those that live is taken over"
    assert len(members[3].schedule) == 1


def test_members_that_take_over_the_same_one_differ():
    search = Pbt(method="pbt", population=6, quantile=0.5, resample=0.0)
    schedules = play(search, [[0.1, 0.2, 0.3, 0.4, 0.5, 0.6]])
    assert len(set(schedules)) == 6


@pytest.mark.parametrize("draw", [Numbers(0.2, 0.8), Choices((0.2, 0.5, 0.8))])
def test_a_perturbed_alpha_is_in_the_range_and_mostly_another(draw):
    random.seed(0)
    for alpha in (0.2, 0.5, 0.8):
        found = [perturbed(alpha, draw, SEARCH) for _ in range(200)]
        assert all(draw.recalled(value) == value for value in found)
        assert sum(value != alpha for value in found) > 100


def test_members_begin_all_over_the_range():
    alphas = first_values(Numbers(0, 1), Pbt(method="pbt", population=10))
    assert [int(alpha * 10) for alpha in alphas] == list(range(10))
    assert first_values(Choices((0, 1)), SEARCH) == [0.0, 1.0, 0.0, 1.0]
