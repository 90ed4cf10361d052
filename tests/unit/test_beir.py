import gzip
import json

import numpy as np
import pytest
import pytrec_eval

from hbtrain.errors import DataError
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.judged import read_judged
from tests.unit.evaluation_samples import HashEncoder, only
from tests.unit.judged_samples import beir, json_lines, write


def read(folder, languages=None, split="test"):
    return read_judged("beir", folder, "mine", languages, cache=folder / "cache", split=split)


def test_folders_by_language(tmp_path):
    beir(tmp_path / "sw")
    beir(tmp_path / "en")
    (tmp_path / "notes").mkdir()
    b = read(tmp_path)
    assert (b.candidates_kind, b.settings, b.languages) == ("title+text", ("mono",), ("en", "sw"))
    english, _ = b.collections()
    assert english.question_ids == ["1", "2"]
    assert (english.left_out, english.gains, english.domains) == (1, None, None)


def test_a_folder_of_one_language_needs_its_name(tmp_path):
    beir(tmp_path)
    assert only(read(tmp_path, ["sw"])).languages == ("sw",)
    for languages in (None, ["sw", "en"]):
        with pytest.raises(DataError, match="one corpus, whose language is not known: give --languages"):
            read(tmp_path, languages)


def test_grades_are_gains_and_ndcg_is_that_of_trec_eval(tmp_path):
    b = read(beir(tmp_path, grades=(1, 3, 2, 0, 0)), ["sw"])
    c = only(b)
    assert [gains.tolist() for gains in c.gains] == [[3.0, 1.0], [2.0]]
    assert [places.tolist() for places in c.relevant] == [[0, 1], [2]]
    encoder = HashEncoder()
    scores = np.array([[encoder.vector(q) @ encoder.vector(p) for p in c.candidate_texts] for q in c.query_texts])
    run = {q: {f"d{i}": float(s) for i, s in enumerate(row)} for q, row in zip(c.question_ids, scores, strict=True)}
    judged = {"1": {"d0": 3, "d1": 1, "d2": 0}, "2": {"d2": 2, "d0": 0}}
    wanted = pytrec_eval.RelevanceEvaluator(judged, {"ndcg_cut.10"}).evaluate(run)
    found = {row["question_id"]: row["ndcg@10"] for row in evaluate(encoder, b).per_query.to_pylist()}
    assert found == pytest.approx({q: x["ndcg_cut_10"] for q, x in wanted.items()})


def test_domains_stand_in_the_metadata(tmp_path):
    beir(tmp_path)
    asked = [{"_id": "1", "text": "a", "metadata": {"domain": "law"}}, {"_id": "2", "text": "b"}]
    json_lines(tmp_path / "queries.jsonl", [*asked, {"_id": "3", "text": "c", "metadata": {"url": "x"}}])
    assert only(read(tmp_path, ["sw"])).domains == ["law", None]


def test_judgements_of_the_split_or_the_only_ones(tmp_path):
    own = beir(tmp_path / "sw") / "qrels"
    (own / "test.tsv").rename(own / "dev.tsv")
    assert only(read(tmp_path)).question_ids == ["1", "2"]
    (own / "train.tsv").write_text("1\t10#0\t1\n")
    with pytest.raises(DataError, match=r"has a corpus in sw but no qrels/test\.tsv"):
        read(tmp_path)
    assert only(read(tmp_path, split="train")).question_ids == ["1"]


def test_what_is_missing_or_wrong_is_said(tmp_path):
    with pytest.raises(DataError, match="holds neither corpus.jsonl nor folders by language"):
        read(tmp_path)
    own = beir(tmp_path / "sw")
    with pytest.raises(DataError, match=r"'en' is not in benchmark mine .*it has sw"):
        read(tmp_path, ["en"])
    write(own / "queries.jsonl", '{"_id": "1", "text": 5}\n')
    with pytest.raises(DataError, match="line 1: not a query"):
        read(tmp_path).check()
    json_lines(own / "queries.jsonl", [{"_id": 1, "text": "a"}, {"_id": "1", "text": "b"}])
    with pytest.raises(DataError, match="line 2: question 1 occurs twice"):
        read(tmp_path).check()
    json_lines(own / "queries.jsonl", [{"_id": "1", "text": "a"}])
    with pytest.raises(DataError, match=r"judgements name 2 questions that the topics lack \(2, 3\)"):
        read(tmp_path).check()
    (own / "corpus.jsonl.gz").write_bytes(gzip.compress(json.dumps({"_id": "x", "text": "y"}).encode()))
    with pytest.raises(DataError, match=r"both .*corpus\.jsonl and .*corpus\.jsonl\.gz are for sw"):
        read(tmp_path)
