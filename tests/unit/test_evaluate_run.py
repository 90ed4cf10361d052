import gzip
from dataclasses import replace

import numpy as np
import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Benchmark
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.geometry import PAIR_METRICS
from hbtrain.evaluation.metrics import first_languages, language_bias
from hbtrain.evaluation.scoring import OF_TRANSLATED_QUESTIONS
from hbtrain.evaluation.trec_evaluation import evaluate_trec_runs, find_trec_runs
from hbtrain.evaluation.trec_runs import TrecRunWriter
from tests.unit.evaluation_samples import HashEncoder, only, random_benchmark


def evaluated(folder, depth, benchmark=None):
    benchmark = benchmark or random_benchmark()
    return evaluate(HashEncoder(), benchmark, takers=[TrecRunWriter(folder, "hash", depth)])


def rows(evaluation):
    keys = ("setting", "query_language", "passage_language", "question_id")
    return {tuple(row[key] for key in keys): row for row in evaluation.per_query.to_pylist()}


def test_runs_as_deep_as_the_pool_score_as_the_evaluation_that_wrote_them(tmp_path):
    exact = evaluated(tmp_path, 100)
    files = find_trec_runs(tmp_path / "sample")
    assert set(files) == {(s, x) for s in ("mono", "cross", "multi") for x in ("de", "en", "th")}
    found = evaluate_trec_runs(random_benchmark(), files)
    assert found.per_query.column_names == exact.per_query.column_names
    assert rows(found).keys() == rows(exact).keys()
    of_vectors = {*OF_TRANSLATED_QUESTIONS, *PAIR_METRICS}
    for key, row in rows(exact).items():
        assert rows(found)[key] == pytest.approx(row | dict.fromkeys(OF_TRANSLATED_QUESTIONS), abs=1e-6), key
    known = {key: value for key, value in exact.metrics.items() if key.split("/")[2] not in of_vectors}
    assert found.metrics == pytest.approx(known, abs=1e-6)
    for x, shares in exact.first_languages.items():
        assert found.first_languages[x] == pytest.approx(shares)
    assert found.notes == ()
    assert found.search["map"] == "mAP"


def test_a_run_of_ten_knows_what_ten_can_tell(tmp_path):
    exact = evaluated(tmp_path, 10)
    found = evaluate_trec_runs(random_benchmark(), find_trec_runs(tmp_path / "sample"))
    assert found.search["search"] == "run files of depth 10"
    assert found.search["map"] == "mAP@10"
    assert found.search["run_depth"]["multi/th"] == 10
    for name in ("recall@1", "recall@10", "mrr@10", "ndcg@10", "own_language@10", "language_bias@10"):
        key = f"sample/multi/{name}"
        assert found.metrics[key] == pytest.approx(exact.metrics[key], abs=1e-6)
    assert "sample/multi/recall@100" not in found.metrics
    assert "sample/multi/rank_distance" not in found.metrics
    for key, row in rows(exact).items():
        assert rows(found)[key]["map"] <= row["map"] + 1e-6
    assert found.metrics["sample/multi/map"] < exact.metrics["sample/multi/map"]


def test_ranks_of_all_answers_are_known_in_every_language_or_in_none(tmp_path):
    """A mean over the languages whose answers were all found would be that of the easier ones."""
    evaluated(tmp_path, 100)
    file = tmp_path / "sample" / "multi" / "de.trec.gz"
    lines = gzip.decompress(file.read_bytes()).decode().splitlines()
    file.write_bytes(gzip.compress("".join(f"{x}\n" for x in lines if int(x.split()[3]) <= 10).encode()))
    found = evaluate_trec_runs(random_benchmark(), find_trec_runs(tmp_path / "sample"))
    assert not [key for key in found.metrics if key.split("/")[2] in ("rank_distance", "worst_rank", "own_first")]
    assert "sample/multi/own_language@10" in found.metrics


def test_a_collection_is_opened_once_for_all_run_files(tmp_path):
    evaluated(tmp_path, 3)
    benchmark, opened = random_benchmark(), []
    counted = [lambda one=one: opened.append(1) or one() for one in benchmark.openers]
    evaluate_trec_runs(replace(benchmark, openers=tuple(counted)), find_trec_runs(tmp_path / "sample"))
    assert len(opened) == len(benchmark.openers)


def test_runs_are_replaced_not_added_to(tmp_path):
    evaluated(tmp_path, 3)
    evaluated(tmp_path, 3)
    assert (
        evaluate_trec_runs(random_benchmark(), find_trec_runs(tmp_path / "sample")).search["run_depth"]["mono/en"] == 3
    )


def test_ids_with_blanks_and_graded_gains(tmp_path):
    collection = only(random_benchmark(("en",)))
    rng = np.random.default_rng(0)
    relevant = [np.sort(rng.choice(len(collection.candidate_ids), 3, replace=False)) for _ in collection.relevant]
    collection = replace(
        collection,
        relevant=relevant,
        gains=[rng.integers(1, 4, 3).astype(float) for _ in relevant],
        question_ids=[f"a 100% {x}" for x in collection.question_ids],
        candidate_ids=[f"b\t{x}/c" for x in collection.candidate_ids],
    )
    benchmark = Benchmark.of("blanks", "passage", collection)
    exact = evaluated(tmp_path, 100, benchmark)
    found = evaluate_trec_runs(benchmark, find_trec_runs(tmp_path / "blanks"))
    assert found.metrics == pytest.approx(exact.metrics, abs=1e-6)
    assert rows(found).keys() == rows(exact).keys()


def test_queries_without_lines_score_nothing_and_this_is_said(tmp_path):
    benchmark = random_benchmark()
    question = only(benchmark).question_ids[0]
    path = tmp_path / "mono" / "de.run"
    path.parent.mkdir()
    c = only(benchmark)
    path.write_text(f"{question} Q0 {c.candidate_ids[c.relevant[0][0]]} 1 2.5 other\n")
    found = evaluate_trec_runs(benchmark, find_trec_runs(tmp_path), trained_languages=["de"])
    assert found.metrics["sample/mono/map"] == pytest.approx(1 / c.query_languages.count("de"))
    assert found.notes == (
        "no run file for mono in en, th: not in the means",
        f"{path}: no line for {c.query_languages.count('de') - 1} queries; they score 0",
    )
    assert found.groups == {"seen": ("de",), "unseen": ("en", "th")}


def test_what_does_not_fit_the_benchmark_is_refused(tmp_path):
    benchmark = random_benchmark()
    with pytest.raises(DataError, match="no run file in"):
        find_trec_runs(tmp_path)
    with pytest.raises(DataError, match="no setting mono for queries in fr"):
        evaluate_trec_runs(benchmark, {("mono", "fr"): tmp_path / "fr.trec"})
    with pytest.raises(DataError, match="no run file given"):
        evaluate_trec_runs(benchmark, {})
    (tmp_path / "mono").mkdir()
    for name in ("en.trec", "en.trec.gz"):
        (tmp_path / "mono" / name).touch()
    with pytest.raises(DataError, match=r"en\.trec and .*en\.trec\.gz are run files of the same queries"):
        find_trec_runs(tmp_path)
    path = tmp_path / "de.trec"
    path.write_text("nobody Q0 de/0 1 1 x\n")
    with pytest.raises(DataError, match=r"de.trec: 1 of 1 query ids are not in benchmark sample, such as 'nobody'"):
        evaluate_trec_runs(benchmark, {("multi", "de"): path})
    path.write_text("q0 Q0 de/999 1 1 x\n")
    with pytest.raises(DataError, match=r"de.trec: 1 of 1 lines name documents .*such as 'de/999'"):
        evaluate_trec_runs(benchmark, {("multi", "de"): path})


def test_shares_and_bias_worked_out_by_hand():
    # Languages of 2, 0 and 6 candidates.
    places = np.array([[0, 1, -1, -1], [7, 0, 3, 2]])
    shares = first_languages(places, [2, 0, 6])
    assert shares.tolist() == [[1, 0, 0], [0.25, 0, 0.75]]
    assert language_bias(shares, [2, 0, 6]).tolist() == [0.75, 0]
    deep = np.arange(12)[None]
    assert first_languages(deep, [5, 7]).tolist() == [[0.5, 0.5]]
