"""Fixtures that several layers of tests share."""

import json
import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from tests.processes.mlflow_tables import UTILS, copy_empty_databases

# Before any library reads them: no network, no telemetry, one thread (the machine's cores are for the ranks).
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("DO_NOT_TRACK", "true")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# As in an activated environment: nodes and jobs of Ray find `ray` and `python` there.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)
# A shell has what it runs in the background ignore Ctrl-C, and so would all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No test asserts on the clock: a busy machine is no failure.
settings.register_profile("hbtrain", deadline=None)
settings.load_profile("hbtrain")

HANG_S = 1800
"""A test of several processes that takes longer hangs; on an idle machine the longest take two minutes."""

SHARED = Path(__file__).parents[2] / "shared" / "data"


def pytest_collection_modifyitems(items):
    """Give processes of ranks and clusters time; skip what needs the data folder or a GPU where there is none."""
    skip_shared = pytest.mark.skip(reason=f"needs the data folder {SHARED}")
    for item in items:
        if item.get_closest_marker("ray") or "distributed" in item.path.parts:
            item.add_marker(pytest.mark.timeout(HANG_S))
        if "shared" in item.keywords and not SHARED.is_dir():
            item.add_marker(skip_shared)
        if "gpu" in item.keywords:
            import torch

            if not torch.cuda.is_available() and os.environ.get("HBTRAIN_TEST_DEVICE") != "cpu":
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, or HBTRAIN_TEST_DEVICE=cpu"))


@pytest.fixture(autouse=True)
def environment():
    """What the code under test sets in the environment is no other test's; databases of MLflow are made as copies."""
    if UTILS in sys.modules:
        copy_empty_databases()
    before = dict(os.environ)
    yield
    for name in os.environ.keys() - before.keys():
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture
def shared():
    """The data folder beside the checkout."""
    return SHARED


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty corpus cache of this test's own."""
    monkeypatch.setenv("HBTRAIN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def hbtrain(monkeypatch, capsys, tmp_path, cache):
    """Runs the command line in an empty folder; returns (exit code, stdout, stderr)."""
    from rich.console import Console

    from hbtrain.cli.main import app, main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*arguments):
        app.console = Console()  # else help is as wide as COLUMNS was when the first was shown in this process
        monkeypatch.setattr(sys, "argv", ["hbtrain", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
        out = capsys.readouterr()
        return code, out.out, out.err

    return run


@pytest.fixture
def hub(tmp_path, monkeypatch, cache):
    """A hub of data sets on this machine, to which this process and those that it starts are directed."""
    from tests.hub_server import direct, serve

    with serve() as served:
        direct(served, tmp_path / "hf", monkeypatch)
        yield served


@pytest.fixture(scope="session")
def s3_endpoint():
    """A real S3-compatible server, for all tests of this session."""
    from tests import s3

    with s3.server() as endpoint:
        yield endpoint


@pytest.fixture
def bucket(s3_endpoint, monkeypatch):
    """An empty bucket on it, and the variables in this process's environment that lead there."""
    from tests import s3

    for name, value in s3.environment(s3_endpoint).items():
        monkeypatch.setenv(name, value)
    return s3.Bucket(s3_endpoint)


@pytest.fixture
def write_source(tmp_path):
    """A function that writes rows as parallel JSON lines and returns the path."""

    def write(rows, name="source.jsonl"):
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


def parallel_rows(count, languages=("de", "en", "ru"), missing=lambda i, language: False):
    """Rows whose texts say which item, language and side they are."""
    return [
        {
            "id": f"r{i}",
            "query": {x: f"question {i} in {x}" for x in languages if not missing(i, x)},
            "passage": {x: f"answer {i} in {x}" for x in languages if not missing(i, x)},
        }
        for i in range(count)
    ]


@pytest.fixture
def rows():
    """`parallel_rows`."""
    return parallel_rows
