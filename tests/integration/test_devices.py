"""Every process that hbtrain starts on a cluster with GPUs sees those that it was given, and no others."""

import os

import pytest

from hbtrain.cluster.session import run_task
from hbtrain.config import load_config
from hbtrain.errors import StorageError
from hbtrain.retrieval.actors import RayWorkers
from hbtrain.translation.blocks import Block
from hbtrain.translation.ray_pipeline import Pool, Work, translated
from tests.integration.command import workers_are_forks

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster():
    """Two GPUs, as Ray was told; the machine need not have any."""
    import ray

    with workers_are_forks() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        ray.init(address="local", num_cpus=2, num_gpus=2, log_to_driver=False)
        yield
        ray.shutdown()


def seen():
    """The GPUs that CUDA would show this process."""
    return os.environ.get("CUDA_VISIBLE_DEVICES")


class Looker:
    """What an actor holds."""

    def __init__(self, device):
        self._device = device

    def seen(self):
        """(the device that the actor was told, the GPUs that it sees)."""
        return self._device, seen()


class Recorder:
    """Texts that write down what the process sees that reads them, and cannot be read."""

    folder = "nowhere"

    def __init__(self, file):
        self._file = file

    def texts(self):
        self._file.write_text(str(seen()))
        raise OSError(5, "nothing to read")


def look(gpus):
    """What an actor sees that has so many GPUs."""
    workers = RayWorkers([Looker], 0.1, gpus)
    try:
        return workers.call_all("seen")
    finally:
        workers.close()


def look_with_and_without():
    return look(0) + look(1)


def write_seen(settings):
    """A training loop."""
    import ray.train

    rank = ray.train.get_context().get_world_rank()
    (settings["folder"] / f"rank-{rank}").write_text(str(seen()))


@pytest.mark.parametrize(("use_gpu", "expected"), [(False, {""}), (True, {"0", "1"})])
def test_a_task(cluster, use_gpu, expected):
    config = load_config("quickstart", {"resources.use_gpu": use_gpu})
    assert run_task(config, seen) in expected


def test_an_actor(cluster):
    assert look(0) == [("cpu", "")]
    assert set(look(1)) <= {("cuda", "0"), ("cuda", "1")}


def test_an_actor_that_a_task_without_gpus_starts(cluster):
    without, with_one = run_task(load_config("quickstart"), look_with_and_without, starts_actors=True)
    assert without == ("cpu", "")
    assert with_one in {("cuda", "0"), ("cuda", "1")}


def test_a_worker_of_a_training(cluster, tmp_path):
    from hbtrain.runs.torch_trainer import torch_trainer

    resources = load_config("quickstart", {"resources.workers": 2, "resources.use_gpu": False}).resources
    torch_trainer(write_seen, {"folder": tmp_path}, resources, 2, name="ray", storage_path=str(tmp_path)).fit()
    assert [(tmp_path / f"rank-{rank}").read_text() for rank in range(2)] == ["", ""]


@pytest.mark.enable_socket  # the head has an address of the machine's own
def test_a_translating_actor(cluster, tmp_path):
    work = Work(model=None, source="en", targets=("de",), generation=None, identify=False)
    texts = Recorder(tmp_path / "seen")
    with pytest.raises(StorageError):
        list(translated(work, Pool(actors=1, use_gpu=False), texts, [Block("de", 0, 0, 1)]))
    assert (tmp_path / "seen").read_text() == ""
