"""Tables by column mapping: small files as they come."""

import csv
import gzip
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers.columns import ColumnReader, Columns, HuggingFaceReader, parse_columns, parse_where
from hbtrain.errors import ConfigError, DataError
from tests.prepared_samples import Row, check_rows, prepared

QA = Columns({"en": "question"}, {"en": "answer"}, {})


def read(path, columns=QA, skip=False):
    return [row for row, _ in ColumnReader([str(path)], columns).rows(Drops(skip, None))]


def test_csv_with_quotes_line_ends_and_a_mark_in_front(tmp_path):
    path = tmp_path / "wiki.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as stream:
        rows = [["id", "question", "answer"], ["1", 'who, "him"?', "one\ntwo"], ["2", "ü", "x"]]
        csv.writer(stream).writerows(rows)
    assert [(row.query["en"], row.passage["en"]) for row in read(path)] == [('who, "him"?', "one\ntwo"), ("ü", "x")]


def test_places_are_first_lines_of_records(tmp_path):
    path = tmp_path / "wiki.csv"
    path.write_text('question,answer\n"a\nb",x\nc\n')
    with pytest.raises(
        DataError, match=r"wiki.csv line 4: a row with too few or too many columns: 1, the header has 2"
    ):
        read(path)


def test_only_records_with_a_value(tmp_path):
    path = tmp_path / "wiki.tsv"
    path.write_text("question\tanswer\tlabel\na\tx\t0\nb\ty\t1\n\t\t0\n")
    columns = Columns({"en": "question"}, {"en": "answer"}, {}, where=parse_where(["label=1"]))
    assert [row.query["en"] for row in read(path, columns)] == ["b"]
    with pytest.raises(ConfigError, match="--where label: must be COLUMN=VALUE"):
        parse_where(["label"])


@pytest.mark.parametrize(
    ("where", "queries"),
    [
        ("label=1", "bc"),
        ("label=1.0", "bc"),
        ("label=01e0", "bc"),
        ("share=0.1", "a"),
        ("share=.10", "a"),
        ("good=true", "ac"),
        ("good=TRUE", "ac"),
        ("good=False", "b"),
        ("big=9007199254740993", "b"),
        ("text=1", "a"),
        ("text=true", "b"),
    ],
)
def test_numbers_are_compared_as_numbers_and_truth_values_as_such(tmp_path, where, queries):
    path = tmp_path / "rows.parquet"
    columns = {
        "question": list("abcd"),
        "answer": list("wxyz"),
        "label": [0.0, 1.0, 1.0, None],
        "share": [0.1, 0.25, 0.5, float("nan")],
        "good": [True, False, True, None],
        "big": [2**53, 2**53 + 1, -1, None],
        "text": ["1", "true", "1.0", ""],
    }
    pq.write_table(pa.table(columns), path)
    mapping = Columns({"en": "question"}, {"en": "answer"}, {}, where=parse_where([where]))
    assert "".join(row.query["en"] for row in read(path, mapping)) == queries


def test_where_that_fits_no_record_is_named_with_what_is_there(tmp_path):
    path = tmp_path / "wiki.csv"
    path.write_text("question,answer,label\na,x,no\nb,y,yes\n")
    columns = Columns({"en": "question"}, {"en": "answer"}, {}, where={"label": "1", "question": "a"})
    with pytest.raises(
        DataError, match=r"--where label=1 question=a fits no .*wiki.csv: label has .* 'no', 'yes'; que"
    ):
        read(path, columns)
    path.write_text("question,answer,label\n")
    assert read(path, columns) == []


@pytest.mark.parametrize("name", ["rows.parquet", "rows.arrow"])
def test_texts_that_are_not_utf8_are_bad_rows(tmp_path, name):
    texts = [b"a", b"b\xff", b"c"]
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    broken = pa.Array.from_buffers(pa.string(), 3, [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))])
    table = pa.table({"question": broken, "answer": list("xyz")})
    if name.endswith(".parquet"):
        pq.write_table(table, tmp_path / name)
    else:
        with pa.OSFile(str(tmp_path / name), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(DataError, match=f"{name} row 2: not UTF-8 at byte 1 of a text"):
        read(tmp_path / name)
    assert [row.query["en"] for row in read(tmp_path / name, skip=True)] == ["a", "c"]


SQUAD_2 = [
    {"question": "a", "answer": "x", "answers": {"text": ["x"], "answer_start": [0]}},
    {"question": "b", "answer": "y", "answers": {"text": [], "answer_start": []}},
    {"question": "c", "answer": "z", "answers": {"text": [""], "answer_start": [-1]}},
]
IMPOSSIBLE = [{"question": q, "answer": "x", "is_impossible": q != "a"} for q in "abc"]


@pytest.mark.parametrize(
    ("form", "records"),
    [(form, records) for form in ("jsonl", "parquet", "dataset") for records in (SQUAD_2, IMPOSSIBLE)]
    + [("csv", IMPOSSIBLE)],
)
def test_questions_without_an_answer_are_no_rows(tmp_path, form, records):
    path = tmp_path / f"rows.{form}"
    if form == "jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif form == "csv":
        path.write_text("".join(f"{','.join(map(str, row))}\n" for row in [records[0], *(x.values() for x in records)]))
    elif form == "parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    else:
        import datasets

        datasets.Dataset.from_list(records).save_to_disk(str(path))
    reader = HuggingFaceReader(str(path), QA) if form == "dataset" else ColumnReader([str(path)], QA)
    made = prepare(reader, tmp_path / "corpus")
    assert (made.manifest["rows"], made.manifest["dropped"]) == (1, {"a question without an answer": 2})


def test_ids_are_numbers_or_texts_without_blanks_around_them(tmp_path):
    path = tmp_path / "rows.parquet"
    ids = [3.0, 4.0, None, float("nan")]
    pq.write_table(pa.table({"question": list("abcd"), "answer": list("wxyz"), "id": ids}), path)
    columns = Columns({"en": "question"}, {"en": "answer"}, {}, "id")
    assert [row.id for row in read(path, columns, skip=True)] == ["3", "4"]
    (tmp_path / "rows.csv").write_text("\ufeffid,question,answer\n 7 ,a,x\n", encoding="utf-8")
    assert [row.id for row in read(tmp_path / "rows.csv", columns)] == ["7"]


def test_tsv_has_no_quotes(tmp_path):
    path = tmp_path / "wiki.tsv.gz"
    path.write_bytes(gzip.compress(b'question\tanswer\r\n"half\tx\r\n'))
    assert read(path)[0].query == {"en": '"half'}


def test_titles_lists_and_nested_columns_of_parquet(tmp_path):
    path = tmp_path / "train.parquet"
    records = [
        {
            "query_id": 7,
            "query": "q",
            "positive_passages": [{"title": "T", "text": "p"}],
            "negative_passages": [{"title": "N", "text": "n1"}, {"title": "M", "text": "n2"}],
        }
    ]
    pq.write_table(pa.Table.from_pylist(records), path)
    columns = Columns(
        {"sw": "query"},
        {"sw": "positive_passages.0.title+positive_passages.0.text"},
        {"sw": "negative_passages.text"},
        "query_id",
    )
    (row,) = read(path, columns)
    assert (row.id, row.query, row.passage) == ("7", {"sw": "q"}, {"sw": "T p"})
    assert row.negatives == [{"sw": "n1"}, {"sw": "n2"}]


def test_a_hugging_face_dataset_in_one_language(tmp_path):
    import datasets

    records = {"q": ["a", "b", "a"], "p": ["x", "y", "z"], "n": [["y"], [], ["x", "y"]]}
    datasets.DatasetDict({"train": datasets.Dataset.from_dict(records)}).save_to_disk(str(tmp_path / "data"))
    reader = HuggingFaceReader(str(tmp_path / "data"), Columns({"en": "q"}, {"en": "p"}, {"en": "n"}))
    expected = [
        Row({"en": "a"}, {"en": "x"}, ({"en": "y"},), "a", "x"),
        Row({"en": "b"}, {"en": "y"}, (), "b", "y"),
        Row({"en": "a"}, {"en": "z"}, ({"en": "x"}, {"en": "y"}), "a", "z"),
    ]
    source = prepared(reader, tmp_path / "corpus")
    check_rows(source, expected)
    rows = np.arange(3)
    ids = source.negative_ids(rows, ["en"] * 3, 2, 0)
    assert ids.tolist() == source.index.passage_ids_of(np.array([1, 0, 1])).tolist(), "known as the passages they are"
    with pytest.raises(DataError, match=r"has no split 'test'; it has train"):
        HuggingFaceReader(str(tmp_path / "data"), QA, "test")
    with pytest.raises(DataError, match=r"has no column 'question'; it has q, p, n"):
        HuggingFaceReader(str(tmp_path / "data"), QA)
    with pytest.raises(DataError, match="dataset nobody/nothing: cannot load"):
        HuggingFaceReader("nobody/nothing", QA)


def test_a_folder_of_data_files_as_datasets_reads_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table({"question": ["q"], "answer": ["a"]}), tmp_path / "data" / "train.parquet")
    source = prepared(HuggingFaceReader(str(tmp_path / "data"), QA), tmp_path / "corpus")
    check_rows(source, [Row({"en": "q"}, {"en": "a"})])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"question,reply\n", "has no column 'answer'; it has question, reply"),
        ("a.csv", b"", "has no column 'question'; it has none"),
        ("a.csv", b"question,answer,answer\n", "two columns 'answer'"),
        ("a.csv", b"question,answer\nq,\n", "line 2: an empty text (passage: answer)"),
        ("a.csv", b'"question"x,answer\nq,a\n', "line 1: no line of column names: ',' expected"),
        ("a.csv", b"question,answer\rq,a\r", "line 1: no line of column names: new-line character"),
        ("a.csv", b'"question,answer\nq,a\nq,a\n', "it spans 3 lines, to line 3: is a quotation mark not closed?"),
        ("a.csv", b"question,answer,\xff\nq,a\n", "line 1 is not UTF-8"),
        ("a.csv", b"question,answer\n\xff,a\n", "line 2: not UTF-8"),
        ("a.csv", b'question,answer\n"q"x,a\n', "line 2: no row of a table"),
        ("a.tsv", b"question\tanswer\nq\n", "line 2: a row with too few or too many columns: 1"),
        ("a.jsonl", b"[]\n", "line 1: not a JSON object"),
        ("a.jsonl", b'{"question": 1, "answer": "a"}\n', "line 1: a column that holds no text (question holds int)"),
        ("a.parquet", b"PAR1", "not a whole Parquet file"),
        ("a.arrow", b"ARROW1", "not a whole Arrow file"),
        ("a.csv.gz", gzip.compress(b"question,answer\n" + b"q,a\n" * 99, mtime=0)[:-9], "broken gzip file after line"),
    ],
)
def test_refused_in_one_line_with_the_place(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        read(tmp_path / name)
    assert words in str(error.value)
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_bad_rows_are_passed_over(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,answer\nq1,a1\n\xff,a2\nq3\nq4,\nq5,a5\n")
    drops = Drops(True, tmp_path / "drops")
    with drops:
        rows = [row for row, _ in ColumnReader([str(path)], QA).rows(drops)]
    assert [row.query["en"] for row in rows] == ["q1", "q5"]
    assert drops.counts == {"not UTF-8": 1, "a row with too few or too many columns": 1, "an empty text": 1}
    assert (tmp_path / "drops").read_text().splitlines()[0] == f'{{"file": "{path}", "line": 3, "reason": "not UTF-8"}}'


def test_a_quote_that_is_not_closed_says_what_it_takes_with_it(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('question,answer\nq1,a1\nq2,"a2\n' + "q,a\n" * 2000)
    with Drops(True, tmp_path / "drops") as drops:
        assert len([row for row, _ in ColumnReader([str(path)], QA).rows(drops)]) == 1
    assert drops.counts == {"no row of a table": 1}
    assert "it spans 2,001 lines, to line 2003" in (tmp_path / "drops").read_text()


@pytest.mark.parametrize(
    ("name", "content"),
    [("train.csv", 'question,answer\n"a"b,c\n"x'), ("train.jsonl", '{"question": "q", \n'), ("train.parquet", "PAR1")],
)
def test_a_broken_file_of_a_dataset_is_one_line(tmp_path, monkeypatch, name, content):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_text(content)
    with pytest.raises(DataError, match="data: cannot load split 'train': ") as error:
        HuggingFaceReader(str(tmp_path / "data"), QA)
    assert "\n" not in str(error.value)
    assert "An error occurred while generating" not in str(error.value)


@pytest.mark.parametrize("pair", ["question", "en=", "English!=q", "=q"])
def test_mappings_that_are_none(pair):
    with pytest.raises(ConfigError, match="--query"):
        parse_columns([pair], "--query")


def test_a_language_twice_and_an_unknown_ending():
    with pytest.raises(ConfigError, match="en has the column a already"):
        parse_columns(["en=a", "en=b"], "--query")
    with pytest.raises(ConfigError, match=r"a.txt: must end in .csv"):
        ColumnReader(["a.txt"], QA)
