import gzip
import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.corpus.columns import CHUNK
from hbtrain.errors import DataError, StorageError
from hbtrain.evaluation import documents as module
from hbtrain.evaluation.documents import open_documents


def write(path, records):
    text = "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path


@pytest.fixture
def two_files(tmp_path):
    first = [{"docid": f"{n}#0", "title": f"T{n}", "text": f"text {n}"} for n in range(CHUNK + 5)]
    second = [{"_id": "b", "text": "alone"}, {"id": 7, "contents": "T\n\nboth"}, {"_id": "e", "title": "", "text": ""}]
    return [write(tmp_path / "docs-0.jsonl.gz", first), write(tmp_path / "docs-1.jsonl", second)]


def test_documents_are_read_by_row_and_found_by_id(two_files, tmp_path):
    documents = open_documents(two_files, tmp_path / "cache")
    assert len(documents.ids) == len(documents.texts) == CHUNK + 8
    assert documents.texts[0] == "T0 text 0"
    assert documents.texts[CHUNK - 1 : CHUNK + 2] == [f"T{n} text {n}" for n in range(CHUNK - 1, CHUNK + 2)]
    assert documents.texts[-3:] == ["alone", "T\n\nboth", ""]
    assert list(documents.ids) == [f"{n}#0" for n in range(CHUNK + 5)] + ["b", "7", "e"]
    assert documents.find(["e", "0#0", "none", "4099#0", "7"]).tolist() == [CHUNK + 7, 0, -1, 4099, CHUNK + 6]
    with pytest.raises(IndexError):
        documents.texts[CHUNK + 8]


def test_a_column_is_sent_by_its_path(two_files, tmp_path):
    texts = open_documents(two_files, tmp_path / "cache").texts
    sent = pickle.dumps(texts)
    assert len(sent) < 1000
    assert list(pickle.loads(sent)) == list(texts)


def test_the_same_content_is_converted_once_wherever_it_lies(two_files, tmp_path, monkeypatch):
    first = open_documents(two_files, tmp_path / "cache")
    moved = [path.rename(path.with_name(f"moved-{path.name}")) for path in two_files]

    def refuse(*_):
        raise AssertionError

    monkeypatch.setattr(module, "_convert", refuse)
    assert list(open_documents(moved, tmp_path / "cache").texts) == list(first.texts)


@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=12))
def test_a_document_that_comes_again_is_left_out_and_counted(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("documents")
    path = write(folder / "d.jsonl", [{"_id": x, "title": x.upper(), "text": f"text of {x}"} for x in ids])
    documents = open_documents([path], folder / "cache")
    once = list(dict.fromkeys(ids))
    assert list(documents.ids) == once
    assert list(documents.texts) == [f"{x.upper()} text of {x}" for x in once]
    assert documents.find(["a", "b", "c", "d"]).tolist() == [once.index(x) if x in once else -1 for x in "abcd"]
    assert documents.repeated == len(ids) - len(once)
    assert open_documents([path], folder / "cache").repeated == documents.repeated


def test_a_conversion_cut_short_leaves_nothing_behind(tmp_path):
    path = write(tmp_path / "d.jsonl", [{"_id": "a", "text": "x"}, {"_id": "b"}])
    with pytest.raises(DataError, match=r"d\.jsonl line 2: not a document: document b needs its text"):
        open_documents([path], tmp_path / "cache")
    assert list((tmp_path / "cache" / "documents").iterdir()) == []


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (
            [{"_id": "a", "text": "x"}, {"_id": "a", "text": "y"}],
            "line 2: document 'a' came before with another text, at",
        ),
        (
            [{"_id": 3, "text": "x"}, {"_id": "b", "text": "z"}, {"_id": "3 ", "text": "y"}],
            "d.jsonl line 1; ids must be",
        ),
        (
            [{"title": "x", "text": "y"}],
            "line 1: not a document: a document needs an id under docid, _id, id, not None",
        ),
        ([{"_id": "a", "title": 3, "text": "y"}], "line 1: not a document: document a needs its text"),
        ([{"_id": "a", "text": "half \ud800"}], "line 1: not a document: document 'a' is not Unicode"),
        ([["a", "x"]], "line 1: not a document: must be an object, not list"),
    ],
)
def test_documents_that_are_none(tmp_path, records, message):
    with pytest.raises(DataError) as caught:
        open_documents([write(tmp_path / "d.jsonl", records)], tmp_path / "cache")
    assert message in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    cache = tmp_path / "cache"
    path = tmp_path / "d.jsonl"
    path.write_text("")
    with pytest.raises(DataError, match="is empty"):
        open_documents([path], cache)
    path.write_text("\n\n")
    with pytest.raises(DataError, match="holds no documents"):
        open_documents([path], cache)
    path.write_text("{")
    with pytest.raises(DataError, match="line 1: not a document: is not JSON"):
        open_documents([path], cache)
    path.write_bytes(b'{"_id": "a", "text": "\xff"}')
    with pytest.raises(DataError, match="line 1: not a document: is not UTF-8 at byte 22"):
        open_documents([path], cache)
    path.write_bytes(gzip.compress(b'{"_id": "a", "text": "x"}')[:-9])
    with pytest.raises(DataError, match="broken gzip"):
        open_documents([path], cache)
    write(path, [{"_id": "a", "text": "x"}])
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        open_documents([path], tmp_path / "file" / "cache")
