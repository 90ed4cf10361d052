"""Population based training (arXiv 1711.09846) of alpha, on Ray Tune's scheduler.

All members are judged at the same steps. What happens there is a function of the search's seed, of the interval and of
the scores, so a search that was cut off comes to the same decisions when it is told the same scores again.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining

from hbtrain.sweeps.drivers import INTERVAL, SCHEDULE, extended, read_schedule
from hbtrain.sweeps.ranges import Draw, Numbers
from hbtrain.sweeps.search_methods import Pbt, is_minimised

ATTEMPTS = 20
"""How often an alpha is drawn until it is one that no other member goes on with from the same state."""


class Population(PopulationBasedTraining):
    """The worst members take over the state of the best, and go on with another alpha."""

    def __init__(self, search: Pbt, draw: Draw, ends: Sequence[int]) -> None:
        """`ends` are the steps at which intervals end, the last one being that of training."""
        super().__init__(
            time_attr=INTERVAL,
            metric=search.objective,
            mode="min" if is_minimised(search.objective) else "max",
            perturbation_interval=1,
            quantile_fraction=search.quantile,
            custom_explore_fn=self._explore,
            log_config=False,
            require_attrs=False,  # the end of training is reported without an interval: nothing is to follow it
            synch=True,
        )
        self._search, self._draw, self._ends = search, draw, list(ends)
        self._interval = 0
        self._given: set[Any] = set()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """A member has come to the end of an interval; the last one to come has all of them judged."""
        self._interval = result.get(INTERVAL, self._interval)
        before = random.getstate()
        random.seed(f"{self._search.seed}/{self._interval}")  # Tune's scheduler draws from the module's generator
        try:
            return str(super().on_trial_result(tune_controller, trial, result))
        finally:
            random.setstate(before)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The next member to go on. Members whose drivers died too often are no longer waited for."""
        chosen = super().choose_trial_to_run(tune_controller)
        if chosen is not None:
            return chosen
        members = tune_controller.get_trials()
        dead = [member for member in members if member.status == Trial.ERROR]
        waiting = [member for member in members if not member.is_finished()]
        reached = self._next_perturbation_sync
        for member in dead:
            self._trial_state[member].last_train_time = max(reached, self._trial_state[member].last_train_time)
        if dead and waiting and all(self._is_waiting(member) for member in waiting):
            self.on_trial_result(tune_controller, waiting[-1], waiting[-1].last_result)
            return super().choose_trial_to_run(tune_controller)
        return None

    def _is_waiting(self, member: Any) -> bool:
        at = self._trial_state[member].last_train_time
        return bool(member.status == Trial.PAUSED and at >= self._next_perturbation_sync)

    def _explore(self, parameters: dict[str, Any]) -> dict[str, Any]:
        """The parameters of a member that takes over one with these."""
        schedule = read_schedule(parameters[SCHEDULE])
        step = self._ends[self._interval - 1]
        for _ in range(ATTEMPTS):
            changed = extended(schedule, step, perturbed(schedule[-1][1], self._draw, self._search))
            if changed != schedule and changed not in self._given:
                break
        self._given.add(changed)
        return {**parameters, SCHEDULE: [list(change) for change in changed]}


def perturbed(alpha: float, draw: Draw, search: Pbt) -> float:
    """Another alpha: moved by the factor, or to the next value of a choice; now and then drawn anew.

    Draws from Python's module-wide generator, as the scheduler does.
    """
    if isinstance(draw, Numbers):
        moved = draw.rounded(alpha * random.choice((search.factor, 1 / search.factor)))
        anew = draw.rounded(random.uniform(draw.low, draw.high))
    else:
        values = sorted(draw.values)
        place = values.index(alpha) + random.choice((-1, 1))
        moved = float(values[min(max(place, 0), len(values) - 1)])
        anew = float(random.choice(values))
    return anew if moved == alpha or random.random() < search.resample else moved


def first_alphas(draw: Draw, search: Pbt) -> list[float]:
    """What the members begin with: one from each of as many equal parts of the range, or each value in turn."""
    if not isinstance(draw, Numbers):
        return [float(draw.values[member % len(draw.values)]) for member in range(search.population)]
    generator = random.Random(search.seed)
    width = (draw.high - draw.low) / search.population
    return [draw.rounded(draw.low + width * (member + generator.random())) for member in range(search.population)]
