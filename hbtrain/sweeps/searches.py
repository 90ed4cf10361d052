"""Runs searches with Ray Tune, and collects what became of their trials."""

from __future__ import annotations

import warnings
from contextlib import suppress
from typing import Any

from hbtrain.cluster.session import connected
from hbtrain.config import Config, to_tree
from hbtrain.errors import ConfigError
from hbtrain.evaluation.benchmarks import parse_benchmarks
from hbtrain.reporting.text import say
from hbtrain.runs.segments import finished_segment, last_segment
from hbtrain.storage import Place
from hbtrain.sweeps.drivers import (
    RESOURCE,
    SCHEDULE,
    drive_member,
    drive_search,
    label_of,
    member_config,
    read_schedule,
    scheduled_key,
    to_value,
)
from hbtrain.sweeps.points import Finished
from hbtrain.sweeps.search_methods import Asha, Pareto, Pbt, Search, is_minimised
from hbtrain.sweeps.search_records import Ledger, SearchOutcome, Stopped, known_points
from hbtrain.sweeps.space import Space, Trial, trial_of
from hbtrain.sweeps.tuning import ON_HEAD, at_address, concurrent_trials, failures_of, fit, set_up_tune

HEAD_SHARE = 0.99
"""Share of Tune's resource of the head node that the drivers of a population's members use together, which limits how
many run in parallel."""


def search(space: Space, base: Config, folder: Place) -> SearchOutcome:
    """Search a space with Ray Tune.

    Args:
        space: whose `search` is not None.
        base: the configuration that trials share, with the sweep's storage and tracking.
        folder: of the sweep; Tune keeps its records there.

    Raises:
        ConfigError: the cluster is too small for a trial, or does not answer.
        TrainingError: the cluster was lost.
        KeyboardInterrupt: Ctrl-C was pressed; the trials have been stopped.
    """
    wanted = space.search
    assert wanted is not None
    set_up_tune()
    with connected(base, say) as hardware:
        side_by_side = concurrent_trials(base, hardware)
        base = at_address(base)
        ledger = Ledger(folder / "points.jsonl")
        plan: dict[str, Any] = {"base": to_tree(base), "objectives": _score_keys(wanted, base)}
        if isinstance(wanted, Pbt):
            return _members(base, _fit_population(space, wanted, base, plan, folder, side_by_side))
        results = _fit_search(space, wanted, base, ledger, plan, folder, side_by_side)
        return _trials(space, base, ledger, results)


def _fit_search(
    space: Space,
    wanted: Asha | Pareto,
    base: Config,
    ledger: Ledger,
    plan: dict[str, Any],
    folder: Place,
    side_by_side: int,
) -> Any:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    from hbtrain.sweeps.progress import SearchProgress
    from hbtrain.sweeps.suggestions import Suggestions

    scheduler = None
    reduction = 1.0
    rungs = wanted.stops(base.training.steps)
    if isinstance(wanted, Asha):
        reduction = wanted.reduction
        # Tune's ASHA has rungs at powers of the reduction, ours may be at any steps: rung n is reported as reduction^n.
        scheduler = ASHAScheduler(
            time_attr=RESOURCE,
            metric=wanted.objective,
            mode="min" if is_minimised(wanted.objective) else "max",
            grace_period=1,
            reduction_factor=reduction,
            max_t=reduction ** (len(rungs) - 0.5),
        )
    plan["rungs"] = [(steps, reduction**rung) for rung, steps in enumerate(rungs)]
    return fit(
        tune.with_resources(tune.with_parameters(drive_search, plan=plan), ON_HEAD),
        {},
        folder,
        SearchProgress(wanted.objectives, wanted.trials, base.training.steps),
        wanted.trials,
        search_alg=Suggestions(space, base, ledger),
        scheduler=scheduler,
        num_samples=wanted.trials,
        max_concurrent_trials=side_by_side,
    )


def _fit_population(
    space: Space, wanted: Pbt, base: Config, plan: dict[str, Any], folder: Place, side_by_side: int
) -> Any:
    from ray import tune

    from hbtrain.sweeps.population import Population, first_values
    from hbtrain.sweeps.progress import SearchProgress

    # Paused members lose their processes, which hold no state: it is in the folders of their runs.
    warnings.filterwarnings("ignore", message="Consider boosting PBT performance")
    ends = wanted.stops(base.training.steps)
    plan |= {"ends": ends, "worst": float("inf") if is_minimised(wanted.objective) else float("-inf")}
    (draw,) = space.draws.values()  # of alpha, or of the mixture
    first = [[[0, value]] for value in first_values(draw, wanted)]
    # Tune counts paused members as running, so their number must be limited by the resources of their drivers.
    share = int(HEAD_SHARE / side_by_side * 10_000) / 10_000
    on_head = dict.fromkeys(ON_HEAD, max(share, *ON_HEAD.values()))
    return fit(
        tune.with_resources(tune.with_parameters(drive_member, plan=plan), on_head),
        {SCHEDULE: tune.grid_search(first)},
        folder,
        SearchProgress(wanted.objectives, wanted.population, base.training.steps),
        wanted.population,
        scheduler=Population(wanted, draw, ends),
    )


def _trials(space: Space, base: Config, ledger: Ledger, results: Any) -> SearchOutcome:
    """What became of the trials, read from the folders of their runs."""
    outcome = SearchOutcome(failures=failures_of(results))
    for values in known_points(space, ledger)[: len(results)]:
        if space.label(values) in outcome.failures:
            with suppress(ConfigError):  # its values are not allowed
                outcome.failed.append(trial_of(space, base, values))
            continue
        trial = trial_of(space, base, values)
        if (done := finished_segment(trial.config, base.training.steps)) is not None:
            outcome.finished.append(Finished(trial, done.scores, done.folder.path))
        elif (last := last_segment(trial.config)) is not None:
            outcome.stopped.append(Stopped(trial, last.scores, last.folder.path, last.step))
    return outcome


def _members(base: Config, results: Any) -> SearchOutcome:
    """What became of the members of a population, with the schedules that they ended with."""
    outcome = SearchOutcome(failures=failures_of(results))
    for result in results:
        schedule = read_schedule(result.config[SCHEDULE])
        config = member_config(base, schedule)
        if (done := finished_segment(config, base.training.steps)) is not None:
            trial = Trial(label_of(schedule), {scheduled_key(schedule): to_value(schedule)}, config)
            member = Finished(trial, done.scores, done.folder.path)
            outcome.members.append((schedule, member))
            if member not in outcome.finished:  # two members may have one schedule
                outcome.finished.append(member)
    return outcome


def _score_keys(wanted: Search, base: Config) -> dict[str, str]:
    """{objective: key of its score on the first benchmark}."""
    benchmark = parse_benchmarks(base.evaluation.benchmarks[:1], base.data.catalogue)[0].name
    return {name: f"{benchmark}/{name}" for name in wanted.objectives}
