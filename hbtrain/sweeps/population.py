"""Population based training (arXiv 1711.09846) of alpha or of the mixture, on Ray Tune's scheduler.

All members are compared at the same steps. The decisions are a function of the search's seed, the interval and the
scores, so a search that was interrupted comes to the same decisions when the same scores are reported again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining

from hbtrain.sweeps.drivers import INTERVAL, SCHEDULE, Schedule, Value, extended, read_schedule
from hbtrain.sweeps.ranges import Draw, Numbers, Simplex
from hbtrain.sweeps.search_methods import Pbt, is_minimised

ATTEMPTS = 20  # how often a value is drawn, until it is one with which no other member continues the same state


class Population(PopulationBasedTraining):
    """The scheduler: at each interval's end, the worst members continue the state of the best with another value."""

    def __init__(self, search: Pbt, draw: Draw, ends: Sequence[int]) -> None:
        """`draw` gives the values of the key; at the steps `ends` intervals end, at the last one training."""
        super().__init__(
            time_attr=INTERVAL,
            metric=search.objective,
            mode="min" if is_minimised(search.objective) else "max",
            perturbation_interval=1,
            quantile_fraction=search.quantile,
            custom_explore_fn=self._explore,
            log_config=False,
            require_attrs=False,  # the end of training is reported without an interval, so that nothing follows it
            synch=True,
        )
        self._search, self._draw, self._ends = search, draw, list(ends)
        self._interval = 0
        self._given: list[Schedule] = []

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Called when a member ends an interval; when the last one has, all are compared."""
        self._interval = result.get(INTERVAL, self._interval)
        before = random.getstate()
        random.seed(f"{self._search.seed}/{self._interval}")  # Tune's scheduler draws from the `random` module
        try:
            return str(super().on_trial_result(tune_controller, trial, result))
        finally:
            random.setstate(before)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """The next member to train. Members whose drivers died too often are not waited for."""
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
        """The parameters of a member that continues the state of one with `parameters`."""
        schedule = read_schedule(parameters[SCHEDULE])
        step = self._ends[self._interval - 1]
        for _ in range(ATTEMPTS):
            changed = extended(schedule, step, perturbed(schedule[-1][1], self._draw, self._search))
            if changed != schedule and changed not in self._given:
                break
        self._given.append(changed)
        return {**parameters, SCHEDULE: [list(change) for change in changed]}


def perturbed(value: Any, draw: Draw, search: Pbt) -> Value:
    """Another alpha or mixture: it, or one weight of it, multiplied or divided by the factor; or a neighbour of it
    among the values of a choice, where mixtures are in the order of the list; sometimes a new draw.

    Draws from the `random` module, as the scheduler does.
    """
    moved: Value
    anew: Value
    if isinstance(draw, Numbers):
        moved = draw.rounded(value * random.choice((search.factor, 1 / search.factor)))
        anew = draw.rounded(random.uniform(draw.low, draw.high))
    elif isinstance(draw, Simplex):
        kind, factor = random.choice(draw.kinds), random.choice((search.factor, 1 / search.factor))
        moved = draw.rounded([value[one] * (factor if one == kind else 1) for one in draw.kinds])
        anew = draw.mixture([random.random() for _ in range(draw.dimensions)])
    else:
        values = list(draw.values) if isinstance(value, Mapping) else sorted(draw.values)
        neighbour = values.index(value) + random.choice((-1, 1))
        moved = _value(values[min(max(neighbour, 0), len(values) - 1)])
        anew = _value(random.choice(values))
    return anew if moved == value or random.random() < search.resample else moved


def first_values(draw: Draw, search: Pbt) -> list[Value]:
    """The first alpha or mixture of each member: one from each of as many equal parts of the range, or the values in
    turn. Of mixtures, each uniform number is divided into parts (a Latin hypercube)."""
    if isinstance(draw, Simplex):
        from scipy.stats.qmc import LatinHypercube

        numbers = LatinHypercube(draw.dimensions, rng=search.seed).random(search.population)
        return [draw.mixture(uniforms) for uniforms in numbers.tolist()]
    if not isinstance(draw, Numbers):
        return [_value(draw.values[member % len(draw.values)]) for member in range(search.population)]
    generator = random.Random(search.seed)
    width = (draw.high - draw.low) / search.population
    return [draw.rounded(draw.low + width * (member + generator.random())) for member in range(search.population)]


def _value(chosen: Any) -> Value:
    return dict(chosen) if isinstance(chosen, Mapping) else float(chosen)
