"""Belebele: a file a language, passages shared by questions, the same questions in all languages."""

import json

import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmarks import benchmark_files, load_benchmark, parse_benchmark
from hbtrain.evaluation.evaluate import evaluate
from tests.unit.evaluation_samples import HashEncoder, only
from tests.unit.judged_samples import json_lines, parquet, shard, write

CODES = ("deu_Latn", "hin_Deva", "hin_Latn", "yor_Latn", "zho_Hans")


def records(code, links=("a", "b", "c")):
    """Two questions on each passage, one on the last."""
    asked = [(link, number) for link in links for number in (1, 2)][:-1]
    return [
        {
            "link": f"https://x.org/{link}",
            "question_number": number,
            "flores_passage": f"passage {link} in {code}",
            "question": f"{link}{number} in {code}?",
            "mc_answer1": "yes",
            "correct_answer_num": "1",
            "dialect": code,
            "ds": "2023-05-03",
        }
        for link, number in asked
    ]


@pytest.fixture
def folder(tmp_path):
    for code in CODES:
        json_lines(tmp_path / "data" / f"{code}.jsonl", records(code))
    return tmp_path


def load(folder, languages=None):
    return load_benchmark(parse_benchmark(f"belebele={folder}"), languages)


def refused(folder, languages=None):
    with pytest.raises(DataError) as caught:
        load(folder, languages)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_question_in_every_language_is_asked_of_all(folder):
    b = load(folder)
    assert (b.name, b.candidates_kind, b.settings) == ("belebele", "passage", ("mono", "cross", "multi"))
    assert b.languages == ("de", "hi-Deva", "hi-Latn", "yo", "zh-Hans")
    c = only(b)
    assert c.candidate_counts == dict.fromkeys(b.languages, 3)
    assert c.query_counts == dict.fromkeys(b.languages, 5)
    for question, text, places in zip(c.question_ids, c.query_texts, c.relevant, strict=True):
        link = question.split("/")[-1].split("#")[0]
        assert text.startswith(link)
        assert [c.candidate_texts[at] for at in places] == [f"passage {link} in {code}" for code in CODES]
    assert c.notes == ()
    assert len(evaluate(HashEncoder(), b).cells) == 5 * 5 + 5
    assert len(benchmark_files(parse_benchmark(f"belebele={folder}"))) == 5


def test_languages_by_any_of_their_codes(folder):
    assert load(folder, ["zho_Hans", "de", "hi-Latn"]).languages == ("zh-Hans", "de", "hi-Latn")
    assert load(folder, ["zh", "hi"]).languages == ("zh-Hans", "hi-Deva")
    assert "'sw' is not in benchmark belebele" in refused(folder, ["sw"])


def test_trained_languages_are_seen_but_for_those_in_latin_letters(folder):
    found = evaluate(HashEncoder(), load(folder), trained_languages=["hi", "zh"])
    assert found.groups["seen"] == ("hi-Deva", "zh-Hans")


def test_a_configuration_a_code_and_a_column_split(tmp_path):
    for code in CODES[:2]:
        rows = [one | {"split": split} for split in ("dev", "test") for one in records(code)]
        parquet(tmp_path / code / shard("test"), rows)
    c = only(load(tmp_path))
    assert c.query_counts == {"de": 10, "hi-Deva": 10}
    (tmp_path / CODES[0] / shard("test")).rename(tmp_path / CODES[0] / shard("test", 0, 2))
    assert "is one of 2 files, and" in refused(tmp_path)


def test_a_file_that_lacks_questions_is_told(folder):
    json_lines(folder / "data" / "yor_Latn.jsonl", records("yor_Latn", ("a", "b")))
    (note,) = evaluate(HashEncoder(), load(folder)).notes[:1]
    assert note == "belebele: 1 of 5 languages lack some of the 5 questions, yo most (2); are their files whole?"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"link": None}, "line 6: not a question: link and question_number are expected"),
        ({"question": " "}, "line 6: not a question: question and flores_passage must be texts"),
        ({"flores_passage": "\ud800"}, "line 6: not a question: question and flores_passage must be texts"),
        ({"question_number": 1}, "line 6: question 'https://x.org/a#1' occurs twice"),
    ],
)
def test_refuses(folder, change, words):
    file = folder / "data" / "deu_Latn.jsonl"
    with file.open("a") as stream:
        stream.write(json.dumps(records("deu_Latn")[0] | {"question_number": 3} | change) + "\n")
    assert words in refused(folder)


def test_refuses_what_is_not_belebele(folder, tmp_path_factory):
    assert "holds no Belebele: files such as data/deu_Latn.jsonl" in refused(tmp_path_factory.mktemp("empty"))
    write(folder / "data" / "deu_Latn.jsonl", "")
    assert "deu_Latn.jsonl holds no questions" in refused(folder)
    json_lines(folder / "data" / "deu_Latn.jsonl.gz", records("deu_Latn"))
    assert "are for de; leave one out" in refused(folder)
