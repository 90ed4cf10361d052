"""Queries that are documents, documents that are lacking and ties, against rankings made and scored by hand."""

import gzip
import json
from dataclasses import replace

import numpy as np
import pytest

from hbtrain.errors import DataError
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.judged import Judging, read_judged
from hbtrain.evaluation.own_documents import top_without_own
from hbtrain.evaluation.rankers import ExactRanker, SearchRanker, SpreadRanker
from hbtrain.evaluation.trec_evaluation import evaluate_trec_runs, find_trec_runs
from hbtrain.evaluation.trec_runs import TrecRunWriter
from hbtrain.retrieval.collection_search import SearchOptions
from hbtrain.retrieval.top import Top
from tests.unit.evaluation_samples import only, random_benchmark, scores_by_hand
from tests.unit.judged_samples import beir_of
from tests.unit.retrieval_samples import Hashed

SIZE = 23
BOTH = Judging(ignore_identical_ids=True, allow_missing_documents=True)


class Sample:
    """Documents some of which repeat a text; every other query is a document, and some judged documents are lacking."""

    def __init__(self, folder, grades, seed):
        rng = np.random.default_rng(seed)
        self.folder, self.encoder = folder, Hashed(dimension=4)
        self.documents = {f"d{n}": f"text {n % 15}" for n in range(SIZE)}
        own = {f"d{n}": self.documents[f"d{n}"] for n in rng.choice(SIZE, 6, replace=False)}
        self.queries = own | {f"q{n}": f"question {n}" for n in range(6)}
        self.judged = {}
        for query in self.queries:
            found = [*rng.choice(list(self.documents), rng.integers(1, 4), replace=False), query, "gone", "lost"]
            kept = [x for n, x in enumerate(found) if n == 0 or rng.random() < 0.6]
            judged = [x for x in dict.fromkeys(kept) if x in self.documents or x in ("gone", "lost")]
            self.judged[query] = {str(x): int(rng.integers(1, grades + 1)) for x in judged}
        beir_of(folder / "data" / "sw", self.documents, self.queries, self.judged)

    def benchmark(self, judging=BOTH):
        return read_judged("beir", self.folder / "data", "mine", cache=self.folder / "cache", judging=judging)

    def gains(self, query):
        """What is judged relevant; a document that the corpus lacks is not among the candidates, so never found."""
        return self.judged[query]

    def scores(self, query):
        passages = np.array([self.encoder.vector(text)[0] for text in self.documents.values()])
        return dict(zip(self.documents, passages @ self.encoder.vector(self.queries[query])[0], strict=True))

    def by_hand(self, order):
        """{query: metrics} of the ranking by score, equal ones in an order of ids, without the query's own document."""
        found = {}
        for query in self.queries:
            scores = self.scores(query)
            ranking = sorted(order, key=lambda document, s=scores: -round(float(s[document]), 6))
            found[query] = scores_by_hand([x for x in ranking if x != query], self.gains(query))
        return found

    def tied(self):
        """Relevant candidates with the score of one of another gain."""
        count = 0
        for query, gains in self.judged.items():
            texts = {x: self.documents[x] for x in self.documents if x != query}
            gain = {x: gains.get(x, 0) for x in texts}
            for x in [x for x in gains if x in texts]:
                count += any(texts[y] == texts[x] and gain[y] != gain[x] for y in texts)
        return count


def options(tmp_path, **changes):
    return SearchOptions(rows_per_shard=5, block_rows=5, cache=tmp_path / "vectors", **changes)


RANKERS = {
    "exact": lambda folder: None,
    "blocks": lambda folder: ExactRanker(batch_size=3, block_rows=1),
    "spread": lambda folder: SpreadRanker(options(folder, shards=3)),
    "search": lambda folder: SearchRanker(options(folder), depth=100),
}


@pytest.mark.parametrize("ranker", RANKERS)
@pytest.mark.parametrize(("grades", "seed"), [(1, 0), (1, 1), (3, 2)])
def test_scores_are_those_of_the_ranking_without_the_own_document(tmp_path, ranker, grades, seed):
    sample = Sample(tmp_path, grades, seed)
    found = evaluate(sample.encoder, sample.benchmark(), ranker=RANKERS[ranker](tmp_path))
    wanted = sample.by_hand(list(sample.documents))
    rows = {row["question_id"]: row for row in found.per_query.to_pylist()}
    assert rows.keys() == wanted.keys()
    for query, scores in wanted.items():
        known = {name: x for name, x in scores.items() if ranker != "search" or "@" in name}
        assert {name: rows[query][name] for name in known} == pytest.approx(known), query
    assert found.own_left_out == 6
    assert found.ties["mono"].tied == sample.tied() > 0
    assert found.ties["mono"].relevant == sum(map(len, sample.judged.values()))
    lacking = sum(x not in sample.documents or x == q for q, own in sample.judged.items() for x in own)
    assert found.never_found == lacking > 0
    assert "lacks 2 relevant documents (" in found.notes[0]
    assert found.notes[0].endswith("), counted as never found")
    assert any("mine in sw: 6 own documents left out of the rankings" in note for note in found.notes)
    assert f"({sample.tied()} of {found.ties['mono'].relevant} in mono)" in found.notes[-1]


def test_lists_of_an_index_are_as_deep_as_they_were(tmp_path):
    sample = Sample(tmp_path, 1, 3)
    ranker = SearchRanker(options(tmp_path), depth=10)
    found = evaluate(sample.encoder, sample.benchmark(), ranker=ranker)
    wanted = sample.by_hand(list(sample.documents))
    for row in found.per_query.to_pylist():
        for name in ("recall@1", "recall@10", "mrr@10", "ndcg@10"):
            assert row[name] == pytest.approx(wanted[row["question_id"]][name])
    assert "mine/mono/recall@100" not in found.metrics
    assert found.search["depth"] == 10
    shallow = evaluate(sample.encoder, sample.benchmark(), ranker=SearchRanker(options(tmp_path), depth=9))
    assert "mine/mono/recall@10" not in shallow.metrics  # though lists of ten were asked for


def test_taking_an_own_document_out_leaves_the_others_in_order():
    collection = only(random_benchmark())
    collection = replace(collection, own=np.full(len(collection.question_ids), -1))
    collection.own[:2] = 5, 6
    places = np.tile([7, 8, 9], (len(collection.own), 1))
    places[0], places[1] = [5, 7, 8], [7, 6, 8]
    top = Top(np.tile(np.array([3, 2, 1], np.float32), (len(places), 1)), places)
    found = top_without_own(collection, top, 2)
    assert found.places[:3].tolist() == [[7, 8], [7, 8], [7, 8]]
    assert found.scores[:3].tolist() == [[2, 1], [3, 1], [3, 2]]
    assert top_without_own(collection, top, 3).places[:3].tolist() == [[7, 8, -1], [7, 8, -1], [7, 8, 9]]


@pytest.mark.parametrize(("grades", "seed"), [(1, 0), (3, 2)])
def test_run_files_of_other_systems_are_taken_the_same_way(tmp_path, grades, seed):
    sample = Sample(tmp_path, grades, seed)
    run = tmp_path / "runs" / "mono" / "sw.trec"
    run.parent.mkdir(parents=True)
    lines = [
        f"{query} Q0 {document} 1 {round(float(score), 6)} other\n"
        for query in sample.queries
        for document, score in sample.scores(query).items()
    ]
    run.write_text("".join(lines))
    found = evaluate_trec_runs(sample.benchmark(), find_trec_runs(tmp_path / "runs"))
    wanted = sample.by_hand(sorted(sample.documents, reverse=True))  # trec_eval's order of equal scores
    for row in found.per_query.to_pylist():
        scores = wanted[row["question_id"]]
        assert {name: row[name] for name in scores} == pytest.approx(scores)
    assert found.ties["mono"] == (sample.tied(), sum(map(len, sample.judged.values())))
    assert f"{run}: 6 lines with a query's own document left out" in found.notes
    assert any("by document id backwards" in note for note in found.notes)


def test_the_run_files_of_an_evaluation_score_as_it_did(tmp_path):
    sample = Sample(tmp_path, 3, 4)
    runs = TrecRunWriter(tmp_path / "runs", "hashed", SIZE)
    exact = evaluate(sample.encoder, sample.benchmark(), takers=[runs])
    found = evaluate_trec_runs(sample.benchmark(), find_trec_runs(tmp_path / "runs" / "mine"))
    assert found.metrics == pytest.approx(exact.metrics)
    written = gzip.decompress((tmp_path / "runs" / "mine" / "mono" / "sw.trec.gz").read_bytes()).decode()
    lines = [line.split() for line in written.splitlines()]
    assert len(lines) == 6 * SIZE + 6 * (SIZE - 1)
    assert not [line for line in lines if line[0] == line[2]]


def test_without_options_documents_are_ranked_and_noted_and_lacking_ones_refused(tmp_path):
    sample = Sample(tmp_path, 1, 0)
    with pytest.raises(
        DataError, match=r"2 relevant documents that the corpus lacks \((gone, lost|lost, gone)\).*--allow-missing"
    ):
        only(sample.benchmark(Judging()))
    with pytest.raises(DataError, match="that the corpus lacks"):
        only(sample.benchmark(Judging(ignore_identical_ids=True)))
    plain = only(sample.benchmark(Judging(allow_missing_documents=True)))
    assert plain.own is None
    [_, note] = plain.notes
    first = ", ".join([x for x in plain.question_ids if x in sample.documents][:3])
    assert note.startswith(f"mine in sw: 6 query ids of 12 are a document's id as well ({first}, ...)")
    assert "--ignore-identical-ids" in note


def test_a_query_all_of_whose_documents_are_lacking_scores_zero(tmp_path):
    beir_of(tmp_path / "sw", {"a": "x", "b": "y"}, {"1": "q", "2": "r"}, {"1": {"gone": 1}, "2": {"b": 1}})
    benchmark = read_judged("beir", tmp_path, "mine", cache=tmp_path / "cache", judging=BOTH)
    found = evaluate(Hashed(), benchmark, takers=[TrecRunWriter(tmp_path / "runs", "x", 5)])
    again = evaluate_trec_runs(benchmark, find_trec_runs(tmp_path / "runs" / "mine"))
    for evaluation in (found, again):
        rows = {row["question_id"]: row for row in evaluation.per_query.to_pylist()}
        assert {rows["1"][name] for name in ("map", "mrr", "mrr@10", "recall@1", "recall@100", "ndcg@10")} == {0.0}
        assert rows["2"]["map"] > 0
    assert json.dumps(found.metrics) == json.dumps(again.metrics)
