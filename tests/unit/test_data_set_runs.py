"""Commands and runs with data sets by name: what is said before workers start, what is refused, what is kept."""

import io
import json
from contextlib import nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from hbtrain.cli import submit
from hbtrain.config import load_config, override
from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError, DataError
from hbtrain.modeling.card import ModelCard
from hbtrain.modeling.encoder import Encoder
from hbtrain.runs import run
from hbtrain.runs.preflight import preflight
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.run_inputs import checked_inputs
from hbtrain.runs.segments import measured_by
from hbtrain.sweeps import sweep
from hbtrain.sweeps.space import base_config, trials_of
from hbtrain.sweeps.space_file import load_space, with_flags
from hbtrain.training.export import model_card
from tests.unit.data_set_samples import benchmark, pairs
from tests.unit.tiny_models import encoder_config

ALL = ("--benchmark", "capitals", "--output")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "mine"
    Encoder.build(encoder_config("static"), lambda: ["one two three", "eins zwei drei"], 0).save(folder, ModelCard())
    return folder


@pytest.fixture
def config(hub, tmp_path, cache, monkeypatch):
    """A recipe that trains on one data set of the hub and is evaluated on another, to which a token is needed."""
    monkeypatch.setenv("HF_TOKEN", hub.token)
    return load_config(
        "quickstart",
        {
            "storage": str(tmp_path / "runs"),
            "data.catalogue": [pairs(tmp_path, hub), benchmark(tmp_path, hub, gated=True)],
            "data.sources": ["hub:pairs"],
            "data.validation": None,
            "evaluation.benchmarks": ["capitals?languages=de,en"],
            "batching.global_batch_size": 2,
            "resources.workers": 1,
            "tracking.uri": f"sqlite:///{tmp_path}/mlflow.db",
        },
    )


def test_a_name_evaluates_as_the_folder_does_and_results_say_where_it_came_from(hub, hbtrain, model, tmp_path):
    mine = benchmark(tmp_path, hub)
    code, out, err = hbtrain("evaluate", model, *ALL, "named", "--catalogue", mine, "--languages", "fr", "de")
    assert code == 0, err
    assert err.startswith("fetching capitals: 2 files, ")
    assert "fetching" not in out
    data = json.loads(Path("named/about.json").read_text())["benchmarks"]["capitals"]["data"]
    assert data["sources"] == {"owner/capitals": hub.repositories["owner/capitals"].commit}
    assert set(data["files"]) == {"de.json", "fr.json"}
    assert "capitals/multi/map" in (scores := json.loads(Path("named/metrics.json").read_text()))
    for language in ("de", "fr"):
        folder = tmp_path / "capitals"
        folder.mkdir(exist_ok=True)
        (folder / f"{language}.json").write_bytes(hub.repositories["owner/capitals"].files[f"{language}.json"])
    assert (
        hbtrain("evaluate", model, "--benchmark", "lareqa=capitals", "--languages", "fr", "de", "--output", "own")[0]
        == 0
    )
    assert json.loads(Path("own/metrics.json").read_text()) == scores
    assert "data" not in json.loads(Path("own/about.json").read_text())["benchmarks"]["capitals"]
    code, _, err = hbtrain("evaluate", model, *ALL, "again", "--catalogue", mine, "--languages", "fr", "de")
    assert (code, err) == (0, ""), "all was there"


def test_what_is_wrong_with_a_name_ends_evaluate_in_one_line(hub, hbtrain, model, tmp_path):
    mine = benchmark(tmp_path, hub)
    for arguments, words in (
        (("--benchmark", "capitol", "--catalogue", mine), "did you mean capitals?"),
        (("--benchmark", "capitals"), "unknown benchmark 'capitals'"),
        (
            ("--benchmark", "capitals", "--catalogue", mine, "--languages", "sw"),
            "language 'sw' is not in data set capitals",
        ),
        (("--benchmark", "capitals", "--catalogue", "other.yaml"), "cannot read catalogue other.yaml"),
        (("--benchmark", "capitals", "mmarco", "--catalogue", mine), "mmarco: it is for training"),
    ):
        code, _, err = hbtrain("evaluate", model, *arguments, "--output", "out")
        assert (code, err.count("\n")) == (2, 1), err
        assert err.startswith("error: ")
        assert words in err
    assert not hub.asked("/resolve/")


def test_checks_before_a_run_fetch_after_what_needs_no_data(config, hub, monkeypatch):
    said = []
    observer = SimpleNamespace(phase=said.append)
    with pytest.raises(ConfigError, match="flash_attention_2"):
        preflight(override(config, {"encoder.attention": "flash_attention_2"}), observer)
    with pytest.raises(DataError, match="language 'sw'"):
        preflight(override(config, {"evaluation.benchmarks": ["capitals?languages=sw"]}), observer)
    assert said == []
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(DataError, match="HF_TOKEN"):
        preflight(config, observer)
    assert not [line for line in said if "pairs" in line], "what may be refused is fetched first"
    monkeypatch.setenv("HF_TOKEN", hub.token)
    said.clear()
    preflight(config, observer)
    sizes = [line.partition(",")[0] for line in said]
    assert sizes == ["fetching capitals: 2 files", "fetching pairs: 1 file", "preparing the corpus of pairs"]
    said.clear()
    preflight(config, observer)
    assert said == []


def test_a_run_keeps_where_its_data_came_from(config, hub, monkeypatch):
    tags, commits = {}, {name: one.commit for name, one in hub.repositories.items()}
    tracker = SimpleNamespace(
        tags=tags.update, inputs=lambda _: None, ending=lambda _: nullcontext(), run_id="0", uri=""
    )
    monkeypatch.setattr(run, "_tracker", lambda *_: tracker)
    monkeypatch.setattr(run, "_run", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        run.train(config)
    kept = RunFolder.current(config).state.data_sets
    assert kept.keys() == {"sources/pairs", "benchmarks/capitals"}
    assert kept["sources/pairs"]["sources"] == {"owner/pairs": commits["owner/pairs"]}
    assert kept["benchmarks/capitals"]["languages"] == ["de", "en"]
    assert "files" not in kept["sources/pairs"]
    told = tags["data_set.sources/pairs"]
    assert told.startswith(f"owner/pairs at {commits['owner/pairs']}; ")
    assert told.endswith(kept["sources/pairs"]["digest"])


def test_a_run_goes_on_with_the_same_revision_or_content_only(config, hub, tmp_path):
    before = checked_inputs([config], None, "run x", accept=False).digests
    assert before.keys() == {"data.sources = hub:pairs", "evaluation.benchmarks = capitals?languages=de,en"}
    entry = tmp_path / "pairs.yaml"
    first = entry.read_text()
    pairs(tmp_path, hub, word="hill")
    with pytest.raises(DataError, match=r"^data\.sources = hub:pairs: the content has changed since run x began"):
        checked_inputs([config], before, "run x", accept=False)
    entry.write_text(first)
    assert checked_inputs([config], before, "run x", accept=False).changed == ""


def test_scores_on_other_languages_of_a_set_are_others(config):
    some, more = ({"evaluation.benchmarks": [f"capitals?languages={x}"]} for x in ("de,en", "de,en,fr"))
    assert measured_by(override(config, some)) != measured_by(override(config, more))
    assert "parts" not in measured_by(override(config, {"evaluation.benchmarks": ["capitals", "demo"]}))


def test_the_model_card_names_the_repositories(config, hub):
    corpus = ParallelCorpus.from_config(config)
    card = model_card(config, corpus, ("de", "en", "fr"), steps=3)
    text = card.render(query_prefix="", passage_prefix="", dimension=4, max_tokens=None)
    assert yaml.safe_load(text.split("---\n")[1])["datasets"] == ["owner/pairs"]
    assert f"owner/pairs at {hub.repositories['owner/pairs'].commit}" in text
    bare = replace(card, data_sets={}).render(query_prefix="", passage_prefix="", dimension=4, max_tokens=None)
    assert "datasets" not in bare


def test_audit_and_prepare_take_names(config, hub, hbtrain, tmp_path):
    (tmp_path / "r.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    code, out, err = hbtrain("audit", "r.yaml", "--without-tokens")
    assert (code, "pairs" in out) == (0, True), err
    assert [line.partition(":")[0] for line in err.splitlines()] == [
        "fetching pairs",
        "preparing the corpus of pairs, once",
    ]
    mine = str(tmp_path / "pairs.yaml")
    code, out, err = hbtrain("prepare", "parallel", "hub:pairs", "--catalogue", mine, "--output", "made")
    assert code == 0, err
    (source,) = ParallelCorpus.open([str(tmp_path / "made")]).sources.values()
    assert (source.index.rows, list(source.data_set["sources"])) == (8, ["owner/pairs"])
    code, _, err = hbtrain("prepare", "parallel", "hub:pairs", "x.jsonl", "--catalogue", mine, "--output", "other")
    assert code == 2
    assert err == "error: hub:pairs x.jsonl: a data set by name stands alone; prepare them one by one\n"


def test_sweeps_take_names_and_say_what_is_fetched(config, hbtrain, tmp_path):
    (tmp_path / "r.yaml").write_text(json.dumps(config.model_dump(mode="json")))
    code, _, err = hbtrain("sweep", "alpha-grid", "--recipe", "r.yaml", "--data.sources", "hub:pairz")
    assert code == 2
    assert err.startswith("error: unknown data set 'pairz': did you mean pairs?")
    space = with_flags(load_space("alpha-grid"), {"recipe": "r.yaml"})
    with redirect_stdout(io.StringIO()) as said:
        sweep._check(space, trials_of(space)[:2], base_config(space))
    sizes = [line.partition(",")[0] for line in said.getvalue().splitlines()]
    assert sizes == ["fetching capitals: 2 files", "fetching pairs: 1 file", "preparing the corpus of pairs"]


def test_jobs_are_checked_for_names_and_go_to_the_same_hub(hub, monkeypatch, tmp_path):
    where = ["--storage", str(tmp_path)]
    submit._check("train", ["quickstart", "--data.sources", "hub:mmarco", *where])
    submit._check("evaluate", ["m", "--benchmark", "xquad-r", "--output", str(tmp_path)])
    for command, arguments in (
        ("train", ["quickstart", "--data.sources", "hub:mmarko", *where]),
        ("train", ["quickstart", "--evaluation.benchmarks", "xqad-r", *where]),
        ("sweep", ["alpha-grid", "--recipe", "quickstart", "--data.sources", "hub:xquad-r", *where]),
        ("evaluate", ["m", "--benchmark", "mmarco", "--output", str(tmp_path)]),
    ):
        with pytest.raises(DataError):
            submit._check(command, arguments)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    passed = submit._environment([])
    assert passed["HF_ENDPOINT"] == hub.url
    assert "HF_TOKEN" not in passed, "everyone with access to the cluster could read it"
