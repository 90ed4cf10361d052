"""The values of a key in a space: a grid, all of which is tried, or a range or choice that a search draws from.

What reads an entry is given its key and where it comes from (a space, or flags), for the message of the ConfigError
that it raises where the entry is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from hbtrain.config.batching import KINDS as KINDS_OF_BATCHES
from hbtrain.errors import ConfigError

ALPHA, MIXTURE = "batching.alpha", "batching.mixture"  # keys that may change while a run trains
GRID, UNIFORM, LOGUNIFORM, CHOICE, SETTINGS = "grid", "uniform", "loguniform", "choice", "settings"
SIMPLEX, STEP = "simplex", "step"
KINDS = (GRID, UNIFORM, LOGUNIFORM, CHOICE, SETTINGS, SIMPLEX)
DIGITS = 4  # significant digits of drawn numbers, so few that labels, recipes and MLflow show the exact value
INNER = 0.381966
"""Where within a range a value is checked, as a share of its width. It is hardly ever a whole number, so that a range
for a key that takes only whole numbers is refused."""
PARTS = 1000  # weights of a drawn mixture are multiples of 1/PARTS, so that labels and MLflow show them exactly
MOST_STEPS = 20  # from one end of a side of a grid of mixtures to the other; with three kinds, 231 mixtures


@dataclass(frozen=True)
class Numbers:
    """An interval from which a search draws numbers, uniformly or, with `log`, uniformly in their logarithm."""

    low: float
    high: float
    log: bool = False

    def recalled(self, value: object) -> float:
        """The value that was written to JSON as `value`. Raises ValueError where it cannot be drawn from here."""
        if _is_number(value) and self.low <= value <= self.high:  # type: ignore[operator]
            return float(value)  # type: ignore[arg-type]
        raise ValueError(f"{value!r} is not from {self.low} to {self.high}")

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
        """The value, null among them, that was written to JSON as `value`. Raises ValueError where it is no choice."""
        for own in self.values:
            if json.loads(json.dumps(own)) == value:
                return own
        raise ValueError(f"{value!r} is not among the choices")

    @property
    def probes(self) -> tuple[Any, ...]:
        return self.values

    def to_tree(self) -> dict[str, Any]:
        return {CHOICE: list(self.values)}


@dataclass(frozen=True)
class Simplex:
    """All mixtures {kind: weight} of some kinds of batches, their weights of 0 or more summing to 1.

    A search draws them uniformly, by one number less than there are kinds, each uniform in [0, 1]: a stick is broken,
    what is left after n of K kinds being (uniform number n)^(1 / (K - n)) of what was left before. So neighbouring
    numbers are neighbouring mixtures, and each mixture has its numbers, which a sampler can learn from.
    """

    kinds: tuple[str, ...]

    @property
    def dimensions(self) -> int:
        return len(self.kinds) - 1

    def mixture(self, uniforms: Sequence[float]) -> dict[str, float]:
        """The mixture of uniform numbers, as many as `dimensions`."""
        weights, left = [], 1.0
        for number, uniform in enumerate(uniforms):
            kept = left * uniform ** (1 / (self.dimensions - number))
            weights.append(left - kept)
            left = kept
        return self.rounded([*weights, left])

    def uniforms(self, mixture: Mapping[str, float]) -> list[float]:
        """The uniform numbers whose mixture it is."""
        found, left = [], 1.0
        for number, kind in enumerate(self.kinds[:-1]):
            kept = max(left - mixture[kind], 0.0)
            found.append(min((kept / left) ** (self.dimensions - number), 1.0) if left > 0 else 0.5)
            left = kept
        return found

    def rounded(self, weights: Sequence[float]) -> dict[str, float]:
        """The mixture in proportion to weights of the kinds, rounded to multiples of 1/PARTS that sum to 1."""
        exact = [PARTS * weight / sum(weights) for weight in weights]
        parts = [int(one + 1e-6) for one in exact]
        by_remainder = sorted(range(len(parts)), key=lambda i: parts[i] - exact[i])
        for i in by_remainder[: PARTS - sum(parts)]:
            parts[i] += 1
        return {kind: part / PARTS for kind, part in zip(self.kinds, parts, strict=True)}

    def recalled(self, value: object) -> dict[str, float]:
        """The mixture that was written to JSON as `value`. Raises ValueError where it cannot be drawn from here."""
        if isinstance(value, Mapping) and set(value) == set(self.kinds) and all(map(_is_number, value.values())):
            weights = [float(value[kind]) for kind in self.kinds]
            if (
                min(weights) >= 0
                and sum(weights) > 0
                and (rounded := self.rounded(weights)) == dict(zip(self.kinds, weights, strict=True))
            ):
                return rounded
        raise ValueError(f"{value!r} is no mixture of {', '.join(self.kinds)} that is drawn")

    @property
    def probes(self) -> tuple[dict[str, float], ...]:
        """Mixtures to check before a search, which stand for all: the middle, and each kind alone."""
        alone = [self.rounded([float(kind == one) for kind in self.kinds]) for one in self.kinds]
        return self.rounded([1.0] * len(self.kinds)), *alone

    def to_tree(self) -> dict[str, Any]:
        return {SIMPLEX: list(self.kinds)}


Draw = Numbers | Choices | Simplex


def kind_of(key: str, entry: Any, origin: str, searching: bool) -> str:
    """Which of KINDS an entry of a space is. A space that is searched has ranges and choices, others have grids."""
    kinds = (UNIFORM, LOGUNIFORM, CHOICE, SETTINGS) if searching else (GRID, SETTINGS)
    kind = next(iter(entry)) if isinstance(entry, dict) and len(entry) == 1 else None
    if isinstance(entry, dict) and SIMPLEX in entry:
        return SIMPLEX
    if kind in kinds:
        return str(kind)
    if kind in KINDS and searching:
        raise ConfigError(f"{key} = {entry!r} in {origin}: a search draws values, it tries no grid; write choice")
    hint = "; only a `search` draws from ranges" if kind in KINDS else ""
    forms = " or ".join(f"`{key}: {{{name}: {_form(name)}}}`" for name in (*kinds, *[SIMPLEX] * (key == MIXTURE)))
    raise ConfigError(f"{key} = {entry!r} in {origin}: a key that varies is written {forms}{hint}")


def _form(kind: str) -> str:
    if kind == SIMPLEX:
        return "[kinds of batches], ..."
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


def read_simplex(key: str, entry: Mapping[str, Any], origin: str, searching: bool) -> Draw:
    """All mixtures of the kinds in an entry; without a search, those whose weights are multiples of its `step`."""
    told = f"{key} = {dict(entry)!r} in {origin}"
    if key != MIXTURE:
        raise ConfigError(f"{told}: a simplex is of mixtures of kinds of batches, and only {MIXTURE} varies over it")
    kinds, step = entry[SIMPLEX], entry.get(STEP, 0)
    if entry.keys() - {SIMPLEX, STEP} or (searching and STEP in entry):
        wanted = f"{{{SIMPLEX}: [kinds of batches]" + ("}" if searching else f", {STEP}: 0.25}}")
        raise ConfigError(f"{told}: {'a search draws any weights; ' if searching else ''}write {wanted}")
    if (
        not isinstance(kinds, list)
        or len(kinds) < 2
        or any(kind not in KINDS_OF_BATCHES or kinds.count(kind) > 1 for kind in kinds)
    ):
        raise ConfigError(f"{told}: {SIMPLEX} takes a list of two kinds or more, of {', '.join(KINDS_OF_BATCHES)}")
    simplex = Simplex(tuple(kind for kind in KINDS_OF_BATCHES if kind in kinds))
    if searching:
        return simplex
    steps = round(1 / step) if _is_number(step) and step * MOST_STEPS >= 1 else 0
    if not steps or abs(steps * step - 1) > 0.01:
        raise ConfigError(
            f"{told}: {STEP} must be 1 over a whole number, such as 0.25 or 0.2, and {1 / MOST_STEPS:g} or more"
        )
    return Choices(tuple(_multiples(simplex.kinds, steps)))


def _multiples(kinds: Sequence[str], steps: int) -> list[dict[str, float]]:
    """The mixtures of kinds whose weights are multiples of 1/steps."""
    counts = product(range(steps, -1, -1), repeat=len(kinds))
    return [
        {kind: count / steps for kind, count in zip(kinds, one, strict=True)} for one in counts if sum(one) == steps
    ]


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
