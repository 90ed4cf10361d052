"""What MLflow gets besides figures: data sets, the model that it loads and serves, its versions, tables of queries."""

import json
import shlex

import numpy as np
import pytest

from hbtrain.config import load_config, override
from hbtrain.config.load import parse_flags
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError
from hbtrain.evaluation import query_tables
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.query_tables import save_query_tables
from hbtrain.modeling.encoder import Encoder
from hbtrain.runs.run import _command, _log_model, _save_scores, train
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.run_inputs import checked_inputs, data_inputs
from hbtrain.tracking.logged_models import logged_model
from hbtrain.tracking.tracker import Tracker, check_registration
from hbtrain.tracking.uris import TrackingError
from tests.unit.evaluation_samples import HashEncoder
from tests.unit.tiny_models import TEXTS, encoder_config


@pytest.fixture
def config(tmp_path, monkeypatch, cache):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    return load_config("quickstart", {"storage": str(tmp_path / "runs"), "data.validation": "demo-heldout"})


@pytest.fixture
def tracker(config):
    return Tracker(config, None, "one", "hbtrain train quickstart --seed 1", outbox=RunFolder.open(config).undelivered)


@pytest.fixture(scope="module")
def evaluation():
    (demo,) = load_benchmarks(["demo"], ["de", "en"])
    return evaluate(HashEncoder(), demo)


@pytest.fixture
def model(config):
    """The trained model of a run, tiny and not trained."""
    folder = RunFolder.open(config)
    Encoder.build(encoder_config("static"), lambda: TEXTS, 0).save(folder.model)
    return folder


def inputs_of(config):
    digests = checked_inputs([config], None, "run x", accept=False).digests
    return data_inputs(config, ParallelCorpus.from_config(config), load_benchmarks(["demo"]), digests)


def refuse(_):
    raise OSError("server gone")


def test_data_sets_are_inputs_with_their_context_after_an_outage_too(config, tracker, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("hbtrain.tracking.outbox.RETRY_EVERY_S", 0.01)
        patch.setattr(tracker._outbox, "_send", refuse)
        tracker.patience_s = 0.0
        tracker.inputs(inputs_of(config))
        assert "did not get 3 data sets" in tracker.finish("FAILED")
    again = Tracker(config, tracker.run_id, "one", outbox=RunFolder.open(config).undelivered)
    again.inputs(inputs_of(config))  # as a run that goes on does
    assert again.finish() == ""
    found = again._client.get_run(tracker.run_id).inputs.dataset_inputs
    contexts = {(one.dataset.name, tag.value) for one in found for tag in one.tags}
    assert contexts == {("demo", "training"), ("demo-heldout", "validation"), ("demo", "evaluation")}
    assert len(found) == 3, "twice does no harm"
    training = next(one.dataset for one in found if one.tags[0].value == "training")
    corpus = ParallelCorpus.from_config(config)
    assert json.loads(training.profile)["num_rows"] == corpus.sources["demo"].index.rows
    names = {column["name"] for column in json.loads(training.schema)["mlflow_colspec"]}
    assert {"query.de", "passage.zh"} <= names
    assert len({one.dataset.digest for one in found}) == 2, "the demo's benchmark is what validation watches"


def test_sources_of_the_hub_and_of_other_places_are_named_as_mlflow_does():
    import mlflow.data
    from mlflow.entities import Dataset

    from hbtrain.tracking.data_inputs import DataInput

    def source(location, **about):
        made = DataInput("x", "ab" * 32, "training", location, (), {}, about or None).to_json()
        assert len(made["digest"]) == 16
        return mlflow.data.get_source(Dataset(**{name: made[name] for name in made if name != "context"}))

    hub = source("hub:x", sources={"owner/x": "1f" * 20})
    assert (hub.path, hub.revision) == ("owner/x", "1f" * 20)
    assert source("x", sources={"https://u:hunter2@example.org/x.zip": "d"}).url == "https://u:***@example.org/x.zip"
    assert source("https://example.org/a.jsonl").url == "https://example.org/a.jsonl"
    assert source("/data/pairs.jsonl").uri == "/data/pairs.jsonl"


def test_the_model_is_loaded_and_serves_and_has_its_scores(config, tracker, model, evaluation):
    import mlflow

    config = override(config, {"tracking.register": "retriever of tests"})
    figures = _save_scores([evaluation], config, model.results, "results", tracker, step=7)
    _log_model(config, model, 7, inputs_of(config), figures, tracker)
    assert tracker.finish() == ""
    client, run_id = tracker._client, tracker.run_id
    logged = logged_model(client, run_id)
    assert logged.status.name == "READY"
    scores = {metric.key: metric for metric in logged.metrics}
    wanted = scores["eval/demo/multi/map"]
    assert (wanted.value, wanted.step) == (evaluation.metrics["demo/multi/map"], 7)
    assert (wanted.dataset_name, len(wanted.dataset_digest)) == ("demo", 16)
    assert [point.step for point in client.get_metric_history(run_id, "eval/demo/multi/map")] == [7], "told once"
    assert {artifact.path for artifact in client.list_artifacts(run_id)} == {"model", "results"}
    (version,) = client.search_model_versions("name = 'retriever of tests'")
    assert (int(version.version), version.run_id, version.source) == (1, run_id, logged.artifact_location)

    mlflow.set_tracking_uri(tracker.uri)
    encoder = Encoder.load(str(model.model))
    texts = ["guten Tag", "hello world"]
    for uri in (f"runs:/{run_id}/model", "models:/retriever of tests/1"):
        loaded = mlflow.pyfunc.load_model(uri)
        assert np.abs(loaded.predict(texts) - encoder.encode(texts, "query")).max() < 1e-6
    passages = loaded.predict(texts, params={"prompt_name": "passage"})
    assert np.abs(passages - encoder.encode(texts, "passage")).max() < 1e-6
    assert loaded.metadata.signature.params.params[0].default == "query"
    assert len(loaded.input_example) == 2
    fetched = mlflow.artifacts.download_artifacts(f"runs:/{run_id}/model")
    again = Encoder.load(fetched)
    assert np.array_equal(again.encode(texts, "query"), encoder.encode(texts, "query")), "for sentence-transformers too"


def test_a_model_that_comes_twice_is_one_model_and_one_version(tracker, model):
    for _ in range(2):
        tracker.model(model.model, 3, [["eval/x/multi/map", 0.5, 1_700_000_000_000, 3, "x", "ab" * 32]])
        tracker.register("once")
    assert tracker.finish() == ""
    run = tracker._client.get_run(tracker.run_id)
    assert len(run.outputs.model_outputs) == 1
    assert len(tracker._client.search_logged_models([run.info.experiment_id])) == 1
    assert len(tracker._client.search_model_versions("name = 'once'")) == 1


def test_a_server_without_logged_models_gets_the_folder(tracker, model, monkeypatch):
    from mlflow.exceptions import MlflowException

    def unknown(*_, **__):
        error = MlflowException("no such endpoint")
        error.error_code = "ENDPOINT_NOT_FOUND"
        raise error

    monkeypatch.setattr(tracker._client, "search_logged_models", unknown)
    tracker.model(model.model, 3)
    tracker.register("nowhere")
    said = tracker.finish()
    assert "refused register nowhere" in said
    files = {artifact.path for artifact in tracker._client.list_artifacts(tracker.run_id, "model")}
    assert {"model/modules.json", "model/README.md"} <= files


@pytest.mark.parametrize("name", ["a/b", "a:b", "", " ", "..", ".hidden"])
def test_a_name_that_no_registry_takes_is_refused(config, name):
    with pytest.raises(ConfigError, match="tracking.register"):
        override(config, {"tracking.register": name})
    with pytest.raises(ConfigError, match=r"tracking\.register = 'x' needs tracking\.log_model"):
        override(config, {"tracking.register": "x", "tracking.log_model": False})


def test_where_nothing_can_be_registered_is_said_before_the_run(config, tmp_path, monkeypatch):
    check_registration(config)
    check_registration(override(config, {"tracking.register": "x"}))
    files = override(config, {"tracking.register": "x", "tracking.uri": f"file://{tmp_path}/mlruns"})
    with pytest.raises(TrackingError, match=r"tracking\.register = 'x': .* has no registry of models") as caught:
        check_registration(files)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr("hbtrain.runs.run.preflight", lambda *_: pytest.fail("checked before anything is opened"))
    with pytest.raises(TrackingError, match="has no registry of models"):
        train("quickstart", storage=config.storage, tracking__register="x", **{"tracking.uri": files.tracking.uri})


def test_the_best_point_of_a_sweep_is_what_is_registered(tmp_path, monkeypatch):
    from hbtrain.sweeps.findings import Summary
    from hbtrain.sweeps.points import Finished
    from hbtrain.sweeps.space import Trial

    config = load_config("quickstart")
    scores = {0.0: 0.2, 0.5: 0.6, 1.0: 0.4}
    finished = [
        Finished(
            Trial(f"alpha={alpha}", {"batching.alpha": alpha}, override(config, {"batching.alpha": alpha})),
            {"demo/multi/map": score},
            tmp_path / str(alpha),
        )
        for alpha, score in scores.items()
    ]
    assert Summary(finished).best.folder == tmp_path / "0.5"


def test_tables_are_announced_to_mlflow_once_each(tracker, config, evaluation, tmp_path):
    import mlflow

    for name in ("results-before", "results"):
        _save_scores([evaluation], config, tmp_path / name, name, tracker, step=0)
    assert tracker.finish() == ""
    announced = json.loads(tracker._client.get_run(tracker.run_id).data.tags["mlflow.loggedArtifacts"])
    assert announced == [
        {"path": f"{name}/queries/demo.json", "type": "table"} for name in ("results-before", "results")
    ]
    mlflow.set_tracking_uri(tracker.uri)
    mlflow.set_experiment(config.tracking.experiment)
    table = mlflow.load_table("results/queries/demo.json", run_ids=[tracker.run_id])
    assert len(table) == evaluation.per_query.num_rows
    assert table["map"].mean() == pytest.approx(np.mean(evaluation.per_query["map"].to_pylist()), rel=1e-3)
    assert "domain" not in table.columns, "a column without values"


def test_a_long_table_shows_some_questions_the_same_for_every_model(evaluation, tmp_path, monkeypatch):
    monkeypatch.setattr(query_tables, "MOST_ROWS", 60)
    questions = []
    for number in range(2):
        other = evaluate(HashEncoder(number + 3), load_benchmarks(["demo"], ["de", "en"])[0])
        (path,) = save_query_tables([other], tmp_path / str(number))
        content = json.loads((tmp_path / str(number) / path).read_text())
        assert 30 <= len(content["data"]) <= 60
        place = content["columns"].index("question_id")
        questions.append({row[place] for row in content["data"]})
        rankings = {tuple(row[: place + 1]) for row in content["data"]}
        assert len(rankings) == len(content["data"]), "all rankings of these questions"
    assert questions[0] == questions[1]


def test_the_source_is_the_command_line_without_passwords(tracker, monkeypatch):
    from hbtrain.cli.outputs import command_line

    assert (
        tracker._client.get_run(tracker.run_id).data.tags["mlflow.source.name"] == "hbtrain train quickstart --seed 1"
    )
    given = ["/x/bin/hbtrain", "train", "my recipe.yaml", "--tracking.uri", "postgresql://u:hunter2@db/mlflow"]
    monkeypatch.setattr("sys.argv", given)
    assert command_line() == "hbtrain train 'my recipe.yaml' --tracking.uri 'postgresql://u:***@db/mlflow'"


def test_python_names_the_command_that_does_the_same():
    changes = {"batching.alpha": 0.5, "data.sources": ["a b", "c"], "evaluation.before": False, "data.languages": None}
    command = _command("quickstart", changes)
    assert command.startswith("hbtrain train quickstart --batching.alpha 0.5 --data.sources 'a b' c ")
    assert load_config("quickstart", parse_flags(shlex.split(command)[3:])) == load_config("quickstart", changes)
