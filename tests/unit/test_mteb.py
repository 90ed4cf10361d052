"""The layout of mteb's sets on the hub: configurations, splits, columns, pairs of languages; what is refused."""

import numpy as np
import pytest

from hbtrain.corpus.readers.by_id import JudgedReader
from hbtrain.errors import DataError
from hbtrain.evaluation.benchmarks import benchmark_files, load_benchmark, parse_benchmark
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.judged import Judging, read_judged
from hbtrain.evaluation.rankers import TopLists
from hbtrain.evaluation.scoring import score_collection
from hbtrain.evaluation.trec_evaluation import evaluate_trec_runs
from hbtrain.formats.mteb import find_mteb
from tests.prepared_samples import Row, check_rows, prepared
from tests.unit.evaluation_samples import HashEncoder, only
from tests.unit.judged_samples import DOCUMENTS, QRELS, TOPICS, json_lines, mteb, parquet, shard, write


def read(folder, languages=None, split=None):
    return read_judged("mteb", folder, "set", languages, cache=folder / "cache", split=split)


def refused(folder, languages=None, split=None):
    with pytest.raises(DataError) as caught:
        read(folder, languages, split).check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_subsets_are_languages_in_any_spelling(tmp_path):
    for subset in ("swahili", "deu", "yo"):
        mteb(tmp_path, subset)
    b = read(tmp_path)
    assert (b.candidates_kind, b.settings, b.languages, b.parallel) == (
        "title+text",
        ("mono",),
        ("de", "sw", "yo"),
        False,
    )
    c = next(read(tmp_path, ["sw"]).collections())
    assert list(c.candidate_texts) == [f"{title} {text}" for _, title, text in DOCUMENTS]
    assert (c.question_ids, [x.tolist() for x in c.relevant]) == (["1", "2"], [[0, 1], [2]])
    assert (c.left_out, c.unasked) == (1, {"sw": ["3", "9"]})
    assert read(tmp_path, ["deu", "yor"]).languages == ("de", "yo")
    assert "'ko' is not in benchmark set" in refused(tmp_path, ["ko"])


def test_a_set_without_subsets_is_one_language(tmp_path):
    mteb(tmp_path)
    assert only(read(tmp_path, ["sw"])).question_ids == ["1", "2"]
    assert "give --languages with one code" in refused(tmp_path)


@pytest.mark.parametrize(
    ("splits", "wanted", "chosen"),
    [
        (["dev", "test", "train"], None, "test"),
        (["dev", "train"], None, "dev"),
        (["train"], None, "train"),  # the only one, whatever its name
        (["train", "test"], "train", "train"),
    ],
)
def test_the_wanted_split_or_the_only_one(tmp_path, splits, wanted, chosen):
    mteb(tmp_path, "sw", split="gone", texts="train")
    (tmp_path / "sw-qrels" / shard("gone")).unlink()
    for number, split in enumerate(splits):
        parquet(
            tmp_path / "sw-qrels" / shard(split), [{"query-id": "1", "corpus-id": DOCUMENTS[number][0], "score": 1}]
        )
    c = only(read(tmp_path, split=wanted))
    assert [c.candidate_ids[x] for x in c.relevant[0]] == [DOCUMENTS[splits.index(chosen)][0]]


def test_splits_that_are_not_there(tmp_path):
    mteb(tmp_path, "sw", split="train")
    assert "has no judgements of the split test; it has train" in refused(tmp_path, split="test")
    parquet(tmp_path / "sw-qrels" / shard("other"), [{"query-id": "1", "corpus-id": "10#0", "score": 1}])
    assert "judgements of other, train, of which none is test, dev, validation" in refused(tmp_path)
    parquet(tmp_path / "sw-corpus" / shard("dev"), [{"_id": "10#0", "text": "x"}])
    assert "corpus of sw: there is no split train among dev, test" in refused(tmp_path, split="train")


def test_names_with_hashes_and_those_of_the_hubs_conversion(tmp_path):
    mteb(tmp_path, "sw")
    files = tmp_path / "sw-queries", tmp_path / "sw-corpus", tmp_path / "sw-qrels"
    (files[0] / shard("test")).rename(files[0] / shard("test", end="-3f69ec1b2d5a7c88"))
    (files[1] / "test").mkdir()
    for number in range(2):
        (files[1] / shard("test", number, 2)).rename(files[1] / "test" / f"{number:04d}.parquet")
    (files[2] / shard("test")).rename(files[2] / "set-sw-qrels-test.parquet")
    assert list(only(read(tmp_path)).candidate_ids) == [x for x, _, _ in DOCUMENTS]
    (files[1] / "test").rename(files[1] / "partial-test")
    assert "is a part of its split only, as the hub converts large sets" in refused(tmp_path)


def test_the_card_is_the_authority(tmp_path):
    mteb(tmp_path / "files" / "v2")
    (tmp_path / "corpus").mkdir()
    parquet(tmp_path / "corpus" / shard("test"), [{"_id": "old", "text": "old"}])
    head = """---
license: cc-by-4.0
configs:
- config_name: swahili-corpus
  data_files:
  - split: corpus
    path: files/v2/corpus/*
- config_name: swahili-queries
  data_dir: files/v2
  data_files: [{split: queries, path: ["queries/test-*"]}]
- config_name: swahili-qrels
  data_files: ./files/**/data/*.parquet
- config_name: thai-corpus
  data_files: [{split: test, path: thai/*}]
---
# A set
"""
    write(tmp_path / "README.md", head)
    b = read(tmp_path)
    assert (b.languages, only(b).question_ids) == (("sw",), ["1", "2"])
    assert "has no judgements of the split test; it has train" in refused(tmp_path, split="test")
    write(tmp_path / "README.md", head.replace("- config_name: thai", "x: [\n- config_name: thai"))
    assert "README.md: the head of the card is not YAML" in refused(tmp_path)
    others = "---\nconfigs:\n- {config_name: other, data_files: 'files/**'}\n---\n"
    write(tmp_path / "files" / "v2" / "README.md", others.replace("files/", ""))
    assert read(tmp_path / "files" / "v2", ["sw"]).languages == ("sw",), "names tell what the card does not"
    write(tmp_path / "README.md", "No head.\n")
    assert list(only(read(tmp_path / "files" / "v2", ["sw"])).candidate_ids) == [x for x, _, _ in DOCUMENTS]


def test_json_lines_in_a_folder_a_language(tmp_path):
    for language in ("ara", "deu"):
        own = tmp_path / language
        json_lines(own / "corpus.jsonl.gz", [{"_id": x, "title": "", "text": text} for x, _, text in DOCUMENTS])
        json_lines(own / "queries-test.jsonl", [{"_id": x, "text": text} for x, text in TOPICS.items()])
        json_lines(own / "queries-train.jsonl", [{"_id": "t", "text": "?"}])
        judged = [{"query-id": q, "corpus-id": d, "score": float(grade)} for q, d, grade in QRELS]
        json_lines(own / "qrels-test.jsonl", judged)
        json_lines(own / "qrels-train.jsonl", [{"query-id": "t", "corpus-id": "10#0", "score": 1}])
    b = read(tmp_path)
    assert b.languages == ("ar", "de")
    assert [c.question_ids for c in b.collections()] == [["1", "2"]] * 2
    assert [c.question_ids for c in read(tmp_path, split="train").collections()] == [["t"]] * 2


def test_judgements_as_a_table_with_and_without_names_of_columns(tmp_path):
    mteb(tmp_path, "sw")
    (tmp_path / "sw-qrels" / shard("test")).unlink()
    for table in ("1\t10#0\t1\n2\t11#0\t2\n", "query-id\tcorpus-id\tscore\n1\t10#0\t1\n2\t11#0\t2\n"):
        write(tmp_path / "sw" / "qrels" / "test.tsv", table)
        c = only(read(tmp_path))
        assert ([x.tolist() for x in c.relevant], [x.tolist() for x in c.gains]) == ([[0], [2]], [[1.0], [2.0]])


def test_the_nano_layout_has_a_split_a_language(tmp_path):
    for language, texts in (("ru", DOCUMENTS), ("yo", DOCUMENTS[:2])):
        parquet(tmp_path / "corpus" / shard(language), [{"_id": x, "text": text} for x, _, text in texts])
        parquet(tmp_path / "queries" / shard(language), [{"_id": "1", "text": f"{language}?"}])
        parquet(tmp_path / "qrels" / shard(language), [{"query-id": "1", "corpus-id": "10#1", "relevance": 2}])
    parquet(tmp_path / "bm25" / shard("ru"), [{"query-id": "1", "corpus-ids": ["10#0"]}])
    assert "query-id, corpus-id, score are expected" in refused(tmp_path)
    for score in ({"score": 1}, {}):  # without any column of grades, each row is relevant
        for language in ("ru", "yo"):
            parquet(tmp_path / "qrels" / shard(language), [{"query-id": "1", "corpus-id": "10#1"} | score])
        b = read(tmp_path)
        assert (b.languages, [c.query_texts for c in b.collections()]) == (("ru", "yo"), [["ru?"], ["yo?"]])
        assert [c.gains for c in b.collections()] == [None, None]  # all of grade 1
    assert read(tmp_path, ["yo"]).languages == ("yo",)


def test_a_pair_names_the_language_of_the_corpus_first(tmp_path):
    for subset in ("zho-ara", "zho-zho", "ara-zho"):
        mteb(tmp_path, subset)
    b = read(tmp_path)
    assert (b.languages, b.settings) == (("ar", "zh"), ("mono", "cross"))
    assert [(c.languages, c.query_languages[0]) for c in b.collections()] == [
        (("ar", "zh"), "zh"),
        (("zh",), "zh"),
        (("zh", "ar"), "ar"),
    ]
    cells = {(x.setting, x.query_language, x.passage_language) for x in evaluate(HashEncoder(), b).cells}
    assert cells == {("mono", "zh", "zh"), ("cross", "zh", "ar"), ("cross", "ar", "zh")}
    assert read(tmp_path, ["zh"]).settings == ("mono",)
    (tmp_path / "ara-zho-corpus" / shard("test", 0, 2)).unlink()
    assert "is one of 2 files, and" in refused(tmp_path)
    assert read(tmp_path, ["zh"]).languages == ("zh",), "which does not need it"


def test_one_set_of_queries_serves_all_subsets(tmp_path):
    for subset in ("sw", "yo"):
        mteb(tmp_path, subset)
        (tmp_path / f"{subset}-queries" / shard("test")).unlink()
    parquet(tmp_path / "query" / shard("test"), [{"id": int(x), "text": text} for x, text in TOPICS.items()])
    assert [c.query_texts for c in read(tmp_path).collections()] == [["wapi?", "nani?"]] * 2


@pytest.mark.parametrize(
    ("part", "records", "words"),
    [
        ("corpus", [{"_id": "1", "title": "no text"}], "has no column 'text'"),
        ("corpus", [{"_id": "1", "text": "a"}, {"_id": None, "text": "b"}], "row 2: not a document: a document needs"),
        (
            "corpus",
            [{"_id": "1", "text": "a"}, {"_id": "1", "text": "b"}],
            "document '1' came before with another text",
        ),
        ("queries", [{"_id": "1", "text": "a"}, {"_id": "1", "text": "b"}], "row 2: question 1 occurs twice"),
        ("queries", [{"_id": "1", "text": None}, {"_id": "2", "text": "b"}], "row 1: not a query"),
        ("queries", [{"_id": "1", "text": "a"}], "the judgements name 2 questions that the topics lack (2, 3)"),
        (
            "qrels",
            [{"query-id": "1", "corpus-id": "x", "score": 1}],
            "name 1 relevant document that the corpus lacks (x)",
        ),
        ("qrels", [{"query-id": "1", "corpus-id": "x", "score": 0.5}], "row 1: not a judgement: the grade 0.5 must be"),
        ("qrels", [{"query-id": "1", "corpus-id": None, "score": 1}], "row 1: not a judgement: query-id, corpus-id"),
        (
            "qrels",
            [{"query-id": "1", "corpus-id": "10#0", "score": x} for x in ("1", "0")],
            "row 2: a judgement that contradicts an earlier one: document 10#0 of question 1 had 1",
        ),
    ],
)
def test_refuses(tmp_path, part, records, words):
    mteb(tmp_path, "sw")
    for old in (tmp_path / f"sw-{part}").iterdir():
        old.unlink()
    parquet(tmp_path / f"sw-{part}" / shard("test"), records)
    assert words in refused(tmp_path)


def test_refuses_files_that_are_broken_or_there_twice(tmp_path):
    file = mteb(tmp_path, "sw") / "sw-queries" / shard("test")
    whole = file.read_bytes()
    for broken in (b"", b"PAR1", whole[: len(whole) // 2], b"version https://git-lfs.github.com/spec/v1\n"):
        file.write_bytes(broken)
        assert str(file) in refused(tmp_path)
    file.write_bytes(whole)
    json_lines(tmp_path / "sw" / "queries-test.jsonl", [{"_id": "1", "text": "a"}])
    assert "hold the same split; leave one out" in refused(tmp_path)
    (tmp_path / "sw" / "queries-test.jsonl").unlink()
    mteb(tmp_path, "swh")
    assert "are for sw; leave one out" in refused(tmp_path)
    assert "is not in mteb's layout: configurations such as sw-corpus" in refused(file.parent)
    mteb(tmp_path / "other", "law")
    assert read(tmp_path / "other").languages == ("law",)
    mteb(tmp_path / "domains", "biology")
    assert "has subsets that are no languages: biology" in refused(tmp_path / "domains")


def test_by_name_and_with_lists_of_an_index(tmp_path):
    mteb(mteb(tmp_path / "some-set", "zho-ara"), "zho-zho")
    spec = parse_benchmark(f"mteb={tmp_path / 'some-set'}")
    assert (spec.name, spec.form, len(benchmark_files(spec))) == ("some-set", "mteb", 8)
    b = load_benchmark(spec, cache=str(tmp_path / "cache"))
    assert b.name == "some-set"
    for c, setting in zip(b.collections(), ("mono", "cross"), strict=True):
        scores = score_collection(b, c, TopLists(np.array([[1, 0, 2], [2, 0, 1]]), None)).per_query
        assert scores.column("setting").to_pylist() == [setting] * 2
        assert scores.column("passage_language").to_pylist() == ["zh"] * 2
        assert scores.column("recall@1").to_pylist() == [0.5, 1.0]


def test_rows_of_a_split_for_training(tmp_path):
    mteb(mteb(tmp_path, "sw", split="train"), "zho-ara", split="train")
    reader = JudgedReader(find_mteb(str(tmp_path), "train"))
    assert reader.kind == "mteb"
    source = prepared(reader, tmp_path / "corpus")
    text = {x: {"sw": f"{title} {text}"} for x, title, text in DOCUMENTS}
    query = {x: {"sw": text} for x, text in TOPICS.items()}
    expected = [
        Row(query["1"], text["10#1"], (), 1, "10#1"),
        Row(query["1"], text["10#0"], (), 1, "10#0"),
        Row(query["2"], text["11#0"], (text["10#0"],), 2, "11#0"),
    ]
    check_rows(source, expected, ("sw",))
    assert "of another split" not in source.every_text()
    with pytest.raises(DataError, match=r"has no judgements of the split dev; it has train"):
        find_mteb(str(tmp_path), "dev")
    with pytest.raises(DataError, match="has pairs of languages only"):
        JudgedReader(find_mteb(str(tmp_path), "train"), ["zh", "ar"])


def test_documents_that_a_pair_lacks_are_never_found(tmp_path):
    mteb(tmp_path, "zho-ara")
    judged = [{"query-id": "1", "corpus-id": x, "score": 1} for x in ("10#0", "gone")]
    parquet(tmp_path / "zho-ara-qrels" / shard("test"), judged)
    assert "lacks (gone)" in refused(tmp_path)
    b = read_judged("mteb", tmp_path, "set", cache=tmp_path / "cache", judging=Judging(allow_missing_documents=True))
    found = evaluate(HashEncoder(), b)
    assert (found.never_found, found.metrics["set/cross/recall@100"]) == (1, 0.5)
    run = write(tmp_path / "ar.trec", "1/zh Q0 10#0 1 9 x\n")
    assert evaluate_trec_runs(b, {("cross", "ar"): run}).metrics["set/cross/recall@1"] == 0.5
