"""The values of a key in a space: a grid, all of which is tried, or a range or choice that a search draws from.

What reads an entry is given its key and where it comes from (a space, or flags), for the message of the ConfigError
that it raises where the entry is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hbtrain.errors import ConfigError

GRID, UNIFORM, LOGUNIFORM, CHOICE, SETTINGS = "grid", "uniform", "loguniform", "choice", "settings"
KINDS = (GRID, UNIFORM, LOGUNIFORM, CHOICE, SETTINGS)
DIGITS = 4  # significant digits of drawn numbers, so few that labels, recipes and MLflow show the exact value
INNER = 0.381966
"""Where within a range a value is checked, as a share of its width. It is hardly ever a whole number, so that a range
for a key that takes only whole numbers is refused."""


@dataclass(frozen=True)
class Numbers:
    """An interval from which a search draws numbers, uniformly or, with `log`, uniformly in their logarithm."""

    low: float
    high: float
    log: bool = False

    def recalled(self, value: object) -> float | None:
        """The value that was written to JSON as `value`; None if it cannot be drawn from here."""
        return float(value) if _is_number(value) and self.low <= value <= self.high else None  # type: ignore[arg-type, operator]

    def rounded(self, value: float) -> float:
        """A drawn value as it is used: rounded to `DIGITS` significant digits, and within the interval."""
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)

    @property
    def probes(self) -> tuple[float, ...]:
        """Values to check before a search, which stand for all: both ends and one between them."""
        return self.low, self.low + INNER * (self.high - self.low), self.high

    def to_tree(self) -> dict[str, Any]:
        return {LOGUNIFORM if self.log else UNIFORM: [self.low, self.high]}


@dataclass(frozen=True)
class Choices:
    """Values from which a search chooses."""

    values: tuple[Any, ...]

    def recalled(self, value: object) -> Any:
        return next((own for own in self.values if json.loads(json.dumps(own)) == value), None)

    @property
    def probes(self) -> tuple[Any, ...]:
        return self.values

    def to_tree(self) -> dict[str, Any]:
        return {CHOICE: list(self.values)}


Draw = Numbers | Choices


def kind_of(key: str, entry: Any, origin: str, searching: bool) -> str:
    """Which of KINDS an entry of a space is. A space that is searched has ranges and choices, others have grids."""
    kinds = (UNIFORM, LOGUNIFORM, CHOICE, SETTINGS) if searching else (GRID, SETTINGS)
    kind = next(iter(entry)) if isinstance(entry, dict) and len(entry) == 1 else None
    if kind in kinds:
        return str(kind)
    if kind in KINDS and searching:
        raise ConfigError(f"{key} = {entry!r} in {origin}: a search draws values, it tries no grid; write choice")
    hint = "; only a `search` draws from ranges" if kind in KINDS else ""
    forms = " or ".join(f"`{key}: {{{name}: {_form(name)}}}`" for name in kinds)
    raise ConfigError(f"{key} = {entry!r} in {origin}: a key that varies is written {forms}{hint}")


def _form(kind: str) -> str:
    if kind == SETTINGS:
        return "{name: {dotted key: value}}"
    return "[...]" if kind in (GRID, CHOICE) else "[low, high]"


def read_values(key: str, values: Any, origin: str) -> tuple[Any, ...]:
    """The values of a grid or a choice: at least one, and none twice."""
    if not isinstance(values, list):
        raise ConfigError(f"{key} = {values!r} in {origin}: must be a list of values")
    if not values:
        raise ConfigError(f"{key} = [] in {origin}: the range is empty; give at least one value")
    for i, value in enumerate(values):
        if value in values[:i]:
            raise ConfigError(f"{key} in {origin} lists {value!r} twice; every trial must differ")
    return tuple(values)


def read_numbers(key: str, ends: Any, origin: str, log: bool) -> Numbers:
    """The interval between two ends that ascend, above 0 with `log`."""
    kind = LOGUNIFORM if log else UNIFORM
    if not isinstance(ends, list) or len(ends) != 2 or not all(_is_number(end) for end in ends):
        raise ConfigError(f"{key} = {ends!r} in {origin}: {kind} takes two numbers, [low, high]")
    low, high = map(float, ends)
    if low >= high:
        raise ConfigError(f"{key} = {ends!r} in {origin}: the range is empty; low must be below high")
    if log and low <= 0:
        raise ConfigError(f"{key} = {ends!r} in {origin}: loguniform needs numbers above 0")
    return Numbers(low, high, log)


def read_settings(key: str, named: Any, origin: str) -> dict[str, dict[str, Any]]:
    """{name: {dotted key: value}} of named settings."""
    if not isinstance(named, Mapping) or not named:
        raise ConfigError(f"{key} = {named!r} in {origin}: settings are written {{name: {{dotted key: value}}, ...}}")
    for name, values in named.items():
        if not isinstance(name, str) or not isinstance(values, Mapping) or not values:
            raise ConfigError(f"{key}: {name!r} in {origin}: a setting is a name with {{dotted key: value}}")
        if not all(isinstance(dotted, str) for dotted in values):
            raise ConfigError(f"{key}: {name} in {origin} must hold dotted keys, not {list(values)!r}")
    return {name: dict(values) for name, values in named.items()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) != float("inf")
