"""What a run has used, over attempts that end in any way."""

import pytest

from hbtrain.events import Event
from hbtrain.runs.hang_detection import FINISHED, RankProgress
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.usage import SAVE_EVERY_S, Usage, metrics_of, total_usage
from hbtrain.runs.worker_messages import MessageBroker


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def folder(tmp_path):
    return RunFolder(tmp_path)


def test_time_is_that_of_the_workers_that_stand(folder, clock):
    usage = Usage(folder, 1, clock)
    clock.now += 500  # Ray starts, a model is built: nobody works
    usage.start_clock()
    for workers, seconds in ((0, 20), (2, 3600), (3, 1800)):
        clock.now += seconds
        usage.add_time(workers)
    usage.add_event(Event(10, {}, pairs=640, tokens=9000))
    usage.add_event(Event(10, {"validation/loss": 1.0}))
    usage.add_event(Event(20, {}, pairs=640, tokens=9100))
    assert usage.metrics() == {
        "usage/worker_hours": 3.5,
        "usage/gpu_hours": 3.5,
        "usage/pairs": 1280.0,
        "usage/tokens": 18100.0,
    }


def test_an_attempt_adds_to_those_before_it(folder, clock):
    first = Usage(folder, 0, clock)
    clock.now += 3600
    first.add_time(2)
    first.add_event(Event(10, {}, pairs=100, tokens=1000))
    clock.now += SAVE_EVERY_S / 2
    first.add_time(2)  # killed here: not kept
    second = Usage(folder, 0, clock)
    clock.now += 100  # between attempts nobody works
    second.start_clock()
    clock.now += 1800
    second.add_time(4)
    second.add_event(Event(15, {}, pairs=50, tokens=600))  # steps done again count again
    assert second.metrics() == {"usage/worker_hours": 4.0, "usage/pairs": 150.0, "usage/tokens": 1600.0}


def test_a_killed_driver_loses_seconds(folder, clock):
    usage = Usage(folder, 0, clock)
    for _ in range(1000):
        clock.now += 0.5
        usage.add_time(8)
    kept = folder.state.usage.worker_s
    assert 8 * (500 - SAVE_EVERY_S) <= kept <= 8 * 500


def test_workers_stand_from_their_beginning_to_their_end():
    broker = MessageBroker()
    assert broker.active_workers() == 0
    for rank in range(3):
        broker.register(RankProgress("a", 3, rank), None)
    assert broker.active_workers() == 3
    broker.report_progress(RankProgress("a", 3, 1, phases_begun=FINISHED))
    assert broker.active_workers() == 2
    broker.register(RankProgress("b", 2, 0), None)
    assert broker.active_workers() == 1


def test_several_runs_are_added_up(tmp_path):
    folders = [RunFolder(tmp_path / name) for name in ("first", "second", "never-began")]
    for folder in folders[:2]:
        folder.path.mkdir()
    folders[0].update(usage={"worker_s": 3600.0, "gpu_s": 0.0, "pairs": 10.0, "tokens": 100.0})
    folders[1].update(usage={"worker_s": 1800.0, "gpu_s": 0.0, "pairs": 5.0, "tokens": 40.0})
    assert metrics_of(total_usage(folders)) == {"usage/worker_hours": 1.5, "usage/pairs": 15.0, "usage/tokens": 140.0}
    folders[1].update(usage={"worker_s": 0.0, "gpu_s": 7200.0, "pairs": 0.0, "tokens": 0.0})
    assert metrics_of(total_usage(folders))["usage/gpu_hours"] == 2.0
