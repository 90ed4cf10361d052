"""A sweep's space: a recipe, keys that are fixed, keys that vary and, where not all is tried, how it is searched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from tune.space.ranges import GRID, SETTINGS, Draw
from tune.space.search import Search

SEED = "seed"
"""The key over which the summary takes means."""


@dataclass(frozen=True)
class Space:
    """What a sweep tries."""

    name: str
    recipe: str
    """A shipped recipe's name or the path of a YAML file."""
    overrides: dict[str, Any]
    """{dotted key: value} of what is the same in every trial."""
    grids: dict[str, tuple[Any, ...]]
    """{dotted key: its values}; every combination is a trial. Of named settings, their names."""
    draws: dict[str, Draw] = field(default_factory=dict)
    """{dotted key: what a search draws it from}. Of named settings, their names."""
    settings: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    """{key: {name: {dotted key: value}}}: keys that are no keys of the configuration, but set several of them."""
    search: Search | None = None
    """None: all combinations are tried."""

    def to_yaml(self) -> str:
        """The space as the YAML that `load_space` reads."""
        entries: dict[str, Any] = {key: {GRID: list(values)} for key, values in self.grids.items()}
        entries |= {key: draw.to_tree() for key, draw in self.draws.items()}
        for key, named in self.settings.items():
            entries[key] = {SETTINGS: named}
        tree: dict[str, Any] = {"recipe": self.recipe, "overrides": self.overrides, "space": entries}
        if self.search is not None:
            tree["search"] = self.search.model_dump(mode="json")
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)

    def keys_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """{dotted key: value} of the configuration that follow from {key that varies: value}."""
        found: dict[str, Any] = {}
        for key, value in values.items():
            found |= self.settings[key][value] if key in self.settings else {key: value}
        return found

    @property
    def varied_keys(self) -> set[str]:
        """Dotted keys of the configuration that trials may differ in."""
        keys: set[str] = set()
        for key in (*self.grids, *self.draws):
            keys |= {dotted for named in self.settings.get(key, {}).values() for dotted in named} or {key}
        return keys

    def label(self, values: Mapping[str, Any]) -> str:
        """What sets a trial apart, such as `alpha=0.3 seed=1`."""
        names = _short_names([*self.grids, *self.draws])
        return " ".join(f"{names[key]}={shown(value)}" for key, value in values.items())


def short_name(key: str) -> str:
    """The last part of a dotted key."""
    return key.rsplit(".", 1)[-1]


def shown(value: Any) -> str:
    """A value in a few characters."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return "+".join(map(shown, value))
    return value if isinstance(value, str) else json.dumps(value)


def _short_names(keys: list[str]) -> dict[str, str]:
    """The last part of each key, or the whole key where two end alike."""
    ends = [short_name(key) for key in keys]
    return {key: end if ends.count(end) == 1 else key for key, end in zip(keys, ends, strict=True)}
