"""Training with Ray Train: the trainer in the driver, the loop on the workers, and the delivery of their events."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from hbtrain.cluster.termination import ask, asked_by, postponed_termination
from hbtrain.cluster.trial_stop import announced
from hbtrain.config import Config, from_tree, to_tree
from hbtrain.config.schema import ResourcesConfig
from hbtrain.errors import MAKE_ROOM, HbtrainError, LeaseLostError, Terminated, TrainingError, is_full
from hbtrain.events import Event, Observer
from hbtrain.runs.hang_detection import FINISHED, HangMonitor, Heartbeat, collective_timeout_s, delay_ray_health_check
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.usage import Usage
from hbtrain.runs.worker_messages import MessageBroker, await_acknowledged, end_training
from hbtrain.storage import Place, RemoteError, local_copy, place, quoted
from hbtrain.tracking.tracker import Tracker
from hbtrain.training.checkpoint_files import checkpoints_in, is_complete

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

    from hbtrain.evaluation.during_training import Scorer
    from hbtrain.modeling.gather import Group
    from hbtrain.runs.worker_deaths import Restarts

STOPPING = "{}: a checkpoint is taken, and then this ends; a second signal ends it at once"
NO_WORKER_S = 15.0  # seconds without a heartbeat of any worker after which none is expected to take a checkpoint
POLL_S = 0.5  # seconds between two looks of the driver for events of training


def fit(
    config: Config,
    folder: RunFolder,
    tracker: Tracker,
    observer: Observer,
    usage: Usage,
    until: int | None = None,
    during: Sequence[str] = (),
) -> int:
    """Train with Ray Train, and return how many steps were taken; restarts workers after a death, from a checkpoint.

    With `until` training stops after that many steps, and saves a checkpoint there. The benchmarks called as `during`
    says are evaluated while it trains.

    Raises:
        TrainingError: training stopped for good. The message names the last good checkpoint.
        Terminated: this process was asked to end by a signal. The workers have kept a checkpoint if they could.
    """
    import ray
    from ray.train.v2.api.exceptions import TrainingFailedError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from hbtrain.runs.worker_deaths import Restarts

    training = config.training
    delay_ray_health_check(training.step_timeout_s)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    # On this process's node: any other node may be lost, and its workers replaced, without losing the broker.
    broker = ray.remote(num_cpus=0, scheduling_strategy=here)(MessageBroker).remote()
    restarts = Restarts(broker, str(folder.checkpoints), training.max_failures)
    settings = _settings(config, folder, broker, until) | {"during": list(during)}
    delivery = EventDelivery(tracker, observer, usage, until or training.steps)
    monitor = HangMonitor(broker, training.step_timeout_s)
    is_trial = threading.current_thread() is not threading.main_thread()  # as in a process of Ray Tune's
    try:
        with (
            delivery.running(broker),
            _background(monitor.run, "hang-monitor"),
            postponed_termination(),
            _background(partial(pass_on_termination, broker, is_trial), "termination"),
        ):
            train_with(partial(_trainer, config, folder, settings, restarts), restarts)
    except SystemExit as end:  # how Ray Train's own handler of Ctrl-C leaves
        if asked_by() is not None:
            raise terminated(folder.checkpoints) from end
        raise KeyboardInterrupt from end
    except TrainingFailedError as error:
        reason = _why_failed(error, ray.get(broker.failure.remote()), monitor, folder.checkpoints)
        raise TrainingError(with_last_checkpoint(reason, folder.checkpoints)) from error
    reason = ray.get(broker.failure.remote())
    if reason is not None:
        raise TrainingError(with_last_checkpoint(reason, folder.checkpoints))
    if asked_by() is not None:
        raise terminated(folder.checkpoints)
    if not ray.get(broker.is_complete.remote()):
        raise TrainingError("training was interrupted; the same command goes on from the last checkpoint")
    return delivery.last_step


def _trainer(config: Config, folder: RunFolder, settings: dict[str, Any], restarts: Restarts) -> TorchTrainer:
    """A trainer with which a controller of Ray Train's begins, at the newest checkpoint of the run."""
    from ray.train import FailureConfig

    from hbtrain.runs.torch_trainer import torch_trainer
    from hbtrain.runs.worker_deaths import WorkerDeaths

    folder.delete_ray_checkpoint_list()
    return torch_trainer(
        _train_on_worker,
        settings,
        config.resources,
        _worker_count(config.resources),
        collective_timeout_s(config.training.step_timeout_s),
        name=folder.checkpoints.name,
        storage_path=quoted(folder.path),
        failure_config=FailureConfig(max_failures=-1),  # `Restarts` gives up
        callbacks=[WorkerDeaths(restarts)],
    )


def train_with(new_trainer: Callable[[], TorchTrainer], restarts: Restarts) -> None:
    """Train with a new trainer, and with another one where the controller of the one before was lost.

    Ray Train's controller survives the deaths of its workers, and gives up where an actor dies that it cannot do
    without. Where memory runs out Ray may kill such actors, and the controller itself.

    Raises:
        TrainingFailedError: training failed for good.
    """
    from ray.exceptions import OutOfMemoryError, RayActorError
    from ray.train.v2.api.exceptions import ControllerError

    from hbtrain.runs.worker_deaths import GivenUpError

    while True:
        try:
            new_trainer().fit()
            return
        except (ControllerError, OutOfMemoryError) as error:
            lost = getattr(error, "controller_failure", error)
            if not isinstance(lost, OutOfMemoryError | RayActorError):
                raise
            try:
                restarts.after_lost_controller(lost)
            except GivenUpError as given_up:
                raise ControllerError(given_up) from error


def _why_failed(error: Exception, failure: str | None, monitor: HangMonitor, checkpoints: Place) -> str:
    """Why training failed for good: as a worker has told (`failure`), of what they died too often, or as Ray says."""
    from hbtrain.runs.worker_deaths import GivenUpError

    if failure is not None:
        return failure
    hang, given_up = monitor.reason(), getattr(error, "controller_failure", None)
    if isinstance(given_up, GivenUpError):
        return f"{hang or given_up.cause}; {given_up.why}"
    if hang is not None:
        return hang
    cause = str(getattr(error, "error_message", "") or error).strip().splitlines()[-1]
    logs = f"training failed: {cause}; the workers' logs are in {checkpoints} and Ray's session folder"
    return f"{logs}; {MAKE_ROOM}" if is_full(error) else logs


def _settings(config: Config, folder: RunFolder, broker: Any, until: int | None) -> dict[str, Any]:
    """What each worker gets, as plain values and the broker's handle."""
    return {
        "config": to_tree(config),
        "initial_model": str(folder.initial_model),
        "final_model": str(folder.model),
        "checkpoints": str(folder.checkpoints),
        "broker": broker,
        "until": until,
        "protected_step": folder.state.stopped_at,
        "lease": folder.lease,
    }


def _worker_count(resources: ResourcesConfig) -> int | tuple[int, int]:
    """The number of workers as Ray Train takes it: a pair makes the run elastic."""
    fewest, most = resources.min_workers, resources.max_workers
    return most if fewest == most else (fewest, most)


@contextmanager
def _background(target: Callable[[threading.Event], None], name: str) -> Iterator[None]:
    """While the body runs, run `target(done)` on a thread; `done` is set at the end, and the thread waited for."""
    done = threading.Event()
    thread = threading.Thread(target=target, args=(done,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class EventDelivery:
    """Hands the workers' events to MLflow and the observer, and keeps count of usage, on a thread of its own.

    Something unexpected on that thread does not end it: later events are delivered all the same, so that no figures are
    lost and no checkpoint waits for them, and the first such error is raised when training has ended.
    """

    def __init__(self, tracker: Tracker, observer: Observer, usage: Usage, steps: int) -> None:
        self._tracker = tracker
        self._usage = usage
        self._observer = observer
        self._steps = steps
        self._furthest: int | None = None
        self._error: Exception | None = None
        self._unacknowledged = 0

    @property
    def last_step(self) -> int:
        """The furthest step of all events; all steps of the run where no event came, as when it had been trained."""
        return self._steps if self._furthest is None else self._furthest

    @contextmanager
    def running(self, broker: Any) -> Iterator[None]:
        """Deliver the broker's events while the body runs, and the last ones after it."""
        with _background(partial(self._deliver, broker), "events"):
            yield
        if self._error is not None:
            raise self._error

    def _deliver(self, broker: Any, done: threading.Event) -> None:
        import ray

        ended = False
        self._usage.start_clock()
        workers = 0
        while not ended:
            ended = done.wait(POLL_S)
            self._keep_count(workers, broker)
            try:
                workers, events = ray.get([broker.active_workers.remote(), broker.take_events.remote()])
            except ray.exceptions.RayError:
                continue  # where the cluster is gone, whoever waits for the training is told
            try:
                self._deliver_events(events, broker)
            except Exception as error:
                self._error = self._error or error
        with suppress(LeaseLostError):  # it was told before, or will be when the run's end is written down
            self._usage.save()
        self._tracker.metrics(self._usage.metrics(), self._furthest or 0)

    def _keep_count(self, workers: int, broker: Any) -> None:
        """Add the time since the last look to the usage. Where the run has another driver now, training is ended."""
        try:
            self._usage.add_time(workers)
        except LeaseLostError as error:
            self._error = self._error or error
            end_training(broker, str(error))

    def _deliver_events(self, events: list[Event], broker: Any) -> None:
        """Deliver events to MLflow, acknowledge them once they are delivered or stored, and only then show them."""
        self._unacknowledged += len(events)
        for event in events:
            self._furthest = max(event.step, self._furthest or 0)
            self._usage.add_event(event)
            self._tracker.event(event)
            if event.pairs:
                self._tracker.metrics(self._usage.metrics(), event.step)
        if self._unacknowledged and self._tracker.save_undelivered():
            broker.acknowledge.remote(self._unacknowledged)
            self._unacknowledged = 0
        for event in events:
            self._observer.event(event)


def _train_on_worker(settings: dict[str, Any]) -> None:
    """What Ray Train runs on each worker."""
    import ray
    from ray.train.torch import get_device

    from hbtrain.modeling.gather import ProcessGroup
    from hbtrain.runs.worker_messages import CheckpointUploads
    from hbtrain.training.loop import train_worker
    from hbtrain.training.worker import Worker, no_check

    broker, lease = settings["broker"], settings["lease"]
    if ray.get(broker.failure.remote()) is not None:
        return

    group = ProcessGroup()
    heartbeat = Heartbeat(broker, group.rank, group.world_size)
    config = from_tree(settings["config"])
    try:
        with heartbeat:
            heartbeat.begin_phase("loading")
            worker = Worker(
                group=group,
                device=get_device(),
                initial_model=local_copy(place(settings["initial_model"]), config.data.cache),
                final_model=place(settings["final_model"]),
                emit=lambda event: ray.get(broker.put_event.remote(event)),
                upload=CheckpointUploads(broker).start,
                checkpoints=place(settings["checkpoints"]),
                on_phase=heartbeat.begin_phase,
                protected_step=settings["protected_step"],
                flush_events=lambda: await_acknowledged(broker),
                is_stop_requested=heartbeat.is_stop_requested,
                evaluate=_scorer(config, settings["during"], group, heartbeat),
                check_lease=no_check if lease is None else lease.check,
            )
            is_complete = train_worker(config, worker, settings["until"])
    except HbtrainError as error:
        ray.get(broker.fail.remote(str(error)))
        raise
    if group.rank == 0 and is_complete:
        ray.get(broker.complete.remote())


def _scorer(config: Config, names: list[str], group: Group, heartbeat: Heartbeat) -> Scorer | None:
    """What evaluates during training; None where nothing is. Every batch of texts is a sign of life."""
    from hbtrain.evaluation.during_training import Scorer

    return Scorer(config, names, group, partial(heartbeat.begin_phase, "evaluation")) if names else None


def pass_on_termination(broker: Any, is_trial: bool, done: threading.Event) -> None:
    """Once a signal has asked for the end, have the workers stop with a checkpoint.

    Where no worker is there that could, because they are still waited for, or dead or stopped, the wait for the
    training is ended as by Ctrl-C; that for a trial is the sweep's to end.

    Args:
        broker: the handle of the run's `MessageBroker`.
        is_trial: whether this is the driver of a sweep's trial, to which the sweep's process passes signals on.
        done: set when training has ended.
    """
    import ray

    name: str | None = None
    heard: Any = None
    silent_since = 0.0
    while not done.wait(POLL_S):
        with suppress(ray.exceptions.RayError):  # where the cluster is gone, whoever waits for the training is told
            if name is None:
                if (name := announced() if is_trial else asked_by()) is None:
                    continue
                ask(name)
                silent_since = time.monotonic()
                ray.get(broker.request_stop.remote())
                step = max((rank.step for rank in ray.get(broker.progress.remote())), default=0)
                ray.get(broker.put_event.remote(Event(step, {}, STOPPING.format(name), kind="stop", rank=None)))
            ranks = ray.get(broker.progress.remote())
            if ranks != heard:
                heard, silent_since = ranks, time.monotonic()
            has_ended = bool(ranks) and all(rank.phases_begun == FINISHED for rank in ranks)
            is_silent = not ranks or (not has_ended and time.monotonic() - silent_since > NO_WORKER_S)
            if is_silent and not is_trial:
                os.kill(os.getpid(), signal.SIGINT)
                return


def terminated(storage: Place) -> Terminated:
    """What ends the command after a signal, with the checkpoint that it goes on from."""
    return Terminated(with_last_checkpoint(f"ended by {asked_by()}; the same command goes on", storage))


def with_last_checkpoint(reason: str, storage: Place) -> str:
    """`reason`, followed by which of the checkpoints in the folder `storage` is the last complete one."""
    try:
        last = next((storage / name for name in checkpoints_in(storage) if is_complete(storage / name)), None)
    except RemoteError as error:
        return f"{reason}; {storage} does not answer: {error.strerror}"
    checkpoint = "there is no checkpoint before it" if last is None else f"the last good checkpoint is {last}"
    return f"{reason}; {checkpoint}"
