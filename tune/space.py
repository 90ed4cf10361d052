"""A sweep's space: a recipe, keys that are fixed, keys that vary and, where not all is tried, how it is searched."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from hbtrain.config import Config, load_config, override, recipe_names
from hbtrain.errors import ConfigError
from tune.ranges import (
    CHOICE,
    GRID,
    KINDS,
    SETTINGS,
    UNIFORM,
    Choices,
    Draw,
    kind_of,
    read_numbers,
    read_settings,
    read_values,
)
from tune.search import Search, read_search
from tune.space_checks import check_space

SPACES = Path(__file__).parent / "spaces"
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


@dataclass(frozen=True)
class Trial:
    """One run of a sweep."""

    label: str
    """What sets it apart, such as `alpha=0.3 seed=1`."""
    values: dict[str, Any]
    """{dotted key: value} of the keys that vary."""
    config: Config


def space_names() -> list[str]:
    """Names of the spaces that ship."""
    return sorted(path.stem for path in SPACES.glob("*.yaml"))


def load_space(space: str) -> Space:
    """The space of a shipped name or of a YAML file.

    Raises:
        ConfigError: unknown or unreadable space, unknown key, a range that holds nothing; one line.
    """
    path = SPACES / f"{space}.yaml" if space in space_names() else Path(space)
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        near = get_close_matches(space, space_names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"unknown space {space!r}: {hint}shipped are {', '.join(space_names())}; or give a YAML file")
    place = f"space {space}"
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {place}: {getattr(error, 'strerror', None) or 'it is no UTF-8 text'}"
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{place} is not YAML: {getattr(error, 'problem', None) or error}") from error
    parts = _mapping(tree, place, "`recipe`, `overrides`, `space` and `search`")
    unknown = sorted(map(str, parts.keys() - {"recipe", "overrides", "space", "search"}))
    if unknown:
        raise ConfigError(f"unknown part {unknown[0]!r} in {place}: it may hold recipe, overrides, space and search")
    if not isinstance(parts.get("recipe"), str):
        raise ConfigError(f"recipe = {parts.get('recipe')!r} in {place}: must be a recipe's name or path")
    overrides = _mapping(parts.get("overrides") or {}, f"overrides of {place}", "dotted keys")
    search = read_search(parts["search"], place) if "search" in parts else None
    found = Space(path.stem, _recipe(parts["recipe"], path.parent), overrides, {}, search=search)
    for key, entry in _mapping(parts.get("space"), f"`space` of {place}", "dotted keys").items():
        found = _with_entry(found, key, entry, place)
    check_space(found, place)
    return found


def with_flags(space: Space, flags: Mapping[str, Any]) -> Space:
    """`space` with flags laid over: `recipe` is another recipe, a key that varies gets other values, others are fixed.

    `search.` flags change how it is searched.

    Raises:
        ConfigError: unknown key, a range that holds nothing.
    """
    fixed = dict(flags)
    recipe = fixed.pop("recipe", space.recipe)
    if not isinstance(recipe, str):
        raise ConfigError(f"--recipe {recipe!r}: must be a recipe's name or path")
    changed = replace(space, recipe=recipe)
    wanted = {key.removeprefix("search."): fixed.pop(key) for key in flags if key.startswith("search.")}
    if wanted and space.search is None:
        raise ConfigError(f"--search.{next(iter(wanted))}: the space {space.name} tries everything; it has no search")
    if wanted and space.search is not None:
        changed = replace(changed, search=read_search(space.search.model_dump(mode="json") | wanted, "flags"))
    for key in (*space.grids, *space.draws):
        if key in fixed:
            changed = _with_entry(changed, key, _flag_entry(changed, key, fixed.pop(key)), "flags")
    changed = replace(changed, overrides={**space.overrides, **fixed})
    check_space(changed, "flags")
    return changed


def _flag_entry(space: Space, key: str, value: Any) -> dict[str, Any]:
    """What a flag says of a key that varies, as it would stand in a space."""
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)) in KINDS:
        return value
    values = value if isinstance(value, list) else [value]
    if key in space.settings:
        unknown = [name for name in values if name not in space.settings[key]]
        if unknown:
            raise ConfigError(f"--{key} {unknown[0]}: the space {space.name} has {', '.join(space.settings[key])}")
        read_values(key, values, "flags")
        return {SETTINGS: {name: space.settings[key][name] for name in values}}
    return {GRID if space.search is None else CHOICE: values}


def _with_entry(space: Space, key: str, entry: Any, place: str) -> Space:
    """`space` with what an entry says of a key."""
    searching = space.search is not None
    kind = kind_of(key, entry, place, searching)
    settings = dict(space.settings)
    draw: Draw
    if kind == SETTINGS:
        settings[key] = read_settings(key, entry[kind], place)
        draw = Choices(tuple(settings[key]))
    elif kind in (GRID, CHOICE):
        draw = Choices(read_values(key, entry[kind], place))
    else:
        draw = read_numbers(key, entry[kind], place, log=kind != UNIFORM)
    if searching:
        return replace(space, draws={**space.draws, key: draw}, settings=settings)
    return replace(space, grids={**space.grids, key: draw.probes}, settings=settings)


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


def _mapping(value: Any, place: str, of: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{place} must hold {of}, not {value!r}")
    return value


def _recipe(recipe: str, folder: Path) -> str:
    """A path beside the space's file, where there is one; else what was given."""
    beside = folder / recipe
    return str(beside) if recipe not in recipe_names() and beside.is_file() else recipe
