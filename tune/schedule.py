"""Ray Tune: trials side by side, as many as the cluster's CPUs and GPUs allow, each a run of Ray Train."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any

from hbtrain.cluster.session import connected
from hbtrain.config import Config, override, to_tree
from hbtrain.errors import TrainingError
from hbtrain.storage import Place
from tune.space.trials import Trial

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
        import ray
        from ray import tune
        from ray.tune import TuneError

        from tune.progress import Progress

        side_by_side = at_once(like, hardware)
        trees = [to_tree(at_address(trial.config)) for trial in trials]
        tuner = tune.Tuner(
            # Trees may hold the tracking server's password; given so, they do not reach Tune's records.
            tune.with_resources(tune.with_parameters(_trainable(), trees=trees), ON_HEAD),
            param_space={"trial": tune.grid_search(list(range(len(trials))))},
            tune_config=tune.TuneConfig(max_concurrent_trials=side_by_side),
            run_config=tune.RunConfig(
                name="tune",
                storage_path=str(folder),
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=RESTARTS),
                callbacks=[Progress([trial.label for trial in trials], side_by_side)],
            ),
        )
        try:
            results = tuner.fit()
        except (ray.exceptions.RayError, TuneError) as error:
            reason = str(error).strip().splitlines()[0]
            raise TrainingError(f"the sweep stopped: {reason}; the same command goes on") from error
        return _failures(trials, results)


def say(text: str) -> None:
    """Print a line as it is."""
    from rich.console import Console

    Console().print(text, highlight=False, soft_wrap=True, markup=False)


def set_up_tune() -> None:
    """Leave the terminal to `Progress` and metrics to MLflow; what Ray Tune would say of a failure is in its folder."""
    # What the cluster has is asked for once: of one that is gone, Ray's core would wait for minutes, uninterruptibly.
    os.environ.setdefault("TUNE_STATE_REFRESH_PERIOD", "1e9")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    # A trial is a handful of small processes (driver, controller, mailbox), which a raylet finds worth a warning.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "worker processes have been started on node")
    # Trials that fail end with a reason and no scores.
    os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)


def _trainable() -> Any:
    """The function that drives one trial. It is a local one, so that it travels whole: workers need only hbtrain."""

    def run_trial(parameters: dict[str, Any], trees: list[dict[str, Any]]) -> dict[str, str]:
        from hbtrain.config import from_tree
        from hbtrain.errors import HbtrainError
        from hbtrain.runs.run import train

        try:
            train(from_tree(trees[parameters["trial"]]))
        except HbtrainError as error:  # started again, it would end the same way
            return {"failure": str(error)}
        return {"failure": ""}

    return run_trial


def at_address(config: Config) -> Config:
    """`config` with the cluster's address spelt out: `$RAY_ADDRESS` is not set where trials are driven."""
    address = config.resources.address or os.environ.get("RAY_ADDRESS")
    return config if address is None else override(config, {"resources.address": address})


def _failures(trials: Sequence[Trial], results: Any) -> dict[str, str]:
    failures: dict[str, str] = {}
    for result in results:
        label = trials[result.config["trial"]].label
        failure = (result.metrics or {}).get("failure")
        if result.error is not None:
            failures[label] = f"{str(result.error).strip().splitlines()[-1]} (traceback in {result.path})"
        elif failure is None:
            raise KeyboardInterrupt
        elif failure:
            failures[label] = failure
    return failures


def at_once(config: Config, hardware: dict[str, object]) -> int:
    """How many trials like `config` fit side by side on `hardware`; at least one."""
    resources = config.resources
    fit = [int(float(str(hardware["hardware.cluster_cpus"])) // _cpus(config))]
    if resources.use_gpu:
        fit.append(int(str(hardware["hardware.cluster_gpus"])) // resources.max_workers)
    return max(1, min(fit))


def _cpus(config: Config) -> float:
    return config.resources.max_workers * config.resources.cpus_per_worker
