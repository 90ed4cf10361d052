"""Runs searches with Ray Tune, and collects what became of their trials."""

from __future__ import annotations

import warnings
from typing import Any

from hbtrain.cluster.session import connected
from hbtrain.config import Config, to_tree
from hbtrain.evaluation.benchmarks import parse_benchmark
from hbtrain.runs.segments import finished_segment, last_segment
from hbtrain.storage import Place
from hbtrain.sweeps.drivers import (
    RESOURCE,
    SCHEDULE,
    Schedule,
    drive_member,
    drive_search,
    label_of,
    member_config,
    read_schedule,
    to_alpha,
    trial_label,
)
from hbtrain.sweeps.points import Finished
from hbtrain.sweeps.search_methods import ALPHA, Asha, Pbt, is_minimised
from hbtrain.sweeps.search_records import Ledger, Member, SearchOutcome, Stopped, known_points
from hbtrain.sweeps.space import Space, Trial, trial_of
from hbtrain.sweeps.tuning import ON_HEAD, at_address, concurrent_trials, failure_of, fit, say, set_up_tune

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
    set_up_tune()
    with connected(base, say) as hardware:
        side_by_side = concurrent_trials(base, hardware)
        base = at_address(base)
        ledger = Ledger(folder / "points.jsonl")
        if isinstance(space.search, Pbt):
            results = _fit_population(space, space.search, base, folder, side_by_side)
            return _members(space, base, results)
        results = _fit_search(space, base, folder, ledger, side_by_side)
        return _trials(space, base, ledger, results)


def _fit_search(space: Space, base: Config, folder: Place, ledger: Ledger, side_by_side: int) -> Any:
    from ray import tune
    from ray.tune.schedulers import ASHAScheduler

    from hbtrain.sweeps.suggestions import Suggestions

    wanted = space.search
    assert wanted is not None and not isinstance(wanted, Pbt)
    scheduler = None
    reduction = 1.0
    rungs = wanted.rung_steps(base.training.steps)
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
    plan = {
        "base": to_tree(base),
        "rungs": [(steps, reduction**rung) for rung, steps in enumerate(rungs)],
        "objectives": _score_keys(space, base),
    }
    return _run(
        tune.with_resources(tune.with_parameters(drive_search, plan=plan), ON_HEAD),
        folder,
        space,
        base,
        tune.TuneConfig(
            search_alg=Suggestions(space, base, ledger),
            scheduler=scheduler,
            num_samples=wanted.trials,
            max_concurrent_trials=side_by_side,
            trial_dirname_creator=_dirname,
        ),
        trials=wanted.trials,
    )


def _fit_population(space: Space, wanted: Pbt, base: Config, folder: Place, side_by_side: int) -> Any:
    from ray import tune

    from hbtrain.sweeps.population import Population, first_alphas

    # Paused members lose their processes, which hold no state: it is in the folders of their runs.
    warnings.filterwarnings("ignore", message="Consider boosting PBT performance")
    ends = wanted.interval_ends(base.training.steps)
    plan = {
        "base": to_tree(base),
        "ends": ends,
        "objectives": _score_keys(space, base),
        "worst": float("inf") if is_minimised(wanted.objective) else float("-inf"),
    }
    draw = space.draws[ALPHA]
    first = [[[0, alpha]] for alpha in first_alphas(draw, wanted)]
    # Tune counts paused members as running, so their number must be limited by the resources of their drivers.
    share = int(HEAD_SHARE / side_by_side * 10_000) / 10_000
    on_head = dict.fromkeys(ON_HEAD, max(share, *ON_HEAD.values()))
    return _run(
        tune.with_resources(tune.with_parameters(drive_member, plan=plan), on_head),
        folder,
        space,
        base,
        tune.TuneConfig(scheduler=Population(wanted, draw, ends), trial_dirname_creator=_dirname),
        trials=wanted.population,
        param_space={SCHEDULE: tune.grid_search(first)},
    )


def _run(
    trainable: Any, folder: Place, space: Space, base: Config, how: Any, trials: int, param_space: Any = None
) -> Any:
    """Run Tune and return its results. Raises KeyboardInterrupt if it was stopped before all trials had ended."""
    from hbtrain.sweeps.progress import SearchProgress

    assert space.search is not None
    progress = SearchProgress(space.search.objectives, trials, base.training.steps)
    results = fit(trainable, folder, how, progress, param_space or {})
    if len(results) < trials or any(r.error is None and not (r.metrics or {}).get("done") for r in results):
        raise KeyboardInterrupt
    return results


def _trials(space: Space, base: Config, ledger: Ledger, results: Any) -> SearchOutcome:
    """What became of the trials, read from the folders of their runs."""
    outcome = SearchOutcome(failures=_failures(results))
    for values in known_points(space, ledger)[: len(results)]:
        if space.label(values) in outcome.failures:
            continue
        trial = trial_of(space, base, values)
        done = finished_segment(trial.config, base.training.steps)
        last = last_segment(trial.config) if done is None else None
        if done is not None:
            outcome.finished.append(Finished(trial, done.scores, done.folder.path))
        elif last is not None:
            outcome.stopped.append(Stopped(trial, last.step, last.scores, last.folder.path))
    return outcome


def _members(space: Space, base: Config, results: Any) -> SearchOutcome:
    """What became of the members of a population, with the schedules of alpha that they ended with."""
    outcome = SearchOutcome(failures=_failures(results))
    for result in results:
        schedule: Schedule = read_schedule(result.config[SCHEDULE])
        config = member_config(base, schedule)
        done = finished_segment(config, base.training.steps)
        if done is None:
            continue
        trial = Trial(label_of(schedule), {ALPHA: to_alpha(schedule)}, config)
        if done.folder.path not in [one.folder for one in outcome.finished]:  # two members may have one schedule
            outcome.finished.append(Finished(trial, done.scores, done.folder.path))
        outcome.members.append(Member(schedule, done.scores, done.folder.path))
    return outcome


def _failures(results: Any) -> dict[str, str]:
    failures: dict[str, str] = {}
    for result in results:
        failure = failure_of(result)
        if failure:
            failures[trial_label(result.config or {})] = failure
    return failures


def _score_keys(space: Space, base: Config) -> dict[str, str]:
    """{objective: key of its score on the first benchmark}."""
    assert space.search is not None
    benchmark = parse_benchmark(base.evaluation.benchmarks[0]).name
    return {name: f"{benchmark}/{name}" for name in space.search.objectives}


def _dirname(trial: Any) -> str:
    """Name of a trial's folder in Tune's records; by default it would have the drawn values, which may be any text."""
    return str(trial.trial_id)
