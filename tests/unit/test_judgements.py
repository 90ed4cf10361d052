import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.readers.judgements import read_qrels, read_topics
from tests.unit.judged_samples import write


def test_qrels_of_four_and_of_three_columns(tmp_path):
    wanted = {"1": {"a": 1, "b": 0}, "2": {"a": 2}}
    assert read_qrels(write(tmp_path / "a", "1\tQ0\ta\t1\n1\tQ0\tb\t0\n2\tQ0\ta\t2\n")) == wanted
    assert read_qrels(write(tmp_path / "b.gz", "1 0 a 1\n1 0 b 0\n\n2 0 a 2\n")) == wanted
    assert read_qrels(write(tmp_path / "c", "query-id\tcorpus-id\tscore\n1\ta\t1\n1\tb\t0\n2\ta\t2\n")) == wanted
    assert read_qrels(write(tmp_path / "d", "1\ta\t1\n1\ta\t1\n1\tb\t0\n2\ta\t2")) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1\tQ0\ta\t1\n1\tQ0\ta\t0\n", "line 2: document a of question 1 has another grade"),
        ("1\tQ0\ta\tyes\n", "line 1 is not a judgement"),
        ("1\ta\t1\nx\ty\tz\n", "line 2 is not a judgement"),
        ("1 a\n", "line 1 is not a judgement"),
        ("1 Q0 a ²\n", "line 1 is not a judgement"),
        ("1 Q0 a --1\n", "line 1 is not a judgement"),
        ("", "holds no judgements"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgements"),
    ],
)
def test_lines_that_are_no_judgements(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_qrels(write(tmp_path / "qrels.tsv", text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 where?\n", "line 1 is not a topic"),
        ("1\t \n", "line 1 is not a topic"),
        ("1\twhere?\n1\twho?\n", "line 2: topic 1 occurs twice"),
        ("\n", "holds no topics"),
    ],
)
def test_lines_that_are_no_topics(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_topics(write(tmp_path / "topics.tsv", text))


def test_files_that_are_missing(tmp_path):
    with pytest.raises(DataError, match="cannot read .*topics.tsv: No such file"):
        read_topics(tmp_path / "topics.tsv")
