"""Sets in mteb's layout whose languages have the same questions: one pool where ids agree, else one by one."""

import numpy as np
import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmarks import load_benchmark, parse_benchmark
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.judged import Judging
from tests.unit.evaluation_samples import HashEncoder, only
from tests.unit.judged_samples import DOCUMENTS, QRELS, mteb, parquet, shard

LANGUAGES = ("en", "fi", "pl")


@pytest.fixture
def folder(tmp_path):
    """The same set in three languages, whose corpora stand in different order."""
    for language in LANGUAGES:
        mteb(tmp_path / "set", language, start=f"{language} ")
    first = tmp_path / "set" / "fi-corpus" / shard("test", 0, 2)
    parquet(first, [{"_id": x, "title": a, "text": f"fi {b}"} for x, a, b in reversed(DOCUMENTS[:2])])
    return tmp_path / "set"


def load(folder, languages=None, judging=None):
    spec = parse_benchmark(f"mteb-parallel={folder}")
    assert spec.name == "set"
    return load_benchmark(spec, languages, cache=str(folder.parent / "cache"), judging=judging or Judging())


def test_one_pool_of_all_languages(folder):
    b = load(folder)
    assert (b.settings, b.languages, b.parallel) == (("mono", "cross", "multi"), LANGUAGES, True)
    c = only(b)
    assert c.candidate_counts == dict.fromkeys(LANGUAGES, 3)
    assert c.query_counts == dict.fromkeys(LANGUAGES, 2)
    for question, language, text, places in zip(
        c.question_ids, c.query_languages, c.query_texts, c.relevant, strict=True
    ):
        answers = {d for q, d, grade in QRELS if q == question and grade}
        assert {c.candidate_ids[at] for at in places} == {f"{x}/{d}" for x in LANGUAGES for d in answers}
        assert places.tolist() == sorted(places.tolist())
        assert text.startswith(language)
        assert all(c.candidate_texts[at].split()[1] == c.candidate_ids[at][:2] for at in places)
    assert (c.left_out, c.gains, c.unasked["pl"]) == (3, None, ["3", "9"])
    cells = evaluate(HashEncoder(), b).cells
    assert len([cell for cell in cells if cell.setting == "cross"]) == 6
    assert load(folder, ["pl", "en"]).languages == ("pl", "en")


def test_grades_go_along(folder):
    judged = [{"query-id": "1", "corpus-id": x, "score": grade} for x, grade in (("10#0", 3), ("11#0", 1))]
    for language in LANGUAGES:
        parquet(folder / f"{language}-qrels" / shard("test"), judged)
    c = only(load(folder))
    for places, gains in zip(c.relevant, c.gains, strict=True):
        grades = {c.candidate_ids[at][3:]: gain for at, gain in zip(places, gains, strict=True)}
        assert grades == {"10#0": 3.0, "11#0": 1.0}


def other_question(folder):
    parquet(folder / "pl-queries" / shard("test"), [{"_id": x, "text": "?"} for x in "1234"])
    judged = [{"query-id": x, "corpus-id": "10#0", "score": 1} for x in "14"]
    parquet(folder / "pl-qrels" / shard("test"), judged)
    return "the ids of questions in en and pl differ"


def other_document(folder):
    parquet(folder / "fi-corpus" / shard("test", 0, 2), [{"_id": x, "text": "x"} for x in ("10#0", "10#1", "new")])
    return "the ids of documents in en and fi differ"


def other_judgement(folder):
    judged = [{"query-id": x, "corpus-id": "10#0", "score": 1} for x in "12"]
    parquet(folder / "fi-qrels" / shard("test"), judged)
    return "the judgements in en and fi differ"


@pytest.mark.parametrize("change", [other_question, other_document, other_judgement])
def test_languages_that_are_not_one_set_are_asked_one_by_one(folder, change):
    words = change(folder)
    b = load(folder)
    assert (b.settings, b.languages, b.parallel) == (("mono",), LANGUAGES, False)
    found = evaluate(HashEncoder(), b)
    assert found.notes[0] == f"set: each language is asked by itself, since {words}"
    assert sum("by itself" in note for note in found.notes) == 1
    assert {cell.passage_language for cell in found.cells} == set(LANGUAGES)


def test_candidates_that_are_left_out_are_not_pooled(folder):
    for language in LANGUAGES:
        parquet(folder / f"{language}-queries" / shard("test"), [{"_id": x, "text": "?"} for x in ("10#0", "1")])
        judged = [
            {"query-id": x, "corpus-id": d, "score": 1} for x, d in (("10#0", "10#1"), ("1", "gone"), ("1", "10#1"))
        ]
        parquet(folder / f"{language}-qrels" / shard("test"), judged)
    with pytest.raises(DataError, match=r"the corpus lacks \(gone\)"):
        load(folder)
    for judging, words in (
        (Judging(allow_missing_documents=True), "has relevant candidates that are never found"),
        (Judging(ignore_identical_ids=True, allow_missing_documents=True), "never found"),
    ):
        assert words in next(load(folder, judging=judging).collections()).notes[0]
    assert np.isfinite(list(evaluate(HashEncoder(), load(folder, judging=judging)).metrics.values())).all()
