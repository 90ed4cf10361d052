"""A run goes on with the content that it began with: what counts as content, what is refused, and what is kept."""

import json
import os
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from hbtrain.config import load_config, override
from hbtrain.corpus.prepared import write_manifest
from hbtrain.errors import DataError
from hbtrain.runs import run
from hbtrain.runs.run import train
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.run_inputs import checked_inputs
from hbtrain.runs.segments import fork_run, measured_by, record_scores


def rows(word):
    texts = ({x: f"{word} {n} {x}" for x in ("en", "de")} for n in range(8))
    return "".join(json.dumps({"id": f"q{n}", "query": text, "passage": text}) + "\n" for n, text in enumerate(texts))


@pytest.fixture
def config(tmp_path, cache):
    """A configuration all of whose inputs are files and folders of this test."""
    (tmp_path / "pairs.jsonl").write_text(rows("lake"))
    (tmp_path / "watched.jsonl").write_text(rows("hill"))
    (tmp_path / "asked.jsonl").write_text(rows("wood"))
    (tmp_path / "pieces.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nlake\n")
    (tmp_path / "zero.json").write_text("{}")
    (tmp_path / "beir" / "en" / "qrels").mkdir(parents=True)
    (tmp_path / "beir" / "en" / "queries.jsonl").write_text('{"_id": "q", "text": "which lake"}\n')
    (tmp_path / "beir" / "en" / "corpus.jsonl").write_text('{"_id": "d", "text": "a lake"}\n')
    (tmp_path / "beir" / "en" / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\td\t1\n")
    prepared = tmp_path / "prepared"
    prepared.mkdir()
    (prepared / "query.en.arrow").write_text("columns")
    write_manifest(prepared, {"made": "today"})
    return load_config(
        "quickstart",
        {
            "storage": str(tmp_path / "runs"),
            "data.sources": [str(tmp_path / "pairs.jsonl"), str(prepared)],
            "data.validation": str(tmp_path / "watched.jsonl"),
            "encoder.static.vocabulary": str(tmp_path / "pieces.txt"),
            "training.deepspeed": str(tmp_path / "zero.json"),
            "evaluation.benchmarks": [f"parallel={tmp_path / 'asked.jsonl'}", f"beir={tmp_path / 'beir'}", "demo"],
        },
    )


def digests(config):
    return checked_inputs([config], None, "run x", accept=False).digests


def names(config, before):
    return checked_inputs([config], before, "run x", accept=True).changed


def test_every_input_has_a_digest_that_follows_its_content(config, tmp_path):
    before = digests(config)
    assert len(before) == 8
    assert names(config, before) == ""
    changes = {
        "pairs.jsonl": f"data.sources = {tmp_path}/pairs.jsonl",
        "watched.jsonl": f"data.validation = {tmp_path}/watched.jsonl",
        "pieces.txt": f"encoder.static.vocabulary = {tmp_path}/pieces.txt",
        "zero.json": f"training.deepspeed = {tmp_path}/zero.json",
        "asked.jsonl": f"evaluation.benchmarks = parallel={tmp_path}/asked.jsonl",
        "beir/en/qrels/test.tsv": f"evaluation.benchmarks = beir={tmp_path}/beir",
    }
    for file, name in changes.items():
        content = (tmp_path / file).read_text()
        (tmp_path / file).write_text(content + "\n")
        assert names(config, before) == name
        (tmp_path / file).write_text(content)
        assert names(config, before) == "", "the content counts, not the time"
    (tmp_path / "beir" / "runs").mkdir()
    (tmp_path / "beir" / "runs" / "run.json").write_text("{}")
    (tmp_path / "beir" / "en" / "notes.txt").write_text("n")
    assert names(config, before) == "", "files that a benchmark does not read do not count"


def test_a_prepared_corpus_counts_by_the_content_of_its_files(config, tmp_path):
    before, folder = digests(config), tmp_path / "prepared"
    (folder / "manifest.json").unlink()
    write_manifest(folder, {"made": "tomorrow"})
    assert names(config, before) == ""
    (folder / "manifest.json").unlink()
    (folder / "query.en.arrow").write_text("COLUMNS")
    write_manifest(folder, {"made": "today"})
    assert names(config, before) == f"data.sources = {folder}"


def test_a_models_folder_counts_without_notes_and_hidden_files(config, tmp_path):
    model = tmp_path / "model"
    (model / "1_Pooling").mkdir(parents=True)
    (model / "1_Pooling" / "config.json").write_text("{}")
    own = override(config, {"encoder.backbone": str(model)})
    before = digests(own)
    assert len(before) == 8, "a pretrained model has a vocabulary of its own"
    (model / "README.md").write_text("scores")
    (model / ".git").mkdir()
    (model / ".git" / "HEAD").write_text("main")
    assert names(own, before) == ""
    (model / "1_Pooling" / "config.json").write_text('{"pooling": "cls"}')
    assert names(own, before) == f"encoder.backbone = {model}"
    assert len(digests(override(config, {"encoder.backbone": "somebody/model"}))) == 7, "the hub is not asked"


def test_content_that_hides_behind_its_old_time_is_seen(config, tmp_path):
    before, file = digests(config), tmp_path / "pairs.jsonl"
    stat = file.stat()
    file.write_text(rows("lane"))
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert names(config, before) == f"data.sources = {file}"


def test_an_unchanged_file_is_read_once(config, monkeypatch):
    before = digests(config)
    monkeypatch.setattr("hbtrain.corpus.cache.file_digest", lambda path: pytest.fail(f"{path} is read again"))
    assert digests(config) == before


def test_a_refusal_is_one_line_with_both_ways_out(config, tmp_path):
    before = digests(config)
    for file in ("pairs.jsonl", "watched.jsonl", "pieces.txt", "asked.jsonl"):
        (tmp_path / file).write_text((tmp_path / file).read_text() + "\n")
    with pytest.raises(DataError) as error:
        checked_inputs([config], before, "run lakes-1a2b", accept=False)
    said = str(error.value)
    assert said.startswith(f"data.sources = {tmp_path}/pairs.jsonl, data.validation = {tmp_path}/watched.jsonl, ")
    assert " and 1 more: the content has changed since run lakes-1a2b began with it" in said
    assert "--name NAME" in said
    assert "--accept-changed-inputs" in said
    assert "\n" not in said


def test_inputs_that_are_not_named_any_more_are_kept_and_new_ones_are_taken(config, tmp_path):
    both = digests(config)
    one = override(config, {"evaluation.benchmarks": ["demo"]})
    assert checked_inputs([one], both, "run x", accept=False).digests == both
    assert checked_inputs([config], digests(one), "run x", accept=False).digests == both
    (tmp_path / "asked.jsonl").write_text("\n")
    assert checked_inputs([one], both, "run x", accept=False).changed == "", "it is not read"


def begun(config, **state):
    folder = RunFolder.open(config)
    folder.initial_model.mkdir()
    folder.update(mlflow_run_id="abc", **state)
    return folder


@pytest.fixture
def simple(config, tmp_path):
    """A configuration with one source and without what `train` would need more time to check."""
    changes = {"data.sources": [str(tmp_path / "pairs.jsonl")], "data.validation": None, "training.deepspeed": None}
    changes |= {"encoder.static.vocabulary": None, "batching.global_batch_size": 2, "resources.workers": 1}
    return override(config, changes | {"evaluation.benchmarks": [f"parallel={tmp_path / 'asked.jsonl'}"]})


@pytest.fixture
def goes_on(monkeypatch):
    """`train` up to where it would start Ray; returns what it says."""
    said, tags = [], {}
    tracker = SimpleNamespace(
        tags=tags.update, inputs=lambda _: None, ending=lambda _: nullcontext(), run_id="0", uri=""
    )
    observer = SimpleNamespace(phase=said.append, event=lambda _: None)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "_tracker", lambda *_: tracker)
    monkeypatch.setattr(run, "_run", stop)

    def call(config, **options):
        said.clear()
        tags.clear()
        with pytest.raises(KeyboardInterrupt):
            train(config, observer, **options)
        return said, tags

    return call


def test_a_run_goes_on_with_the_same_content_only(simple, tmp_path, goes_on):
    before = digests(simple)
    folder = begun(simple, inputs=before)
    goes_on(simple)
    assert folder.state.inputs == before
    (tmp_path / "asked.jsonl").write_text(rows("tree"))
    state = (folder.path / "run.json").read_bytes()
    with pytest.raises(DataError, match=rf"^evaluation\.benchmarks = .*asked\.jsonl: .* since run {folder.name} began"):
        train(simple)
    assert (folder.path / "run.json").read_bytes() == state
    said, tags = goes_on(simple, accept_changed_inputs=True)
    assert said[-1] == f"goes on with other content: evaluation.benchmarks = parallel={tmp_path}/asked.jsonl"
    assert tags["changed_inputs"] == f"evaluation.benchmarks = parallel={tmp_path}/asked.jsonl"
    assert folder.state.inputs == digests(simple), "they are what it goes on with from now on"
    assert "changed_inputs" not in goes_on(simple)[1]
    goes_on(override(simple, {"name": "other"}))


def test_a_run_of_an_earlier_version_goes_on_and_keeps_its_inputs_from_now_on(simple, tmp_path, goes_on):
    folder = begun(simple)
    goes_on(simple)
    assert folder.state.inputs == digests(simple)
    (tmp_path / "pairs.jsonl").write_text(rows("tree"))
    with pytest.raises(DataError, match=r"pairs\.jsonl"):
        train(simple)


def test_a_run_whose_batches_another_version_drew_otherwise_goes_on_only_where_that_is_accepted(simple, goes_on):
    folder = begun(simple, inputs=digests(simple), batch_plan="drawn by another version")
    with pytest.raises(DataError, match=rf"^run {folder.name} began with other batches than this version.*--name NAME"):
        train(simple)
    assert folder.state.batch_plan == "drawn by another version"
    goes_on(simple, accept_changed_inputs=True)
    goes_on(simple)


def test_a_run_of_which_nothing_was_made_takes_what_is_there(simple, tmp_path, goes_on):
    folder = begun(simple, inputs=digests(simple))
    folder.initial_model.rmdir()
    (tmp_path / "pairs.jsonl").write_text(rows("tree"))
    goes_on(simple)
    assert folder.state.inputs == digests(simple)


def test_a_finished_segment_counts_for_the_same_content_only(simple, tmp_path):
    simple = override(simple, {"training.steps": 12})
    folder = begun(simple, inputs=digests(simple), measured=measured_by(simple))
    file = tmp_path / "metrics.json"
    file.write_text('{"asked/mono/map": 0.5}')
    record_scores(folder, 4, file, simple)
    assert train(simple, until=4).scores == {"asked/mono/map": 0.5}
    (tmp_path / "asked.jsonl").write_text(rows("tree"))
    with pytest.raises(DataError, match=r"asked\.jsonl: the content has changed"):
        train(simple, until=4)


def test_a_finished_run_is_followed_by_a_new_one_on_other_content(simple, tmp_path, goes_on):
    first = begun(simple, inputs=digests(simple), finished=True)
    (tmp_path / "pairs.jsonl").write_text(rows("tree"))
    goes_on(simple)
    assert RunFolder.current(simple).name == f"{first.name}-2"


def test_a_fork_began_with_what_its_origin_began_with(simple, tmp_path):
    from tests.unit.test_segments import checkpoint

    simple = override(simple, {"training.steps": 12})
    origin = begun(simple, inputs=digests(simple))
    checkpoint(origin, 4, tmp_path)
    fork = override(simple, {"batching.alpha": 0.25})
    assert fork_run(fork, simple, 4)
    (tmp_path / "pairs.jsonl").write_text(rows("tree"))
    with pytest.raises(DataError, match=r"pairs\.jsonl: the content has changed"):
        train(fork)
