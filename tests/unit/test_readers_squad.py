"""SQuAD's form: paragraphs and sentences, files that differ, real files."""

import gzip
import json

import numpy as np
import pytest

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers.by_id import SquadReader
from hbtrain.errors import DataError
from hbtrain.formats.languages import files_by_language
from hbtrain.formats.squad import array_elements, sentence_starts
from tests.prepared_samples import Row, check_rows, prepared


def document(paragraphs):
    return {"version": "x", "data": [{"title": "t", "paragraphs": paragraphs}]}


def paragraph(context, *questions, **others):
    answers = {q: [{"text": context[at : at + 3] or "none", "answer_start": at}] for q, at in questions}
    qas = [{"id": q, "question": f"{q}?", "answers": own} for q, own in answers.items()]
    return {"context": context, "qas": qas, **others}


def write(path, paragraphs):
    path.write_text(json.dumps(document(paragraphs)))
    return str(path)


def test_the_sentence_of_the_answer(tmp_path):
    context = "One is here. Two is there. Three?"
    files = {"en": write(tmp_path / "en.json", [paragraph(context, ("a", 4), ("b", 13), ("c", 28), ("d", 14))])}
    rows = [("a", "One is here."), ("b", "Two is there."), ("c", "Three?"), ("d", "Two is there.")]
    source = prepared(SquadReader(files, "sentence"), tmp_path / "corpus")
    # b and d have one sentence, which stands twice, as another comes between them.
    check_rows(source, [Row({"en": f"{q}?"}, {"en": text}, (), q, q) for q, text in rows])


def test_lareqa_breaks_are_used(tmp_path):
    text = "Mr. A. went. He came."
    files = {
        "en": write(tmp_path / "en.json", [paragraph(text, ("a", 5), ("b", 15), sentence_breaks=[[0, 12], [13, 21]])])
    }
    reader = SquadReader(files, "sentence")
    assert [item.text for item in reader.parts()[0].read(Drops(False, None))][1::2] == ["Mr. A. went.", "He came."]


def test_a_blank_sentence_ties_nothing_to_the_paragraph_before(tmp_path):
    blank = paragraph("  x.", ("b", 0), ("c", 1), ("d", 3), sentence_breaks=[[0, 2], [2, 4]])
    path = write(tmp_path / "en.json", [paragraph("One.", ("a", 0)), blank])
    reader = SquadReader({"en": path}, "sentence")
    with pytest.raises(DataError, match=r"paragraph 2: an empty text \(the sentence .* question b begins\)"):
        prepare(reader, tmp_path / "corpus")
    source = prepared(reader, tmp_path / "corpus", skip=True)
    check_rows(source, [Row({"en": "a?"}, {"en": "One."}, (), 1, 1), Row({"en": "d?"}, {"en": "x."}, (), 2, 2)])


@pytest.mark.parametrize(
    "breaks",
    [
        [[0, 3], ["4", 7]],
        [[0, 3], [None, 7]],
        [[0, 3], [4.5, 7]],
        [[0, 3], [9, 12]],
        [0, 4],
        "0 4",
        [[0], [4]],
        [[0, "3"], [4, 7]],
        [[4, 7], [0, 3]],
    ],
)
def test_breaks_that_are_none(tmp_path, breaks):
    good, bad = paragraph("One. Two", ("a", 0)), paragraph("one two", ("b", 0), sentence_breaks=breaks)
    path = write(tmp_path / "en.json", [good, bad])
    with pytest.raises(DataError, match=r"en.json paragraph 2: a paragraph whose sentence_breaks are not") as error:
        prepare(SquadReader({"en": path}, "sentence"), tmp_path / "corpus")
    assert "\n" not in str(error.value)
    check_rows(
        prepared(SquadReader({"en": path}, "sentence"), tmp_path / "corpus", skip=True),
        [Row({"en": "a?"}, {"en": "One."}, (), 1, 1)],
    )
    assert prepare(SquadReader({"en": path}), tmp_path / "paragraphs").manifest["rows"] == 2


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three", ["One. ", "Two! ", "Three"]),
        ("他来了。她走了！好", ["他来了。", "她走了！", "好"]),
        ('He said "no." Then', ['He said "no." ', "Then"]),
        ("Version 1.5 is out", ["Version 1.5 is out"]),
        ("यह है। वह है।", ["यह है। ", "वह है।"]),
        ("هل؟ نعم", ["هل؟ ", "نعم"]),
        ("", [""]),
    ],
)
def test_sentences(text, sentences):
    starts = sentence_starts(text)
    assert [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)] == sentences


def test_unanswerable_questions_are_left_out(tmp_path):
    one = paragraph("c", ("a", 0), ("b", 0), ("d", 0))
    one["qas"][0] |= {"is_impossible": True}
    one["qas"][1] |= {"answers": []}
    source = prepared(SquadReader({"en": write(tmp_path / "en.json", [one])}), tmp_path / "corpus")
    check_rows(source, [Row({"en": "d?"}, {"en": "c"}, (), "d", "c")])


def test_files_that_disagree(tmp_path):
    files = {
        "de": write(tmp_path / "de.json", [paragraph("c", ("a", 0), ("b", 0))]),
        "en": write(tmp_path / "en.json", [paragraph("k", ("b", 0)), paragraph("l", ("c", 0))]),
    }
    with pytest.raises(DataError, match=r"de.json paragraph 1: a query id that en lacks, one of 2 .*--allow-missing"):
        prepare(SquadReader(files), tmp_path / "corpus")
    rows = [
        Row({"de": "a?"}, {"de": "c"}, (), "a", 1),
        Row({"de": "b?", "en": "b?"}, {"de": "c", "en": "k"}, (), "b", 1),
        Row({"en": "c?"}, {"en": "l"}, (), "c", 2),
    ]
    check_rows(prepared(SquadReader(files, complete=False), tmp_path / "partial"), rows)
    only_b = prepared(SquadReader(files), tmp_path / "skipped", skip=True)
    check_rows(only_b, [rows[1]])


@pytest.mark.parametrize("start", range(0, 60, 7))
def test_elements_do_not_depend_on_how_the_file_is_read(tmp_path, monkeypatch, start):
    monkeypatch.setattr("hbtrain.formats.squad.READ_CHARACTERS", start + 1)
    elements = [{"ü": [1, "]漢"]}, 12, "a, b", [], {"data": [3]}]
    path = tmp_path / "x.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"version": 2, "data": elements, "z": 1}, ensure_ascii=False).encode()))
    assert list(array_elements(str(path), "data")) == elements


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"data": [{"paragraphs": []}', "is not JSON"),
        (b'{"data": [{"paragraphs": [}]}', "is not JSON"),
        (b'{"version": 1}', "has no array 'data'"),
        (b'{"data": ["\xff"]}', "is not UTF-8"),
        (b'{"data": [3]}', "paragraph 1: an article without paragraphs"),
        (b'{"data": [{"paragraphs": [{"qas": []}]}]}', "paragraph 1: a paragraph without context and qas"),
        (b'{"data": [{"paragraphs": [{"context": "c", "qas": [{}]}]}]}', "paragraph 1: a question that is not"),
        (
            b'{"data": [{"paragraphs": [{"context": "c", "qas": [{"id": "a", "question": " "}]}]}]}',
            "paragraph 1: an empty text (question a)",
        ),
        (gzip.compress(b'{"data": []}', mtime=0)[:-4], "broken gzip"),
    ],
)
def test_refused_in_one_line(tmp_path, content, words):
    path = tmp_path / "en.json"
    path.write_bytes(content)
    with pytest.raises(DataError) as error:
        prepare(SquadReader({"en": str(path)}), tmp_path / "corpus")
    assert words in str(error.value)
    assert "en.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_an_answer_outside_its_paragraph_and_a_question_twice(tmp_path):
    path = write(tmp_path / "en.json", [paragraph("c", ("a", 0)), paragraph("d", ("b", 9)), paragraph("e", ("a", 0))])
    with pytest.raises(
        DataError,
        match="paragraph 2: .* question b: the answer begins at character 9, outside the text of 1 characters",
    ):
        prepare(SquadReader({"en": path}, "sentence"), tmp_path / "corpus")
    twice = write(tmp_path / "twice.json", [paragraph("c", ("a", 0)), paragraph("e", ("a", 0))])
    with pytest.raises(
        DataError, match=r"paragraph 2: a passage id that came before, with another text \(a, at .* 1\)"
    ):
        prepare(SquadReader({"en": twice}), tmp_path / "corpus")
    skipped = prepare(SquadReader({"en": path}, "sentence"), tmp_path / "skipped", True)
    assert skipped.manifest["rows"] == 1
    assert sum(skipped.manifest["dropped"].values()) == 3, "the answer outside, and the question and passage of a"


def test_files_of_a_folder(tmp_path):
    for name in ("en.json", "de.json.gz", "notes.txt", "README.json"):
        (tmp_path / name).touch()
    assert list(files_by_language([str(tmp_path)], ".json")) == ["de", "en"]
    (tmp_path / "en.json.gz").touch()
    with pytest.raises(DataError, match="both .* are for en"):
        files_by_language([str(tmp_path)], ".json")


@pytest.mark.shared
def test_xquad_in_eleven_languages(shared, tmp_path):
    source = prepared(SquadReader(files_by_language([str(shared / "xquad-r")], ".json")), tmp_path / "corpus")
    assert (source.index.rows, len(source.index.languages)) == (1190, 11)
    rows = np.arange(1190)
    paragraphs = 0
    for language in source.index.languages:
        data = json.loads(gzip.decompress((shared / "xquad-r" / f"{language}.json.gz").read_bytes()))["data"]
        at = {}
        for one in (p for article in data for p in article["paragraphs"]):
            paragraphs += 1
            at |= {record["id"]: (record["question"], one["context"]) for record in one["qas"]}
        if language == "ar":
            order = list(at)
        texts = zip(*(source.texts(side, rows, [language] * 1190) for side in ("query", "passage")), strict=True)
        assert list(texts) == [at[q] for q in order]
    assert len(set(source.index.passage_ids_of(rows).tolist())) == paragraphs / 11 == 240
    assert source.index.query_ids is None


@pytest.mark.shared
def test_tydi_rows_have_the_language_they_have(shared, tmp_path):
    files = files_by_language([str(shared / "tydiqa-goldp")], ".json")
    source = prepared(SquadReader(files, complete=False), tmp_path / "corpus")
    assert len(source.index.languages) == 9
    assert (source.index.query_patterns.sum(1) == 1).all(), "no question is in two languages"
    with pytest.raises(DataError, match="--allow-missing"):
        prepare(SquadReader(files), tmp_path / "strict")
