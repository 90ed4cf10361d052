"""What drives one trial of a search, in a process on the head node: segments of training, and what Ray Tune is told.

A trial may be ended or held while it reports, when none of its workers runs. This module and `alpha_schedule` travel to
that process as they are (`shipped`), for only hbtrain is installed there.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tune.search.alpha_schedule
from hbtrain.config import Config, from_tree, override
from hbtrain.errors import ConfigError, HbtrainError
from hbtrain.storage.files import lock_file
from tune.search.alpha_schedule import Schedule, label_of, read_schedule, to_alpha

STEP, RESOURCE, INTERVAL, FAILURE = "step", "resource", "interval", "failure"
"""Of what is reported: steps done; the rung as ASHA counts it; a population's interval; what went wrong."""
VALUES, KEYS, LABEL, SCHEDULE = "values", "keys", "label", "schedule"
"""Of a trial's parameters: what was drawn, the {dotted key: value} that follow, a name; a member's schedule."""
POINTER = "pointer.json"


def shipped(drive: Callable[..., Any]) -> Callable[..., Any]:
    """`drive`, to be pickled together with what it uses of `tune`."""
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cloudpickle.register_pickle_by_value(tune.search.alpha_schedule)
    return drive


def drive_search(parameters: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, str] | None:
    """Train a trial from rung to rung, and report its scores at each.

    Args:
        parameters: `keys` and `label`; or `failure`, where no configuration has these values.
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
    except HbtrainError as error:  # started again, it would end the same way
        return {FAILURE: str(error)}
    return None


def drive_member(parameters: Mapping[str, Any], plan: Mapping[str, Any]) -> dict[str, Any]:
    """Train a member of a population from interval to interval; it is held at the end of each until all are there.

    A segment that fails counts as the worst: the member then takes over another one's state, or tries again.

    Args:
        parameters: `schedule`, [[step, alpha]]; changed where the member has taken over another one.
        plan: `base`, the tree of what members share; `ends`, the steps of the intervals' ends; `objectives`, {name: key
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
    from hbtrain.runs.segments import take_over

    base = from_tree(plan["base"])
    config = member_config(base, schedule)
    if len(schedule) > 1:
        with _alone(config):
            take_over(config, donor=member_config(base, schedule[:-1]), step=schedule[-1][0])
    return _train(config, steps, plan["objectives"])


def member_config(base: Config, schedule: Schedule) -> Config:
    """The run that trains with `schedule`."""
    return override(base, {"batching.alpha": to_alpha(schedule), "tracking.run_name": label_of(schedule)})


def _report_member(interval: int, steps: int, scores: Mapping[str, float], failure: str) -> None:
    from ray.tune import Checkpoint, report

    with tempfile.TemporaryDirectory() as folder:
        # The state itself is in the run's folder, which follows from the schedule.
        (Path(folder) / POINTER).write_text(json.dumps({INTERVAL: interval, STEP: steps}), encoding="utf-8")
        told = {INTERVAL: interval, STEP: steps, FAILURE: failure, **scores}
        report(told, checkpoint=Checkpoint.from_directory(folder))


def _train(config: Config, steps: int, objectives: Mapping[str, str]) -> dict[str, float]:
    """Scores by the names of objectives, after `steps` steps."""
    from hbtrain.runs.run import train

    with _alone(config):
        scores = train(config, until=steps).scores
    missing = [key for key in objectives.values() if key not in scores]
    if missing:
        raise ConfigError(f"the objective {missing[0]} was not evaluated; there are {', '.join(sorted(scores)[:8])} …")
    return {name: scores[key] for name, key in objectives.items()}


@contextmanager
def _alone(config: Config) -> Iterator[None]:
    """Two trials may have drawn the same values: the second one waits, and finds what the first one has done.

    All trials are driven on one machine.
    """
    from hbtrain.runs.run_folder import RunFolder

    digest = hashlib.sha256(str(RunFolder.current(config).path).encode()).hexdigest()[:16]
    with lock_file(Path(tempfile.gettempdir()) / f"hbtrain-{os.getuid()}-{digest}.lock"):
        yield
