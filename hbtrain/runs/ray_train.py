"""Training with Ray Train: the trainer in the driver, the loop on the workers, and the news between them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hbtrain.config import Config, from_tree, to_tree
from hbtrain.config.schema import ResourcesConfig
from hbtrain.errors import MAKE_ROOM, HbtrainError, TrainingError, is_full
from hbtrain.events import Event, Observer
from hbtrain.runs.hang_detection import Pulse, Watchdog, collective_timeout_s, let_the_watchdog_be_first
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.usage import Usage
from hbtrain.runs.worker_messages import Mailbox, await_settled
from hbtrain.storage import Place, RemoteError, local_copy, place
from hbtrain.tracking.past_runs import STOPPED_AT
from hbtrain.tracking.tracker import Tracker
from hbtrain.training.checkpoint_files import checkpoints_in, is_complete

POLL_S = 0.5
"""How often the driver asks for news of training."""


def fit(
    config: Config, folder: RunFolder, tracker: Tracker, observer: Observer, usage: Usage, until: int | None = None
) -> int:
    """Train with Ray Train, and return how many steps were taken; restarts workers after a death, from a checkpoint.

    With `until` training stops after that many steps, with a checkpoint there.

    Raises:
        TrainingError: training stopped for good.
    """
    import ray
    from ray.train import FailureConfig
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from hbtrain.runs.torch_trainer import torch_trainer

    resources, training = config.resources, config.training
    folder.forget_rays_record()
    let_the_watchdog_be_first(training.step_timeout_s)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # Beside this process: any other node may go, and its workers are replaced.
    mailbox = ray.remote(num_cpus=0, scheduling_strategy=here)(Mailbox).remote()
    trainer = torch_trainer(
        _train_on_worker,
        _settings(config, folder, mailbox, until),
        resources,
        _number(resources),
        collective_timeout_s(training.step_timeout_s),
        name=folder.checkpoints.name,
        storage_path=str(folder.path),
        failure_config=FailureConfig(max_failures=training.max_failures),
    )
    news = News(tracker, observer, usage, until or training.steps)
    watchdog = Watchdog(mailbox, training.step_timeout_s)
    try:
        with news.delivered_from(mailbox), watchdog.watching():
            trainer.fit()
    except SystemExit as end:  # how Ray Train's own handler of Ctrl-C leaves
        raise KeyboardInterrupt from end
    except TrainingFailedError as error:
        reason = ray.get(mailbox.failure.remote()) or watchdog.verdict()
        if reason is None:
            cause = str(getattr(error, "error_message", "") or error).strip().splitlines()[-1]
            reason = (
                f"training failed: {cause}; the workers' logs are in {folder.checkpoints} and Ray's session folder"
                + (f"; {MAKE_ROOM}" if is_full(error) else "")
            )
        raise TrainingError(with_last_checkpoint(reason, folder.checkpoints)) from error
    reason = ray.get(mailbox.failure.remote())
    if reason is not None:
        raise TrainingError(with_last_checkpoint(reason, folder.checkpoints))
    if not ray.get(mailbox.is_complete.remote()):
        raise TrainingError("training was interrupted; the same command goes on from the last checkpoint")
    return news.last_step


def _settings(config: Config, folder: RunFolder, mailbox: Any, until: int | None) -> dict[str, Any]:
    """What a worker is told."""
    return {
        "config": to_tree(config),
        "initial_model": str(folder.initial_model),
        "final_model": str(folder.model),
        "checkpoints": str(folder.checkpoints),
        "mailbox": mailbox,
        "until": until,
        "kept_step": folder.recall(STOPPED_AT),
    }


def _number(resources: ResourcesConfig) -> int | tuple[int, int]:
    """The number of workers as Ray Train takes it: a pair makes the run elastic."""
    fewest, most = resources.min_workers, resources.max_workers
    return most if fewest == most else (fewest, most)


class News:
    """Hands the workers' events to MLflow and the observer, and keeps count of usage, on a thread of its own.

    Something unexpected on that thread does not end it: later events are delivered all the same, so that no figures are
    lost and no checkpoint waits for them, and the first such error is raised when training has ended.

    Attributes:
        last_step: the furthest of all events; `steps` where none came, as when all had been done before.
    """

    def __init__(self, tracker: Tracker, observer: Observer, usage: Usage, steps: int) -> None:
        self._tracker = tracker
        self._usage = usage
        self._observer = observer
        self._steps = steps
        self._furthest: int | None = None
        self._error: Exception | None = None
        self._unsettled = 0

    @property
    def last_step(self) -> int:
        """See the class."""
        return self._steps if self._furthest is None else self._furthest

    @contextmanager
    def delivered_from(self, mailbox: Any) -> Iterator[None]:
        """Deliver while the body runs, and the last of them after it."""
        done = threading.Event()
        thread = threading.Thread(target=self._deliver, args=(mailbox, done), name="events", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
        if self._error is not None:
            raise self._error

    def _deliver(self, mailbox: Any, done: threading.Event) -> None:
        import ray

        ended = False
        self._usage.start()
        workers = 0
        while not ended:
            ended = done.wait(POLL_S)
            self._usage.stand(workers)
            try:
                workers, events = ray.get([mailbox.workers.remote(), mailbox.take.remote()])
            except ray.exceptions.RayError:
                continue  # where the cluster is gone, whoever waits for the training is told
            try:
                self._take(events, mailbox)
            except Exception as error:
                self._error = self._error or error
        self._usage.keep()
        self._tracker.metrics(self._usage.metrics(), self._furthest or 0)

    def _take(self, events: list[Event], mailbox: Any) -> None:
        """Deliver events, have them settled, and only then show them."""
        self._unsettled += len(events)
        for event in events:
            self._furthest = max(event.step, self._furthest or 0)
            self._usage.add(event)
            self._tracker.event(event)
            if event.pairs:
                self._tracker.metrics(self._usage.metrics(), event.step)
        if self._unsettled and self._tracker.keep():
            mailbox.settle.remote(self._unsettled)
            self._unsettled = 0
        for event in events:
            self._observer.event(event)


def _train_on_worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs on each worker."""
    import ray
    from ray.train.torch import get_device

    from hbtrain.modeling.gather import ProcessGroup
    from hbtrain.runs.worker_messages import Uploads
    from hbtrain.training.loop import train_worker
    from hbtrain.training.worker import Worker

    mailbox = settings["mailbox"]
    if ray.get(mailbox.failure.remote()) is not None:
        return

    group = ProcessGroup()
    pulse = Pulse(mailbox, group.rank, group.world_size)
    config = from_tree(settings["config"])
    try:
        with pulse:
            pulse.at("loading")
            worker = Worker(
                group=group,
                device=get_device(),
                initial_model=local_copy(place(settings["initial_model"]), config.data.cache),
                final_model=place(settings["final_model"]),
                emit=lambda event: ray.get(mailbox.put.remote(event)),
                keep=Uploads(mailbox).keep,
                checkpoints=place(settings["checkpoints"]),
                at=pulse.at,
                kept_step=settings["kept_step"],
                settle=lambda: await_settled(mailbox),
            )
            train_worker(config, worker, settings["until"])
    except HbtrainError as error:
        ray.get(mailbox.fail.remote(str(error)))
        raise
    if group.rank == 0:
        ray.get(mailbox.complete.remote())


def with_last_checkpoint(reason: str, storage: Place) -> str:
    """`reason`, and which of the checkpoints in `storage` is the last good one."""
    try:
        last = next((storage / name for name in checkpoints_in(storage) if is_complete(storage / name)), None)
    except RemoteError as error:
        return f"{reason}; {storage} does not answer: {error.strerror}"
    kept = "there is no checkpoint before it" if last is None else f"the last good checkpoint is {last}"
    return f"{reason}; {kept}"
