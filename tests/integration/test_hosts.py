"""Several hosts, for real: training and evaluation spread over them, and one that loses power."""

import secrets
import tempfile
from pathlib import Path

import pytest

from tests.integration.command import Command, title
from tests.integration.hosts import Hosts, NoHosts
from tests.integration.nodes import Node
from tests.integration.test_elastic import histories, resumed

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

STEPS = 300
TRAIN = [
    "train", "quickstart", "--training.steps", STEPS, "--training.checkpoint_every", "50", "--training.log_every", "10",
    "--batching.global_batch_size", "256", "--encoder.static.dimension", "512", "--resources.workers", "2",
    "--evaluation.before", "false", "--evaluation.actors", "2",
]  # fmt: skip
SMALL = ["--object-store-memory", 100_000_000]


@pytest.fixture
def hosts():
    """A switch without hosts, in a folder with a short path: Ray's sockets lie below it."""
    with tempfile.TemporaryDirectory(prefix="hb", ignore_cleanup_errors=True) as folder:
        try:
            made = Hosts(Path(folder))
        except NoHosts as reason:
            pytest.skip(str(reason))
        with made:
            yield made


def named(words, host):
    """The processes of a host that call themselves so."""
    return [process for process in host.processes() if words in title(process)]


def test_a_host_loses_power_and_another_takes_its_place(hosts):
    folder = hosts.folder
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    first, second, third = hosts.add(), hosts.add(), hosts.add()
    with Node.head_on(first, folder, *SMALL, **token) as head, head.join(folder, "second", *SMALL, host=second, **token):
        address = f"{first.address}:6379"
        quick = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "15", "RAY_ADDRESS": address, **token}
        arguments = [*TRAIN, "--data.cache", folder / "cache"]
        with Command(folder, *arguments, host=first, **quick) as command:
            command.wait_for("checkpoint of step 100 kept", 150)
            assert [len(named("TrainWorker", host)) for host in (first, second)] == [1, 1]
            second.lose_power()
            with head.join(folder, "third", *SMALL, host=third, **token):
                command.wait_for("on 2 workers", 150)
                command.wait_for("evaluating the trained model", 150)
                while command.process.poll() is None:
                    seen = [len(named("_Host", host)) for host in (first, third)]
                    print(seen)
                assert command.finish(250) == 0, command.output
