"""What a search keeps in a bucket: its points, and runs that go on from each other's checkpoints."""

import pytest

from hbtrain.config import load_config, override
from hbtrain.errors import StorageError
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.segments import fork_run, last_segment, record_scores
from hbtrain.storage import place, remote
from hbtrain.sweeps.search_records import Ledger, SearchOutcome, save_outcome
from hbtrain.training.best import BEST, Best, best_in, best_text
from hbtrain.training.checkpoint_files import Manifest, checkpoints_in, folder_name, is_complete, store


@pytest.fixture
def config(bucket, cache):
    return load_config("quickstart", {"storage": f"{bucket.uri}/runs", "tracking.uri": "sqlite:///mlflow.db"})


def test_points_are_kept_in_their_order(bucket):
    ledger = Ledger(place(f"{bucket.uri}/sweep/points.jsonl"))
    assert ledger.points() == []
    for alpha in (0.5, 0.25, 0.5):
        ledger.add({"batching.alpha": alpha})
    assert Ledger(place(f"{bucket.uri}/sweep/points.jsonl")).points() == [
        {"batching.alpha": 0.5},
        {"batching.alpha": 0.25},
    ]


def test_a_ledger_that_cannot_be_read_is_not_an_empty_one(bucket, monkeypatch):
    ledger = Ledger(place(f"{bucket.uri}/points.jsonl"))
    ledger.add({"batching.alpha": 0.5})
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    remote._filesystem.cache_clear()
    try:
        with pytest.raises(StorageError, match=r"cannot read s3://.*points\.jsonl: .*NETWORK_CONNECTION"):
            Ledger(place(f"{bucket.uri}/points.jsonl")).add({"batching.alpha": 0.25})
    finally:
        remote._filesystem.cache_clear()


def test_a_run_goes_on_from_another_ones_checkpoint_in_the_bucket(config, bucket, tmp_path):
    origin, fork = RunFolder.open(config), override(config, {"batching.alpha": {0: 0.5, 3: 0.5, 4: 0.75}})
    origin.update(mlflow_run_id="abc")
    bucket.put(f"runs/{origin.name}/initial/modules.json", b"[]")
    assert not fork_run(fork, config, 4), "the origin has no checkpoint"
    part = tmp_path / "part"
    part.mkdir()
    (part / "weights.pt").write_bytes(b"1234")
    store(part, origin.checkpoints / folder_name(4, "aaaa0000"), Manifest(4, 0, 1, 0.5, best_step=2))
    bucket.put(f"runs/{origin.name}/model/{BEST}", best_text(Best(2, 0.5), "validation/loss").encode())
    bucket.put(f"runs/{RunFolder.current(fork).name}/initial/.unfinished", b"")  # of a process that was killed
    assert fork_run(fork, config, 4)
    folder = RunFolder.current(fork)
    (name,) = checkpoints_in(folder.checkpoints)
    assert is_complete(folder.checkpoints / name)
    assert bucket.get(f"runs/{folder.name}/ray/{name}/weights.pt") == b"1234"
    assert bucket.get(f"runs/{folder.name}/initial/modules.json") == b"[]"
    assert best_in(folder.model) == Best(2, 0.5)
    assert not [key for key in bucket.keys(f"runs/{folder.name}/") if key.endswith(".unfinished")]
    assert (folder.state.continues, folder.state.stopped_at) == ("abc", 4)
    assert fork_run(fork, config, 4), "done"
    bucket.put(f"runs/{folder.name}/model/.unfinished", b"")
    assert best_in(folder.model) is None, "weights may be of another encoder"


def test_segments_and_the_outcome_are_kept_in_the_bucket(config, bucket):
    folder = RunFolder.open(config)
    bucket.put(f"runs/{folder.name}/results/metrics.json", b'{"demo/multi/map": 0.5}')
    assert record_scores(folder, 4, folder.results / "metrics.json", config) == {"demo/multi/map": 0.5}
    assert (last_segment(config).step, last_segment(config).scores) == (4, {"demo/multi/map": 0.5})
    save_outcome(SearchOutcome(failures={"alpha=1": "no"}), place(f"{bucket.uri}/sweep/outcome.json"))
    assert b'"alpha=1": "no"' in bucket.get("sweep/outcome.json")
