"""Processes killed for memory: what Ray's page says, in one line."""

from types import SimpleNamespace

import pytest
import ray

from hbtrain.cluster import memory, session
from hbtrain.cluster.lost_cluster import loss_as_error
from hbtrain.cluster.memory import MemoryUse, memory_kills, memory_use, out_of_memory
from hbtrain.config import Config
from hbtrain.errors import TrainingError

GIB = 2**30
PAGE = """2 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.7, ID: ccb6) \
was 61.20GB used / 64.00GB limit (0.956250)
OOM kill reason: Memory usage 65712999629B exceeded threshold of 65283502899B (95.0% of 68719476736B limit)
Ray killed 2 worker(s) based on the killing policy
Considered workers: [
Selected to kill: (Actor(1c97): job ID=01000000, lease ID=0000, task name=RayTrainWorker.__init__, required \
resources={CPU: 1}, pid=24385, actual memory used=40.50GB, worker ID=1a0b)
Selected to kill: (job ID=01000000, lease ID=0001, pid=24386, actual memory used=0.50GB, worker ID=1a0c)
]
Top 10 memory users: PID\tMEM(GB)\tCOMMAND
24385\t40.5\tray::RayTrainWorker
Refer to the documentation on how to address the out of memory issue: https://docs.ray.io/."""


def test_who_was_killed_and_what_was_used_is_read_from_the_page():
    first, second = memory_kills(PAGE)
    assert (first.node, first.pid, first.name) == ("10.0.0.7", 24385, "RayTrainWorker")
    assert first.use == MemoryUse(round(40.5 * GIB), round(61.2 * GIB), 64 * GIB)
    assert (second.pid, second.name) == (24386, "")
    assert out_of_memory(PAGE) == (
        "RayTrainWorker (pid 24385) on node 10.0.0.7 was killed because memory ran out: it used 40.5 GiB, its node "
        "61.2 GiB of 64 GiB; a process (pid 24386) on node 10.0.0.7 was killed because memory ran out: it used 512 "
        "MiB, its node 61.2 GiB of 64 GiB"
    )


@pytest.mark.parametrize("text", ["", "out of memory", PAGE.replace("IP:", "Address:")])
def test_another_form_of_the_page_is_still_one_line(text):
    assert out_of_memory(text) == "a process was killed because its node ran out of memory"


def test_the_driver_s_own_actors_that_are_killed_are_no_lost_cluster(monkeypatch):
    class Context:
        gcs_address = "127.0.0.1:1"

    monkeypatch.setattr(ray, "get_runtime_context", Context)
    with pytest.raises(TrainingError) as error, loss_as_error("local", 60):
        raise ray.exceptions.OutOfMemoryError(PAGE)
    assert "\n" not in str(error.value)
    assert "lost" not in str(error.value)
    assert "(pid 24385) on node 10.0.0.7" in str(error.value)


def test_the_limit_of_a_container_is_that_of_its_node(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    machine = memory_use()
    assert 0 < machine.process < machine.node < machine.limit
    limit, used, forgotten = machine.limit // 2, machine.limit // 4, machine.limit // 8
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {forgotten}\n")
    own = memory_use()
    assert (own.node, own.limit) == (used - forgotten, limit)
    (tmp_path / "memory.max").write_text("max\n")
    assert memory_use().limit == machine.limit


@pytest.mark.parametrize(("node", "full"), [(57, False), (58, True), (64, True)])
def test_nearly_full_is_nine_tenths(node, full):
    assert MemoryUse(1, node, 64).is_nearly_full is full
    assert not MemoryUse(1, node, 0).is_nearly_full


def test_a_task_of_a_run_that_is_killed_for_memory_is_one_line(monkeypatch):
    def get(_):
        raise ray.exceptions.OutOfMemoryError(PAGE)

    monkeypatch.setattr(ray, "get", get)
    monkeypatch.setattr(ray, "remote", lambda **_: lambda function: SimpleNamespace(remote=function))
    monkeypatch.setattr(session, "alive", list)
    monkeypatch.setenv("RAY_task_oom_retries", "2")
    with pytest.raises(TrainingError) as error:
        session.run_task(Config(), score)
    assert str(error.value).startswith("score failed: RayTrainWorker (pid 24385) on node 10.0.0.7 was killed because")
    assert "it was tried again 2 times, lower evaluation.batch_size" in str(error.value)


def score():
    """What the task would run."""
