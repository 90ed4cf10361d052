"""Texts that a source or corpus has twice under one id: the same text counts once and is told, another is refused."""

import json

import pytest

from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers.by_id import JudgedReader, MmarcoReader, SquadReader
from hbtrain.errors import DataError
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.judged import read_judged
from hbtrain.evaluation.results import save_evaluation
from hbtrain.formats.judged import find_beir
from tests.unit.evaluation_samples import HashEncoder, write_lareqa
from tests.unit.judged_samples import beir, json_lines, write

DOCUMENTS = [
    {"_id": "10#0", "title": "Mji", "text": "Nairobi."},
    {"_id": "10#1", "text": "Mombasa."},
    {"_id": "11#0", "text": "Nyerere."},
]


def test_a_corpus_has_a_repeated_document_once_in_evaluate_and_in_prepare(tmp_path):
    figures = []
    for name, documents in {"once": DOCUMENTS, "twice": [*DOCUMENTS, *DOCUMENTS[:2], DOCUMENTS[0]]}.items():
        folder = beir(tmp_path / name / "sw").parent
        json_lines(folder / "sw" / "corpus.jsonl", documents)
        benchmark = read_judged("beir", folder, "mine", cache=tmp_path / "cache")
        evaluation = evaluate(HashEncoder(), benchmark)
        figures.append(evaluation.metrics)
        save_evaluation([evaluation], tmp_path / name / "results", "x")
        made = prepare(JudgedReader(find_beir(str(folder), "test")), tmp_path / name / "corpus")
        # Its fourth question is of another split.
        assert (made.manifest["rows"], made.manifest["texts"]) == (3, {"query": {"sw": 3}, "passage": {"sw": 3}})
    assert figures[0] == figures[1]
    about = [json.loads((tmp_path / x / "results" / "about.json").read_text()) for x in ("once", "twice")]
    assert "repeated_documents" not in about[0]["benchmarks"]["mine"]
    assert about[1]["benchmarks"]["mine"]["repeated_documents"] == 3
    assert made.manifest["dropped"] == {"a passage id that came before, with the same text": 3}
    listed = [json.loads(line) for line in (made.folder / "drops.jsonl").read_text().splitlines()]
    assert sorted(one["line"] for one in listed) == [4, 5, 6]


def test_another_text_under_an_id_is_refused_with_both_places(tmp_path):
    folder = beir(tmp_path / "raw" / "sw").parent
    json_lines(folder / "sw" / "corpus.jsonl", [*DOCUMENTS, DOCUMENTS[0], {"_id": "11#0", "text": "other"}])
    places = r"corpus.jsonl line 5: .*11#0.*, at .*corpus.jsonl line 3"
    with pytest.raises(DataError, match=places):
        read_judged("beir", folder, "mine", cache=tmp_path / "cache").check()
    with pytest.raises(DataError, match=places):
        prepare(JudgedReader(find_beir(str(folder), "test")), tmp_path / "corpus")
    made = prepare(JudgedReader(find_beir(str(folder), "test")), tmp_path / "corpus", True)
    assert made.manifest["dropped"] == {
        "a passage id that came before, with another text": 1,
        "a passage id that came before, with the same text": 1,
    }


def test_a_question_that_is_there_twice_with_its_paragraph_counts_once(tmp_path):
    question = {"id": "a", "question": "a?", "answers": [{"text": "One", "answer_start": 0}]}
    write_lareqa(tmp_path, {"en": [{"context": "One.", "qas": [question]}, {"context": "One.", "qas": [question]}]})
    made = prepare(SquadReader({"en": str(tmp_path / "en.json")}), tmp_path / "corpus")
    assert made.manifest["rows"] == 1
    assert sum(made.manifest["dropped"].values()) == 2


def test_files_of_mmarco_may_begin_with_a_byte_order_mark(tmp_path):
    write(tmp_path / "raw" / "german_queries.train.tsv", "\ufeff1 \tein\n2\tzwei\n")
    write(tmp_path / "raw" / "german_collection.tsv", "\ufeff1\tp\n2\tq\n")
    write(tmp_path / "raw" / "triples.train.ids.small.tsv", "\ufeff1\t1\t2\n2\t2\t1\n")
    assert prepare(MmarcoReader(str(tmp_path / "raw")), tmp_path / "corpus").manifest["rows"] == 2
