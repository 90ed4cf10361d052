"""What a run has used, over attempts that end in any way."""

import pytest

from hbtrain.events import Event
from hbtrain.runs.hang_detection import FINISHED, Position
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.usage import KEEP_EVERY_S, Usage, metrics_of, total_usage
from hbtrain.runs.worker_messages import Mailbox


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
    usage.start()
    for workers, seconds in ((0, 20), (2, 3600), (3, 1800)):
        clock.now += seconds
        usage.stand(workers)
    usage.add(Event(10, {}, pairs=640, tokens=9000))
    usage.add(Event(10, {"validation/loss": 1.0}))
    usage.add(Event(20, {}, pairs=640, tokens=9100))
    assert usage.metrics() == {
        "usage/worker_hours": 3.5,
        "usage/gpu_hours": 3.5,
        "usage/pairs": 1280.0,
        "usage/tokens": 18100.0,
    }


def test_an_attempt_adds_to_those_before_it(folder, clock):
    first = Usage(folder, 0, clock)
    clock.now += 3600
    first.stand(2)
    first.add(Event(10, {}, pairs=100, tokens=1000))
    clock.now += KEEP_EVERY_S / 2
    first.stand(2)  # killed here: not kept
    second = Usage(folder, 0, clock)
    clock.now += 100  # between attempts nobody works
    second.start()
    clock.now += 1800
    second.stand(4)
    second.add(Event(15, {}, pairs=50, tokens=600))  # steps done again count again
    assert second.metrics() == {"usage/worker_hours": 4.0, "usage/pairs": 150.0, "usage/tokens": 1600.0}


def test_a_killed_driver_loses_seconds(folder, clock):
    usage = Usage(folder, 0, clock)
    for _ in range(1000):
        clock.now += 0.5
        usage.stand(8)
    kept = folder.recall("usage")["worker_s"]
    assert 8 * (500 - KEEP_EVERY_S) <= kept <= 8 * 500


def test_workers_stand_from_their_beginning_to_their_end():
    mailbox = Mailbox()
    assert mailbox.workers() == 0
    for rank in range(3):
        mailbox.join(Position("a", 3, rank), None)
    assert mailbox.workers() == 3
    mailbox.stand(Position("a", 3, 1, marks=FINISHED))
    assert mailbox.workers() == 2
    mailbox.join(Position("b", 2, 0), None)
    assert mailbox.workers() == 1


def test_several_runs_are_added_up(tmp_path):
    folders = [RunFolder(tmp_path / name) for name in ("first", "second", "never-began")]
    for folder in folders[:2]:
        folder.path.mkdir()
    folders[0].remember(usage={"worker_s": 3600.0, "gpu_s": 0.0, "pairs": 10.0, "tokens": 100.0})
    folders[1].remember(usage={"worker_s": 1800.0, "gpu_s": 0.0, "pairs": 5.0, "tokens": 40.0})
    assert metrics_of(total_usage(folders)) == {"usage/worker_hours": 1.5, "usage/pairs": 15.0, "usage/tokens": 140.0}
    folders[1].remember(usage={"worker_s": 0.0, "gpu_s": 7200.0, "pairs": 0.0, "tokens": 0.0})
    assert metrics_of(total_usage(folders))["usage/gpu_hours"] == 2.0
