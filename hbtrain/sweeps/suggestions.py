"""Proposes the next trials of a search, by Optuna's sampler under Ray Tune."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from ray.tune.search.optuna import OptunaSearch

from hbtrain.config import Config, absolute_paths, to_flat
from hbtrain.errors import ConfigError
from hbtrain.sweeps.drivers import FAILURE, KEYS, LABEL, STEP, VALUES
from hbtrain.sweeps.ranges import Choices, Draw, Simplex
from hbtrain.sweeps.search_methods import is_minimised
from hbtrain.sweeps.search_records import Ledger, known_points
from hbtrain.sweeps.space import Space, trial_of

RESUMED_SEED = 7919
"""Added to the seed for each known point, so that a search that goes on after an interruption draws other numbers."""


class Suggestions(OptunaSearch):
    """Proposes the parameters of trials: first the points of the ledger, then new ones, which are added to the ledger.

    Ray Tune does not save the state of its schedulers. So a search that was interrupted is not restored from Tune's
    files but replayed: the scores of finished segments are reported again from the folders of their runs, without
    training.
    """

    def __init__(self, space: Space, base: Config, ledger: Ledger) -> None:
        """`base` is the configuration that trials share, with the sweep's storage and tracking."""
        assert space.search is not None
        self._draws = space.draws
        self._shared = space, base
        self._ledger = ledger
        known = known_points(space, ledger)
        objectives = list(space.search.objectives)
        modes = ["min" if is_minimised(name) else "max" for name in objectives]
        single = len(objectives) == 1
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        super().__init__(
            space={name: one for key, draw in space.draws.items() for name, one in _distributions(key, draw).items()},
            metric=objectives[0] if single else objectives,
            mode=modes[0] if single else modes,
            points_to_evaluate=[self._encoded(point) for point in known],
            seed=space.search.seed + RESUMED_SEED * len(known),
        )

    def suggest(self, trial_id: str) -> dict[str, Any] | None:
        drawn = super().suggest(trial_id)
        if drawn is None:
            return None
        values = self._decoded(drawn)
        self._ledger.add(values)
        space, base = self._shared
        try:
            trial = trial_of(space, base, values)
            # Trials are driven in another working directory.
            resolved = to_flat(absolute_paths(trial.config))
        except ConfigError as error:
            return {VALUES: values, LABEL: space.label(values), FAILURE: str(error)}
        keys = {key: resolved.get(key, value) for key, value in space.keys_of(values).items()}
        return {VALUES: values, LABEL: trial.label, KEYS: keys}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """A trial has reached a rung, and goes on."""
        if FAILURE not in result and not result.get("done"):
            super().on_trial_result(trial_id, result)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A trial has ended: it was trained in full, stopped because of its scores, or has failed."""
        _, base = self._shared
        if error or result is None or FAILURE in result:
            super().on_trial_complete(trial_id, None, error=True)
        elif result[STEP] < base.training.steps:
            super().on_trial_result(trial_id, result)
            super().on_trial_complete(trial_id, None)  # pruned: its scores are not those of a whole training
        else:
            super().on_trial_complete(trial_id, result)

    def _encoded(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Values as Optuna takes them: a choice is given by its index in the list, as its values may be of any type,
        and a mixture by its uniform numbers."""
        encoded: dict[str, Any] = {}
        for key, draw in self._draws.items():
            if isinstance(draw, Simplex):
                encoded |= zip(_distributions(key, draw), draw.uniforms(values[key]), strict=True)
            else:
                encoded[key] = draw.values.index(values[key]) if isinstance(draw, Choices) else values[key]
        return encoded

    def _decoded(self, drawn: Mapping[str, Any]) -> dict[str, Any]:
        decoded: dict[str, Any] = {}
        for key, draw in self._draws.items():
            if isinstance(draw, Simplex):
                decoded[key] = draw.mixture([drawn[name] for name in _distributions(key, draw)])
            else:
                decoded[key] = draw.values[drawn[key]] if isinstance(draw, Choices) else draw.rounded(drawn[key])
        return decoded


def _distributions(key: str, draw: Draw) -> dict[str, BaseDistribution]:
    """{name: distribution} of the numbers that Optuna draws for a key: one, but for a mixture one a dimension."""
    if isinstance(draw, Simplex):
        return {f"{key} {number}": FloatDistribution(0, 1) for number in range(draw.dimensions)}
    if isinstance(draw, Choices):
        return {key: CategoricalDistribution(list(range(len(draw.values))))}
    return {key: FloatDistribution(draw.low, draw.high, log=draw.log)}
