"""The trials of a space: configurations that differ in the keys that vary."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from hbtrain.config import Config, load_config, override
from hbtrain.errors import ConfigError
from tune.space.space import SEED, Space


@dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    label: str
    """What sets it apart, such as `alpha=0.3 seed=1`."""
    values: dict[str, Any]
    """{dotted key: value} of the keys that vary."""
    config: Config


def base_config(space: Space) -> Config:
    """The recipe with the fixed keys: what the trials have in common."""
    return load_config(space.recipe, space.overrides)


def trials_of(space: Space) -> list[Trial]:
    """Every combination of the varying keys, validated as a whole; all of the first seed come first.

    Raises:
        ConfigError: a combination that the configuration does not allow.
    """
    base = base_config(space)
    keys = sorted(space.grids, key=lambda key: key != SEED)
    trials: list[Trial] = []
    for combination in product(*(space.grids[key] for key in keys)):
        values = {key: value for key, value in zip(keys, combination, strict=True) if key != SEED}
        values |= {key: value for key, value in zip(keys, combination, strict=True) if key == SEED}
        trial = trial_of(space, base, values)
        for other in trials:
            if trial.config == other.config:
                raise ConfigError(f"trials {other.label} and {trial.label} are the same run; every trial must differ")
        trials.append(trial)
    return trials


def probes_of(space: Space) -> list[Trial]:
    """Trials that a search might draw and that show, before it starts, whether all that it draws is allowed.

    Each value of a choice and both ends of a range, one key at a time, the others at their first value.

    Raises:
        ConfigError: a value that the configuration does not allow.
    """
    base = base_config(space)
    first = {key: draw.probes[0] for key, draw in space.draws.items()}
    found: list[Trial] = []
    for key, draw in space.draws.items():
        for value in draw.probes:
            trial = trial_of(space, base, {**first, key: value})
            found += [] if any(trial.values == other.values for other in found) else [trial]
    return found


def trial_of(space: Space, base: Config, values: Mapping[str, Any]) -> Trial:
    """The trial of {key that varies: value}.

    Raises:
        ConfigError: what the configuration does not allow.
    """
    label = space.label(values)
    try:
        return Trial(label, dict(values), override(base, space.keys_of(values)))
    except ConfigError as error:
        raise ConfigError(f"trial {label}: {error}") from error
