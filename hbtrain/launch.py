"""A whole run: preflight, the first model, Ray Train, evaluation before and after, MLflow."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hbtrain.config import Config, absolute_paths, from_tree, to_tree
from hbtrain.errors import ConfigError, HbtrainError, TrainingError
from hbtrain.evaluation.results import save_evaluation
from hbtrain.evaluation.summary import Evaluation
from hbtrain.observer import Observer, Silent
from hbtrain.preflight import Checked, preflight
from hbtrain.run_folder import RunFolder
from hbtrain.tracking import Tracker
from hbtrain.training.worker import Event

POLL_S = 0.5
"""How often the driver asks for news of training."""


@dataclass(frozen=True)
class Outcome:
    """What a run left behind.

    Attributes:
        folder: the run's folder.
        run_id: of the MLflow run.
        tracking_uri: where that run is.
        before: scores of the model before training, one a benchmark; empty if not asked for.
        after: scores of the trained model, one a benchmark.
    """

    folder: RunFolder
    run_id: str
    tracking_uri: str
    before: tuple[Evaluation, ...]
    after: tuple[Evaluation, ...]


def train(config: Config, observer: Observer | None = None) -> Outcome:
    """Train and evaluate as `config` says; goes on with the unfinished run of the same configuration, if there is one.

    Raises:
        HbtrainError: what is wrong with the input (before any worker starts), or why training stopped.
    """
    observer = observer or Silent()
    config = absolute_paths(config)
    observer.phase("checking the configuration and the sources")
    checked = preflight(config)
    folder = RunFolder.open(config)
    observer.phase(f"run {folder.name}")
    tracker = Tracker(config, folder.recall("mlflow_run_id"), folder.name)
    folder.remember(mlflow_run_id=tracker.run_id)
    status = "FAILED"
    try:
        outcome = _run(config, checked, folder, tracker, observer)
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        tracker.finish(status)
    folder.remember(finished=True)
    return outcome


def _run(config: Config, checked: Checked, folder: RunFolder, tracker: Tracker, observer: Observer) -> Outcome:
    benchmarks = config.evaluation.benchmarks
    tracker.artifact(folder.config)
    observer.phase("starting Ray")
    with _ray(config) as hardware:
        tracker.tags(hardware | {"world_size": config.resources.workers, "batch_plan": checked.plan.fingerprint(0, 16)})
        if not (folder.initial_model / "modules.json").exists():
            observer.phase(f"building the {config.encoder.backbone} encoder")
            _on_cluster(config, _build, to_tree(config), str(folder.initial_model))
        before: Sequence[Evaluation] = ()
        if benchmarks and config.evaluation.before:
            observer.phase("evaluating before training")
            before = _on_cluster(config, _score, to_tree(config), str(folder.initial_model))
            _keep_scores(before, folder.results_before, "results-before", tracker, step=0)
        workers = config.resources.workers
        observer.phase(f"training {config.training.steps} steps on {workers} worker{'s'[: workers > 1]}")
        _fit(config, folder, tracker, observer)
        after: Sequence[Evaluation] = ()
        if benchmarks:
            observer.phase("evaluating the trained model")
            after = _on_cluster(config, _score, to_tree(config), str(folder.model))
            _keep_scores(after, folder.results, "results", tracker, step=config.training.steps)
    if config.tracking.log_model:
        tracker.artifact(folder.model, "model")
    return Outcome(folder, tracker.run_id, tracker.uri, tuple(before), tuple(after))


def _keep_scores(evaluations: Sequence[Evaluation], to: Path, name: str, tracker: Tracker, step: int) -> None:
    save_evaluation(evaluations, to)
    tracker.artifact(to, name)
    for evaluation in evaluations:
        tracker.scores(evaluation.macro, step)


# --- Ray -------------------------------------------------------------------------------------------------------------


@contextmanager
def _ray(config: Config) -> Iterator[dict[str, object]]:
    """Ray, connected or started; gives what is to be known of its hardware. A cluster started here ends here.

    Raises:
        ConfigError: the cluster has too few CPUs or GPUs, or does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_TRAIN_ENABLE_CONTROLLER_STRUCTURED_LOGGING", "0")
    import ray

    mine = not ray.is_initialized()
    if mine:
        address = config.resources.address or os.environ.get("RAY_ADDRESS") or "local"
        try:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"resources.address = {address!r}: no Ray cluster answers there: {reason}") from error
    try:
        have = ray.cluster_resources()
        _check_fits(config, have)
        yield {
            "hardware.cluster_cpus": int(have.get("CPU", 0)),
            "hardware.cluster_gpus": int(have.get("GPU", 0)),
            "hardware.nodes": len([node for node in ray.nodes() if node["Alive"]]),
        }
    finally:
        if mine:
            ray.shutdown()


def _check_fits(config: Config, have: dict[str, float]) -> None:
    resources = config.resources
    for kind, need in (
        ("CPU", resources.workers * resources.cpus_per_worker),
        ("GPU", resources.workers if resources.use_gpu else 0),
    ):
        if need > have.get(kind, 0):
            raise ConfigError(
                f"resources.workers = {resources.workers} needs {need:g} {kind}s, and the cluster has "
                f"{int(have.get(kind, 0))}; lower it, or join nodes to the cluster"
            )


def _on_cluster(config: Config, function: Any, *arguments: Any) -> Any:
    """Run `function` as a Ray task with the resources of one worker, or more CPUs where a node has them idle."""
    import ray

    resources = config.resources
    most = max(node["Resources"].get("CPU", 1) for node in ray.nodes() if node["Alive"])
    cpus = max(1, int(min(most, resources.workers * resources.cpus_per_worker)))
    task = ray.remote(num_cpus=cpus, num_gpus=1 if resources.use_gpu else 0, max_retries=2)(function)
    try:
        return ray.get(task.remote(*arguments))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, HbtrainError):
            raise error.cause from None
        raise


def _build(tree: dict[str, Any], to: str) -> None:
    """Build the encoder that training starts from. Adapters are added by the workers; they begin at zero."""
    from hbtrain.corpus import ParallelCorpus
    from hbtrain.modeling.encoder import Encoder

    config = from_tree(tree)
    encoder = config.encoder.model_copy(update={"lora": None})
    Encoder.build(encoder, ParallelCorpus.from_config(config).every_text, config.seed).save(Path(to))


def _score(tree: dict[str, Any], model: str) -> list[Evaluation]:
    """Evaluate the model in a folder on the configuration's benchmarks, and write the scores into its card."""
    from hbtrain.evaluation.benchmark import load_benchmark, parse_benchmark
    from hbtrain.evaluation.evaluate import evaluate
    from hbtrain.modeling.card import add_scores
    from hbtrain.modeling.encoder import Encoder

    config = from_tree(tree)
    encoder = Encoder.load(model)
    benchmarks = [load_benchmark(parse_benchmark(text)) for text in config.evaluation.benchmarks]
    evaluations = [evaluate(encoder, benchmark, config.evaluation.batch_size) for benchmark in benchmarks]
    add_scores(Path(model), {key: score for e in evaluations for key, score in e.macro.items()})
    return evaluations


# --- Ray Train -------------------------------------------------------------------------------------------------------


class Mailbox:
    """An actor between the workers and the driver: events one way, the reason to give up the other."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._failure: str | None = None

    def put(self, event: Event) -> None:
        """Leave an event."""
        self._events.append(event)

    def take(self) -> list[Event]:
        """The events left since the last call."""
        events, self._events = self._events, []
        return events

    def fail(self, reason: str) -> None:
        """Say why going on is no use: restarting the workers would end the same way."""
        self._failure = self._failure or reason

    def failure(self) -> str | None:
        """Why to give up, or None."""
        return self._failure


def _fit(config: Config, folder: RunFolder, tracker: Tracker, observer: Observer) -> None:
    """Train with Ray Train; restarts the workers after a death, from the last checkpoint.

    Raises:
        TrainingError: training stopped for good.
    """
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.exceptions import TrainingFailedError

    resources, training = config.resources, config.training
    mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
    trainer = TorchTrainer(
        _train_on_worker,
        train_loop_config={
            "config": to_tree(config),
            "initial_model": str(folder.initial_model),
            "final_model": str(folder.model),
            "mailbox": mailbox,
        },
        scaling_config=ScalingConfig(
            num_workers=resources.workers,
            use_gpu=resources.use_gpu,
            resources_per_worker={"CPU": resources.cpus_per_worker, **({"GPU": 1} if resources.use_gpu else {})},
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(folder.path),
            failure_config=FailureConfig(max_failures=training.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=training.keep_checkpoints),
        ),
    )
    try:
        with _delivering(mailbox, tracker, observer):
            trainer.fit()
    except TrainingFailedError as error:
        reason = ray.get(mailbox.failure.remote())
        if reason is None:
            cause = str(getattr(error, "error_message", "") or error).strip().splitlines()[-1]
            reason = (
                f"training failed: {cause}; the workers' logs are in {folder.path / 'ray'} and Ray's session folder"
            )
        raise TrainingError(reason) from error
    reason = ray.get(mailbox.failure.remote())
    if reason is not None:
        raise TrainingError(reason)


@contextmanager
def _delivering(mailbox: Any, tracker: Tracker, observer: Observer) -> Iterator[None]:
    """Hand the workers' events to MLflow and the observer while the body runs, and the last of them after it."""
    import ray

    done = threading.Event()

    def deliver() -> None:
        ended = False
        while not ended:
            ended = done.wait(POLL_S)
            for event in ray.get(mailbox.take.remote()):
                tracker.event(event)
                observer.event(event)

    thread = threading.Thread(target=deliver, name="events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _train_on_worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs on each worker."""
    import ray
    import ray.train
    from ray.train.torch import get_device

    from hbtrain.modeling.gather import ProcessGroup
    from hbtrain.training.loop import train_worker
    from hbtrain.training.worker import Worker

    mailbox = settings["mailbox"]
    if ray.get(mailbox.failure.remote()) is not None:
        return

    def keep(folder: Path, step: int) -> None:
        checkpoint = ray.train.Checkpoint.from_directory(str(folder))
        ray.train.report(
            {"step": step},
            checkpoint=checkpoint,
            checkpoint_dir_name=f"step-{step:08d}",
            delete_local_checkpoint_after_upload=True,
        )

    def run(checkpoint: Path | None) -> None:
        worker = Worker(
            group=ProcessGroup(),
            device=get_device(),
            initial_model=Path(settings["initial_model"]),
            final_model=Path(settings["final_model"]),
            emit=lambda event: ray.get(mailbox.put.remote(event)),
            keep=keep,
            checkpoint=checkpoint,
        )
        train_worker(from_tree(settings["config"]), worker)

    latest = ray.train.get_checkpoint()
    try:
        if latest is None:
            run(None)
        else:
            with latest.as_directory() as folder:
                run(Path(folder))
    except HbtrainError as error:
        ray.get(mailbox.fail.remote(str(error)))
        raise
