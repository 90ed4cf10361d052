import json
from pathlib import Path

import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.aligned import read_squad
from hbtrain.evaluation.benchmarks import load_benchmark, parse_benchmark
from tests.unit.evaluation_samples import only

TYDI = Path(__file__).parents[3] / "shared" / "data" / "tydiqa-goldp"


def question(identifier, start=0, text=None, **more):
    answer = {"text": text, "answer_start": start}
    return {"id": identifier, "question": f"{identifier}?", "answers": [answer], **more}


def write(folder, language, *paragraphs):
    folder.mkdir(exist_ok=True)
    for context, *questions in paragraphs:
        for answer in (x for own in questions for x in own["answers"]):
            start = answer["answer_start"]
            answer["text"] = answer["text"] or context[start : start + 2].strip() or "none"
    data = [{"paragraphs": [{"context": context, "qas": list(questions)}]} for context, *questions in paragraphs]
    (folder / f"{language}.json").write_text(json.dumps({"data": data}), encoding="utf-8")
    return folder


def test_paragraphs_are_candidates_and_equal_ones_are_one(tmp_path):
    write(tmp_path, "sw", ("Moja.", question("a")), ("Mbili.", question("b")), ("Moja.", question("c", 2)))
    write(tmp_path, "en", ("One.", question("a", domain="news")))
    b = read_squad(tmp_path, "x")
    assert (b.candidates_kind, b.languages) == ("passage", ("en", "sw"))
    c = only(b)
    assert c.candidate_ids == ["en/0", "sw/0", "sw/1"]
    assert c.candidate_texts == ["One.", "Moja.", "Mbili."]
    found = dict(zip(zip(c.query_languages, c.question_ids, strict=True), map(list, c.relevant), strict=True))
    assert found == {("en", "a"): [0, 1], ("sw", "a"): [0, 1], ("sw", "b"): [2], ("sw", "c"): [1]}
    assert c.domains == ["news", None, None, None]


@pytest.mark.parametrize(
    ("paragraph", "message"),
    [
        (("One.", question("q7", 4)), "q7: the answer begins at character 4, outside the text of 4"),
        (("One.", question("q7", -1)), "q7: the answer begins at character -1, outside"),
        (("One.", question("q7"), question("q7")), "q7: the id occurs twice"),
        (
            ("One.", {"id": "q7", "question": "?", "answers": []}),
            "paragraph 1: a question that is not in SQuAD's form: question q7 has no answer",
        ),
        (("One.", question("q7") | {"is_impossible": True}), "question q7 has no answer"),
        (("One.", question("q7") | {"question": "half \ud800"}), "paragraph 1: a text that is not Unicode"),
        (
            ("half \ud800", question("q7")),
            "paragraph 1: a text that is not Unicode: it holds half a surrogate pair (its",
        ),
        ((" ", question("q7")), "paragraph 1: a paragraph without context and qas"),
        (("One.", question("q7", True, "Two")), "q7: answer_start must be a whole number, not True"),
        (("One.", question("q7", domain=3)), "q7: domain must be a text, not 3"),
    ],
)
def test_errors_name_the_question(tmp_path, paragraph, message):
    with pytest.raises(DataError) as caught:
        read_squad(write(tmp_path, "en", paragraph), "x")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_squad_folder_read_as_lareqa_says_what_to_do(tmp_path):
    folder = write(tmp_path / "mine", "en", ("One.", question("a")))
    with pytest.raises(DataError, match="plain SQuAD files are read as squad=FOLDER"):
        load_benchmark(parse_benchmark(f"lareqa={folder}"))
    assert load_benchmark(parse_benchmark(f"squad={folder}")).name == "mine"


@pytest.mark.shared
@pytest.mark.skipif(not TYDI.exists(), reason="no ../shared")
def test_tydi_qa_gold_passages_are_read():
    b = load_benchmark(parse_benchmark(f"squad={TYDI}"), ["sw", "te"])
    assert b.name == "tydiqa-goldp"
    c = only(b)
    assert c.query_counts["sw"] == 499
    assert c.candidate_counts["sw"] == 357
    assert all(len(places) == 1 for places in c.relevant)
