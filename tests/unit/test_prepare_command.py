"""`hbtrain prepare` from the command line: what it shows and refuses, remote inputs, and what reads its corpora."""

import gzip
import json
import subprocess
import sys

import fsspec
import numpy as np
import pytest

from hbtrain.batching import BatchPlan
from hbtrain.config import load_config
from hbtrain.corpus import ParallelCorpus, source_path
from hbtrain.errors import ConfigError, DataError
from hbtrain.formats.inputs import numbered_lines
from hbtrain.formats.locations import file_state, list_files
from tests.unit.judged_samples import miracl
from tests.unit.test_readers_ids import PASSAGES, mmarco

LONG = {"de": "german", "en": "english"}


def test_a_corpus_is_shown_checked_and_not_made_again(hbtrain, tmp_path):
    mmarco(tmp_path / "raw")
    with (tmp_path / "raw" / "triples.train.ids.small.tsv").open("a") as stream:
        stream.write("1\t99\t2\n")
    code, out, err = hbtrain("prepare", "mmarco", "raw", "--output", "corpus")
    assert (code, out.count("prepared")) == (2, 0)
    assert err.strip().splitlines()[-1].startswith("error: raw/triples.train.ids.small.tsv line 4: a passage that the")
    code, out, err = hbtrain("prepare", "mmarco", "raw", "--output", "corpus", "--skip-bad-rows")
    assert code == 0, err
    words = " ".join(out.split())
    assert "language rows queries passages de 3 2 3 en 3 2 3 3 rows" in words
    assert "dropped 1: a passage that the corpus lacks" in words
    assert "listed corpus/drops.jsonl" in words
    assert words.endswith("prepared corpus")
    code, out, _ = hbtrain("prepare", "mmarco", "raw", "--output", "corpus", "--skip-bad-rows")
    assert (code, "was there" in out) == (0, True)
    code, out, _ = hbtrain("prepare", "check", "corpus")
    assert code == 0
    assert "files are as they were written" in out
    assert hbtrain("prepare", "check", "raw")[0] == 2


def test_the_first_rows_make_a_corpus_that_is_not_taken_for_the_whole(hbtrain, tmp_path):
    mmarco(tmp_path / "raw")
    rows = {}
    for limit in (None, 2, 1, 99):
        arguments = ("prepare", "mmarco", "raw", "--output", f"first-{limit}")
        code, _, err = hbtrain(*arguments, *(() if limit is None else ("--limit", limit)))
        assert code == 0, err
        rows[limit] = list(ParallelCorpus.open([f"first-{limit}"]).sources[f"first-{limit}"].records())
    assert [len(own) for own in rows.values()] == [3, 2, 1, 3]
    assert rows[2] == rows[None][:2] and rows[1] == rows[None][:1] and rows[99] == rows[None]
    for there, limit in ((2, ()), ("None", ("--limit", 2)), (2, ("--limit", 1))):
        code, _, err = hbtrain("prepare", "mmarco", "raw", "--output", f"first-{there}", *limit)
        assert (code, "holds a corpus of other inputs or options" in err) == (2, True)
    code, out, _ = hbtrain("prepare", "mmarco", "raw", "--output", "first-2", "--limit", 2)
    assert (code, "was there" in out) == (0, True)
    code, _, err = hbtrain("prepare", "mmarco", "raw", "--output", "other", "--limit", 0)
    assert (code, err) == (2, "error: --limit 0: must be 1 or more\n")


@pytest.mark.parametrize("form", ["parallel", "columns", "squad", "miracl", "mr-tydi", "mteb", "pages", "huggingface"])
def test_every_form_has_a_command(hbtrain, tmp_path, form):
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "query": {"en": "q"}, "passage": {"en": "p"}}\n')
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_text('{"question": "q", "answer": "p"}\n')
    question = {"id": "1", "question": "q", "answers": [{"answer_start": 0}]}
    squad = {"data": [{"paragraphs": [{"context": "p", "qas": [question]}]}]}
    (tmp_path / "en.json").write_text(json.dumps(squad))
    (tmp_path / "en.jsonl").write_text('{"qa_pairs": [{"question": "q", "answer": "p"}]}\n')
    tydi = tmp_path / "mrtydi-v1.1-english"
    (tydi / "collection").mkdir(parents=True)
    (tydi / "topic.train.tsv").write_text("1\tq\n")
    (tydi / "qrels.train.txt").write_text("1 0 d 1\n")
    (tydi / "collection" / "docs.jsonl").write_text('{"id": "d", "contents": "p"}\n')
    (tmp_path / "beir" / "qrels").mkdir(parents=True)
    (tmp_path / "beir" / "corpus.jsonl").write_text('{"_id": "d", "text": "p"}\n')
    (tmp_path / "beir" / "queries.jsonl").write_text('{"_id": "1", "text": "q"}\n{"_id": "2", "text": "of a test"}\n')
    (tmp_path / "beir" / "qrels" / "train.tsv").write_text("1\td\t1\n")
    columns = ("--query", "en=question", "--passage", "en=answer")
    arguments = {
        "parallel": ["rows.jsonl"],
        "columns": ["data/train.jsonl", *columns],
        "squad": ["en=en.json", "--passage", "sentence"],
        "miracl": [miracl(tmp_path / "raw"), "--split", "dev", "--languages", "sw"],
        "mr-tydi": ["."],
        "mteb": ["beir", "--languages", "en"],
        "pages": ["en=en.jsonl", "--page-negatives", 3],
        "huggingface": ["data", *columns],
    }[form]
    code, _, err = hbtrain("prepare", form, *arguments, "--output", "corpus")
    assert code == 0, err
    (source,) = ParallelCorpus.open(["corpus"]).sources.values()
    if form == "miracl":
        assert (source.index.rows, source.index.languages) == (3, ("sw",))
    else:
        assert list(source.queries()) == [(0, "en", "q")]
        assert list(source.passages()) == [(0, "en", "p")]


@pytest.mark.parametrize("arguments", [["lines", ".", "--languages", "de", "sw"], ["columns", "t.csv", "--text"]])
def test_parallel_sentences(hbtrain, tmp_path, arguments):
    for language in ("de", "sw", "yo"):
        (tmp_path / f"{language}.txt").write_text(f"eins {language}\nzwei {language}\n")
    (tmp_path / "t.csv").write_text("a,b\neins de,eins sw\nzwei de,zwei sw\n")
    more = ["de=a", "sw=b"] if "--text" in arguments else []
    code, _, err = hbtrain("prepare", *arguments, *more, "--output", "corpus")
    assert code == 0, err
    (source,) = ParallelCorpus.open(["corpus"]).sources.values()
    assert [x["text"] for x in source.records()] == [{y: f"{x} {y}" for y in ("de", "sw")} for x in ("eins", "zwei")]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["mmarco", "empty", "--translator", "deepl"], ["--translator deepl: must be google or helsinki"]),
        (["mteb", "empty"], ["empty is not in mteb's layout"]),
        (["lines", "empty"], ["empty holds no lines by language"]),
        (["columns", "a.csv"], ["--query and --passage are needed, or --text for parallel sentences"]),
        (["columns", "a.csv", "--text", "en=q", "--query", "en=q"], ["--text is for parallel sentences"]),
        (["mmarco", "nowhere"], ["nowhere is not a folder"]),
        (["mmarco", "empty"], ["empty holds no triples.train.ids.small.tsv"]),
        (["squad", "empty.json"], ["empty.json is not a folder"]),
        (["squad", "en=empty.json", "--passage", "answer"], ["--passage answer", "paragraph or sentence"]),
        (["squad", "en=empty.json", "fr"], ["fr: must be LANGUAGE=FILE"]),
        (["squad", "en=empty.json"], ["empty.json has no array 'data'"]),
        (["pages", "en=empty.json", "en=other"], ["both empty.json and other are for en"]),
        (["parallel", "cut.jsonl.gz"], ["cut.jsonl.gz is a broken gzip file after line", "fetch it again"]),
        (["parallel", "nonsense://x"], ["nonsense://x", "cannot be read here"]),
        (["parallel", "memory://none.jsonl"], ["cannot read memory://none.jsonl"]),
        (["columns", "a.txt", "--query", "en=q", "--passage", "en=p"], ["a.txt: must end in .csv"]),
        (["columns", "a.csv", "--query", "q", "--passage", "en=p"], ["--query q", "LANGUAGE=COLUMN"]),
        (["parallel", "rows.jsonl", "--output", "empty.json"], ["empty.json", "no prepared corpus"]),
        (["parallel", "rows.jsonl", "--output", "s3://bucket/x"], ["--output s3://bucket/x: must be on a file system"]),
        (["parallel", "rows.jsonl", "--output", "gs://bucket/x"], ["gs://bucket/x", "or give a folder"]),
        (["parallel", "rows.jsonl", "--output", "."], ["is there and holds no prepared corpus"]),
        (["check", "."], ["is a folder without manifest.json"]),
        (["check", "/"], ["is a folder without manifest.json"]),
        (["parallel", "rows.jsonl", "--output", "/proc/hbtrain/corpus"], ["cannot write the corpus /proc/hbtrain"]),
    ],
)
def test_prepare_refuses(hbtrain, tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty.json").touch()
    row = '{"id": 1, "query": {"en": "q"}, "passage": {"en": "p"}}\n'
    (tmp_path / "rows.jsonl").write_text(row)
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(row.encode() * 999)[:-20])
    if "--output" not in arguments and arguments[0] != "check":
        arguments = [*arguments, "--output", "corpus"]
    code, _, err = hbtrain("prepare", *arguments)
    assert code == 2, err
    line = err.strip().splitlines()[-1]
    assert line.startswith("error: ")
    for word in words:
        assert word in line
    assert not (tmp_path / "corpus").exists()
    if "corpus" in arguments:
        code, _, err = hbtrain("train", "quickstart", "--data.sources", "corpus")
        assert code == 2
        assert "corpus" in err


def test_the_folder_one_stands_in(hbtrain, tmp_path, monkeypatch):
    row = '{"id": 1, "query": {"en": "q"}, "passage": {"en": "p"}}\n'
    (tmp_path / "rows.jsonl").write_text(row)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    code, _, err = hbtrain("prepare", "parallel", "../rows.jsonl", "--output", ".")
    assert code == 0, err
    monkeypatch.chdir(tmp_path / "here")  # another folder of that name by now
    assert hbtrain("prepare", "check", ".")[0] == 0
    assert ParallelCorpus.open(["."]).sources
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "rows.jsonl"]


@pytest.mark.parametrize("given", ["en=~/en.json", "~"])
def test_the_home_folder(hbtrain, monkeypatch, tmp_path, given):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    question = {"id": "1", "question": "q", "answers": [{"answer_start": 0}]}
    squad = {"data": [{"paragraphs": [{"context": "p", "qas": [question]}]}]}
    (tmp_path / "home" / "en.json").write_text(json.dumps(squad))
    code, _, err = hbtrain("prepare", "squad", given, "--output", "corpus")
    assert code == 0, err


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_remote_inputs(hbtrain, tmp_path, scheme):
    mmarco(tmp_path / "raw")
    base = f"file://{tmp_path}/raw" if scheme == "file" else "memory://bucket/raw"
    if scheme == "memory":
        files = fsspec.filesystem("memory")
        for path in list_files(str(tmp_path / "raw")):
            zipped = path.endswith("collection.tsv")
            raw = (gzip.compress if zipped else bytes)(open(path, "rb").read())  # noqa: PTH123, SIM115
            files.pipe(f"/bucket/raw{path.removeprefix(str(tmp_path / 'raw'))}{'.gz' * zipped}", raw)
    code, _, err = hbtrain("prepare", "mmarco", base, "--output", "remote")
    assert code == 0, err
    assert hbtrain("prepare", "mmarco", "raw", "--output", "local")[0] == 0
    for path in (tmp_path / "local").iterdir():
        if path.name != "manifest.json":
            assert path.read_bytes() == (tmp_path / "remote" / path.name).read_bytes()


def test_urls_of_files(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one\n\ntwo\n")
    assert [text for text, _ in numbered_lines(f"file://{path}")] == ["one", "two"]
    assert file_state(f"file://{path}")["bytes"] == 9
    assert list_files(f"file://{tmp_path}/") == [f"file://{tmp_path}/a.txt"]
    with pytest.raises(DataError, match="cannot read"):
        file_state(f"file://{tmp_path}/b.txt")
    with pytest.raises(ConfigError, match="cannot be read here"):
        list_files("nonsense://x/y")


def test_a_plan_and_texts_over_both_kinds_of_sources(hbtrain, tmp_path):
    """The demo corpus, prepared: the same rows in the same languages, and the same texts for a batch."""
    demo = source_path("demo")
    assert hbtrain("prepare", "parallel", demo, "--output", "prepared-demo")[0] == 0
    changes = {"data.sources": ["demo", "prepared-demo"], "batching.global_batch_size": 32}
    config = load_config("quickstart", {**changes, "data.validation": None})
    corpus = ParallelCorpus.from_config(config)
    jsonl, prepared = corpus.sources["demo"], corpus.sources["prepared-demo"]
    assert sorted(jsonl.passages()) == sorted(prepared.passages())
    assert sorted(jsonl.queries()) == sorted(prepared.queries())
    assert sorted(jsonl.every_text()) == sorted(prepared.every_text())
    plan = BatchPlan.over(corpus, config)
    seen = set()
    for step in range(20):
        batch = plan.batch(step)
        seen.add(batch.source)
        for side, languages in (("query", batch.query_languages), ("passage", batch.passage_languages)):
            texts = [source.texts(side, batch.rows, languages) for source in (jsonl, prepared)]
            assert texts[0] == texts[1]
        assert not batch.collisions().any()
    assert seen == {"demo", "prepared-demo"}


def test_mined_negatives_come_back_as_ids(hbtrain, tmp_path):
    rows = [
        {"id": f"r{i}", "query": {"en": f"q{i}", "de": f"f{i}"}, "passage": {"en": f"p{i}", "de": f"a{i}"}}
        for i in range(5)
    ]
    for i, row in enumerate(rows):
        row["negatives"] = [rows[(i + 1) % 5]["passage"], {"en": "elsewhere"}]
    (tmp_path / "mined.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert hbtrain("prepare", "parallel", "mined.jsonl", "--output", "corpus")[0] == 0
    (source,) = ParallelCorpus.open(["corpus"]).sources.values()
    at = np.arange(5)
    assert source.negative_counts(at, ["en", "de"] * 2 + ["en"]).tolist() == [2, 1, 2, 1, 2]
    ids = source.negative_ids(at, ["de"] * 5, 1, 0)
    assert ids.tolist() == source.index.passage_ids_of((at + 1) % 5).tolist()
    assert source.negatives(at[:1], ["en"], 1, 1) == ["elsewhere"]
    assert len(list(source.every_text())) == 5 * 4 + 1
    assert [record["query"] for record in source.records()] == [row["query"] for row in rows]
    assert [record["passage"] for record in source.records()] == [row["passage"] for row in rows]
    assert [record["negatives"] for record in source.records()] == [row["negatives"] for row in rows]


def test_help_is_there_at_once():
    """Readers and Arrow are imported when a command runs."""
    program = "import sys; import hbtrain.cli.main; print({'pyarrow', 'numpy', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout.strip() == "set()"


def test_training_is_fed_from_a_prepared_corpus(hbtrain, tmp_path):
    """Queries, passages and hard negatives of a batch, and who is whom among its candidates."""
    from hbtrain.modeling.encoder import Encoder
    from hbtrain.training.feed import Feed

    mmarco(tmp_path / "raw")
    assert hbtrain("prepare", "mmarco", "raw", "--output", "corpus")[0] == 0
    changes = {"data.sources": ["corpus"], "data.validation": None, "batching.global_batch_size": 3}
    config = load_config("quickstart", {**changes, "loss.hard_negatives": 1, "resources.workers": 1})
    corpus = ParallelCorpus.from_config(config)
    encoder = Encoder.build(config.encoder, corpus.every_text, 0)
    work = Feed(BatchPlan.over(corpus, config), corpus, encoder, config, 0, 1).work(0)
    assert work.sizes.negatives == [3]
    rows = work.batch.rows.tolist()
    candidates = [["10", "10", "2"][row] for row in rows] + [["2", "30", "10"][row] for row in rows]
    found = dict(zip(candidates, work.ids.candidate_C.tolist(), strict=True))
    assert [found[x] for x in candidates] == work.ids.candidate_C.tolist()
    assert len(set(found.values())) == 3
    texts = [f"{PASSAGES[x]} ({LONG[y]})" for x, y in zip(candidates[3:], work.batch.passage_languages, strict=True)]
    expected = encoder.tokenize(texts, "passage")
    assert work.sides[2]["input_ids"].tolist() == expected["input_ids"].tolist()
