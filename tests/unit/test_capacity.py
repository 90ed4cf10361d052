"""Whether workers fit on nodes, and waiting for nodes that come, or do not."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.cluster import capacity
from hbtrain.cluster.capacity import Demand, await_room
from hbtrain.config.schema import ResourcesConfig
from hbtrain.errors import ConfigError


@given(
    cpus=st.lists(st.integers(0, 12), max_size=5),
    gpus=st.lists(st.integers(0, 4), min_size=5, max_size=5),
    tenths=st.integers(1, 60),
    use_gpu=st.booleans(),
)
def test_room_is_what_placing_one_worker_after_the_other_finds(cpus, gpus, tenths, use_gpu):
    nodes = [{"CPU": cpu, "GPU": gpu} for cpu, gpu in zip(cpus, gpus, strict=False)]
    placed, left = 0, [[10 * node["CPU"], node["GPU"]] for node in nodes]
    for node in left:
        while node[0] >= tenths and (node[1] >= 1 or not use_gpu):
            node[0] -= tenths
            node[1] -= use_gpu
            placed += 1
    resources = ResourcesConfig(cpus_per_worker=tenths / 10, use_gpu=use_gpu)
    assert Demand.of(resources).room(nodes) == placed
    for workers in (placed, placed + 1):
        fits = Demand.of(resources.model_copy(update={"workers": max(workers, 1)})).shortage(nodes) is None
        assert fits == (max(workers, 1) <= placed)


def test_too_little_of_a_kind_is_named():
    nodes = [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 4.0}]
    resources = ResourcesConfig(workers=(2, 8), cpus_per_worker=2, use_gpu=True)
    assert Demand.of(resources).shortage(nodes) == (
        "resources.workers = (2, 8) needs 4 CPUs and 2 GPUs, and the cluster has 8 CPUs and 1 GPU"
    )


def test_enough_in_all_but_on_nodes_that_are_too_small():
    resources = ResourcesConfig(workers=2, cpus_per_worker=3)
    assert Demand.of(resources).shortage([{"CPU": 2.0}] * 4) == (
        "resources.workers = 2 needs 6 CPUs, and the cluster has 8 CPUs, but on nodes that hold 0 workers of "
        "3 CPUs each"
    )


@pytest.fixture
def cluster(monkeypatch):
    """Nodes that join after so many looks, and what was asked of the autoscaler while they were waited for."""

    class Cluster:
        looks, now, asked, joins_after = 0, 0.0, [], 10**9

        def alive(self):
            self.looks += 1
            return [{"CPU": 1.0}] * (1 if self.looks < self.joins_after else 3)

    seen = Cluster()

    class Asked:
        def __init__(self, demand):
            seen.asked.append(f"asked for {demand.count}")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            seen.asked.append("no more")

    seen.asked = []
    monkeypatch.setattr(capacity, "alive", seen.alive)
    monkeypatch.setattr(capacity, "_autoscaler_request", Asked)
    monkeypatch.setattr(capacity.time, "monotonic", lambda: seen.now)
    monkeypatch.setattr(capacity.time, "sleep", lambda seconds: setattr(seen, "now", seen.now + seconds))
    return seen


def test_without_wait_s_nothing_is_waited_for(cluster):
    with pytest.raises(
        ConfigError, match="has 1 CPU; lower it, join nodes to the cluster, or wait for them with resources.wait_s"
    ):
        await_room(Demand.of(ResourcesConfig(workers=2)), pytest.fail)
    assert (cluster.now, cluster.asked) == (0, [])


def test_enough_is_not_waited_for(cluster):
    await_room(Demand.of(ResourcesConfig(workers=1, wait_s=60)), pytest.fail)
    assert (cluster.now, cluster.asked) == (0, [])


def test_nodes_that_come_end_the_wait(cluster):
    cluster.joins_after = 20
    said = []
    await_room(Demand.of(ResourcesConfig(workers=(2, 8), wait_s=600)), said.append)
    assert said == ["waiting up to 600 s for 2 CPUs: the cluster has 1 CPU", "the cluster has 3 CPUs"]
    assert cluster.asked == ["asked for 2", "no more"]
    assert 0 < cluster.now < 60


def test_nodes_that_do_not_come_end_it_as_well(cluster):
    words = re.escape("and the cluster has 1 CPU after resources.wait_s = 60 s; join nodes to the cluster")
    with pytest.raises(ConfigError, match=words) as error:
        await_room(Demand.of(ResourcesConfig(workers=2, wait_s=60)), lambda text: None)
    assert error.value.exit_code == 2
    assert cluster.asked == ["asked for 2", "no more"]
    assert 60 <= cluster.now < 62


def test_actors_are_counted_and_named_as_the_user_named_them():
    demand = Demand("--actors 3", 3, 2.0, gpus=1.0)
    nodes = [{"CPU": 16.0}, {"CPU": 4.0, "GPU": 4.0}]
    assert demand.room(nodes) == 2, "a process is on one node"
    assert demand.shortage(nodes) == (
        "--actors 3 needs 6 CPUs and 3 GPUs, and the cluster has 20 CPUs and 4 GPUs, but on nodes that hold 2 actors "
        "of 2 CPUs and 1 GPU each"
    )
    assert Demand("--actors 2", 2, 2.0, gpus=1.0).shortage(nodes) is None
