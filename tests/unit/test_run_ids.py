"""Run files of other systems: ids as they stand, ids that do not fit, topics that are not asked."""

import numpy as np
import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.judged import read_judged
from hbtrain.evaluation.trec_evaluation import evaluate_trec_runs, find_trec_runs
from hbtrain.evaluation.trec_ids import find_written
from hbtrain.evaluation.trec_runs import TrecRunWriter
from tests.unit.evaluation_samples import HashEncoder, only, random_benchmark, scores_by_hand
from tests.unit.judged_samples import beir_of

DOCUMENTS = {"50%": "a", "x%20y": "b", "100%25": "c", "plain": "d", "%": "e", "Ünï/1": "f"}
QUERIES = {"q%1": "first", "q2": "second", "q3": "nothing is relevant", "other": "of another split"}
JUDGED = {"q%1": {"x%20y": 1, "100%25": 2}, "q2": {"50%": 1, "plain": 0}, "q3": {"plain": 0}}


def benchmark(folder, languages=("de", "en")):
    for language in languages:
        beir_of(folder / "data" / language, DOCUMENTS, QUERIES, JUDGED)
    return read_judged("beir", folder / "data", "mine", cache=folder / "cache")


def run(folder, lists, languages=("de", "en")):
    """Run files {query: documents, best first}, the same for every language."""
    for language in languages:
        path = folder / "runs" / "mono" / f"{language}.trec"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [f"{q} Q0 {d} 1 {-n} other\n" for q, documents in lists.items() for n, d in enumerate(documents)]
        path.write_text("".join(rows), encoding="utf-8")
    return find_trec_runs(folder / "runs")


def scores(evaluation, language="de"):
    rows = evaluation.per_query.to_pylist()
    return {row["question_id"]: row for row in rows if row["query_language"] == language}


@pytest.mark.parametrize("languages", [("en",), ("de", "en")])
def test_ids_with_percent_signs_are_taken_as_they_stand(tmp_path, languages):
    lists = {"q%1": ["plain", "100%25", "%", "x%20y"], "q2": ["50%", "Ünï/1"]}
    found = evaluate_trec_runs(benchmark(tmp_path, languages), run(tmp_path, lists, languages))
    for query, gains in (("q%1", {"x%20y": 1, "100%25": 2}), ("q2", {"50%": 1})):
        wanted = scores_by_hand(lists[query], gains)
        row = scores(found, languages[0])[query]
        assert row["map"] == pytest.approx(wanted["map"])
        assert row["mrr"] == pytest.approx(wanted["mrr"])
    assert found.notes == ()


def test_ids_that_are_the_escaped_form_of_others_survive_our_own_files(tmp_path):
    texts = {"a b": "one", "a%20b": "two", "a%2520b": "three", "c": "four"}
    beir_of(tmp_path / "data" / "en", texts, {"q 1": "x", "q%201": "y"}, {"q 1": {"a b": 1}, "q%201": {"a%20b": 1}})
    ours = read_judged("beir", tmp_path / "data", "mine", cache=tmp_path / "cache")
    exact = evaluate(HashEncoder(), ours, takers=[TrecRunWriter(tmp_path, "hash", 9)])
    found = evaluate_trec_runs(ours, find_trec_runs(tmp_path / "mine"))
    assert {q: row["map"] for q, row in scores(found, "en").items()} == pytest.approx(
        {q: row["map"] for q, row in scores(exact, "en").items()}
    )
    assert found.notes == ()


def test_a_file_is_ours_if_an_id_is_known_only_unescaped():
    known = {"a%20b": 0, "a b": 1, "c%": 2}

    def find(ids):
        return np.array([known.get(x, -1) for x in ids])

    assert find_written(["a%20b", "c%", "no"], find).tolist() == [0, 2, -1]
    assert find_written(["a%20b", "c%25"], find).tolist() == [1, 2]
    assert find_written(["a%2520b", "a%20b"], find).tolist() == [0, 1]


def test_topics_that_are_not_asked_are_left_out_and_counted(tmp_path):
    lists = {"q%1": ["x%20y"], "q2": ["50%"], "q3": ["plain"], "other": ["plain", "%"]}
    found = evaluate_trec_runs(benchmark(tmp_path, ["en"]), run(tmp_path, lists, ["en"]))
    assert found.metrics["mine/mono/map"] == pytest.approx((0.5 + 1) / 2)
    assert [note.partition(": ")[2] for note in found.notes] == ["2 topics without relevant candidates left out"]
    assert found.search["run_depth"] == {"mono/en": 1}, "lists of other topics do not count"


def test_topics_that_the_system_left_out_score_zero(tmp_path):
    found = evaluate_trec_runs(benchmark(tmp_path, ["en"]), run(tmp_path, {"q2": ["50%"]}, ["en"]))
    assert found.metrics["mine/mono/map"] == pytest.approx((0 + 1) / 2)
    assert [note.partition(": ")[2] for note in found.notes] == ["no line for 1 queries; they score 0"]


def test_some_unknown_ids_are_counted_and_keep_their_ranks(tmp_path):
    lists = {"q%1": ["gone", "x%20y", "100%25"], "q2": ["lost", "50%"], "q9": ["plain"]}
    found = evaluate_trec_runs(benchmark(tmp_path), run(tmp_path, lists))
    wanted = [scores_by_hand(lists["q%1"], {"x%20y": 1, "100%25": 2}), scores_by_hand(lists["q2"], {"50%": 1})]
    assert found.metrics["mine/mono/map"] == pytest.approx(np.mean([x["map"] for x in wanted]))
    assert [note.partition(": ")[2] for note in found.notes] == 2 * [
        "1 query id not in the benchmark, such as 'q9'; left out",
        "2 of 5 lines name documents that are not among the candidates, such as 'gone'; they keep their ranks and "
        "count as not relevant",
    ]


@pytest.mark.parametrize("languages", [("en",), ("de", "en")])
@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"q2": ["gone", "lost", "50%"]}, "en.trec|de.trec: 2 of 3 lines name documents .* such as 'gone'"),
        ({"q8": ["50%"], "q9": ["%"], "q2": ["%"]}, "2 of 3 query ids are not in benchmark mine, such as 'q8'"),
        ({"q3": ["plain"], "other": ["%"]}, "none of its queries, such as 'q3', has a relevant candidate"),
    ],
)
def test_files_most_of_which_do_not_fit_are_refused(tmp_path, languages, lists, message):
    with pytest.raises(DataError, match=message):
        evaluate_trec_runs(benchmark(tmp_path, languages), run(tmp_path, lists, languages))


def test_one_document_under_two_spellings_is_refused(tmp_path):
    # %25 is the escaped form of %, which the file must be in, as 50%25 is known only so.
    lists = {"q2": ["50%25", "50%"]}
    with pytest.raises(DataError, match=r"query 'q2': document is there twice, as '50%25' and as '50%'"):
        evaluate_trec_runs(benchmark(tmp_path, ["en"]), run(tmp_path, lists, ["en"]))


def test_candidates_of_another_language_do_not_fit_a_setting(tmp_path):
    sample = random_benchmark()
    evaluate(HashEncoder(), sample, takers=[TrecRunWriter(tmp_path, "hash", 5)])
    collection = only(sample)
    question = collection.question_ids[0]
    german, english = ([x for x in collection.candidate_ids if x.startswith(y)] for y in ("de/", "en/"))
    path = tmp_path / "de.trec"
    path.write_text("".join(f"{question} Q0 {x} 1 {-n} x\n" for n, x in enumerate(english[:3])))
    with pytest.raises(DataError, match="3 of 3 lines name documents that are not among the candidates of benchmark"):
        evaluate_trec_runs(sample, {("mono", "de"): path})
    path.write_text("".join(f"{question} Q0 {x} 1 {-n} x\n" for n, x in enumerate([*english[:2], *german[:2]])))
    assert any("2 of 4 lines" in note for note in evaluate_trec_runs(sample, {("mono", "de"): path}).notes)


def test_one_file_may_answer_several_collections(tmp_path):
    """As in Tatoeba, where English is asked of every other language."""
    for language in ("de", "fr", "th"):
        for side in (language, "en"):
            path = tmp_path / "data" / f"tatoeba.{language}-en.{side}"
            path.parent.mkdir(exist_ok=True)
            path.write_text("".join(f"{language}-{side} sentence {n}\n" for n in range(6)))
    [sample] = load_benchmarks([f"tatoeba={tmp_path / 'data'}"])
    exact = evaluate(HashEncoder(), sample, takers=[TrecRunWriter(tmp_path, "hash", 6)])
    files = find_trec_runs(tmp_path / "tatoeba")
    assert set(files) == {("cross", language) for language in ("de", "en", "fr", "th")}
    found = evaluate_trec_runs(sample, files)
    assert found.notes == ()
    assert found.metrics == pytest.approx(exact.metrics)
    path = tmp_path / "en.trec"
    path.write_text("".join(f"de-en/{n}/de Q0 fr/fr-en/{n} 1 1 x\n" for n in range(6)))
    with pytest.raises(DataError, match=r"6 of 6 lines name documents that are not .* such as 'fr/fr-en/0'"):
        evaluate_trec_runs(sample, {("cross", "en"): path})
