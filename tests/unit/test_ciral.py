"""CIRAL: English questions on passages in other languages."""

import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmarks import benchmark_files, load_benchmark, parse_benchmark
from hbtrain.evaluation.evaluate import evaluate
from tests.unit.evaluation_samples import HashEncoder
from tests.unit.judged_samples import DOCUMENTS, json_lines, qrels, topics

LANGUAGES = {"sw": "swahili", "yo": "yoruba"}


@pytest.fixture
def folder(tmp_path):
    for code, name in LANGUAGES.items():
        own = tmp_path / f"ciral-{name}"
        for split in ("dev", "test-b"):
            topics(own / "topics" / f"topics.ciral-v1.0-{code}-{split}.tsv", {x: f"{code} {split} {x}" for x in "123"})
            qrels(own / "qrels" / f"qrels.ciral-v1.0-{code}-{split}.tsv")
        passages = [{"docid": x, "title": a, "text": b, "url": "x"} for x, a, b in DOCUMENTS]
        json_lines(tmp_path / "passages-v1.0" / f"{name}_passages.jsonl", passages)
        json_lines(tmp_path / "translated-passages-v1.0" / f"{name}_passages.jsonl", passages[:1])
    return tmp_path


def load(folder, languages=None):
    return load_benchmark(parse_benchmark(f"ciral={folder}"), languages, cache=str(folder / "cache"))


def test_english_asks_passages_of_each_language(folder):
    b = load(folder)
    assert (b.languages, b.settings, b.parallel) == (("sw", "yo", "en"), ("cross",), False)
    for c, code in zip(b.collections(), LANGUAGES, strict=True):
        assert (c.languages, c.query_languages) == ((code, "en"), ["en", "en"])
        assert c.query_texts == [f"{code} test-b 1", f"{code} test-b 2"]
        assert list(c.candidate_texts) == [f"{title} {text}" for _, title, text in DOCUMENTS]
    cells = evaluate(HashEncoder(), b).cells
    assert [(x.setting, x.query_language, x.passage_language) for x in cells] == [
        ("cross", "en", "sw"),
        ("cross", "en", "yo"),
    ]
    assert len(benchmark_files(parse_benchmark(f"ciral={folder}"))) == 6


@pytest.mark.parametrize("languages", [["yo"], ["en", "yo"], ["yor", "eng"]])
def test_english_need_not_be_named(folder, languages):
    assert set(load(folder, languages).languages) == {"yo", "en"}
    assert set(load(folder, ["en"]).languages) == {"en", "sw", "yo"}
    with pytest.raises(DataError, match="'ha' is not in benchmark ciral .*it has sw, yo"):
        load(folder, ["ha"])


def test_what_is_missing_is_said(folder, tmp_path_factory):
    (folder / "ciral-swahili" / "qrels" / "qrels.ciral-v1.0-sw-test-b.tsv").unlink()
    with pytest.raises(DataError, match=r"has a corpus in sw but no qrels\.ciral-v1\.0-sw-test-b\.tsv"):
        load(folder)
    with pytest.raises(DataError, match="holds no CIRAL"):
        load(tmp_path_factory.mktemp("empty"))
