"""Ray's token authentication stays on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONNECT = """
import ray, sys
ray.init(address=sys.argv[1], logging_level="ERROR")
print("CPUs", ray.cluster_resources()["CPU"])
"""
START = """
import sys
from hbtrain.config import load_config
from hbtrain.cluster.session import connected
with connected(load_config("quickstart", {"resources.workers": 1})):
    import ray
    print(ray.get_runtime_context().gcs_address, flush=True)
    sys.stdin.read()
"""


@pytest.mark.ray
def test_a_cluster_that_hbtrain_starts_asks_for_the_token():
    environment = {k: v for k, v in os.environ.items() if k != "RAY_AUTH_MODE"} | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", START]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as cluster:
        address = cluster.stdout.readline().strip()
        assert re.fullmatch(r"[0-9.]+:\d+", address)
        answers = {}
        for mode in ("token", "disabled"):
            answers[mode] = subprocess.run(
                [sys.executable, "-c", CONNECT, address],
                env=environment | {"RAY_AUTH_MODE": mode},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
        cluster.stdin.close()
    assert "CPUs" in answers["token"].stdout, answers["token"].stderr
    assert answers["disabled"].returncode != 0
    assert "CPUs" not in answers["disabled"].stdout


def test_nothing_in_the_project_switches_it_off():
    files = [path for folder in ("hbtrain", "tune", "cluster") for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert len(files) > 50
    lines = [
        line.strip()
        for path in files
        if path.suffix != ".pyc"
        for line in path.read_text(encoding="utf-8", errors="ignore").splitlines()
        if re.search(r"RAY_AUTH_MODE|AUTH_MODE", line)
    ]
    assert not [line for line in lines if re.search(r"disabled|none|off", line, re.IGNORECASE)], lines
