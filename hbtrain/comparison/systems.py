"""Systems, the rows of a comparison: runs that differ only in their seed are one system."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from hbtrain.comparison.runs import Run
from hbtrain.config.batching import Shares, mixture_points, ratio, read_mixture
from hbtrain.config.keys import check_key, of_training
from hbtrain.errors import ConfigError, DataError
from hbtrain.reporting.metric_names import CROSS, HYBRID, MIXTURE, MONO, SETTINGS, TITLES
from hbtrain.reporting.text import counted

MOST_DIFFERENCES = 3  # if systems differ in more keys, labels have the names of runs instead of the values of keys

MOST_CHANGES = 4  # how many values of a schedule of alpha or of mixtures a label shows

NO_GROUPS = "run"  # with `--group-by run`, every run is a system


@dataclass(frozen=True, eq=False)
class System:
    """One or more runs of the same training."""

    label: str
    runs: tuple[Run, ...]
    sampling: str | None  # one of TITLES; None for a model whose training is not known
    alpha: float | None  # the share of monolingual batches, if it is one number

    @property
    def trained_languages(self) -> tuple[str, ...] | None:
        """The languages that all of its runs were trained on; None if a run's are not known."""
        known = [run.trained_languages for run in self.runs]
        if any(languages is None for languages in known):
            return None
        return tuple(x for x in known[0] or () if all(x in (languages or ()) for languages in known))


def systems_of(runs: Sequence[Run], group_by: Sequence[str] | None, names: Sequence[str] | None) -> list[System]:
    """The systems of `runs`, in the order of their first runs; within a system runs are sorted by seed.

    Args:
        runs: without repetitions.
        group_by: runs with equal values of these dotted keys are one system; `["run"]` makes every run a system; None
            stands for all keys that decide what is trained, but the seed.
        names: labels to use instead of those made from the configurations.

    Raises:
        ConfigError: a key is unknown, or there are more or fewer names than systems.
        DataError: two runs of one system have the same seed.
    """
    groups: dict[str, list[Run]] = {}
    for number, run in enumerate(runs):
        groups.setdefault(_identity(run, number, group_by), []).append(run)
    grouped = [tuple(sorted(group, key=lambda run: (_seed(run), run.name))) for group in groups.values()]
    for group in grouped:
        _check_seeds(group)
    labels = list(names) if names else _labels(grouped)
    if len(labels) != len(grouped):
        found = ", ".join(
            f"{label} ({counted(len(group), 'run')})" for label, group in zip(_labels(grouped), grouped, strict=True)
        )
        raise ConfigError(f"--names has {len(labels)} names for {len(grouped)} systems: {found}")
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(f"--names names {twice!r} twice; every system needs a name of its own")
    return [
        System(label, group, _sampling(group[0]), _alpha(group[0]))
        for label, group in zip(labels, grouped, strict=True)
    ]


def in_table_order(systems: Sequence[System]) -> list[System]:
    """Sorted by sampling, then by alpha from high to low; systems of unknown training come last."""
    samplings = list(TITLES)
    return sorted(
        systems,
        key=lambda s: (samplings.index(s.sampling) if s.sampling else len(samplings), -(s.alpha or 0.0)),
    )


def _identity(run: Run, number: int, group_by: Sequence[str] | None) -> str:
    config = run.config
    if group_by == [NO_GROUPS] or config is None:
        return f"run {number}"
    if group_by is None:
        return json.dumps(sorted(item for item in _training_keys(run).items() if item[0] != "seed"))
    for key in group_by:
        check_key(key, "--group-by")
    keys = [key for key in config if any(key == given or key.startswith(f"{given}.") for given in group_by)]
    return json.dumps([[key, config[key]] for key in sorted(keys)])


def _check_seeds(group: tuple[Run, ...]) -> None:
    """Raise DataError if a training was run twice with one seed: the spread over seeds would look smaller."""
    for i, run in enumerate(group):
        for other in group[:i]:
            if run.config is not None and _training_keys(run) == _training_keys(other):
                raise DataError(
                    f"runs {other.given} and {run.given} are the same training, seed and all; leave one out"
                )


def _training_keys(run: Run) -> dict[str, object]:
    """{key: value} of what decides the training: not the run's name, its folders, workers or evaluation."""
    return {key: value for key, value in of_training(run.config or {}).items() if key != "name"}


def _seed(run: Run) -> int:
    return int((run.config or {}).get("seed") or 0)


def _sampling(run: Run) -> str | None:
    if run.config is None:
        return None
    mode = str(run.config.get("batching.mode"))
    if mode == HYBRID and (points := _mixture(run)) is not None:
        kinds = {kind for shares in points.values() for kind in shares}
        if len(kinds) > 1:
            return HYBRID if kinds == {"mono", "cross"} else MIXTURE
        return SETTINGS.get(kinds.pop(), MIXTURE)
    if mode == HYBRID and _alpha(run) in (0.0, 1.0):
        return MONO if _alpha(run) == 1.0 else CROSS
    return mode if mode in TITLES else None


def _mixture(run: Run) -> dict[int, Shares] | None:
    """The points of `batching.mixture`; None if the run has none, or one that this version does not know."""
    prefix = "batching.mixture."
    weights: dict[str, Any] = {}
    for key, value in (run.config or {}).items():
        if key.startswith(prefix):
            *steps, kind = key.removeprefix(prefix).split(".")
            (weights.setdefault(steps[0], {}) if steps else weights)[kind] = value
    try:
        return mixture_points(read_mixture(weights))
    except ValueError:
        return None


def _alpha(run: Run) -> float | None:
    config = run.config or {}
    points = _mixture(run)
    if points is not None:
        (first, *others) = points.values()
        return None if others or not first.keys() <= {"mono", "cross"} else first.get("mono", 0.0)
    alpha = config.get("batching.alpha")
    return float(alpha) if config.get("batching.mode") == HYBRID and isinstance(alpha, int | float) else None


def _schedule(run: Run) -> str:
    """The values of a schedule of alpha or of mixtures, such as `0.3 → 0.5`; of a long one the first and the last."""
    mixture = _mixture(run)
    values = _alphas(run) if mixture is None else [ratio(shares) for shares in mixture.values()]
    changes = [value for value, _ in groupby(values)]
    return " → ".join(changes if len(changes) <= MOST_CHANGES else [*changes[: MOST_CHANGES - 1], "…", changes[-1]])


def _alphas(run: Run) -> list[str]:
    config = run.config or {}
    given = config.get("batching.alpha")
    prefix = "batching.alpha."
    points = (
        given
        if isinstance(given, dict)
        else {k.removeprefix(prefix): config[k] for k in config if k.startswith(prefix)}
    )
    return [f"{points[step]:g}" for step in sorted(points, key=int)]


def _labels(groups: Sequence[tuple[Run, ...]]) -> list[str]:
    configs = [group[0].config for group in groups if group[0].config is not None]
    told = ("batching.alpha", "batching.mixture")
    keys = sorted({key for config in configs for key in of_training(config) if not key.startswith(told)})
    varying = [
        key
        for key in keys
        if key not in ("seed", "name", "batching.mode") and len({_shown(config.get(key)) for config in configs}) > 1
    ]
    labels = [_label(group[0], varying) for group in groups]
    return [
        label if labels.count(label) == 1 else f"{label} [{group[0].given}]"
        for label, group in zip(labels, groups, strict=True)
    ]


def _label(run: Run, varying: Sequence[str]) -> str:
    sampling = _sampling(run)
    if run.config is None or sampling is None:
        model = run.about.get("model")
        return str(model).rstrip("/").rsplit("/", 1)[-1] if model else run.name
    label = TITLES[sampling]
    alpha, mixture = _alpha(run), _mixture(run)
    if alpha is not None:
        label += f" (α = {alpha:g})"
    elif sampling in (HYBRID, MIXTURE):
        label += f" ({'α ' if mixture is None else ''}{_schedule(run)})"
    if len(varying) > MOST_DIFFERENCES:
        return f"{label}, {run.config.get('name')}"
    return ", ".join([label, *(f"{key.rsplit('.', 1)[-1]}={_shown(run.config.get(key))}" for key in varying)])


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "+".join(str(part).rsplit("/", 1)[-1] for part in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
