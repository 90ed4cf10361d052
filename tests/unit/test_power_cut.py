"""Power cuts at every system call: what is kept is the old or the new state, and what was told as done stays done."""

import json
from functools import partial

import pytest

from hbtrain.config import load_config, override
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.results import save_evaluation
from hbtrain.modeling.saving import replace_folder
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.segments import fork_run, record_scores
from hbtrain.storage import files, write_text
from hbtrain.storage.files import remove_leftovers
from hbtrain.sweeps.search_records import Ledger
from hbtrain.training.checkpoint_files import (
    Manifest,
    checkpoints_in,
    damage,
    folder_name,
    is_complete,
    prune,
    store,
)
from tests.power_cut import put, recorded
from tests.unit.evaluation_samples import HashEncoder, random_benchmark

OLD, NEW = b"old" * 100, b"new" * 100


@pytest.fixture
def disk(tmp_path):
    """A folder whose content counts as synced when a recording begins."""
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


@pytest.fixture
def restored(tmp_path):
    """Writes the states after cuts into folders, one after the other; gives them."""

    def folders(trees):
        for number, tree in enumerate(trees):
            yield put(tree, tmp_path / f"cut-{number}")

    return folders


def model(folder, content):
    (folder / "modules.json").write_bytes(content)
    (folder / "weights").mkdir()
    (folder / "weights" / "a.safetensors").write_bytes(content)


def test_the_disk_forgets_what_was_not_synced(disk, monkeypatch):
    """The stand-in itself: an unsynced replacement may be half, or nothing, or all."""
    (disk / "a").write_bytes(OLD)
    with recorded(disk, monkeypatch) as cut:
        (disk / "b").write_bytes(NEW)
        (disk / "b").replace(disk / "a")
    states = cut.at_the_end()
    assert {"a": OLD} in states
    assert {"a": NEW} in states
    assert {"a": b""} in states
    with recorded(disk, monkeypatch) as cut:
        (disk / "a").unlink()
    assert cut.after_cuts() == [*cut.at_the_end()[:1], {}]


def test_a_file_is_the_old_or_the_new(disk, monkeypatch):
    (disk / "it").write_bytes(OLD)
    with recorded(disk, monkeypatch) as cut:
        write_text(disk / "it", NEW.decode())
    assert {tree["it"] for tree in cut.after_cuts()} == {OLD, NEW}
    assert cut.at_the_end() == [{"it": NEW}]


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two moves"])
@pytest.mark.parametrize("before", [True, False], ids=["replaces", "first"])
def test_a_model_is_the_old_or_the_new_and_nothing_of_its_size_is_left(disk, monkeypatch, restored, exchanges, before):
    if not exchanges:
        monkeypatch.setattr(files.ctypes, "CDLL", lambda *_, **__: None)
    found = set()
    if before:
        replace_folder(disk / "model", partial(model, content=OLD))
    with recorded(disk, monkeypatch) as cut:
        replace_folder(disk / "model", partial(model, content=NEW))
    for folder in restored(cut.after_cuts()):
        remove_leftovers(folder)  # as the same command does when it begins
        contents = {path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        assert [path.name for path in folder.iterdir()] == ["model"] * len(contents)
        assert len(contents) == 1 or (not contents and not before)
        found |= contents
    assert found == ({OLD, NEW} if before else {NEW})
    assert all(tree["model"]["modules.json"] == NEW for tree in cut.at_the_end())


def test_a_state_that_was_written_stays_written(disk, monkeypatch, restored):
    config = load_config("quickstart", {"storage": str(disk / "deep" / "runs")})
    with recorded(disk, monkeypatch) as cut:
        RunFolder.open(config).update(mlflow_run_id="first")
    for folder in restored(cut.after_cuts()):
        run = RunFolder.current(override(config, {"storage": str(folder / "deep" / "runs")}))
        assert run.state.mlflow_run_id in (None, "first")
    assert len(cut.at_the_end()) == 1, "nothing is left to be synced, the folders above included"


def test_scores_of_a_segment_stay(disk, monkeypatch):
    config = load_config("quickstart", {"storage": str(disk), "evaluation.benchmarks": []})
    run = RunFolder.open(config)
    with recorded(disk, monkeypatch) as cut:
        record_scores(run, 5, None, config)
    (tree,) = cut.at_the_end()
    assert json.loads(tree[run.name]["results-steps"]["00000005.json"]) == {}


def test_one_checkpoint_is_whole_at_any_moment(disk, tmp_path, monkeypatch, restored):
    def save(step, token):
        for rank in range(2):
            part = tmp_path / f"part-{step}-{rank}"
            (part / "state").mkdir(parents=True)
            (part / "state" / f"rank-{rank}.pt").write_bytes(bytes([step, rank]) * 50)
            store(part, disk / "ray" / folder_name(step, token), Manifest(step, rank, 2))
        prune(disk / "ray", keep=1, token=token, refused=[])

    def whole_ones(folder):
        names = [name for name in checkpoints_in(folder / "ray") if is_complete(folder / "ray" / name)]
        return [name for name in names if not damage(folder / "ray" / name, 0, 1)]

    with recorded(disk, monkeypatch) as cut:
        save(2, "aaaaaaaa")
    assert all(whole_ones(folder) for folder in restored(cut.at_the_end()))
    with recorded(disk, monkeypatch) as cut:
        save(4, "bbbbbbbb")
    for number, tree in enumerate(cut.after_cuts()):
        assert whole_ones(put(tree, tmp_path / f"second-{number}")), tree


def test_new_scores_stand_beside_the_new_files(disk, monkeypatch, restored):
    def results(seed):
        return [evaluate(HashEncoder(), random_benchmark(("de",), questions=4, seed=seed))]

    first, second = results(0), results(1)
    save_evaluation(first, disk / "results")
    old = {file.name: file.read_bytes() for file in (disk / "results").iterdir()}
    with recorded(disk, monkeypatch) as cut:
        save_evaluation(second, disk / "results")
    new = {file.name: file.read_bytes() for file in (disk / "results").iterdir()}
    assert old["metrics.json"] != new["metrics.json"]
    for folder in restored(cut.after_cuts()):
        found = {name: (folder / "results" / name).read_bytes() for name in new}
        assert all(found[name] in (old[name], new[name]) for name in new)
        assert found["metrics.json"] == old["metrics.json"] or found == new
    assert len(cut.at_the_end()) == 1


def test_points_of_a_search_are_never_lost(disk, monkeypatch, restored):
    ledger = Ledger(disk / "points.jsonl")
    for number in range(3):
        with recorded(disk, monkeypatch) as cut:
            ledger.add({"batching.alpha": number / 4})
        points = [{"batching.alpha": before / 4} for before in range(number + 1)]
        for tree in cut.after_cuts():
            folder = put(tree, disk.parent / f"points-{number}-{len(list(disk.parent.iterdir()))}")
            assert Ledger(folder / "points.jsonl").points() in (points[:-1], points)
        assert [tree["points.jsonl"].count(b"\n") for tree in cut.at_the_end()] == [number + 1]


def test_a_fork_that_was_cut_anywhere_is_made_whole_by_the_next_call(disk, tmp_path, monkeypatch, restored):
    config = load_config("quickstart", {"storage": str(disk), "training.steps": 12})
    fork = override(config, {"batching.alpha": {0: 0.5, 3: 0.5, 4: 0.75}})
    origin = RunFolder.open(config)
    origin.update(mlflow_run_id="abc", inputs={"a": "1"})
    origin.initial_model.mkdir()
    (origin.initial_model / "modules.json").write_text("[]")
    part = tmp_path / "part"
    part.mkdir()
    (part / "weights.pt").write_bytes(NEW)
    store(part, origin.checkpoints / folder_name(4, "aaaa0000"), Manifest(4, 0, 1))
    with recorded(disk, monkeypatch) as cut:
        assert fork_run(fork, config, 4)
    for folder in restored(cut.after_cuts()):
        own, its_origin = (override(one, {"storage": str(folder)}) for one in (fork, config))
        assert fork_run(own, its_origin, 4)
        run = RunFolder.current(own)
        assert (run.state.continues, run.state.stopped_at, run.state.inputs) == ("abc", 4, {"a": "1"})
        (name,) = checkpoints_in(run.checkpoints)
        assert damage(run.checkpoints / name, 0, 1) == ""
        assert (run.initial_model / "modules.json").read_text() == "[]"
