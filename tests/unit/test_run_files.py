import gzip

import numpy as np
import pytest
import pytrec_eval
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.errors import DataError, StorageError
from hbtrain.retrieval.top import Top
from hbtrain.retrieval.trec_files import escape_id, read_trec_run, unescape_id, write_trec_run

IDS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@given(IDS)
def test_ids_survive_and_are_one_field(identifier):
    escaped = escape_id(identifier)
    assert unescape_id(escaped) == identifier
    assert escaped.split() == [escaped]
    if identifier.split() == [identifier] and "%" not in identifier:
        assert escaped == identifier


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, 0.5, 1e-45, 3e38, -3e38, 0.1]), min_size=1, max_size=6))
def test_trec_eval_finds_the_order_that_was_meant(tmp_path_factory, values):
    path = tmp_path_factory.mktemp("runs") / "en.trec.gz"
    scores = np.sort(np.array([values], np.float32))[:, ::-1]
    ids = [f"d{i}" for i in range(len(values))]  # trec_eval puts the last of equal ones first
    write_trec_run(path, ["a question"], Top(scores, np.arange(len(values))[None]), [ids], "my system")
    assert read_trec_run(path).documents == {"a%20question": ids}
    assert read_trec_run(path).notes == []
    lines = [line.split() for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    assert [line[1::2] for line in lines] == [["Q0", str(rank), "my%20system"] for rank in range(1, len(ids) + 1)]
    run = {line[0]: {} for line in lines}
    for query, _, document, _, score, _ in lines:
        run[query][document] = float(score)
    for rank, document in enumerate(ids, 1):
        found = pytrec_eval.RelevanceEvaluator({"a%20question": {document: 1}}, {"recip_rank"}).evaluate(run)
        assert found["a%20question"]["recip_rank"] == pytest.approx(1 / rank)


def test_lists_are_added_and_may_be_short(tmp_path):
    path = tmp_path / "deep" / "en.trec"
    scores = np.array([[0.5, 0.25], [0.5, 0.0]], np.float32)
    write_trec_run(path, ["a", "b"], Top(scores, np.array([[1, 0], [0, -1]])), [["y", "x"], ["x", "no"]], "s")
    write_trec_run(path, ["c"], Top(scores[:1], np.array([[0, 1]])), [["x", "y"]], "s")
    assert path.read_text().splitlines() == [
        "a Q0 y 1 0.5 s",
        "a Q0 x 2 0.25 s",
        "b Q0 x 1 0.5 s",
        "c Q0 x 1 0.5 s",
        "c Q0 y 2 0.25 s",
    ]
    assert read_trec_run(path).depth == 2


def test_what_is_unusual_but_harmless_is_put_in_order_as_trec_eval_does_and_said(tmp_path):
    path = tmp_path / "run.txt"
    path.write_text(
        "q1 Q0 a 1 0.1 x\nq1 Q0 b 2 0.9 x\n\nq2 Q0 a 7 5e-1 x\nq1 0 c 3 0.5 x\nq2 Q0 z 8 0.50000000001 y\n"
        "q3\tQ0\ta\t-\t-3\tx\n"
    )
    run = read_trec_run(path, queries={"q1", "q2", "q3"}, documents={"a", "b", "c", "z"})
    assert run.documents == {"q1": ["b", "c", "a"], "q2": ["z", "a"], "q3": ["a"]}
    assert [note.removeprefix(f"{path}: ") for note in run.notes] == [
        "lines of 1 queries do not stand in the order of their scores; they were sorted",
        "ranks of 1 queries contradict the scores; the scores decide, as in trec_eval",
        "1 queries have equal scores; these stand by document id backwards, as in trec_eval",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("q1 Q0 a 1 0.5 x\nq1 Q0 a 2 0.4 x\n", "line 2: query 'q1' has document 'a' twice"),
        ("q1 Q0 a 1 0.5 x\nq1 Q0 b 2 0.4\n", "line 2: 5 fields, not the 6"),
        ("q1 Q0 a b 1 0.5 x\n", "line 1: 7 fields"),
        ("q1 Q0 a 1 high x\n", "line 1: score 'high' must be a finite number"),
        ("q1 Q0 a 1 nan x\n", "line 1: score 'nan' must be"),
        ("q1 Q0 a 1 -inf x\n", "line 1: score '-inf' must be"),
        ("q1 Q0 a 1 1e39 x\n", "line 1: score '1e39' must be"),
        ("q1 Q0 a 1 0.5 x\n\nq9 Q0 a 1 0.5 x\n", "line 3: query 'q9' is not in the benchmark"),
        ("q1 Q0 k 1 0.5 x\n", "line 1: document 'k' is not among the candidates"),
        (f"q1 Q0 a 1 {'9' * 5000} x\n", r"line 1: score '99.*\.\.\. \(5,002 characters\) must be a finite number"),
        ("q1 Q0 a 1 1_0 x\n", "line 1: score '1_0' must be a finite number"),
        ("\n", "holds no line"),
    ],
)
def test_a_bad_line_is_named(tmp_path, text, message):
    path = tmp_path / "run.trec"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_trec_run(path, queries={"q1"}, documents={"a", "b"})
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_byte_order_mark_and_ranks_of_thousands_of_digits_are_passed_over(tmp_path, zipped):
    content = f"\ufeffq1 Q0 a {'1' * 5000} 0.5 x\r\n\ufeffq1\tQ0\tb\t2\t0.75\tx".encode()
    (tmp_path / "run.trec").write_bytes(gzip.compress(content) if zipped else content)
    run = read_trec_run(tmp_path / "run.trec", {"q1"}, {"a", "b"})
    assert run.documents == {"q1": ["b", "a"]}


def test_files_that_cannot_be_read_or_written_are_named(tmp_path):
    with pytest.raises(DataError, match="cannot read .*none.trec: No such file"):
        read_trec_run(tmp_path / "none.trec")
    whole = gzip.compress("".join(f"q Q0 d{i} 1 0.{i} x\n" for i in range(500)).encode())
    for name, damaged in (("cut", whole[:-12]), ("hurt", whole[:300] + bytes(40) + whole[340:])):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(DataError, match=f"{name} is a broken gzip file"):
            read_trec_run(tmp_path / name)
    (tmp_path / "latin.trec").write_bytes(b"q Q0 \xe4 1 0.5 x\n")
    with pytest.raises(DataError, match="not UTF-8"):
        read_trec_run(tmp_path / "latin.trec")
    with pytest.raises(StorageError, match="cannot write"):
        top = Top(np.ones((1, 1), np.float32), np.zeros((1, 1), np.int64))
        write_trec_run(tmp_path / "latin.trec" / "en.trec", ["q"], top, [["a"]], "x")
