"""What a space must not hold: unknown keys, keys that are fixed and varied at once, what a search cannot vary."""

from __future__ import annotations

from hbtrain.config.keys import ELSEWHERE, all_keys, check_key
from hbtrain.errors import ConfigError
from tune.space.ranges import Numbers
from tune.space.search import ALPHA, Pbt
from tune.space.space import Space

STEPS = "training.steps"


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
    if dotted.startswith(ELSEWHERE) or dotted == "name":
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
