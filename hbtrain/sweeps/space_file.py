"""Reading spaces: the YAML of a space, flags laid over it, and what a space must not hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from hbtrain.config import recipe_names
from hbtrain.config.keys import NON_TRAINING_KEYS, all_keys, check_key
from hbtrain.errors import ConfigError
from hbtrain.sweeps.ranges import (
    CHOICE,
    GRID,
    KINDS,
    SETTINGS,
    UNIFORM,
    Choices,
    Draw,
    Numbers,
    kind_of,
    read_numbers,
    read_settings,
    read_values,
)
from hbtrain.sweeps.search_methods import ALPHA, Pbt, read_search
from hbtrain.sweeps.space import Space

IN_WHEEL, IN_CHECKOUT = Path(__file__).parent / "spaces", Path(__file__).parents[2] / "tune" / "spaces"
SPACES = IN_WHEEL if IN_WHEEL.is_dir() else IN_CHECKOUT
"""The spaces that ship. A checkout has them where people see them; building the wheel puts them into the package."""
STEPS = "training.steps"


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


def check_space(space: Space, place: str) -> None:
    """Raise ConfigError for a key that does not exist, or cannot be swept, or is fixed and swept at once."""
    for key in space.overrides:
        check_key(key, place)
    for key in (*space.grids, *space.draws):
        if key in space.settings:
            if key in all_keys():
                raise ConfigError(f"{key} is a key of the configuration; give the settings of {place} another name")
        else:
            check_key(key, place)
        for dotted in sorted({name for named in space.settings.get(key, {}).values() for name in named} or {key}):
            _check_varied(space, dotted, key, place)
    if not space.grids and not space.draws:
        raise ConfigError(f"`space` of {place} holds no key; name what varies")
    if isinstance(space.search, Pbt):
        _check_population(space, place)


def _check_varied(space: Space, dotted: str, key: str, place: str) -> None:
    check_key(dotted, place)
    if dotted in space.overrides:
        raise ConfigError(f"{dotted} is both fixed under `overrides` and varied under `space` in {place}; keep one")
    if key != dotted and (dotted in space.grids or dotted in space.draws):
        raise ConfigError(f"{dotted} is varied twice in {place}, by itself and by {key}; keep one")
    if dotted == STEPS and space.search is not None:
        raise ConfigError(f"{STEPS} is the budget of every trial of a search ({place}); fix it under `overrides`")
    if dotted.startswith(NON_TRAINING_KEYS) or dotted == "name":
        raise ConfigError(f"{dotted} does not change what is trained ({place}); a sweep over it compares nothing")


def _check_population(space: Space, place: str) -> None:
    """A population's alpha changes while it trains; anything else would make another model of it."""
    others = [key for key in space.draws if key != ALPHA]
    if others or ALPHA not in space.draws:
        named = f"{others[0]} cannot change while a run trains; " if others else ""
        raise ConfigError(f"{named}search.method pbt in {place} varies {ALPHA}, and nothing else")
    draw = space.draws[ALPHA]
    if len(draw.probes) < 2 or not all(isinstance(value, int | float) for value in draw.probes):
        raise ConfigError(f"{ALPHA} in {place}: pbt needs two numbers or more to choose from")
    if isinstance(draw, Numbers) and draw.log:
        raise ConfigError(f"{ALPHA} in {place}: pbt takes uniform or choice")


def _mapping(value: Any, place: str, of: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{place} must hold {of}, not {value!r}")
    return value


def _recipe(recipe: str, folder: Path) -> str:
    """A path beside the space's file, where there is one; else what was given."""
    beside = folder / recipe
    return str(beside) if recipe not in recipe_names() and beside.is_file() else recipe
