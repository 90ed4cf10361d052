"""Runs trials with Ray Tune, in parallel as far as the cluster's CPUs and GPUs allow. Each is a run of Ray Train.

This file has what grids and searches share, and runs grids.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from hbtrain.cluster.session import connected
from hbtrain.cluster.termination import asked_by, postponed_termination
from hbtrain.config import Config, override, to_tree
from hbtrain.errors import Terminated, TrainingError
from hbtrain.reporting.text import say
from hbtrain.storage import Place, quoted
from hbtrain.sweeps.drivers import FAILURE, GOES_ON, LABEL, NUMBER, TRIAL, run_trial, trial_label
from hbtrain.sweeps.space import Trial

RESTARTS = 2
"""How often a trial is started again after its driver died. Ray Train takes care of the deaths of workers."""

ON_HEAD = {"node:__internal_head__": 0.001}
"""Resources of a trial's driver: it runs on the head node and reserves no CPU, so that all are left for workers."""


def train_side_by_side(trials: Sequence[Trial], folder: Place) -> dict[str, str]:
    """Train trials with Ray Tune, which keeps its records in `folder`; returns {label: why it failed}.

    Raises:
        ConfigError: the cluster is too small for a trial, or does not answer.
        TrainingError: the cluster was lost.
        KeyboardInterrupt: Ctrl-C was pressed; the trials have been stopped.
    """
    example = trials[0].config  # all need the same resources
    set_up_tune()
    with connected(example, say) as hardware:
        from ray import tune

        from hbtrain.sweeps.progress import GridProgress

        side_by_side = concurrent_trials(example, hardware)
        # Trees may hold the tracking server's password; parameters given this way are not in Tune's records.
        trees = [to_tree(at_address(trial.config)) for trial in trials]
        results = fit(
            tune.with_resources(tune.with_parameters(run_trial, trees=trees), ON_HEAD),
            {TRIAL: tune.grid_search([{NUMBER: n, LABEL: trial.label} for n, trial in enumerate(trials)])},
            folder,
            GridProgress(len(trials), side_by_side),
            len(trials),
            max_concurrent_trials=side_by_side,
        )
        return failures_of(results)


def fit(trainable: Any, parameters: dict[str, Any], folder: Place, progress: Any, trials: int, **how: Any) -> Any:
    """Run Ray Tune until all trials have ended, and return its results.

    Args:
        trainable: the driver of a trial, with its resources.
        parameters: Tune's `param_space`.
        folder: of the sweep; Tune keeps its records in `tune/` there.
        progress: a `Callback` on the events of trials.
        trials: how many there are.
        how: arguments of `TuneConfig`.

    Raises:
        TrainingError: the cluster was lost, or Tune failed.
        KeyboardInterrupt: Tune was stopped; Terminated by a signal, before which trials have kept a checkpoint.
    """
    import ray
    from ray import tune
    from ray.tune import TuneError

    tuner = tune.Tuner(
        trainable,
        param_space=parameters,
        # By default the folders of trials would be named after their parameters, which may be any text.
        tune_config=tune.TuneConfig(trial_dirname_creator=lambda trial: str(trial.trial_id), **how),
        run_config=tune.RunConfig(
            name="tune",
            storage_path=quoted(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            callbacks=[progress],
        ),
    )
    try:
        with postponed_termination():
            results = tuner.fit()
    except (ray.exceptions.RayError, TuneError) as error:
        lines = str(error).strip().splitlines()
        # The message of a TuneError is a traceback, whose last line is the reason; Ray's own errors begin with it.
        reason = lines[-1] if isinstance(error, TuneError) else lines[0]
        raise TrainingError(f"the sweep stopped: {reason}; the same command goes on") from error
    if (name := asked_by()) is not None:
        raise Terminated(f"ended by {name}; {GOES_ON}")
    if len(results) < trials or any(r.error is None and not (r.metrics or {}).get("done") for r in results):
        raise KeyboardInterrupt
    return results


def failures_of(results: Any) -> dict[str, str]:
    """{label: why it failed} of the trials that failed, from Tune's results."""
    failures = {}
    for result in results:
        if result.error is not None:
            failure = f"{str(result.error).strip().splitlines()[-1]} (traceback in {result.path})"
        else:
            failure = (result.metrics or {}).get(FAILURE, "")
        if failure:
            failures[trial_label(result.config or {})] = failure
    return failures


def set_up_tune() -> None:
    """Turn off what Ray Tune prints and logs; `progress` prints, MLflow has metrics, Tune's folder has tracebacks."""
    # Let Tune ask for the cluster's resources once: when the cluster is lost, Ray's core would block for minutes.
    os.environ.setdefault("TUNE_STATE_REFRESH_PERIOD", "1e9")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # A raylet warns of many processes; a trial has a few small ones (driver, controller, messages of workers).
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker processes have been started on node")
    # The last report of a trial that fails has a reason, and no scores.
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def at_address(config: Config) -> Config:
    """`config` with the cluster's address in it, as `$RAY_ADDRESS` is not set in the processes of drivers."""
    address = config.resources.address or os.environ.get("RAY_ADDRESS")
    return config if address is None else override(config, {"resources.address": address})


def concurrent_trials(config: Config, hardware: dict[str, object]) -> int:
    """How many trials with the resources of `config` the cluster has room for at the same time; at least one."""
    resources = config.resources
    cpus_of_trial = resources.max_workers * resources.cpus_per_worker
    room = [int(float(str(hardware["hardware.cluster_cpus"])) // cpus_of_trial)]
    if resources.use_gpu:
        room.append(int(str(hardware["hardware.cluster_gpus"])) // resources.max_workers)
    return max(1, min(room))
