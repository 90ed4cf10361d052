import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.judged import grades_by_question, topics_by_id
from hbtrain.formats.inputs import REFUSED
from hbtrain.formats.judged import read_judgements, read_topics
from tests.unit.judged_samples import write


def qrels(path, three_columns=True):
    return grades_by_question(read_judgements(str(path), REFUSED, three_columns), str(path))


def topics(path):
    return topics_by_id(read_topics(str(path), REFUSED), str(path))


def test_qrels_of_four_and_of_three_columns(tmp_path):
    wanted = {"1": {"a": 1, "b": 0}, "2": {"a": 2}}
    assert qrels(write(tmp_path / "a", "1\tQ0\ta\t1\n1\tQ0\tb\t0\n2\tQ0\ta\t2\n")) == wanted
    assert qrels(write(tmp_path / "b.gz", "1 0 a 1\n1 0 b 0\n\n2 0 a 2\n")) == wanted
    assert qrels(write(tmp_path / "c", "query-id\tcorpus-id\tscore\n1\ta\t1\n1\tb\t0\n2\ta\t2\n")) == wanted
    assert qrels(write(tmp_path / "d", "1\ta\t1\n1\ta\t1\n1\tb\t0\n2\ta\t2")) == wanted


def test_grades_marks_and_blanks_as_other_tools_write_them(tmp_path):
    wanted = {"1": {"a": 1, "b": 0}, "2": {"a": -2}}
    assert qrels(write(tmp_path / "a", "\ufeff1\tQ0\ta\t1.0\n1 \tQ0\tb \t0.00 \r\n2\tQ0\t a\t-2.\n")) == wanted
    assert qrels(write(tmp_path / "b", "\ufeff1\ta\t1.0\n\ufeff1\tb\t0\n2\ta\t-2\n")) == wanted
    assert {x.id: x.text for x in topics(write(tmp_path / "c", "\ufeff1 \twhere?\n\ufeff2\xa0\twho? \n")).values()} == {
        "1": "where?",
        "2": "who?",
    }


@pytest.mark.parametrize("grade", ["0.5", "1e3", "nan", "1,0", "9" * 5000, "0x1", "١"])
@pytest.mark.parametrize("columns", ["1\tQ0\ta", "1\ta"])
def test_a_grade_that_is_no_whole_number_is_named(tmp_path, grade, columns):
    with pytest.raises(
        DataError, match="qrels.tsv line 1: not a judgement: the grade '.* must be a whole number"
    ) as error:
        qrels(write(tmp_path / "qrels.tsv", f"{columns}\t{grade}\n{columns}\t1\n"))
    assert f"'{grade[:20]}" in str(error.value)
    assert len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "1\tQ0\ta\t1\n1\tQ0\ta\t0\n",
            "line 2: a judgement that contradicts an earlier one: document a of question 1 had 1",
        ),
        ("1\tQ0\ta\tyes\n", "line 1: not a judgement"),
        ("1\ta\t1\nx\ty\tz\n", "line 2: not a judgement"),
        ("\tQ0\ta\t1\n", "line 1: not a judgement"),
        ("1 a\n", "line 1: not a judgement"),
        ("1 Q0 a ²\n", "line 1: not a judgement"),
        ("1 Q0 a --1\n", "line 1: not a judgement"),
        ("", "holds no judgements"),
        ("query-id\tcorpus-id\tscore\n", "holds no judgements"),
    ],
)
def test_lines_that_are_no_judgements(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        qrels(write(tmp_path / "qrels.tsv", text))


def test_trecs_columns_are_four(tmp_path):
    assert qrels(write(tmp_path / "a", "1\tQ0\ta\t1\n"), False) == {"1": {"a": 1}}
    with pytest.raises(DataError, match="line 1: not a judgement: question, 0, document, grade is expected"):
        qrels(write(tmp_path / "b", "1\ta\t1\n"), False)
    with pytest.raises(DataError, match="line 1: not UTF-8 at byte 0"):
        (tmp_path / "c").write_bytes(b"\xff Q0 a 1\n")
        qrels(tmp_path / "c")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 where?\n", "line 1: a row with too few columns: id, tab, text is expected"),
        ("1\t \n", "line 1: an empty text \\(question 1\\)"),
        (" \tx\n", "line 1: a row with too few columns"),
        ("1\twhere?\n1\twho?\n", "line 2: question 1 occurs twice"),
        ("\n", "holds no topics"),
    ],
)
def test_lines_that_are_no_topics(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        topics(write(tmp_path / "topics.tsv", text))


def test_files_that_are_missing(tmp_path):
    with pytest.raises(DataError, match="cannot read .*topics.tsv: No such file"):
        topics(tmp_path / "topics.tsv")
