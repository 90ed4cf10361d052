"""Reads spaces from YAML, changes them by flags, and checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hbtrain.config import recipe_names
from hbtrain.config.keys import NON_TRAINING_KEYS, all_keys, check_key
from hbtrain.config.yaml_texts import parse_yaml
from hbtrain.errors import ConfigError, did_you_mean
from hbtrain.sweeps.ranges import (
    ALPHA,
    CHOICE,
    GRID,
    KINDS,
    MIXTURE,
    SETTINGS,
    SIMPLEX,
    UNIFORM,
    Choices,
    Draw,
    Numbers,
    Simplex,
    kind_of,
    read_numbers,
    read_settings,
    read_simplex,
    read_values,
)
from hbtrain.sweeps.search_methods import Pbt, read_search
from hbtrain.sweeps.space import Space

IN_WHEEL, IN_CHECKOUT = Path(__file__).parent / "spaces", Path(__file__).parents[2] / "tune" / "spaces"
SPACES = IN_WHEEL if IN_WHEEL.is_dir() else IN_CHECKOUT
"""The folder of the spaces that ship: `tune/spaces` of a checkout, which the build of a wheel copies to the package."""
STEPS = "training.steps"


def space_names() -> list[str]:
    return sorted(path.stem for path in SPACES.glob("*.yaml"))


def load_space(space: str) -> Space:
    """The space of a shipped name or a YAML file. Raises ConfigError if it is unknown, unreadable or wrong."""
    path = SPACES / f"{space}.yaml" if space in space_names() else Path(space)
    if path.suffix not in {".yaml", ".yml"} and not path.is_file():
        hint = did_you_mean(space, space_names())
        raise ConfigError(f"unknown space {space!r}: {hint}shipped are {', '.join(space_names())}; or give a YAML file")
    origin = f"space {space}"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"cannot read {origin}: {getattr(error, 'strerror', None) or 'it is no UTF-8 text'}"
        ) from error
    parts = _mapping(parse_yaml(text, origin), origin, "`recipe`, `overrides`, `space` and `search`")
    unknown = sorted(map(str, parts.keys() - {"recipe", "overrides", "space", "search"}))
    if unknown:
        raise ConfigError(f"unknown part {unknown[0]!r} in {origin}: it may hold recipe, overrides, space and search")
    if not isinstance(parts.get("recipe"), str):
        raise ConfigError(f"recipe = {parts.get('recipe')!r} in {origin}: must be a recipe's name or path")
    overrides = _mapping(parts.get("overrides") or {}, f"overrides of {origin}", "dotted keys")
    search = read_search(parts["search"], origin) if "search" in parts else None
    found = Space(path.stem, _recipe(parts["recipe"], path.parent), overrides, {}, search=search)
    for key, entry in _mapping(parts.get("space"), f"`space` of {origin}", "dotted keys").items():
        found = _with_entry(found, key, entry, origin)
    check_space(found, origin)
    return found


def with_flags(space: Space, flags: Mapping[str, Any]) -> Space:
    """Change a space by flags. Raises ConfigError if a key or value is wrong.

    `recipe` is another recipe, keys under `search.` change how the space is searched, a key that varies gets other
    values, and any other key is fixed to its value.
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
    for key in space.draws:
        if key in fixed:
            changed = _with_entry(changed, key, _flag_entry(changed, key, fixed.pop(key)), "flags")
    changed = replace(changed, overrides={**space.overrides, **fixed})
    check_space(changed, "flags")
    return changed


def _flag_entry(space: Space, key: str, value: Any) -> dict[str, Any]:
    """The entry of a space that the value of a flag for a key that varies stands for."""
    if isinstance(value, dict) and (SIMPLEX in value or (len(value) == 1 and next(iter(value)) in KINDS)):
        return value
    values = value if isinstance(value, list) else [value]
    if key in space.settings:
        unknown = [name for name in values if name not in space.settings[key]]
        if unknown:
            raise ConfigError(f"--{key} {unknown[0]}: the space {space.name} has {', '.join(space.settings[key])}")
        read_values(key, values, "flags")
        return {SETTINGS: {name: space.settings[key][name] for name in values}}
    return {GRID if space.search is None else CHOICE: values}


def _with_entry(space: Space, key: str, entry: Any, origin: str) -> Space:
    kind = kind_of(key, entry, origin, searching=space.search is not None)
    settings = dict(space.settings)
    draw: Draw
    if kind == SETTINGS:
        settings[key] = read_settings(key, entry[kind], origin)
        draw = Choices(tuple(settings[key]))
    elif kind in (GRID, CHOICE):
        draw = Choices(read_values(key, entry[kind], origin))
    elif kind == SIMPLEX:
        draw = read_simplex(key, entry, origin, searching=space.search is not None)
    else:
        draw = read_numbers(key, entry[kind], origin, log=kind != UNIFORM)
    return replace(space, draws={**space.draws, key: draw}, settings=settings)


def check_space(space: Space, origin: str) -> None:
    """Raise ConfigError for a key that does not exist, cannot be varied, or is both fixed and varied."""
    for key in space.overrides:
        check_key(key, origin)
    for key in space.draws:
        if key in space.settings and key in all_keys():
            raise ConfigError(f"{key} is a key of the configuration; give the settings of {origin} another name")
        for dotted in sorted(space.keys_behind(key)):
            _check_varied(space, dotted, key, origin)
    if not space.draws:
        raise ConfigError(f"`space` of {origin} holds no key; name what varies")
    if isinstance(space.search, Pbt):
        _check_population(space, origin)


def _check_varied(space: Space, dotted: str, key: str, origin: str) -> None:
    check_key(dotted, origin)
    fixed = next((other for other in space.overrides if f"{other}.".startswith(f"{dotted}.")), None)
    if fixed is not None:
        raise ConfigError(f"{fixed} is both fixed under `overrides` and varied under `space` in {origin}; keep one")
    if key != dotted and dotted in space.draws:
        raise ConfigError(f"{dotted} is varied twice in {origin}, by itself and by {key}; keep one")
    if dotted == STEPS and space.search is not None:
        raise ConfigError(f"{STEPS} is the budget of every trial of a search ({origin}); fix it under `overrides`")
    if dotted.startswith(NON_TRAINING_KEYS) or dotted == "name":
        raise ConfigError(f"{dotted} does not change what is trained ({origin}); a sweep over it compares nothing")


def _check_population(space: Space, origin: str) -> None:
    """Raise ConfigError unless alpha or the mixture is all that varies: no other key can change during training."""
    others = [key for key in space.draws if key not in (ALPHA, MIXTURE)]
    if others or len(space.draws) > 1:
        named = f"{others[0]} cannot change while a run trains; " if others else ""
        raise ConfigError(f"{named}search.method pbt in {origin} varies {ALPHA} or {MIXTURE}, and nothing else")
    ((key, draw),) = space.draws.items()
    if isinstance(draw, Simplex):
        return
    if len(draw.probes) < 2 or not all(map(_is_number if key == ALPHA else _is_constant, draw.probes)):
        what = "numbers" if key == ALPHA else "mixtures {kind: weight}"
        raise ConfigError(f"{key} in {origin}: pbt needs two {what} or more to choose from")
    if isinstance(draw, Numbers) and draw.log:
        raise ConfigError(f"{key} in {origin}: pbt takes uniform or choice")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _is_constant(mixture: Any) -> bool:
    """Whether it is a mixture, and no schedule of mixtures; what is wrong with its weights is found with the trials."""
    return isinstance(mixture, Mapping) and not any(isinstance(weight, Mapping) for weight in mixture.values())


def _mapping(value: Any, origin: str, of: str) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"{origin} must hold {of}, not {value!r}")
    return value


def _recipe(recipe: str, folder: Path) -> str:
    """The path of the recipe if it is beside the space's file, else the name or path as it was given."""
    beside = folder / recipe
    return str(beside) if recipe not in recipe_names() and beside.is_file() else recipe
