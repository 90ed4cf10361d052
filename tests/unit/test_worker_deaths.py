"""Deaths of workers, with stand-ins for Ray Train's controller and the broker."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray
from ray import cloudpickle
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.train import FailureConfig, RunConfig
from ray.train.torch.config import _TorchBackend
from ray.train.v2._internal.callbacks.backend_setup import BackendSetupCallback
from ray.train.v2._internal.execution.callback_manager import CallbackManager
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.controller.state import RestartingState, RunningState, ShuttingDownState
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from hbtrain.cluster.memory import MemoryUse
from hbtrain.runs import worker_deaths
from hbtrain.runs.hang_detection import RankProgress
from hbtrain.runs.ray_train import _why_failed, train_with
from hbtrain.runs.torch_trainer import ClusterTorchConfig
from hbtrain.runs.worker_deaths import GivenUpError, Restarts, WorkerDeaths, cause_of_death
from hbtrain.runs.worker_messages import MessageBroker
from tests.unit.test_memory_kills import GIB, PAGE

PROGRESS = {
    rank: RankProgress("g", 2, rank, "10.0.0.7", 24384 + rank, 120, memory=MemoryUse(3 * GIB, 20 * GIB, 64 * GIB))
    for rank in (0, 1)
}
LOST = RuntimeError("Traceback (most recent call last):\n  File x\nRuntimeError: Connection closed by peer [10.0.0.7]")


class FailedCheckError(Exception):
    """As Ray Train's: what lies behind it is an attribute."""

    def __init__(self, failure):
        super().__init__("A worker health check failed.")
        self.health_check_failure = failure


def test_the_one_that_died_is_named_and_not_its_victim():
    words = cause_of_death({0: LOST, 1: ActorDiedError()}, PROGRESS)
    assert words == "rank 1 on node 10.0.0.7 (pid 24385) died; it used 3 GiB, its node 20 GiB of 64 GiB then"
    assert cause_of_death({0: LOST}, PROGRESS) == (
        "rank 0 on node 10.0.0.7 (pid 24384) failed: RuntimeError: Connection closed by peer [10.0.0.7]"
    )
    assert cause_of_death({1: ActorDiedError()}, {}) == "rank 1 died"


def test_one_killed_for_memory_says_what_was_used_and_what_to_lower():
    words = cause_of_death({0: ActorDiedError(), 1: OutOfMemoryError(PAGE)}, PROGRESS)
    assert words.startswith(
        "rank 1 on node 10.0.0.7 (pid 24385) was killed because memory ran out: it used 40.5 GiB, its node 61.2 GiB of "
        "64 GiB; lower training.chunk_tokens"
    )
    assert "batching.global_batch_size" in words


def test_one_that_vanished_from_a_full_node_was_most_likely_killed_by_the_kernel():
    full = {1: replace(PROGRESS[1], memory=MemoryUse(40 * GIB, 63 * GIB, 64 * GIB))}
    words = cause_of_death({1: ActorDiedError()}, full)
    assert "died, most likely because memory ran out: it used 40 GiB, its node 63 GiB of 64 GiB; lower" in words


class Run:
    """A run whose controller has the callback; `kept` is the step of its newest checkpoint."""

    def __init__(self, monkeypatch, max_failures):
        self.kept, self.broker = 0, MessageBroker()
        methods = ("failure", "progress", "put_event", "count_restart")
        handle = SimpleNamespace(**{name: SimpleNamespace(remote=getattr(self.broker, name)) for name in methods})
        monkeypatch.setattr(ray, "get", lambda value: value)
        monkeypatch.setattr(worker_deaths, "checkpoints_in", lambda folder: [f"step-{self.kept:08d}-0"])
        monkeypatch.setattr(worker_deaths, "is_complete", lambda checkpoint: self.kept > 0)
        self.released = []
        monkeypatch.setattr(worker_deaths, "release", self.released.append)
        self.restarts = Restarts(handle, "/storage", max_failures)
        self.deaths = WorkerDeaths(self.restarts)
        for progress in PROGRESS.values():
            self.broker.register(progress, None)

    def die(self, error=None):
        errors = {0: LOST, 1: FailedCheckError(error or ActorDiedError())}
        self.deaths.after_worker_group_poll_status(SimpleNamespace(errors=errors))
        self.deaths.after_worker_group_poll_status(SimpleNamespace(errors={}))
        self.deaths.before_controller_execute_failure_decision("RETRY")

    def notes(self):
        return [event.note for event in self.broker.take_events()]


@pytest.fixture
def run(monkeypatch):
    return lambda max_failures: Run(monkeypatch, max_failures)


def test_restarts_without_a_newer_checkpoint_come_to_an_end(run):
    dying = run(2)
    dying.die()
    dying.die(OutOfMemoryError(PAGE))
    first, second = dying.notes()
    assert first.endswith("the workers are restarted from the last checkpoint (restart 1 of 2 without progress)")
    assert second.endswith("(restart 2 of 2 without progress)")
    with pytest.raises(GivenUpError) as error:
        dying.die(OutOfMemoryError(PAGE))
    assert "it used 40.5 GiB" in error.value.cause
    assert error.value.why == "given up: 2 restarts in a row without a newer checkpoint (training.max_failures)"
    assert dying.notes() == []


def test_a_newer_checkpoint_begins_the_count_anew(run):
    dying = run(1)
    for step in range(10, 100, 10):
        dying.kept = step
        dying.die()
    assert len(dying.notes()) == 9
    with pytest.raises(GivenUpError):
        dying.die()


@pytest.mark.parametrize(("max_failures", "deaths"), [(0, 0), (-1, 50)])
def test_none_at_all_and_without_end(run, max_failures, deaths):
    dying = run(max_failures)
    for _ in range(deaths):
        dying.die()
    if max_failures == 0:
        with pytest.raises(GivenUpError, match="no restart is allowed"):
            dying.die()
    assert len(dying.notes()) == deaths


def test_machines_taken_away_with_notice_do_not_count(run):
    dying = run(1)
    taken = ActorDiedError()
    taken._preempted = True
    for _ in range(5):
        dying.die(taken)
    dying.die()


def test_what_a_restart_would_not_mend_ends_at_once(run):
    dying = run(5)
    dying.broker.fail("the disk is full")
    with pytest.raises(GivenUpError, match="the disk is full"):
        dying.die()


def test_a_failure_that_is_no_worker_s_is_left_to_ray_train(run):
    dying = run(0)
    dying.deaths.before_controller_execute_failure_decision("RETRY")
    assert dying.notes() == []


class Trainers:
    """Trainers of one run, of which each ends by the next of these errors; None: training comes to its end."""

    def __init__(self, *ends):
        self._ends = iter(ends)
        self.count = 0

    def fit(self):
        end = next(self._ends)
        if end is not None:
            raise end

    def __call__(self):
        self.count += 1
        return self


OTHER_PAGE = PAGE.replace("pid=24385", "pid=7").replace("task name=RayTrainWorker", "task name=TrainController")


def test_a_controller_that_memory_ended_is_followed_by_another(run):
    hurt = run(3)
    trainers = Trainers(ControllerError(OutOfMemoryError(PAGE)), OutOfMemoryError(OTHER_PAGE), None)
    train_with(trainers, hurt.restarts)
    assert trainers.count == 3
    assert hurt.released == ["g", "g"], "the next workers need what those before had"
    worker, controller = hurt.notes()
    assert worker.startswith(
        "rank 1 on node 10.0.0.7 (pid 24385) was killed because memory ran out: it used 40.5 GiB, its node 61.2 GiB of "
        "64 GiB; lower training.chunk_tokens"
    )
    assert worker.endswith("; the workers are restarted from the last checkpoint (restart 1 of 3 without progress)")
    assert controller.startswith("TrainController (pid 7) on node 10.0.0.7 was killed because memory ran out: it used")
    assert "; lower training.chunk_tokens" in controller
    assert controller.endswith("(restart 2 of 3 without progress)")


def test_a_controller_that_gave_up_as_an_actor_died_is_followed_by_another(run):
    hurt = run(1)
    trainers = Trainers(ControllerError(ActorDiedError()), ControllerError(ActorDiedError()))
    with pytest.raises(ControllerError) as error:
        train_with(trainers, hurt.restarts)
    assert "given up: 1 restart in a row" in error.value.controller_failure.why
    assert hurt.notes() == [
        "an actor of Ray Train, or a worker that began, died; the workers are restarted from the last checkpoint "
        "(restart 1 of 1 without progress)"
    ]


def test_lost_controllers_and_deaths_of_workers_are_one_count(run):
    hurt = run(2)
    trainers = Trainers(*[OutOfMemoryError(PAGE)] * 5)
    hurt.die()
    with pytest.raises(ControllerError) as error:
        train_with(trainers, hurt.restarts)
    assert trainers.count == 2
    said = _why_failed(error.value, None, SimpleNamespace(reason=lambda: None), Path("/runs/ray"))
    assert said.startswith("rank 1 on node 10.0.0.7 (pid 24385) was killed because memory ran out: it used 40.5 GiB")
    assert said.endswith("; given up: 2 restarts in a row without a newer checkpoint (training.max_failures)")
    hurt.kept = 50
    with pytest.raises(ControllerError):
        train_with(trainers, hurt.restarts)
    assert trainers.count == 5, "progress began the count anew"


@pytest.mark.parametrize(
    "error", [ControllerError(ValueError("no room")), WorkerGroupError("died", {}), ActorDiedError()]
)
def test_what_was_no_lack_of_memory_ends_training(run, error):
    trainers = Trainers(error)
    with pytest.raises(type(error)) as raised:
        train_with(trainers, run(3).restarts)
    assert raised.value is error


def test_a_failure_that_a_worker_told_of_is_not_tried_again_for_memory(run):
    hurt = run(3)
    hurt.broker.fail("the disk is full")
    with pytest.raises(ControllerError) as error:
        train_with(Trainers(OutOfMemoryError(PAGE)), hurt.restarts)
    assert error.value.controller_failure.cause == "the disk is full"


def test_the_end_of_a_group_of_workers_outlives_one_that_memory_killed(monkeypatch):
    def shut_down(*_):
        raise ends.pop()

    monkeypatch.setattr(_TorchBackend, "on_shutdown", shut_down)
    callback = BackendSetupCallback(ClusterTorchConfig())
    ends = [ValueError("another"), OutOfMemoryError(PAGE)]
    callback.before_execution_group_shutdown(None)
    with pytest.raises(ValueError, match="another"):
        callback.before_execution_group_shutdown(None)


@pytest.mark.parametrize(
    ("failure", "hang", "error", "why"),
    [
        ("the disk is full", "rank 1 hangs", GivenUpError("rank 1 died", "given up"), "the disk is full"),
        (None, "rank 1 hangs", GivenUpError("rank 1 was killed", "given up"), "rank 1 hangs; given up"),
        (None, None, GivenUpError("rank 1 died", "given up"), "rank 1 died; given up"),
        (None, "rank 1 hangs", ValueError("no room"), "rank 1 hangs"),
        (None, None, ValueError("no room"), "training failed: no room; the workers' logs are in /runs/ray and Ray's"),
    ],
)
def test_why_training_failed_for_good(failure, hang, error, why):
    failed = Exception("Training failed due to controller error:\nno room")
    failed.controller_failure = error
    said = _why_failed(failed, failure, SimpleNamespace(reason=lambda: hang), Path("/runs/ray"))
    assert said.startswith(why)


def test_ray_train_s_controller_restarts_or_gives_up_as_the_callback_says(run):
    dying = run(1)
    assert RunConfig(name="run", storage_path="/tmp", callbacks=[dying.deaths]).callbacks == [dying.deaths]
    controller = object.__new__(TrainController)
    controller._state = RunningState()
    controller._failure_policy = DefaultFailurePolicy(FailureConfig(max_failures=-1))
    controller._controller_callback_manager = CallbackManager([dying.deaths])
    controller._get_run_attempt_id = lambda: "1"

    def die():
        error = WorkerGroupError("rank 1 died", {1: FailedCheckError(ActorDiedError())})
        dying.deaths.after_worker_group_poll_status(SimpleNamespace(errors=error.worker_failures))
        decision = controller._failure_policy.make_decision(training_failed_error=error)
        return controller._execute_failure_decision(decision, training_failed_error=error).next_state

    assert isinstance(die(), RestartingState)
    ending = die()
    assert isinstance(ending, ShuttingDownState)
    failed = cloudpickle.loads(cloudpickle.dumps(ending.next_state.training_failed_error))  # as it reaches the driver
    said = _why_failed(failed, None, SimpleNamespace(reason=lambda: None), Path("/runs/ray"))
    assert said.startswith("rank 1 on node 10.0.0.7 (pid 24385) died; it used 3 GiB")
    assert said.endswith("; given up: 1 restart in a row without a newer checkpoint (training.max_failures)")
