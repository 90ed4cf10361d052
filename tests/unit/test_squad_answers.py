"""Answers in SQuAD's form: their texts stand where `answer_start` says, and every way of saying that there is none."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.readers.by_id import SquadReader
from hbtrain.errors import DataError
from hbtrain.evaluation.aligned import read_squad
from hbtrain.formats.inputs import REFUSED
from hbtrain.formats.squad import answer_start, read_paragraphs, read_question
from tests.unit.evaluation_samples import only, write_lareqa

CONTEXT = "Rain fell. Nine boats left the harbour! Nobody came."
GIVEN = {"id": "yes", "question": "how many?", "answers": [{"text": "Nine", "answer_start": 11}]}


def write(folder, *questions, context=CONTEXT, **more):
    return write_lareqa(folder, {"en": [{"context": context, "qas": list(questions), **more}]}) / "en.json"


def asked(key, text, start, **more):
    return {"id": key, "question": f"{key}?", "answers": [{"text": text, "answer_start": start}], **more}


def read(path, passage="sentence", drops=None):
    items = SquadReader({"en": str(path)}, passage).parts()[0].read(drops or Drops(False, None))
    return {item.key: item.text for item in items if item.side == "passage"}


NO_ANSWER = [
    {"is_impossible": True, "answers": []},
    {"is_impossible": True, "answers": [{"text": "Nine", "answer_start": 11}]},
    {"is_impossible": "True", "answers": [{"text": "Nine", "answer_start": 11}]},
    {"is_impossible": 1, "answers": [{"text": "Nine", "answer_start": 11}]},
    {"answers": []},
    {"answers": None},
    {},
    {"plausible_answers": [{"text": "Nine", "answer_start": 11}]},
    {"answers": {"text": [], "answer_start": []}},
    {"answers": {"text": [""], "answer_start": [-1]}},
    {"answers": {}},
    {"answers": [{"text": "", "answer_start": -1}]},
    {"answers": [{"text": "", "answer_start": 0}]},
    {"answers": [{"text": " ", "answer_start": 11.0}]},
    {"answers": [{"text": None, "answer_start": None}]},
    {"answers": [{"answer_start": -1}]},
]


@pytest.mark.parametrize("form", NO_ANSWER, ids=str)
def test_no_answer_in_whatever_form_is_no_row_and_no_question_of_a_benchmark(tmp_path, form):
    path = write(tmp_path, GIVEN, {"id": "none", "question": "why?", **form})
    assert list(read(path)) == list(read(path, "paragraph")) == ["yes"]
    with pytest.raises(DataError, match=r"en\.json paragraph 1: .*question none has no answer"):
        read_squad(tmp_path, "x")


@pytest.mark.parametrize(
    "form",
    [
        {"answers": {"text": ["Nine"], "answer_start": [11]}},
        {"answers": {"text": "Nine", "answer_start": 11}},
        {"answers": [{"text": "", "answer_start": 0}, {"text": "Nine", "answer_start": 11.0}], "is_impossible": 0},
        {"answers": [{"text": "NINE", "answer_start": 11}], "is_impossible": "false"},
        {"answers": [{"text": "nine\u00a0boats", "answer_start": 11}], "is_impossible": None},
    ],
    ids=str,
)
def test_an_answer_in_whatever_form_is_one(tmp_path, form):
    path = write(tmp_path, {"id": 7.0, "question": "how many?", **form})
    assert {key: text.strip() for key, text in read(path).items()} == {"7": "Nine boats left the harbour!"}


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"is_impossible": "maybe"}, "is_impossible must be true or false, not 'maybe'"),
        ({"is_impossible": 2}, "is_impossible must be true or false, not 2"),
        ({"answers": ["Nine"]}, "answers must be a list of objects with text and answer_start, not ['Nine']"),
        ({"answers": "x" * 500}, "answers must be a list of objects with text and answer_start, not 'xxx"),
        ({"answers": [{"text": 9, "answer_start": 11}]}, "answers must be a list of objects with text"),
        ({"answers": {"text": ["Nine"], "answer_start": []}}, "answers has 1 texts with 0 places"),
    ],
)
def test_what_is_neither_is_refused(tmp_path, form, words):
    path = write(tmp_path, GIVEN, {"id": "odd", "question": "why?", **form})
    for reading in (lambda: read(path), lambda: read(path, "paragraph"), lambda: read_squad(tmp_path, "x")):
        with pytest.raises(DataError) as caught:
            reading()
        assert f"en.json paragraph 1: a question that is not in SQuAD's form: question odd: {words}" in str(
            caught.value
        )
        assert len(str(caught.value)) < 500


def test_an_answer_elsewhere_is_refused_with_both_texts_and_matters_to_sentences_only(tmp_path):
    path = write(tmp_path, GIVEN, asked("odd", "Nobody", 0))
    words = (
        r"en\.json paragraph 1: .*question odd: the answer 'Nobody' is not at character 0, where 'Rain f' stands; mend"
    )
    with pytest.raises(DataError, match=words):
        read(path)
    assert list(read(path, drops=Drops.silent())) == ["yes"]
    assert list(read(path, "paragraph")) == ["yes", "odd"]
    assert only(read_squad(tmp_path, "x")).question_ids == ["yes", "odd"]
    write(tmp_path, GIVEN, asked("translated", "Niemand", 40))
    assert list(read(path, "paragraph")) == only(read_squad(tmp_path, "x")).question_ids == ["yes", "translated"]


def test_emptied_texts_leave_answers_to_paragraphs_but_choose_no_sentence(tmp_path):
    path = write(tmp_path, asked("a", "", 11), asked("b", "", 0), asked("c", "", -1))
    assert list(read(path, "paragraph")) == ["a", "b"]
    with pytest.raises(DataError, match="question a: the answer at character 11 has no text by which its place could"):
        read(path)
    path = write(tmp_path, {"id": "a", "question": "?", "answers": [{"answer_start": 11}]})
    assert read(path)["a"].strip() == "Nine boats left the harbour!", "without the key, the file means the place alone"


def test_sentences_that_are_not_those_of_the_breaks_are_refused(tmp_path):
    more = {"sentence_breaks": [[0, 11], [11, 40], [40, 52]]}
    sentences = ["Rain fell.", "Nine boats left the harbour!", "Nobody came."]
    write(tmp_path, GIVEN, **more, sentences=sentences)
    assert only(read_squad(tmp_path, "x", None, "sentence")).relevant[0].tolist() == [1]
    write(tmp_path, GIVEN, **more, sentences=sorted(sentences))
    with pytest.raises(
        DataError, match=r"question yes: by sentence_breaks the answer 'nine' is in .* 'Nobody came.'; "
    ):
        read_squad(tmp_path, "x", None, "sentence")
    path = write(tmp_path, GIVEN, **more, sentences=[*sentences[:2], "HALF"])
    path.write_text(path.read_text().replace("HALF", r"half \ud800"))
    with pytest.raises(DataError, match="paragraph 1: sentences must be texts, without halves"):
        read_squad(tmp_path, "x", None, "sentence")


WORDS = st.lists(st.text("ab \u00e9e\u0301\U0001f600\u6f22\n", min_size=1, max_size=6), min_size=3, max_size=6)
WAYS = {
    "counted in UTF-16 code units": lambda before: len(before.encode("utf-16-le")) // 2,
    "counted in bytes of UTF-8": lambda before: len(before.encode()),
    "stand 5 characters before": lambda before: len(before) + 5,
    "stand 2 characters after": lambda before: len(before) - 2,
}


@given(WORDS, st.sampled_from([None, *WAYS]))
def test_an_answer_at_its_place_is_never_refused_and_one_counted_otherwise_never_misplaced(
    tmp_path_factory, words, way
):
    """Words are numbered, so that each stands in the paragraph once."""
    words = [f"{n}{word.strip()}{n}" for n, word in enumerate(words)]
    context = "\U0001f600..." + " ".join(words)
    count = len if way is None else WAYS[way]
    questions = [asked(str(n), word, count(context[: context.index(word)])) for n, word in enumerate(words)]
    path = write(tmp_path_factory.mktemp("squad"), *questions, context=context)
    (paragraph,) = read_paragraphs(str(path), REFUSED)
    for record, word in zip(paragraph.records, words, strict=True):
        question = read_question(record, paragraph, REFUSED)
        if way is None:
            assert answer_start(question, paragraph, REFUSED) == context.index(word)
        else:
            with pytest.raises(DataError, match=f"; all {len(words)} answers of the file (are )?{way}"):
                answer_start(question, paragraph, REFUSED)


def test_the_way_of_counting_is_that_of_the_whole_file(tmp_path):
    path = write(tmp_path, asked("a", "Rain", 1), asked("b", "boats", 18))
    (paragraph,) = read_paragraphs(str(path), REFUSED)
    question = read_question(paragraph.records[0], paragraph, REFUSED)
    with pytest.raises(DataError, match=r"where 'ain ' stands$"):
        answer_start(question, paragraph, REFUSED)
