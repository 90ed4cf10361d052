"""A sweep's space (a recipe, keys that are fixed, keys that vary, how it is searched), and its trials: configurations
that differ in the keys that vary.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import yaml

from hbtrain.config import Config, load_config, override
from hbtrain.config.batching import mixture_points, ratio, read_mixture
from hbtrain.errors import ConfigError
from hbtrain.sweeps.ranges import GRID, MIXTURE, SETTINGS, Draw
from hbtrain.sweeps.search_methods import Search

SEED = "seed"  # the key over whose values the summary takes means


@dataclass(frozen=True)
class Space:
    """The configurations that a sweep tries."""

    name: str
    recipe: str  # a shipped recipe's name, or the path of a YAML file
    overrides: dict[str, Any]  # {dotted key: value} that all trials have
    draws: dict[str, Draw]
    """{dotted key: what it varies over}. Without a search these are choices, and every combination of them is a trial.
    The values of a key in `settings` are names."""
    settings: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """{key: {name: {dotted key: value}}}: keys that exist only in the space; a name sets several configuration keys."""
    search: Search | None = None  # how values are drawn; None: all combinations are tried

    def to_yaml(self) -> str:
        """The space as the YAML that `load_space` reads."""
        entries = {key: draw.to_tree() if self.search else {GRID: draw.probes} for key, draw in self.draws.items()}
        entries |= {key: {SETTINGS: named} for key, named in self.settings.items()}
        tree: dict[str, Any] = {"recipe": self.recipe, "overrides": self.overrides, "space": entries}
        if self.search is not None:
            tree["search"] = self.search.model_dump(mode="json")
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)

    def keys_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """{configuration key: value} that {key that varies: value} set."""
        found: dict[str, Any] = {}
        for key, value in values.items():
            found |= self.settings[key][value] if key in self.settings else {key: value}
        return found

    def keys_behind(self, key: str) -> set[str]:
        """The configuration keys that a key of the space sets: those in its settings, or itself."""
        return {dotted for named in self.settings.get(key, {}).values() for dotted in named} or {key}

    def label(self, values: Mapping[str, Any]) -> str:
        """The name of a trial with these values, such as `alpha=0.3 seed=1`."""
        names = _short_names(list(self.draws))
        return " ".join(f"{names[key]}={shown(value, key)}" for key, value in values.items())


@dataclass(frozen=True)
class Trial:
    """One training of a sweep."""

    label: str  # the values of the keys that vary, such as `alpha=0.3 seed=1`
    values: dict[str, Any]  # {dotted key: value} of the keys that vary
    config: Config


def base_config(space: Space) -> Config:
    """The recipe with the fixed keys: what all trials have in common."""
    return load_config(space.recipe, space.overrides)


def trials_of(space: Space) -> list[Trial]:
    """The trials of a grid: every combination of values, ordered by seed first.

    Raises:
        ConfigError: the configuration does not allow a combination, or two are the same.
    """
    base = base_config(space)
    keys = sorted(space.draws, key=lambda key: key != SEED)
    trials: list[Trial] = []
    for combination in product(*(space.draws[key].probes for key in keys)):
        values = dict(zip(keys, combination, strict=True))
        if SEED in values:
            values[SEED] = values.pop(SEED)  # labels end with it
        trial = trial_of(space, base, values)
        for other in trials:
            if trial.config == other.config:
                raise ConfigError(f"trials {other.label} and {trial.label} are the same run; every trial must differ")
        trials.append(trial)
    return trials


def probes_of(space: Space) -> list[Trial]:
    """Trials that show, before a search starts, whether the configuration allows what it may draw; else a ConfigError.

    They have each value of a choice, and `Numbers.probes` of a range, of one key at a time; others have their first.
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
    """The trial with these {key that varies: value}, in which it differs from `base`.

    Raises:
        ConfigError: the configuration does not allow the values.
    """
    label = space.label(values)
    try:
        return Trial(label, dict(values), override(base, space.keys_of(values)))
    except ConfigError as error:
        raise ConfigError(f"trial {label}: {error}") from error


def short_name(key: str) -> str:
    return key.rsplit(".", 1)[-1]


def shown(value: Any, key: str = "") -> str:
    """A value of a key as labels and tables show it."""
    if key == MIXTURE and isinstance(value, Mapping):
        with suppress(ValueError):  # a wrong one has a name as well, under which it is refused
            points = mixture_points(read_mixture(value))
            return " → ".join(f"{ratio(x)} at {step}" if len(points) > 1 else ratio(x) for step, x in points.items())
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "+".join(map(shown, value))
    return value if isinstance(value, str) else json.dumps(value)


def _short_names(keys: list[str]) -> dict[str, str]:
    """{key: its last part, or the whole key where two have the same}."""
    ends = [short_name(key) for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}
