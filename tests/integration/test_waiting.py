"""A run that waits for nodes: some that someone joins, and some that an autoscaler adds because it was asked."""

import json
import re
import tempfile
import time
from pathlib import Path

import pytest
import requests

from hbtrain.runs.gauges import GAUGES
from tests.integration.command import PATIENCE_S, Command
from tests.integration.nodes import Node
from tests.ports import free_port

pytestmark = pytest.mark.ray

HEAD = "f" * 51 + "00000"
"""What Ray's stand-in for a cloud takes for the head's identity."""
TRAIN = [
    "train", "quickstart", "--training.steps", 5, "--training.log_every", 5, "--evaluation.benchmarks", "[]",
    "--tracking.log_model", "false", "--resources.workers", 2, "--resources.wait_s",
]  # fmt: skip
WAITS = "for 2 CPUs: the cluster has 1 CPU\n"
SHOWN = GAUGES.keys() - {"hbtrain_validation_loss", "hbtrain_gpu_memory_peak_gib"}
"""The gauges of such a run: it has no validation source, and no GPU."""


@pytest.fixture
def folder():
    """A folder with a short path: Ray's sockets lie in it."""
    with tempfile.TemporaryDirectory(prefix="hb", ignore_cleanup_errors=True) as path:
        yield Path(path)


def run(folder, head, wait_s):
    return Command(folder, *TRAIN, wait_s, "--data.cache", folder / "cache", RAY_ADDRESS=head.address)


def scraped(port):
    """{gauge: value} of hbtrain's gauges, as Prometheus gets them from a node."""
    text = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text
    lines = re.finditer(r'^ray_(hbtrain_\w+){[^}]*\brun="quickstart-\w+"[^}]*} (\S+)$', text, re.MULTILINE)
    return {line[1]: float(line[2]) for line in lines}


def test_a_node_that_joins_ends_the_wait_and_prometheus_sees_the_run(folder):
    metrics = free_port()
    often = {"RAY_metrics_report_interval_ms": "500"}
    with Node.head(folder, "--metrics-export-port", metrics, **often) as head:
        with run(folder, head, 2) as command:
            assert command.finish() == 2, command.output
            assert f"waiting up to 2 s {WAITS}" in command.output
            *_, last = command.output.splitlines()
            words = "resources.workers = 2 needs 2 CPUs, and the cluster has 1 CPU after resources.wait_s = 2 s; join"
            assert last.startswith(f"error: {words}")
        with run(folder, head, 300) as command:
            command.wait_for(f"waiting up to 300 s {WAITS}")
            assert "building" not in command.output
            with head.join(folder, "second"):
                command.wait_for("step 5/5")
                deadline = time.monotonic() + PATIENCE_S
                while (values := scraped(metrics)).keys() != SHOWN:
                    assert time.monotonic() < deadline, values
                    time.sleep(0.2)
                assert command.finish() == 0, command.output
    check_trained(command.output)
    assert (values["hbtrain_step"], values["hbtrain_steps"], values["hbtrain_workers"]) == (5, 5, 2)
    assert (values["hbtrain_waits"], values["hbtrain_restarts"]) == (2, 0), "the first attempt waited too"
    assert abs(time.time() - values["hbtrain_heartbeat_seconds"]) < PATIENCE_S


def test_an_autoscaler_adds_what_is_waited_for(folder):
    port = free_port()
    cloud = {
        "cluster_name": "here",
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        "idle_timeout_minutes": 5,
        "upscaling_speed": 1.0,
        "docker": {},
        "max_workers": 1,
        "provider": {
            "type": "external",  # the wheel lacks the defaults of its own name
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": f"127.0.0.1:{port}",
            "head_node_id": HEAD,
            "launch_multiple": True,
        },
        "head_node_type": "ray.head.default",
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "worker": {
                "resources": {"CPU": 1, "object_store_memory": 100_000_000},
                "node_config": {},
                "min_workers": 0,
                "max_workers": 1,
            },
        },
    }
    config = folder / "cloud.json"
    config.write_text(json.dumps(cloud))
    variables = {
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    }
    with (
        Node.head(folder, f"--autoscaling-config={config}", port=port, **variables) as head,
        run(folder, head, 300) as command,
    ):
        assert command.finish() == 0, command.output
    assert f"waiting up to 300 s {WAITS}" in command.output
    check_trained(command.output)


def check_trained(output):
    assert "the cluster has 2 CPUs\n" in output
    assert "step 5/5" in output
    assert "Traceback" not in output
