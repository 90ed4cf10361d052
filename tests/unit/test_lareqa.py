import json
from pathlib import Path

import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.aligned import read_squad
from hbtrain.evaluation.benchmarks import load_benchmark, parse_benchmark
from tests.unit.evaluation_samples import candidate_languages, only, paragraph, write_lareqa

SHARED = Path(__file__).parents[3] / "shared"

ENGLISH = [paragraph(["One.", "Two.", "One."], {"a": 2, "b": 0}), paragraph(["Three."], {"c": 0})]
GERMAN = [paragraph(["Drei."], {"c": 0}), paragraph(["Eins.", "Zwei."], {"a": 1}), paragraph(["Vier!"], {"d": 0})]


def read_lareqa(folder, name, languages=None, candidates="sentence"):
    return read_squad(folder, name, languages, candidates)


@pytest.fixture
def folder(tmp_path):
    return write_lareqa(tmp_path / "mine", {"en": ENGLISH, "de": GERMAN}, zipped=("de",))


def test_every_sentence_is_a_candidate_and_the_answer_starts_in_the_relevant_one(folder):
    (folder / "LICENSE").write_text("not a language")
    (folder / "version.json").write_text("{}")
    b = read_lareqa(folder, "mine")
    assert (b.name, b.candidates_kind, b.languages) == ("mine", "sentence", ("de", "en"))
    b = only(b)
    assert b.candidate_texts == ["Drei.", "Eins.", "Zwei.", "Vier!", "One.", "Two.", "One.", "Three."]
    assert b.candidate_ids == ["de/0/0", "de/1/0", "de/1/1", "de/2/0", "en/0/0", "en/0/1", "en/0/2", "en/1/0"]
    assert b.candidate_counts == {"de": 4, "en": 4}
    found = {
        (language, question): indices.tolist()
        for language, question, indices in zip(b.query_languages, b.question_ids, b.relevant, strict=True)
    }
    assert found == {
        ("de", "c"): [0, 7],
        ("de", "a"): [2, 6],
        ("de", "d"): [3],
        ("en", "a"): [2, 6],
        ("en", "b"): [4],
        ("en", "c"): [0, 7],
    }
    assert b.query_texts[b.question_ids.index("d")] == "d?"


def test_languages_choose_and_order_the_pool(folder):
    b = read_lareqa(folder, "mine", ["en", "de"])
    assert b.languages == ("en", "de")
    assert only(b).candidate_texts[:4] == ["One.", "Two.", "One.", "Three."]
    assert only(read_lareqa(folder, "mine", ["en"])).query_counts == {"en": 3}
    with pytest.raises(DataError, match=r"'fr' is not in benchmark mine .*it has de, en"):
        read_lareqa(folder, "mine", ["en", "fr"])
    with pytest.raises(DataError, match="each named once"):
        read_lareqa(folder, "mine", ["en", "en"])


def test_an_answer_at_a_sentence_break_belongs_to_the_later_sentence(tmp_path):
    text = paragraph(["One.", "Two."], {"a": 0})
    for start, index in ((0, 0), (4, 0), (5, 1), (8, 1)):
        text["qas"][0]["answers"][0] = {"text": text["context"][start : start + 3], "answer_start": start}
        assert only(read_lareqa(write_lareqa(tmp_path, {"en": [text]}), "x")).relevant[0].tolist() == [index]


def test_with_its_paragraph_a_candidate_is_the_sentence_and_then_the_context(folder):
    alone, both = (only(read_lareqa(folder, "mine", None, kind)) for kind in ("sentence", "sentence+context"))
    assert read_lareqa(folder, "mine", None, "sentence+context").candidates_kind == "sentence+context"
    texts = ["One.\nOne. Two. One.", "Two.\nOne. Two. One.", "One.\nOne. Two. One.", "Three.\nThree."]
    assert both.candidate_texts[4:] == texts
    assert both.candidate_ids == alone.candidate_ids
    assert [r.tolist() for r in both.relevant] == [r.tolist() for r in alone.relevant]


def test_mlqa_r_has_two_to_four_relevant_sentences_and_its_languages_vary(tmp_path):
    # The shape of MLQA-R: English has every question, another language some of them, over paragraphs of its own.
    asked = {"en": "abcdef", "de": "abce", "es": "acd", "hi": "bdf", "vi": "f"}
    data = {}
    for language, questions in asked.items():
        filler = paragraph([f"{language} {n}." for n in range(len(questions) + 3)], {})
        data[language] = [paragraph([f"{language} {q} {n}." for n in range(3)], {q: ord(q) % 3}) for q in questions] + [
            filler
        ]
    b = load_benchmark(parse_benchmark(f"mlqa-r={write_lareqa(tmp_path / 'dev', data)}"))
    assert (b.name, b.languages) == ("mlqa-r", ("de", "en", "es", "hi", "vi"))
    c = only(b)
    assert c.query_counts == {language: len(asked[language]) for language in b.languages}
    assert c.candidate_counts == {language: 4 * len(asked[language]) + 3 for language in b.languages}
    languages = candidate_languages(c)
    for question, places in zip(c.question_ids, c.relevant, strict=True):
        assert 2 <= len(places) <= 4
        assert [languages[place] for place in places] == [x for x in b.languages if question in asked[x]]
        for place in places:
            assert c.candidate_texts[place] == f"{languages[place]} {question} {ord(question) % 3}."


def test_a_domain_of_a_question_is_kept(tmp_path):
    text = paragraph(["One.", "Two."], {"a": 0, "b": 1})
    text["qas"][1]["domain"] = "sports"
    assert only(read_lareqa(write_lareqa(tmp_path, {"en": [text]}), "x")).domains == [None, "sports"]


def broken(change):
    data = paragraph(["One.", "Two."], {"q7": 1})
    change(data)
    return {"en": [paragraph(["Zero."], {}), data]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda p: p["qas"][0].update(answers=[]),
            "paragraph 2: a question that is not in SQuAD's form: question q7 has no answer",
        ),
        (
            lambda p: p["qas"][0].pop("answers"),
            "paragraph 2: a question that is not in SQuAD's form: question q7 has no answer",
        ),
        (
            lambda p: p["qas"][0]["answers"][0].update(answer_start=9),
            "question q7: the answer begins at character 9, out",
        ),
        (lambda p: p["qas"][0]["answers"][0].update(answer_start=-1), "question q7: the answer begins at character -1"),
        (lambda p: p["qas"][0]["answers"][0].update(answer_start="3"), "q7: answer_start must be a whole number"),
        (lambda p: p["qas"][0].update(question=" "), "paragraph 2: an empty text (question q7)"),
        (lambda p: p["qas"][0].pop("id"), "paragraph 2: a question that is not in SQuAD's form: no id"),
        (lambda p: p["qas"].append(p["qas"][0]), "question q7: the id occurs twice"),
        (lambda p: p.pop("sentence_breaks"), "paragraph 2 is not in LAReQA's form"),
        (lambda p: p["sentences"].pop(), "1 sentences and 2 breaks"),
        (lambda p: p["sentence_breaks"].reverse(), "paragraph 2: a paragraph whose sentence_breaks are not pairs"),
        (lambda p: p["sentence_breaks"].__setitem__(1, [5, 6]), "answer begins at character 6, and no sentence break"),
    ],
)
def test_errors_name_file_and_question(tmp_path, change, message):
    folder = write_lareqa(tmp_path, broken(change))
    with pytest.raises(DataError) as caught:
        read_lareqa(folder, "x")
    assert message in str(caught.value)
    assert str(folder / "en.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "has no array 'data', or is not JSON"),
        ("[]", "has no array 'data', or is not JSON"),
        ('{"version": 1}', "has no array 'data', or is not JSON"),
        ('{"data": [1]}', "paragraph 1: an article without paragraphs"),
        ('{"data": [{', "is not JSON"),
        ('"\ud800', "is not UTF-8"),
    ],
)
def test_files_of_another_form_are_named(tmp_path, content, words):
    (tmp_path / "en.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(DataError, match=rf"en\.json {words}"):
        read_lareqa(tmp_path, "x")


def test_broken_gzip_no_languages_and_doubled_files(tmp_path, folder):
    with pytest.raises(DataError, match="holds no languages"):
        read_lareqa(tmp_path, "x")
    zipped = (folder / "de.json.gz").read_bytes()
    (tmp_path / "de.json.gz").write_bytes(zipped[:40])
    with pytest.raises(DataError, match=r"de\.json\.gz is a broken gzip file"):
        read_lareqa(tmp_path, "x")
    (folder / "de.json").write_text(json.dumps({"data": []}))
    with pytest.raises(DataError, match=r"both .*de\.json and .*de\.json\.gz are for de"):
        read_lareqa(folder, "x")


def test_languages_without_a_common_answer_are_an_error(tmp_path):
    with pytest.raises(DataError, match="no question has an answer"):
        read_lareqa(write_lareqa(tmp_path, {"en": [paragraph(["One."], {})]}), "x")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="no ../shared")
def test_xquad_r_has_the_counts_of_the_paper():
    tables = json.loads((SHARED / "reference" / "paper_tables.json").read_text(encoding="utf-8"))
    expected = tables["table10_counts"]["xquad-r"]
    b = only(load_benchmark(parse_benchmark(f"xquad-r={SHARED / 'data' / 'xquad-r'}")))
    assert b.query_counts == expected["queries"]
    assert b.candidate_counts == expected["candidates"]
    assert all(len(indices) == 11 for indices in b.relevant)
    languages = candidate_languages(b)
    for indices, question in zip(b.relevant, b.question_ids, strict=True):
        assert [languages[i] for i in indices] == list(b.languages), question
