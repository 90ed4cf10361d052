"""Names and texts of users' making on their way to MLflow, by MLflow's own rules, and URIs of its database."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.utils.validation import _validate_metric, _validate_param, _validate_tag

from hbtrain.config import load_config, override
from hbtrain.errors import ConfigError
from hbtrain.tracking.mlflow_names import MAX_TAG_VAL_LENGTH, allowed_name, allowed_tags, allowed_text
from hbtrain.tracking.past_runs import TrackedRuns
from hbtrain.tracking.tracker import Tracker
from hbtrain.tracking.uris import TrackingError, artifact_location, sqlite_file, tracking_uri


@pytest.fixture
def config(tmp_path):
    (tmp_path / "runs").mkdir()
    return load_config("quickstart", {"storage": str(tmp_path / "runs"), "tracking.experiment": "tests"})


def stored(tracker):
    return tracker._client.get_run(tracker.run_id)


@pytest.mark.parametrize(
    "name", ["train/loss_mono", "eval/xquad-r/multi/map", "batching.alpha", "eval/MIRACL v1.1/mono/mrr", "eval/質問/a"]
)
def test_a_name_that_mlflow_takes_stays(name):
    assert allowed_name(name) == name


def test_names_that_mlflow_refuses_stay_readable_and_apart():
    assert allowed_name("eval/demo/mono/recall@10") == "eval/demo/mono/recall_at_10"
    assert allowed_name("eval/facts [2024], 50%/mono/map").startswith("eval/facts _2024__ 50_-")
    assert allowed_name("eval/facts [2024], 50%/mono/map").endswith("/mono/map")
    names = ["a(b)", "a[b]", "a{b}", "a_b_", "x" * 300, "x" * 299 + "y", "..", ".", "", "a//b", "a/../b", "a/b"]
    assert len(set(map(allowed_name, names))) == len(names)


@given(st.text(max_size=400) | st.lists(st.text(max_size=140), max_size=6).map("/".join))
def test_whatever_a_name_is_mlflow_takes_it(name):
    name = name.encode("utf-8", "replace").decode()
    allowed = allowed_name(name)
    _validate_metric(allowed, 1.0, 1, 1)
    _validate_param(allowed, "x")
    [(key, value)] = allowed_tags({name: name * 30}).items()
    tag = _validate_tag(key, value)
    assert (tag.key, tag.value) == (key, value), "MLflow itself cuts nothing"
    assert allowed_name(allowed) == allowed


def test_texts_are_cut_at_the_end_of_a_line():
    assert allowed_text("short", 5) == "short"
    assert allowed_text("longer", 5) == "long…"
    assert allowed_text("| a |\n| b |\n| c |", 14) == "| a |\n| b |\n…"
    assert allowed_text("caf\udce9\0", 9) == "caf?"
    assert len(allowed_text("x" * 9000, MAX_TAG_VAL_LENGTH)) == MAX_TAG_VAL_LENGTH


def test_figures_of_every_name_arrive(config):
    tracker = Tracker(config, None, "run [final] #2")
    tracker.scores({"faq (old)/mono/map": 0.5, "faq [old]/mono/map": 0.25, "plain/mono/map": 0.75}, 3)
    tracker.tags({"space.data.sources[0]": "x" * 9000})
    tracker.describe("# scores\n" * 2000)
    assert tracker.finish() == "", "nothing was refused"
    run = stored(tracker)
    assert run.info.run_name == "run [final] #2"
    assert sorted(run.data.metrics.values()) == [0.25, 0.5, 0.75]
    assert run.data.metrics["eval/plain/mono/map"] == 0.75
    assert all(len(value) <= MAX_TAG_VAL_LENGTH for value in run.data.tags.values())
    assert run.data.tags["mlflow.note.content"].endswith("# scores\n…")


def test_parameters_of_every_name_and_length_arrive(config):
    languages = {"batching.language_weights": {"zh (Hant)": 2.0, "de": 1.0}}
    sources = {"data.sources": [f"/data/{number:04}.jsonl" for number in range(500)]}
    name = {"tracking.run_name": "much " * 100}
    parameters = stored(tracker := Tracker(override(config, languages | sources | name), None, "one")).data.params
    assert parameters["batching.language_weights.de"] == "1.0"
    [key] = [key for key in parameters if key.startswith("batching.language_weights.zh _Hant_-")]
    assert parameters[key] == "2.0"
    assert parameters["data.sources"].startswith("/data/0000.jsonl /data/0001.jsonl")
    assert parameters["data.sources"].endswith("…")
    assert len(stored(tracker).info.run_name) == 250


def test_a_deleted_experiment_is_refused_with_both_remedies(config):
    first = Tracker(config, None, "one")
    experiment = first._client.get_run(first.run_id).info.experiment_id
    first._client.delete_experiment(experiment)
    with pytest.raises(
        TrackingError, match=rf"'tests' was deleted .* another name, or .*--experiment-id {experiment}\)"
    ):
        Tracker(config, None, "two")
    with pytest.raises(
        TrackingError,
        match=rf"run {first.run_id}, .* deleted: .* runs restore .*run\.json in its folder, or .* new name",
    ):
        Tracker(config, first.run_id, "one")
    first._client.restore_experiment(experiment)
    assert Tracker(config, first.run_id, "one").run_id == first.run_id


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_an_experiment_needs_a_name_that_databases_hold(config, name):
    with pytest.raises(ConfigError, match=r"tracking\.experiment = .* character"):
        override(config, {"tracking.experiment": name})


ODD = "[old] {v} a+b, 50% x#y &c=;d'e\"f ключ:@é"


def test_the_database_and_artifacts_are_in_the_storage_whatever_it_is_called(tmp_path):
    storage = tmp_path / ODD
    tracker = Tracker(load_config("quickstart", {"storage": str(storage)}), None, "one")
    (tmp_path / "table.txt").write_text("x")
    tracker.artifact(tmp_path / "table.txt", "tables")
    assert tracker.finish() == ""
    assert sqlite_file(tracker.uri) == storage / "mlflow.db"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([ODD, "table.txt"])
    assert len(list(storage.glob("artifacts/*/artifacts/tables/table.txt"))) == 1
    runs = TrackedRuns(tracker.uri)
    assert runs.fetch(runs.find(tracker.run_id), "tables", tmp_path).is_dir()


@pytest.mark.parametrize("folder", ["what?", "a%20b", "v=1?x=2", "100%25", "?"])
def test_a_storage_that_the_databases_uri_cannot_name_is_refused(tmp_path, folder):
    config = load_config("quickstart", {"storage": str(tmp_path / folder)})
    with pytest.raises(TrackingError, match=r"^storage = .* name the folder without them, or set tracking\.uri"):
        tracking_uri(config)
    elsewhere = f"sqlite:///{tmp_path}/elsewhere.db"
    assert tracking_uri(override(config, {"tracking.uri": elsewhere})) == elsewhere


def test_the_uri_of_artifacts_in_a_bucket_is_the_storages():
    assert artifact_location("s3://bucket/a b/100%?region=eu-west-1") == "s3://bucket/a b/100%/artifacts"
    with pytest.raises(TrackingError, match="cuts URIs at #"):
        artifact_location("s3://bucket/no#1")


@pytest.mark.parametrize("folder", ["what?", "a%20b#c", ODD])
def test_the_uri_of_artifacts_leads_to_the_storage(tmp_path, folder):
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    assert Path(get_artifact_repository(artifact_location(str(tmp_path / folder))).artifact_dir) == (
        tmp_path / folder / "artifacts"
    )
