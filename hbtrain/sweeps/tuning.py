"""Ray Tune: trials side by side, as many as the cluster's CPUs and GPUs allow, each a run of Ray Train.

Here is what grids and searches share, and grids themselves.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from hbtrain.cluster.session import connected
from hbtrain.config import Config, override, to_tree
from hbtrain.errors import TrainingError
from hbtrain.storage import Place
from hbtrain.sweeps.drivers import FAILURE, run_trial
from hbtrain.sweeps.space import Trial

RESTARTS = 2
"""How often a trial is started again after the process that drives it died. Workers' deaths are Ray Train's affair."""

ON_HEAD = {"node:__internal_head__": 0.001}
"""What a trial's driver asks for: a place on the head node and no CPU, for all CPUs are for its workers."""


def train_side_by_side(trials: Sequence[Trial], folder: Place) -> dict[str, str]:
    """Train `trials` with Ray Tune, which keeps its records in `folder`; {label: why it failed}.

    Raises:
        ConfigError: the cluster is too small for a trial, or does not answer.
        TrainingError: the cluster went away.
        KeyboardInterrupt: Ctrl-C, after the trials were stopped.
    """
    like = trials[0].config  # all ask for the same
    set_up_tune()
    with connected(like, say) as hardware:
        from ray import tune

        from hbtrain.sweeps.progress import GridProgress

        side_by_side = at_once(like, hardware)
        trees = [to_tree(at_address(trial.config)) for trial in trials]
        results = fit(
            # Trees may hold the tracking server's password; given so, they do not reach Tune's records.
            tune.with_resources(tune.with_parameters(run_trial, trees=trees), ON_HEAD),
            folder,
            tune.TuneConfig(max_concurrent_trials=side_by_side),
            GridProgress([trial.label for trial in trials], side_by_side),
            {"trial": tune.grid_search(list(range(len(trials))))},
        )
        return _failures(trials, results)


def fit(trainable: Any, folder: Place, how: Any, progress: Any, parameters: Mapping[str, Any]) -> Any:
    """Run Ray Tune to its end, and return its results.

    Args:
        trainable: what drives a trial, with the resources that it asks for.
        folder: of the sweep; Tune keeps its records in `tune/` there.
        how: a TuneConfig.
        progress: a Callback that is told of the trials.
        parameters: of the trials, in Tune's terms.

    Raises:
        TrainingError: the cluster went away.
    """
    import ray
    from ray import tune
    from ray.tune import TuneError

    tuner = tune.Tuner(
        trainable,
        param_space=dict(parameters),
        tune_config=how,
        run_config=tune.RunConfig(
            name="tune",
            storage_path=str(folder),
            verbose=0,
            failure_config=tune.FailureConfig(max_failures=RESTARTS),
            callbacks=[progress],
        ),
    )
    try:
        return tuner.fit()
    except (ray.exceptions.RayError, TuneError) as error:
        lines = str(error).strip().splitlines()
        # Tune passes on a traceback, which ends with the reason; Ray's own errors begin with it.
        reason = lines[-1] if isinstance(error, TuneError) else lines[0]
        raise TrainingError(f"the sweep stopped: {reason}; the same command goes on") from error


def failure_of(result: Any) -> str | None:
    """Why a trial failed, by Tune's result of it; empty if it did not, None if it was ended before it said anything."""
    if result.error is not None:
        return f"{str(result.error).strip().splitlines()[-1]} (traceback in {result.path})"
    return (result.metrics or {}).get(FAILURE)


def say(text: str) -> None:
    """Print a line as it is."""
    from rich.console import Console

    Console().print(text, highlight=False, soft_wrap=True, markup=False)


def set_up_tune() -> None:
    """Leave the terminal to `progress` and metrics to MLflow; what Ray Tune would say of a failure is in its folder."""
    # What the cluster has is asked for once: of one that is gone, Ray's core would wait for minutes, uninterruptibly.
    os.environ.setdefault("TUNE_STATE_REFRESH_PERIOD", "1e9")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # A trial is a handful of small processes (driver, controller, broker), which a raylet finds worth a warning.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker processes have been started on node")
    # Trials that fail end with a reason and no scores.
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def at_address(config: Config) -> Config:
    """`config` with the cluster's address spelt out: `$RAY_ADDRESS` is not set where trials are driven."""
    address = config.resources.address or os.environ.get("RAY_ADDRESS")
    return config if address is None else override(config, {"resources.address": address})


def _failures(trials: Sequence[Trial], results: Any) -> dict[str, str]:
    failures: dict[str, str] = {}
    for result in results:
        failure = failure_of(result)
        if failure is None:
            raise KeyboardInterrupt
        if failure:
            failures[trials[result.config["trial"]].label] = failure
    return failures


def at_once(config: Config, hardware: dict[str, object]) -> int:
    """How many trials like `config` fit side by side on `hardware`; at least one."""
    resources = config.resources
    cpus_of_trial = resources.max_workers * resources.cpus_per_worker
    room = [int(float(str(hardware["hardware.cluster_cpus"])) // cpus_of_trial)]
    if resources.use_gpu:
        room.append(int(str(hardware["hardware.cluster_gpus"])) // resources.max_workers)
    return max(1, min(room))
