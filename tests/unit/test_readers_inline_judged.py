"""Questions with their judged passages inside, as Mr. TyDi's hub repository has them for training."""

import gzip
import json

import pytest

from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers.by_id import judged_reader
from hbtrain.errors import DataError
from tests.prepared_samples import Row, check_rows, prepared
from tests.unit.judged_samples import json_lines, mr_tydi, parquet


def passage(key, title="Mji"):
    return {"docid": key, "title": title, "text": f"text of {key}"}


QUESTIONS = [
    {
        "query_id": "1",
        "query": "wapi?",
        "positive_passages": [passage("10#0"), passage("10#1")],
        "negative_passages": [passage("11#0"), passage("12#0", title="")],
    },
    {"query_id": 2, "query": "nani?", "positive_passages": [passage("11#0")], "negative_passages": []},
]


def text(key, title="Mji "):
    return {"sw": f"{title}text of {key}"}


EXPECTED = [
    Row({"sw": "wapi?"}, text("10#0"), (text("11#0"), text("12#0", "")), 1, "10#0"),
    Row({"sw": "wapi?"}, text("10#1"), (text("11#0"), text("12#0", "")), 1, "10#1"),
    Row({"sw": "nani?"}, text("11#0"), (), 2, "11#0"),
]


def hub(folder, records=QUESTIONS, language="swahili", split="train"):
    json_lines(folder / f"mrtydi-v1.1-{language}" / f"{split}.jsonl.gz", records)
    return folder


def reader(folder, kind="mr-tydi", split="train", languages=None, negatives=True):
    return judged_reader(kind, str(folder), split, languages, negatives)


def test_a_row_for_each_passage_that_answers(tmp_path):
    hub(hub(tmp_path / "raw"), split="dev", records=QUESTIONS[:1])
    found = reader(tmp_path / "raw")
    assert found.kind == "mr-tydi"
    assert found.options == {"languages": ["sw"], "split": "train", "negatives": True}
    check_rows(prepared(found, tmp_path / "corpus"), EXPECTED, ("sw",))
    plain = prepared(reader(tmp_path / "raw", negatives=False), tmp_path / "plain")
    check_rows(plain, [row._replace(negatives=()) for row in EXPECTED], ("sw",))
    assert prepared(reader(tmp_path / "raw", split="dev"), tmp_path / "dev").index.rows == 2


def test_languages_and_the_hubs_own_conversion(tmp_path):
    hub(hub(tmp_path / "raw"), language="thai")
    assert reader(tmp_path / "raw").options["languages"] == ["sw", "th"]
    assert reader(tmp_path / "raw", languages=["sw"]).options["languages"] == ["sw"]
    with pytest.raises(DataError, match=r"'ko' is not in .*raw \(train\); it has sw, th"):
        reader(tmp_path / "raw", languages=["ko"])
    records = [one | {"query_id": str(one["query_id"])} for one in QUESTIONS]
    parquet(tmp_path / "converted" / "sw" / "train" / "0000.parquet", records)
    found = reader(tmp_path / "converted", kind="miracl")
    check_rows(prepared(found, tmp_path / "corpus"), EXPECTED, ("sw",))
    assert found.kind == "miracl"


def test_topics_and_judgements_come_first_where_there_is_a_corpus(tmp_path):
    mr_tydi(hub(tmp_path, split="test"))
    assert type(reader(tmp_path, split="test")).__name__ == "JudgedReader"
    with pytest.raises(DataError, match=r"has a folder in sw but no topic\.dev\.tsv or topics\.dev\.txt"):
        reader(tmp_path, split="dev")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"query": ""}, "line 2: not a question: query_id and query are expected"),
        ({"query_id": None}, "line 2: not a question: query_id and query are expected"),
        ({"positive_passages": []}, "line 2: a question without a passage that answers it (1)"),
        ({"positive_passages": ["10#0"]}, "line 2: not a question: question 1: a passage must have docid and text"),
        ({"negative_passages": [{"docid": "1"}]}, "line 2: not a question: question 1: a passage must have docid"),
        ({"negative_passages": [passage("\ud800")]}, "line 2: a text that is not Unicode"),
        ({"query": "another"}, "line 2: an id that an earlier row has with another query (sw:1)"),
    ],
)
def test_refuses(tmp_path, change, words):
    hub(tmp_path / "raw", [QUESTIONS[0], QUESTIONS[0] | change])
    with pytest.raises(DataError) as caught:
        prepare(reader(tmp_path / "raw"), tmp_path / "corpus")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    corpus = prepare(reader(tmp_path / "raw"), tmp_path / "corpus", skip_bad_rows=True)
    assert set(corpus.manifest["dropped"].values()) <= {1, 2}, "rows of one question"
    assert corpus.manifest["rows"] == 2


def test_a_file_that_breaks_off(tmp_path):
    file = hub(tmp_path / "raw") / "mrtydi-v1.1-swahili" / "train.jsonl.gz"
    file.write_bytes(gzip.compress(json.dumps(QUESTIONS[0]).encode())[:-12])
    with pytest.raises(DataError, match="is a broken gzip file"):
        prepare(reader(tmp_path / "raw"), tmp_path / "corpus")
