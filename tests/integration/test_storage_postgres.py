"""Runs tracked in a real PostgreSQL, without a server between, with their artifacts in a bucket or a folder."""

import subprocess
import sys
from importlib.util import find_spec

import pytest

from hbtrain.cli.main import main
from hbtrain.comparison.compare import compare
from hbtrain.comparison.estimates import Method
from hbtrain.config import load_config
from hbtrain.events import Event
from hbtrain.tracking.past_runs import TrackedRuns
from hbtrain.tracking.tracker import Tracker
from hbtrain.tracking.uris import TrackingError
from tests import postgres
from tests.unit.comparison_samples import write_run

WHY_NOT = postgres.why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))


@pytest.fixture(scope="module")
def uri():
    with postgres.server() as uri:
        yield uri


def tracked(uri, storage, folder, alpha):
    """The id of a finished run with scores."""
    config = load_config("quickstart", {"tracking.uri": uri, "storage": storage, "tracking.experiment": "postgres"})
    tracker = Tracker(config, None, f"alpha={alpha}")
    run = write_run(folder / f"run-{alpha}", alpha, 0)
    tracker.event(Event(10, {"train/loss_mono": 1.5}))
    tracker.artifact(run / "config.yaml")
    tracker.artifact(run / "results", "results")
    assert tracker.finish() == ""
    return tracker.run_id


def test_runs_are_tracked_and_compared(uri, bucket, tmp_path):
    ids = [tracked(uri(), f"{bucket.uri}/runs", tmp_path, alpha) for alpha in (0, 1)]
    rows = read(uri(), "SELECT key, value, step FROM metrics WHERE run_uuid = %s", ids[0])
    assert rows == [("train/loss_mono", 1.5, 10)]
    (shown,) = read(uri(), "SELECT value FROM params WHERE run_uuid = %s AND key = 'tracking.uri'", ids[0])
    assert "***@127.0.0.1" in shown[0]
    assert postgres.PASSWORD not in shown[0]
    server = TrackedRuns(uri())
    run = server.find(ids[1][:8])
    assert (run.name, run.status, run.parameters["batching.mode"]) == ("alpha=1", "FINISHED", "hybrid")
    assert run.artifact_uri == f"{bucket.uri}/runs/artifacts/{ids[1]}/artifacts"
    assert f"runs/artifacts/{ids[1]}/artifacts/results/metrics.json" in bucket.keys("runs/artifacts/")
    comparison = compare(ids, tracking_uri=uri(), method=Method(flips=99, resamples=50))
    here = compare([str(tmp_path / f"run-{a}") for a in (0, 1)], method=Method(flips=99, resamples=50))
    assert [task.name for task in comparison.tasks] == [task.name for task in here.tasks]
    assert figures(comparison) == figures(here), "from the database as from the folders"


def figures(comparison):
    from hbtrain.comparison.save import as_csv

    return [line.split(",", 1)[1] for line in as_csv(comparison).splitlines()]


def read(uri, question, *values):
    """With psycopg2 alone."""
    import psycopg2

    link = psycopg2.connect(uri)
    try:
        with link.cursor() as cursor:
            cursor.execute(question, values)
            return cursor.fetchall()
    finally:
        link.close()


def test_artifacts_of_a_folder_stay_there(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config("quickstart", {"tracking.uri": uri(), "storage": "runs", "tracking.experiment": "folder"})
    tracker = Tracker(config, None, "one")
    (tmp_path / "a.txt").write_text("x")
    tracker.artifact(tmp_path / "a.txt")
    assert tracker.finish() == ""
    assert (tmp_path / "runs" / "artifacts" / tracker.run_id / "artifacts" / "a.txt").read_text() == "x"
    assert not (tmp_path / "mlruns").exists()


@pytest.mark.parametrize(
    ("user", "password", "words"),
    [(postgres.USER, "wrongcanary", "password authentication failed"), ("nobody", "wrongcanary", "failed")],
)
def test_a_wrong_password_is_one_line_without_it(uri, tmp_path, monkeypatch, capsys, user, password, words):
    monkeypatch.chdir(tmp_path)
    wrong = uri(user, password)
    arguments = ["train", "quickstart", "--tracking.uri", wrong, "--storage", "runs", "--data.cache", "cache"]
    monkeypatch.setattr(sys, "argv", ["hbtrain", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    out = capsys.readouterr()
    assert end.value.code == 2
    assert out.err.count("\n") == 1
    assert out.err.startswith(f"error: tracking.uri = postgresql+psycopg2://{user}:***@127.0.0.1:")
    assert words in out.err
    assert password not in out.err + out.out
    leaks = [path for path in tmp_path.rglob("*") if path.is_file() and password.encode() in path.read_bytes()]
    assert leaks == []


def test_a_missing_driver_is_named(uri, tmp_path):
    """As on a machine without the extra: a process in which psycopg2 cannot be imported."""
    assert find_spec("psycopg2") is not None
    program = (
        "import sys; sys.modules['psycopg2'] = None\n"
        "from hbtrain.config import load_config\nfrom hbtrain.tracking.tracker import Tracker\n"
        f"Tracker(load_config('quickstart', {{'tracking.uri': {uri()!r}, 'storage': {str(tmp_path)!r}}}), None, 'x')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("hbtrain.tracking.uris.TrackingError: tracking.uri = postgresql+psycopg2://")
    assert "pip install 'hbtrain[postgres]'" in last
    assert postgres.PASSWORD not in last


def test_boto3_is_asked_for_before_the_run(uri, monkeypatch):
    monkeypatch.setattr("hbtrain.tracking.uris.find_spec", lambda name: None)
    config = load_config("quickstart", {"tracking.uri": uri(), "storage": "s3://b/x", "tracking.experiment": "new"})
    with pytest.raises(TrackingError, match=r"artifacts go to s3://b/x/artifacts, .*pip install 'hbtrain\[s3\]'"):
        Tracker(config, None, "one")
