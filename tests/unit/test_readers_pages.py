"""Pages of questions and answers, and parallel JSON lines: what they refuse and pass over."""

import gzip
import json

import pytest

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers import inline
from hbtrain.corpus.readers.inline import PagesReader, ParallelReader
from hbtrain.errors import ConfigError, DataError
from hbtrain.formats.languages import files_by_language
from tests.prepared_samples import Row, check_rows, prepared


def page(*pairs, language="en"):
    asked = [{"question": question, "answer": answer, "language": language} for question, answer in pairs]
    return {"id": 3, "domain": "x.com", "qa_pairs": asked}


def write(path, records):
    raw = "".join(json.dumps(record) + "\n" for record in records).encode()
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    return str(path)


def test_pairs_of_pages(tmp_path):
    files = {
        "en": write(tmp_path / "en.jsonl.gz", [page(("q1", "a1"), ("q2", "a2"), ("q3", "a1")), page(("q1", "b1"))])
    }
    source = prepared(PagesReader(files, 2), tmp_path / "corpus")
    expected = [
        Row({"en": "q1"}, {"en": "a1"}, ({"en": "a2"},), "q1", "a1"),
        Row({"en": "q2"}, {"en": "a2"}, ({"en": "a1"},), "q2", "a2"),
        Row({"en": "q3"}, {"en": "a1"}, ({"en": "a2"},), "q3", "a1"),
        Row({"en": "q1"}, {"en": "b1"}, (), "q1", "b1"),
    ]
    check_rows(source, expected)
    assert sorted(source.every_text()) == ["a1", "a2", "b1", "q1", "q2", "q3"], "each text stands once"
    with pytest.raises(ConfigError, match="--page-negatives -1"):
        PagesReader(files, -1)


@pytest.mark.parametrize(("limit", "most"), [(0, 0), (2, 2 * 3 * 400)])
def test_a_long_page_is_not_read_once_for_each_of_its_pairs(tmp_path, monkeypatch, limit, most):
    class Counted(list):
        looks = 0

        def __getitem__(self, at):
            Counted.looks += 1
            return super().__getitem__(at)

    whole = inline.read_pages
    counted = lambda *given: (page._replace(pairs=Counted(page.pairs)) for page in whole(*given))  # noqa: E731
    monkeypatch.setattr(inline, "read_pages", counted)
    files = {"en": write(tmp_path / "en.jsonl", [page(*((f"q{i}", f"a{i}") for i in range(400)))])}
    rows = [row for row, _ in PagesReader(files, limit).rows(Drops(False, None))]
    assert [len(row.negatives) for row in rows] == [limit] * 400
    assert Counted.looks <= most


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{", "line 2: not a page: is not JSON"),
        (b'{"pairs": []}', "line 2: not a page: qa_pairs"),
        (b'{"qa_pairs": [{"question": "q"}]}', "line 2: an empty text (question or answer of pair 0)"),
        (b'{"qa_pairs": [["q", "a"]]}', "line 2: an empty text"),
        (b'"\xff"', "line 2: not a page: is not UTF-8"),
    ],
)
def test_pages_refused_and_passed_over(tmp_path, line, words):
    path = tmp_path / "en.jsonl"
    path.write_bytes(json.dumps(page(("q", "a"))).encode() + b"\n" + line + b"\n")
    with pytest.raises(DataError) as error:
        prepare(PagesReader({"en": str(path)}), tmp_path / "corpus")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    skipped = prepare(PagesReader({"en": str(path)}), tmp_path / "corpus", True).manifest
    assert (skipped["rows"], sum(skipped["dropped"].values())) == (1, 1)


def row(number, query="q", passage="p", **others):
    return {"id": number, "query": {"en": query}, "passage": {"en": passage}} | others


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"id": 1}, "line 2: not a row: query must be an object"),
        (row(1, " "), "line 2: not a row: query in en is empty"),
        ({"id": 5, "text": {"en": "x", "de": "y"}}, "line 2: a row of another form"),
        (row(1, "another"), "line 2: an id that an earlier row has with another query (1)"),
    ],
)
def test_parallel_rows_refused_and_passed_over(tmp_path, record, words):
    path = write(tmp_path / "rows.jsonl", [row(1), record, row(2, "r", "s")])
    with pytest.raises(DataError) as error:
        prepare(ParallelReader([path]), tmp_path / "corpus")
    assert words in str(error.value)
    source = prepared(ParallelReader([path]), tmp_path / "corpus", skip=True)
    check_rows(source, [Row({"en": "q"}, {"en": "p"}, (), 1, 1), Row({"en": "r"}, {"en": "s"}, (), 2, 2)])


def test_rows_of_one_question_and_parallel_sentences(tmp_path):
    path = write(tmp_path / "rows.jsonl", [row(1), row(1, passage="other"), row(2, "r", passage_id="1")])
    check_rows(
        prepared(ParallelReader([path]), tmp_path / "corpus"),
        [
            Row({"en": "q"}, {"en": "p"}, (), 1, 1),
            Row({"en": "q"}, {"en": "other"}, (), 1, 1),  # without a passage id, the row's id is it
            Row({"en": "r"}, {"en": "p"}, (), 2, 1),
        ],
    )
    sentences = write(tmp_path / "s.jsonl", [{"id": i, "text": {"de": f"Satz {i}", "en": f"s {i}"}} for i in range(3)])
    source = prepared(ParallelReader([sentences]), tmp_path / "sentences")
    assert source.index.sentences
    check_rows(source, [Row(t := {"de": f"Satz {i}", "en": f"s {i}"}, t, (), i, i) for i in range(3)])
    assert len(list(source.every_text())) == 6


def test_a_source_without_rows(tmp_path):
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="holds no query texts"):
        prepare(ParallelReader([str(tmp_path / "empty.jsonl")]), tmp_path / "corpus")
    with pytest.raises(DataError, match=r"cannot read .*nowhere.jsonl"):
        prepare(ParallelReader([str(tmp_path / "nowhere.jsonl")]), tmp_path / "corpus")


def test_a_folder_a_language_with_a_file_a_split(tmp_path):
    for language in ("de", "en"):
        for split in ("train", "valid"):
            (tmp_path / "mfaq" / "data" / language).mkdir(parents=True, exist_ok=True)
            write(
                tmp_path / "mfaq" / "data" / language / f"{split}.jsonl",
                [page((f"{split} {language}", "a"), language=language)],
            )
    for folder, split in (("mfaq", "train"), ("mfaq/data", "valid")):
        files = files_by_language([str(tmp_path / folder)], ".jsonl", split)
        source = prepared(PagesReader(files), tmp_path / split)
        assert sorted(text for _, _, text in source.queries()) == [f"{split} de", f"{split} en"]
    with pytest.raises(DataError, match=r"en\.jsonl\.gz, or en/test\.jsonl, are expected"):
        files_by_language([str(tmp_path / "mfaq")], ".jsonl", "test")
