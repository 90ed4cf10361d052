"""An address where no Ray cluster answers is said in one line, within seconds."""

import os
import re
import socket
import sys

import grpc
import psutil
import pytest

from hbtrain.cli.main import main
from hbtrain.cluster import connection
from hbtrain.cluster.connection import ray_connection
from hbtrain.errors import ClusterError, ConfigError
from hbtrain.runs.torch_trainer import GLOO_INTERFACE, NCCL_INTERFACE, choose_interface, interface_of


@pytest.fixture
def listening():
    """A socket that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def refused(address):
    with pytest.raises(ConfigError) as error, ray_connection(address, "resources.address"):
        pass
    assert "\n" not in str(error.value)
    start = f"resources.address = {address!r}: no Ray cluster "
    assert str(error.value).startswith(start)
    return str(error.value).removeprefix(start)


def test_nothing_listens(listening):
    port = listening.getsockname()[1]
    listening.close()
    assert "Connection refused; start one" in refused(f"127.0.0.1:{port}")
    assert "Connection refused; start one" in refused(f"ray://127.0.0.1:{port}")


@pytest.mark.parametrize("address", ["nowhere.invalid:6379", "a..b:6379"])
def test_no_such_host(address):
    assert "answers there: " in refused(address)


def test_what_listens_says_nothing(listening, monkeypatch):
    monkeypatch.setattr(connection, "ANSWER_WITHIN_S", 0.3)
    assert "not Ray, or hanging: no answer in 0.3 s" in refused(f"127.0.0.1:{listening.getsockname()[1]}")


def slow_to_start(attempts):
    """A stand-in for `ray.init` that raises what Ray does where its processes are slow, so many times, then starts."""
    calls = []

    def init(address, **options):
        calls.append((address, options["include_dashboard"]))
        if len(calls) <= attempts:
            raise Exception("The current node timed out during startup. This could happen because ...\nmore")  # noqa: TRY002

    return init, calls


@pytest.mark.parametrize("attempts", [0, 1, 2])
def test_ray_is_started_once_more_where_it_was_slow_and_then_it_is_said(attempts, monkeypatch):
    import ray

    init, calls = slow_to_start(attempts)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", init)
    monkeypatch.setattr(ray, "shutdown", lambda: calls.append("ended"))
    if attempts < 2:
        with ray_connection("local", "resources.address"):
            assert calls == [("local", False)] * (attempts + 1)
        assert calls[-1] == "ended"
        return
    with pytest.raises(ClusterError) as error, ray_connection("local", "resources.address"):
        pass
    assert error.value.exit_code == 1
    assert re.match(r"Ray did not start on this machine in 2 attempts: The current node timed out", str(error.value))
    assert "\n" not in str(error.value)
    assert "session_latest/logs; the same command tries again" in str(error.value)


def test_what_speaks_grpc_is_let_through():
    from concurrent.futures import ThreadPoolExecutor

    server = grpc.server(ThreadPoolExecutor(1))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        connection.check_answers(f"127.0.0.1:{port}", "RAY_ADDRESS")
        connection.check_answers(f"ray://127.0.0.1:{port}", "RAY_ADDRESS")
    finally:
        server.stop(None)


def test_a_command_says_so(tmp_path, cache, monkeypatch, capfd):
    """Whole, as a user sees it, whichever library it is that writes: exit code 2, one line."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setattr(sys, "argv", ["hbtrain", "train", "quickstart", "--storage", str(tmp_path)])
    with pytest.raises(SystemExit) as end:
        main()
    told = capfd.readouterr().err
    assert end.value.code == 2
    assert re.match(r"error: resources.address = '127.0.0.1:1': no Ray cluster answers there", told), told
    assert told.count("\n") == 1


def test_the_interface_of_an_address():
    for name, addresses in psutil.net_if_addrs().items():
        for known in addresses:
            if known.family == socket.AF_INET:
                # The kernel's own answer to which interface an address is bound to.
                assert interface_of(known.address) == name.partition(":")[0]
    assert interface_of("127.0.0.1") == "lo"
    assert interface_of("203.0.113.77") is None


def test_what_the_node_says_of_its_interface_stays(monkeypatch):
    import ray

    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    for name in (GLOO_INTERFACE, NCCL_INTERFACE):
        monkeypatch.setenv(name, "")  # what is here before comes back in the end
        monkeypatch.delenv(name)

    def chosen(**by_the_node):
        os.environ.update(by_the_node)
        choose_interface()
        return [os.environ.pop(name, None) for name in (GLOO_INTERFACE, NCCL_INTERFACE)]

    assert chosen() == ["lo", "=lo"], "NCCL's = is for this name, not for all that begin so"
    assert chosen(**{GLOO_INTERFACE: "eth7"}) == ["eth7", "=lo"]
    assert chosen(**{NCCL_INTERFACE: "ib"}) == ["lo", "ib"]
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "203.0.113.77")
    assert chosen() == [None, None]


def test_auto_is_the_cluster_of_this_machine_if_there_is_one(listening, monkeypatch):
    from ray._private import services

    port = listening.getsockname()[1]
    listening.close()
    monkeypatch.setattr(services, "canonicalize_bootstrap_address", lambda address: f"127.0.0.1:{port}")
    with pytest.raises(ConfigError, match=f"'127.0.0.1:{port}': no Ray cluster answers there"), connect_to_auto():
        pass  # a cluster that was killed left its address behind

    def none(address):
        raise ConnectionError("Could not find any running Ray instance.")

    monkeypatch.setattr(services, "canonicalize_bootstrap_address", none)
    with pytest.raises(ConfigError, match="'auto': no Ray cluster runs on this machine"), connect_to_auto():
        pass


def connect_to_auto():
    return ray_connection("auto", "resources.address")
