"""`hbtrain mine` from the command line to training data, with a tiny static encoder; and what it refuses."""

import gzip
import json

import numpy as np
import pytest

from hbtrain.corpus import ParallelCorpus, source_path
from hbtrain.modeling.encoder import Encoder
from tests.unit.tiny_models import encoder_config


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    texts = [text for row in demo() for text in row["passage"].values()]
    Encoder.build(encoder_config("static"), lambda: texts, seed=3).save(folder)
    return folder


def demo():
    return [json.loads(line) for line in source_path("demo").read_text().splitlines()]


def read(path):
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def figures(out):
    """The table of the summary, by the words in front."""
    names = ("rows", "negatives per row", "dropped by margin", "rows without any")
    return {
        n: line.removeprefix(n).strip()
        for line in map(str.strip, out.splitlines())
        for n in names
        if line.startswith(f"{n}  ")
    }


@pytest.mark.parametrize("languages", ["same", "other", "both"])
def test_negatives_keep_the_margin_and_bring_their_translations(hbtrain, tmp_path, model, languages):
    output = tmp_path / "folder" / "mined.jsonl.gz"
    code, out, err = hbtrain(
        "mine", model, "--data", "demo", "--output", output, "--languages", languages, "--negatives", 3
    )
    assert code == 0, err
    rows, mined = demo(), read(output)
    assert [{**row, "negatives": None} for row in mined] == [{**row, "negatives": None} for row in rows]
    number_of = {tuple(sorted(row["passage"].items())): i for i, row in enumerate(rows)}
    negatives = [[number_of[tuple(sorted(n.items()))] for n in row.get("negatives", [])] for row in mined]
    shown = figures(out)
    assert shown["rows"] == "330"
    assert shown["negatives per row"] == f"{np.mean([len(n) for n in negatives]):.2f}"
    assert shown["rows without any"] == str(sum(not n for n in negatives))
    assert sum(map(len, negatives)) > 50, "else nothing is tested"

    # The law of the margin, from the encoder itself: within the reach of a query, what scores too high is not taken.
    encoder = Encoder.load(str(model))
    order = ("ar", "de", "en", "es", "ru", "zh")
    p = {y: encoder.encode([row["passage"][y] for row in rows], "passage") for y in order}
    dropped = 0
    for x in order:
        q = encoder.encode([row["query"][x] for row in rows], "query")
        seen = {"same": [x], "other": [y for y in order if y != x], "both": order}[languages]
        scores = {y: q @ p[y].T for y in seen}
        reach = np.sort(np.concatenate(list(scores.values()), axis=1), axis=1)[:, -100]
        for i, taken in enumerate(negatives):
            assert i not in taken
            for y in seen:
                too_close = (scores[y][i] > scores[y][i, i] - 0.05 + 1e-5) & (scores[y][i] > reach[i] + 1e-5)
                dropped += int(too_close.sum())
                assert not set(taken) & set(np.flatnonzero(too_close).tolist())
    assert dropped > 100, "else the margin is not tested"


def test_mined_file_is_a_source_whose_negatives_are_known_passages(hbtrain, tmp_path, model):
    output = tmp_path / "mined.jsonl.gz"
    assert hbtrain("mine", model, "--data", "demo", "--output", output)[0] == 0
    (source,) = ParallelCorpus.open([str(output)]).sources.values()
    mined = read(output)
    rows = np.arange(len(mined))
    for language in source.index.languages:
        languages = [language] * len(rows)
        expected = [n[language] for row in mined for n in row.get("negatives", [])]
        assert source.negatives(rows, languages, 8, 0) == expected
        ids = source.negative_ids(rows, languages, 8, 0)
        counts = source.negative_counts(rows, languages)
        assert (ids >= 0).all(), "each is a passage of the source, which the loss can mask"
        assert not (ids == source.index.passage_ids_of(np.repeat(rows, counts))).any(), "and never the row's own"


def test_the_same_again_and_without_compression(hbtrain, tmp_path, model):
    arguments = ["mine", model, "--data", "demo", "--margin-kind", "relative", "--margin", "-0.5", "--output"]
    for name in ("first.jsonl.gz", "second.jsonl.gz", "plain.jsonl"):
        assert hbtrain(*arguments, name)[0] == 0
    assert (tmp_path / "first.jsonl.gz").read_bytes() == (tmp_path / "second.jsonl.gz").read_bytes()
    assert gzip.decompress((tmp_path / "first.jsonl.gz").read_bytes()) == (tmp_path / "plain.jsonl").read_bytes()
    # Mined again over its own output: old negatives are replaced.
    arguments[3] = "plain.jsonl"
    assert hbtrain(*arguments, "again.jsonl")[0] == 0
    assert (tmp_path / "again.jsonl").read_bytes() == (tmp_path / "plain.jsonl").read_bytes()
    assert not list(tmp_path.glob(".*partial")), "nothing half-made is left"


def test_rows_of_several_sources_stay_apart(hbtrain, tmp_path, model, write_source, rows):
    for name in ("a", "b"):
        write_source([{**row, "domain": name, "passage_id": "p"} for row in rows(3)], f"{name}.jsonl")
    (tmp_path / "b.jsonl").write_text((tmp_path / "b.jsonl").read_text().replace("answer", "reply"))
    assert hbtrain("mine", model, "--data", "a.jsonl", "b.jsonl", "--output", "both.jsonl.gz", "--margin", -9)[0] == 0
    mined = read(tmp_path / "both.jsonl.gz")
    assert [row["id"] for row in mined] == ["a/r0", "a/r1", "a/r2", "b/r0", "b/r1", "b/r2"]
    assert [row["passage_id"] for row in mined] == ["a/p"] * 3 + ["b/p"] * 3
    assert mined[0]["domain"] == "a"
    assert "negatives" not in mined[0], "all passages have an id that answers the question, in text or in number"


def test_a_broken_run_leaves_the_old_file(hbtrain, tmp_path, model, monkeypatch):
    output = tmp_path / "mined.jsonl.gz"
    output.write_bytes(b"old")
    monkeypatch.setattr("hbtrain.retrieval.mining.Miner.rows", lambda *_: iter(()))
    code, _, err = hbtrain("mine", model, "--data", "demo", "--output", output)
    assert code == 2
    assert "source demo changed" in err
    assert output.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["mined.jsonl.gz"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "no-model"}, ["no-model"]),
        ({"--data": "nowhere.jsonl"}, ["cannot read source nowhere.jsonl"]),
        ({"--data": "broken.jsonl"}, ["broken.jsonl line 1 is not JSON"]),
        ({"--output": "/proc/hbtrain/mined.jsonl"}, ["--output /proc/hbtrain/mined.jsonl", "cannot be written"]),
        ({"--output": "broken.jsonl/mined.jsonl"}, ["--output broken.jsonl/mined.jsonl", "cannot be written"]),
        ({"--output": "."}, ["--output", "is a folder"]),
        ({"--languages": "all"}, ["--languages all", "same, other, both"]),
        ({"--margin-kind": "percent"}, ["--margin-kind percent", "absolute, relative"]),
        ({"--margin": "nan"}, ["--margin nan"]),
        ({"--negatives": "0"}, ["--negatives 0"]),
        ({"--skip-top": "-1"}, ["--skip-top -1"]),
        ({"--batch-size": "0"}, ["--batch-size 0"]),
        ({"--index": "nonsense"}, ["index 'nonsense' cannot be made"]),
        ({"--index": "IVF64,Flat"}, ["passages in de", "64"]),
        ({"--index-parameters": "nprobe=4"}, ["--index-parameters nprobe=4", "set --index"]),
        ({"--address": "auto"}, ["--address and --wait-s", "add --actors"]),
        ({"--rescore": "no-model"}, ["--rescore 'sentence-transformers/no-model' is no folder"]),
        ({"--depth": "7"}, ["--depth 7", "at least --negatives + --skip-top = 8"]),
        ({"--data": "german.jsonl", "--languages": "other"}, ["--languages other", "de only"]),
        ({"--data": ["german.jsonl", "sentences.jsonl"]}, ["sentences", "mine them one by one"]),
    ],
)
def test_mine_refuses(hbtrain, tmp_path, model, changes, words):
    (tmp_path / "broken.jsonl").write_text("{\n")
    (tmp_path / "german.jsonl").write_text('{"id": 1, "query": {"de": "f"}, "passage": {"de": "a"}}\n')
    (tmp_path / "sentences.jsonl").write_text('{"id": 1, "text": {"de": "f", "en": "a"}}\n')
    options = {"model": model, "--data": "german.jsonl", "--output": "mined.jsonl"} | changes
    arguments = [options.pop("model")]
    for flag, value in options.items():
        arguments += [flag, *(value if isinstance(value, list) else [value])]
    code, _, err = hbtrain("mine", *arguments)
    assert code == 2, err
    assert err.startswith("error: ")
    assert len(err.strip().splitlines()) == 1, err
    for word in words:
        assert word in err
    assert not (tmp_path / "mined.jsonl").exists()
