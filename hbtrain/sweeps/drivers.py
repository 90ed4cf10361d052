"""Drives one trial, in a process of its own on the head node: trains it, and reports its scores to Ray Tune.

A trial of a grid is trained in full. One of a search is trained in segments, and reports its scores after each; Ray
Tune may then stop or pause it, as none of its workers runs.

A member of a population trains with a schedule of alpha or of the mixture, [(step, value), ...], whose first step is
0: the key has each value from that step on. The configuration joins points by straight lines, so a change at step s
becomes two points, at s - 1 and at s, which are the same at whole steps.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hbtrain.cluster.trial_stop import trial_at_work
from hbtrain.config import Config, from_tree, override
from hbtrain.errors import ConfigError, HbtrainError
from hbtrain.storage.files import lock_file
from hbtrain.storage.place import own_temporary_folder
from hbtrain.sweeps.ranges import ALPHA, MIXTURE
from hbtrain.sweeps.space import short_name, shown

STEP, RESOURCE, INTERVAL, FAILURE = "step", "resource", "interval", "failure"
"""Keys of a driver's report: steps trained, the rung in ASHA's measure, the interval of a population, an error."""
VALUES, KEYS, LABEL, SCHEDULE = "values", "keys", "label", "schedule"
"""Keys of a trial's parameters: drawn values, {dotted key: value} that they set, a name; a member's schedule."""
TRIAL, NUMBER = "trial", "number"
"""The only parameter of a grid's trial: its number, as labels may be alike, and its label."""
POINTER = "pointer.json"
"""The only file of a member's checkpoint in Ray Tune: the number of its interval. Its state is in the run's folder."""

GOES_ON = "the same command goes on: finished trials are kept, others go on from their last checkpoint"

Value = float | dict[str, float]  # of alpha, or of the mixture: {kind: weight}
Schedule = tuple[tuple[int, Value], ...]


def read_schedule(changes: Sequence[Sequence[Any]]) -> Schedule:
    """A schedule from lists of [step, value], as JSON has them."""
    return tuple((int(step), dict(value) if isinstance(value, Mapping) else float(value)) for step, value in changes)


def extended(schedule: Schedule, step: int, value: Value) -> Schedule:
    """`schedule` with `value` from `step` on, after its last change; `schedule` itself if that is no change."""
    if step <= schedule[-1][0]:
        raise ValueError(f"step {step} is not after the last change, {schedule[-1][0]}")
    return schedule if schedule[-1][1] == value else (*schedule, (step, value))


def scheduled_key(schedule: Schedule) -> str:
    """The key whose values a schedule has."""
    return MIXTURE if isinstance(schedule[0][1], Mapping) else ALPHA


def to_value(schedule: Schedule) -> Value | dict[int, Value]:
    """The schedule as a value of its key: the only one if it never changes, else points {step: value}."""
    if len(schedule) == 1:
        return schedule[0][1]
    points: dict[int, Value] = {}
    before = schedule[0][1]
    for step, value in schedule:
        if step > 0:
            points[step - 1] = before
        points[step] = before = value
    return points


def label_of(schedule: Schedule) -> str:
    """The name of a schedule: `alpha=0.3`, or `alpha=0.3, 0.36 from 100`."""
    key = scheduled_key(schedule)
    first, *changes = [(step, shown(value, key)) for step, value in schedule]
    return ", ".join([f"{short_name(key)}={first[1]}", *(f"{value} from {step}" for step, value in changes)])


def trial_label(parameters: Mapping[str, Any]) -> str:
    """The name of a trial, from its parameters; a member of a population is called by its schedule."""
    if SCHEDULE in parameters:
        return label_of(read_schedule(parameters[SCHEDULE]))
    return str(parameters.get(TRIAL, parameters).get(LABEL, "a trial"))


def run_trial(parameters: Mapping[str, Any], trees: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Train a trial of a grid, of whose configurations `trees` are; returns {FAILURE: why it failed, or nothing}."""
    from hbtrain.runs.run import train

    try:
        with trial_at_work():
            train(from_tree(trees[parameters[TRIAL][NUMBER]]))
    except HbtrainError as error:  # returned, not raised: Tune would start the trial again, and it would fail again
        return {FAILURE: str(error)}
    return {FAILURE: ""}


def drive_search(parameters: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, str] | None:
    """Train a trial from rung to rung, and report its scores at each.

    Args:
        parameters: `keys` and `label`; or `failure`, if the configuration does not allow the drawn values.
        plan: `base`, the tree of what trials share; `rungs`, [(steps, resource)]; `objectives`, {name: key of a score}.
    """
    from ray.tune import report

    if FAILURE in parameters:
        return {FAILURE: parameters[FAILURE]}
    try:
        config = override(from_tree(plan["base"]), {**parameters[KEYS], "tracking.run_name": parameters[LABEL]})
        for steps, resource in plan["rungs"]:
            scores = _train(config, steps, plan["objectives"])
            report({STEP: steps, RESOURCE: resource, **scores})
    except HbtrainError as error:  # as in `run_trial`
        return {FAILURE: str(error)}
    return None


def drive_member(parameters: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Train a member of a population from interval to interval; after each it is paused until all have ended it.

    A segment that fails gets the worst score, so that the member takes over another one's state, or tries again.

    Args:
        parameters: `schedule`, [[step, value]], which has changed if the member has taken over another one's state.
        plan: `base`, the tree of what members share; `ends`, the steps at which intervals end; `objectives`, {name: key
            of a score}; `worst`, the worst score.
    """
    from ray.tune import get_checkpoint

    schedule, ends = read_schedule(parameters[SCHEDULE]), plan["ends"]
    pointer = get_checkpoint()
    done = 0
    if pointer is not None:
        with pointer.as_directory() as folder:
            done = json.loads((Path(folder) / POINTER).read_text(encoding="utf-8"))[INTERVAL]
    failure = ""
    for interval, steps in enumerate(ends[done:], start=done + 1):
        try:
            scores = _train_member(schedule, steps, plan)
            failure = ""
        except HbtrainError as error:
            scores, failure = dict.fromkeys(plan["objectives"], plan["worst"]), str(error)
        if interval < len(ends):
            _report_member(interval, steps, scores, failure)
    return {STEP: ends[-1], FAILURE: failure, **scores}


def _train_member(schedule: Schedule, steps: int, plan: Mapping[str, Any]) -> dict[str, float]:
    from hbtrain.runs.segments import fork_run

    base = from_tree(plan["base"])
    config = member_config(base, schedule)
    if len(schedule) > 1:
        with _exclusive_run(config):
            fork_run(config, origin=member_config(base, schedule[:-1]), step=schedule[-1][0])
    return _train(config, steps, plan["objectives"])


def member_config(base: Config, schedule: Schedule) -> Config:
    changes = {scheduled_key(schedule): to_value(schedule), "tracking.run_name": label_of(schedule)}
    return override(base, changes)


def _report_member(interval: int, steps: int, scores: Mapping[str, float], failure: str) -> None:
    from ray.tune import Checkpoint, report

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / POINTER).write_text(json.dumps({INTERVAL: interval, STEP: steps}), encoding="utf-8")
        result = {INTERVAL: interval, STEP: steps, FAILURE: failure, **scores}
        report(result, checkpoint=Checkpoint.from_directory(folder))


def _train(config: Config, steps: int, objectives: Mapping[str, str]) -> dict[str, float]:
    """Train until `steps`; returns {objective: score}."""
    from hbtrain.runs.run import train

    with _exclusive_run(config), trial_at_work():
        scores = train(config, until=steps).scores
    missing = [key for key in objectives.values() if key not in scores]
    if missing:
        raise ConfigError(f"the objective {missing[0]} was not evaluated; there are {', '.join(sorted(scores)[:8])} …")
    return {name: scores[key] for name, key in objectives.items()}


@contextmanager
def _exclusive_run(config: Config) -> Iterator[None]:
    """Lock the run of a configuration: of two trials with the same values, the second waits and finds the first's work.

    A lock of this machine is enough, as all trials are driven on the head node. Other users cannot take it first.
    """
    from hbtrain.runs.run_folder import RunFolder

    digest = hashlib.sha256(str(RunFolder.current(config).path).encode()).hexdigest()[:16]
    with lock_file(own_temporary_folder(f"hbtrain-locks-{os.getuid()}") / f"{digest}.lock"):
        yield
