"""A sweep's space: a recipe, keys that are fixed, and keys that vary; and the trials that follow from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from hbtrain.config import Config, load_config, override, recipe_names
from hbtrain.config.keys import ELSEWHERE, check_key
from hbtrain.errors import ConfigError

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
    """{dotted key: its values}; every combination is a trial."""

    def to_yaml(self) -> str:
        """The space as the YAML that `load_space` reads."""
        grids = {key: {"grid": list(values)} for key, values in self.grids.items()}
        tree = {"recipe": self.recipe, "overrides": self.overrides, "space": grids}
        return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)


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
    parts = _mapping(tree, place, "`recipe`, `overrides` and `space`")
    unknown = sorted(map(str, parts.keys() - {"recipe", "overrides", "space"}))
    if unknown:
        raise ConfigError(f"unknown part {unknown[0]!r} in {place}: it may hold recipe, overrides and space")
    if not isinstance(parts.get("recipe"), str):
        raise ConfigError(f"recipe = {parts.get('recipe')!r} in {place}: must be a recipe's name or path")
    overrides = _mapping(parts.get("overrides") or {}, f"overrides of {place}", "dotted keys")
    entries = _mapping(parts.get("space"), f"`space` of {place}", "dotted keys")
    grids = {key: _grid(key, entry, place) for key, entry in entries.items()}
    found = Space(path.stem, _recipe(parts["recipe"], path.parent), overrides, grids)
    _check(found, place)
    return found


def with_flags(space: Space, flags: Mapping[str, Any]) -> Space:
    """`space` with flags laid over: `recipe` is another recipe, a key that varies gets other values, others are fixed.

    Raises:
        ConfigError: unknown key, a range that holds nothing.
    """
    fixed = dict(flags)
    recipe = fixed.pop("recipe", space.recipe)
    if not isinstance(recipe, str):
        raise ConfigError(f"--recipe {recipe!r}: must be a recipe's name or path")
    grids = {
        key: _grid(key, {"grid": value if isinstance(value, list) else [value]}, "flags")
        for key, value in ((key, fixed.pop(key)) for key in space.grids if key in fixed)
    }
    changed = replace(space, recipe=recipe, overrides={**space.overrides, **fixed}, grids={**space.grids, **grids})
    _check(changed, "flags")
    return changed


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
    names = _short_names(keys)
    trials: list[Trial] = []
    for combination in product(*(space.grids[key] for key in keys)):
        values = {key: value for key, value in zip(keys, combination, strict=True) if key != SEED}
        values |= {key: value for key, value in zip(keys, combination, strict=True) if key == SEED}
        label = " ".join(f"{names[key]}={shown(value)}" for key, value in values.items())
        try:
            config = override(base, values)
        except ConfigError as error:
            raise ConfigError(f"trial {label}: {error}") from error
        for other in trials:
            if config == other.config:
                raise ConfigError(f"trials {other.label} and {label} are the same run; every trial must differ")
        trials.append(Trial(label, values, config))
    return trials


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


def _check(space: Space, place: str) -> None:
    """Raise ConfigError for a key that does not exist, or cannot be swept, or is fixed and swept at once."""
    for key in _keys(space):
        check_key(key, place)
    for key in space.grids:
        if key in space.overrides:
            raise ConfigError(f"{key} is both fixed under `overrides` and varied under `space` in {place}; keep one")
        if key.startswith(ELSEWHERE) or key == "name":
            raise ConfigError(f"{key} does not change what is trained ({place}); a sweep over it compares nothing")


def _keys(space: Space) -> Iterator[str]:
    yield from space.overrides
    yield from space.grids


def _grid(key: str, entry: Any, place: str) -> tuple[Any, ...]:
    if not isinstance(entry, dict) or entry.keys() != {"grid"} or not isinstance(entry["grid"], list):
        raise ConfigError(f"{key} = {entry!r} in {place}: a key that varies is written `{key}: {{grid: [...]}}`")
    values = entry["grid"]
    if not values:
        raise ConfigError(f"{key} = [] in {place}: the range is empty; give at least one value")
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ConfigError(f"{key} in {place} lists {value!r} twice; every trial must differ")
    return tuple(values)


def _mapping(value: Any, place: str, of: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{place} must hold {of}, not {value!r}")
    return value


def _recipe(recipe: str, folder: Path) -> str:
    """A path beside the space's file, where there is one; else what was given."""
    beside = folder / recipe
    return str(beside) if recipe not in recipe_names() and beside.is_file() else recipe
