import gzip
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmarks import BenchmarkSpec, load_benchmark, parse_benchmark
from tests.unit.evaluation_samples import candidate_languages, only, paragraph, random_benchmark, write_lareqa

ROWS = [
    {"id": "1", "query": {"en": "q1", "de": "f1"}, "passage": {"en": "p1", "de": "t1"}, "passage_id": "x"},
    {"id": "2", "query": {"en": "q2"}, "passage": {"en": "p1", "el": "k1"}, "passage_id": "x"},
    {"id": "3", "query": {"de": "f3", "fr": "r3"}, "passage": {"en": "p3"}},
]


def write_rows(path: Path, rows) -> Path:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("demo", BenchmarkSpec("demo", "demo", None)),
        ("xquad-r=data/x", BenchmarkSpec("xquad-r", "xquad-r", "data/x")),
        ("mlqa-r=/a=b", BenchmarkSpec("mlqa-r", "mlqa-r", "/a=b")),
        ("lareqa=some/mine/", BenchmarkSpec("mine", "lareqa", "some/mine")),
        ("beir=some/scifact", BenchmarkSpec("scifact", "beir", "some/scifact")),
        ("miracl=some/place", BenchmarkSpec("miracl", "miracl", "some/place")),
        ("mr-tydi=some/place", BenchmarkSpec("mr-tydi", "mr-tydi", "some/place")),
        ("tatoeba=some/place", BenchmarkSpec("tatoeba", "tatoeba", "some/place")),
        ("squad=s3://b//x/?region=us-east-1", BenchmarkSpec("x", "squad", "s3://b/x?region=us-east-1")),
        ("lareqa=gs://b/some/x/?scheme=http", BenchmarkSpec("x", "lareqa", "gs://b/some/x/?scheme=http")),
        ("parallel=hf://datasets/o/n/a.jsonl", BenchmarkSpec("a", "parallel", "hf://datasets/o/n/a.jsonl")),
        ("beir=file:///some/a%20b", BenchmarkSpec("a b", "beir", "/some/a b")),
        ("parallel=a/held.out.jsonl.gz", BenchmarkSpec("held.out", "parallel", "a/held.out.jsonl.gz")),
    ],
)
def test_specs_are_parsed(text, spec):
    assert parse_benchmark(text) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("xquadr=data", "unknown benchmark 'xquadr' in 'xquadr=data': did you mean xquad-r?"),
        (
            "zzz",
            "; or your own data as FORM=PATH, FORM of xquad-r, mlqa-r, lareqa, squad, parallel, belebele, miracl, "
            "mr-tydi, beir, ciral, mteb, mteb-parallel, tatoeba",
        ),
        ("xquad-r=", "write xquad-r=FOLDER"),
        ("parallel=", "write parallel=FILE"),
        ("demo=data", "write demo"),
    ],
)
def test_specs_that_cannot_be_used_say_why(text, message):
    with pytest.raises(DataError) as caught:
        parse_benchmark(text)
    assert message in str(caught.value)


def test_missing_paths(tmp_path):
    with pytest.raises(DataError, match="there is no folder"):
        load_benchmark(parse_benchmark(f"mlqa-r={tmp_path / 'none'}"))
    with pytest.raises(DataError, match="there is no file"):
        load_benchmark(parse_benchmark(f"parallel={tmp_path}"))


def test_a_lareqa_folder_is_loaded_by_its_name(tmp_path):
    write_lareqa(tmp_path / "mine", {"en": [paragraph(["One."], {"a": 0})]})
    b = load_benchmark(parse_benchmark(f"lareqa={tmp_path / 'mine'}"), ["en"])
    assert (b.name, b.candidates_kind) == ("mine", "sentence")


@pytest.mark.parametrize("name", ["held.jsonl", "held.jsonl.gz"])
def test_parallel_rows_share_passages_and_languages_may_be_missing(tmp_path, name):
    b = load_benchmark(parse_benchmark(f"parallel={write_rows(tmp_path / name, ROWS)}"))
    assert (b.name, b.candidates_kind, b.languages) == ("held", "passage", ("de", "el", "en", "fr"))
    b = only(b)
    assert b.candidate_ids == ["de/x", "el/x", "en/x", "en/3"]
    assert b.candidate_texts == ["t1", "k1", "p1", "p3"]
    assert b.query_counts == {"de": 2, "el": 0, "en": 2, "fr": 1}
    found = dict(zip(b.query_texts, map(list, b.relevant), strict=True))
    assert found == {"f1": [0, 1, 2], "f3": [3], "q1": [0, 1, 2], "q2": [0, 1, 2], "r3": [3]}


def test_questions_without_an_answer_in_the_chosen_languages_are_left_out(tmp_path):
    spec = parse_benchmark(f"parallel={write_rows(tmp_path / 'r.jsonl', ROWS)}")
    assert only(load_benchmark(spec, ["de", "el"])).query_texts == ["f1"]
    with pytest.raises(DataError, match="no question has an answer in the languages fr"):
        load_benchmark(spec, ["fr"])
    with pytest.raises(DataError, match=r"'sw' is not in .*it has de, el, en, fr"):
        load_benchmark(spec, ["sw"])


def test_parallel_rows_that_contradict_each_other(tmp_path):
    path = write_rows(tmp_path / "r.jsonl", [*ROWS, ROWS[0]])
    with pytest.raises(DataError, match=r"r\.jsonl question 1: the id occurs twice"):
        load_benchmark(parse_benchmark(f"parallel={path}"))
    other = {"id": "4", "query": {"en": "q"}, "passage": {"en": "other"}, "passage_id": "x"}
    path = write_rows(tmp_path / "s.jsonl", [*ROWS, other])
    with pytest.raises(DataError, match="question 4: passage x has another text in en"):
        load_benchmark(parse_benchmark(f"parallel={path}"))
    with pytest.raises(DataError, match="holds no rows"):
        load_benchmark(parse_benchmark(f"parallel={write_rows(tmp_path / 't.jsonl', [])}"))


def test_domains_of_parallel_rows_are_kept(tmp_path):
    rows = [{**ROWS[0], "domain": "help"}, *ROWS[1:]]
    c = only(load_benchmark(parse_benchmark(f"parallel={write_rows(tmp_path / 'r.jsonl', rows)}")))
    domains = dict(zip(c.query_texts, c.domains, strict=True))
    assert domains == {"f1": "help", "f3": None, "q1": "help", "q2": None, "r3": None}
    rows[0]["domain"] = ["help"]
    with pytest.raises(DataError, match="line 1: domain must be a text"):
        load_benchmark(parse_benchmark(f"parallel={write_rows(tmp_path / 'r.jsonl', rows)}"))


def test_codes_are_places_in_the_pool_order():
    b = only(random_benchmark(("th", "de")))
    assert [b.languages[code] for code in b.query_codes] == b.query_languages
    assert [b.languages[code] for code in b.candidate_codes] == candidate_languages(b)
    assert np.all(np.diff(b.candidate_codes) >= 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: {"query_texts": b.query_texts[1:]}, "differ in length"),
        (lambda b: {"candidate_counts": {"de": len(b.candidate_ids), "en": 0}}, "language 'th' is none of de, en"),
        (lambda b: {"candidate_counts": {"de": 1, "en": 1, "th": 1}}, "differ in length"),
        (lambda b: {"question_ids": ["q"] * len(b.question_ids)}, "question q in de occurs"),
        (lambda b: {"gains": b.relevant[1:]}, "differ in length"),
        (lambda b: {"gains": [np.zeros(len(r)) for r in b.relevant]}, "as many gains above 0"),
        (lambda b: {"relevant": [np.zeros(0, np.int64), *b.relevant[1:]]}, "at least one, not"),
        (lambda b: {"relevant": [np.array([10_000]), *b.relevant[1:]]}, "10000"),
        (lambda b: {"relevant": [np.array([1, 0]), *b.relevant[1:]]}, "ascending"),
    ],
)
def test_collections_that_do_not_fit_together(change, message):
    b = only(random_benchmark())
    with pytest.raises(DataError, match=message):
        replace(b, **change(b))
