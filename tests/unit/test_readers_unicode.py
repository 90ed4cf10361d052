"""Halves of surrogate pairs, which JSON may hold and UTF-8 cannot: one line, or a counted drop, in every form."""

import json

import pytest

from hbtrain.corpus.prepare.cached import build_cached
from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.prepared import check_files
from hbtrain.corpus.readers.by_id import SquadReader
from hbtrain.corpus.readers.columns import ColumnReader, Columns
from hbtrain.corpus.readers.inline import PagesReader, ParallelReader
from hbtrain.errors import DataError
from tests.prepared_samples import miracl_reader
from tests.unit.judged_samples import DOCUMENTS, json_lines, miracl

HALF = "half \ud800"
GOOD = {"id": "1", "query": {"en": "q"}, "passage": {"en": "p"}, "negatives": [{"en": "n"}]}


@pytest.mark.parametrize(
    "change",
    [
        {"id": HALF},
        {"query": {"en": HALF}},
        {"passage": {"de": "p", "en": HALF}},
        {"passage_id": HALF},
        {"negatives": [{"en": HALF}]},
        {"domain": HALF},
        {"source": {"model": [HALF]}},
    ],
)
def test_json_lines(tmp_path, change):
    path = json_lines(tmp_path / "a.jsonl", [GOOD, GOOD | change])
    (tmp_path / "built").mkdir()
    with pytest.raises(DataError, match=r"a.jsonl line 2: .* is not Unicode") as error:
        build_cached(path, tmp_path / "built")
    assert str(error.value).isprintable()
    refused_and_passed_over(ParallelReader([str(path)]), tmp_path, 1, "line 2: ")


@pytest.mark.parametrize("column", ["q", "p", "n", "id"])
def test_columns(tmp_path, column):
    record = {"q": "q", "p": "p", "n": "n", "id": "1"}
    path = json_lines(tmp_path / "a.jsonl", [record, record | {column: HALF}])
    reader = ColumnReader([str(path)], Columns({"en": "q"}, {"en": "p"}, {"en": "n"}, "id"))
    refused_and_passed_over(reader, tmp_path, 1, "line 2: ")


def test_pages(tmp_path):
    pairs = [{"question": "q", "answer": "a"}, {"question": HALF, "answer": "b"}]
    path = json_lines(tmp_path / "a.jsonl", [{"qa_pairs": pairs}])
    refused_and_passed_over(PagesReader({"en": str(path)}), tmp_path, 1, "line 1: ")


@pytest.mark.parametrize("what", ["id", "question", "context"])
def test_squad(tmp_path, what):
    def paragraph(name, **change):
        question = {"id": name, "question": "q?", "answers": [{"answer_start": 0}]}
        question |= {key: value for key, value in change.items() if key != "context"}
        return {"context": change.get("context", "c"), "qas": [question]}

    document = {"data": [{"paragraphs": [paragraph("a"), paragraph("b", **{what: HALF})]}]}
    (tmp_path / "en.json").write_text(json.dumps(document))
    refused_and_passed_over(SquadReader({"en": str(tmp_path / "en.json")}), tmp_path, 1, "paragraph 2: ")


@pytest.mark.parametrize("key", ["docid", "title", "text"])
def test_miracl(tmp_path, key):
    folder = miracl(tmp_path / "raw")
    corpus = folder / "corpora" / "miracl-corpus-v1.0-sw"
    (identifier, title, text) = DOCUMENTS[2]
    record = {"docid": identifier, "title": title, "text": text} | {key: HALF}
    json_lines(corpus / "docs-1.jsonl.gz", [record])
    skipped = refused_and_passed_over(miracl_reader(str(folder), None, "dev"), tmp_path, 2, "line 1: not a document: ")
    assert sorted(skipped["dropped"]) == ["a passage that the corpus lacks", "not a document"]


def refused_and_passed_over(reader, tmp_path, rows, words):
    with pytest.raises(DataError) as error:
        prepare(reader, tmp_path / "corpus")
    assert words in str(error.value)
    assert "not Unicode" in str(error.value)
    assert str(error.value).isprintable()
    made = prepare(reader, tmp_path / "corpus", True)
    assert made.manifest["rows"] == rows
    assert sum(made.manifest["dropped"].values()) == len((made.folder / "drops.jsonl").read_text().splitlines())
    assert check_files(made.folder)
    return made.manifest
