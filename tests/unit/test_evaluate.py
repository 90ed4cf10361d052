from dataclasses import replace

import numpy as np
import pytest
import pytrec_eval
from scipy.stats import chi2, spearmanr

from hbtrain.errors import ModelError
from hbtrain.evaluation import scoring
from hbtrain.evaluation.benchmark import Benchmark
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.geometry import PAIR_METRICS
from hbtrain.evaluation.judged import Judging, read_judged
from hbtrain.evaluation.summary import POOL_METRICS, SETTINGS
from tests.unit.evaluation_samples import HashEncoder, candidate_languages, only, random_benchmark
from tests.unit.judged_samples import beir_of

TREC = {
    "map": "map",
    "recall@1": "recall_1",
    "recall@10": "recall_10",
    "recall@100": "recall_100",
    "mrr": "recip_rank",
    "ndcg@10": "ndcg_cut_10",
}
KEYS = ["benchmark", "setting", "query_language", "passage_language", "question_id"]
METRICS = {*TREC, "mrr@10", *POOL_METRICS}


def bias(first, pool):
    return sum(abs((first == x).mean() - (pool == x).mean()) for x in set(pool.tolist())) / 2


def by_hand(benchmark, encoder):
    """{(setting, query language, passage language, question id): scores} by full sorts and trec_eval."""
    c = only(benchmark)
    p = np.array([encoder.vector(text) for text in c.candidate_texts])
    languages = np.array(candidate_languages(c))
    found = {}
    for i, (question, x, text) in enumerate(zip(c.question_ids, c.query_languages, c.query_texts, strict=True)):
        # Copies of a text tie; other scores are far enough apart for any rounding.
        scores = np.round((p.astype(np.float64) @ encoder.vector(text)).astype(np.float64), 9)
        for y in [*benchmark.languages, "all"]:
            pool = np.flatnonzero((languages == y) | (y == "all"))
            relevant = set(c.relevant[i].tolist()) & set(pool.tolist())
            if not relevant:
                continue
            order = pool[np.argsort(-scores[pool], kind="stable")].tolist()
            evaluator = pytrec_eval.RelevanceEvaluator(
                {"q": {str(c): int(c in relevant) for c in order}},
                {"map", "recip_rank", "recall.1,10,100", "ndcg_cut.10"},
            )
            trec = evaluator.evaluate({"q": {str(c): float(-place) for place, c in enumerate(order)}})["q"]
            places = sorted(order.index(c) for c in relevant)
            setting = "multi" if y == "all" else "mono" if x == y else "cross"
            found[setting, x, y, question] = {
                **{name: trec[measure] for name, measure in TREC.items()},
                "mrr@10": trec["recip_rank"] if places[0] < 10 else 0.0,
                **dict.fromkeys(POOL_METRICS),
            }
            if y == "all":
                found[setting, x, y, question] |= {
                    "rank_distance": places[-1] - places[0] if len(places) > 1 else None,
                    "worst_rank": places[-1] + 1,
                    "own_language@10": (languages[order[:10]] == x).mean(),
                    "language_bias@10": bias(languages[order[:10]], languages),
                    **preference_by_hand(x, {languages[c]: order.index(c) + 1 for c in relevant}),
                    **{
                        f"first_{r}relevant_{o}": float(
                            (order[0] in relevant) == (not r) and (languages[order[0]] == x) == (o == "own")
                        )
                        for r in ("", "ir")
                        for o in ("own", "other")
                    },
                    "peer@10": peer_by_hand(order, relevant, languages),
                    **translations_by_hand(c, p, i, encoder),
                }
    return found


def preference_by_hand(own, ranks):
    """Of one relevant candidate a language: {language: rank}."""
    others = [rank for language, rank in ranks.items() if language != own]
    gains = {rank: 1.0 if language == own else 0.5 for language, rank in ranks.items()}
    gained = sum(gain / np.log2(1 + rank) for rank, gain in gains.items() if rank <= 10)
    ideal = sum(gain / np.log2(2 + place) for place, gain in enumerate(sorted(gains.values(), reverse=True)[:10]))
    compared = own in ranks and others
    return {
        "own_first": float(all(ranks[own] < rank for rank in others)) if compared else None,
        "own_before": np.mean([ranks[own] < rank for rank in others]) if compared else None,
        "lang_ndcg@10": gained / ideal if own in ranks else None,
    }


def peer_by_hand(order, relevant, languages):
    """The mean p-value of the two levels, by the sums of the Kruskal-Wallis test as they are written."""
    values = []
    for level in (True, False):
        found = [(rank, languages[c]) for rank, c in enumerate(order[:10], 1) if (c in relevant) == level]
        late = [languages[c] for c in relevant if c not in order[:10]] if level else []
        n, u = len(found) + len(late), len(late)
        ranks = found + [((2 * n + u + 1) / 2, language) for language in late]
        groups = [[rank for rank, language in ranks if language == x] for x in {x for _, x in ranks}]
        spread = sum((rank - np.mean([r for r, _ in ranks])) ** 2 for rank, _ in ranks) if found else 0
        if len(groups) < 2 or not spread:
            values.append(1.0)
            continue
        between = sum(len(g) * (np.mean(g) - np.mean([r for r, _ in ranks])) ** 2 for g in groups)
        values.append(chi2.sf((n - 1) * between / spread, len(groups) - 1))
    return np.mean(values)


def translations_by_hand(c, p, i, encoder):
    others = [j for j, question in enumerate(c.question_ids) if question == c.question_ids[i] and j != i]
    q = {j: encoder.vector(c.query_texts[j]).astype(np.float64) for j in [i, *others]}
    # Copies of a text tie, and rank in the order of the pool.
    order = {j: np.argsort(np.argsort(-np.round(p.astype(np.float64) @ v, 9), kind="stable")) for j, v in q.items()}
    return {
        "rank_correlation": np.mean([spearmanr(order[i], order[j]).statistic for j in others]) if others else None,
        "query_alignment": np.mean([((q[i] - q[j]) ** 2).sum() for j in others]) if others else None,
    }


@pytest.fixture(scope="module")
def benchmark():
    return random_benchmark()


@pytest.fixture(scope="module")
def expected(benchmark):
    return by_hand(benchmark, HashEncoder())


@pytest.fixture(scope="module")
def evaluation(benchmark):
    return evaluate(HashEncoder(), benchmark)


def test_every_query_scores_as_by_full_sorts_and_trec_eval(evaluation, expected):
    columns = evaluation.per_query.column_names
    assert columns[:5] == KEYS
    assert set(columns[5:-1]) == METRICS
    assert columns[-1] == "domain"
    rows = {
        (row["setting"], row["query_language"], row["passage_language"], row["question_id"]): row
        for row in evaluation.per_query.to_pylist()
    }
    assert len(rows) == evaluation.per_query.num_rows
    assert rows.keys() == expected.keys()
    for key, scores in expected.items():
        assert rows[key]["benchmark"] == "sample"
        for name, value in scores.items():
            assert rows[key][name] == (None if value is None else pytest.approx(value, abs=1e-6)), (key, name)


def test_means_are_over_queries_then_over_languages_or_pairs(evaluation, expected, benchmark):
    wanted = {}
    for name in METRICS:
        for setting in ["multi"] if name in POOL_METRICS else SETTINGS:
            cells = {}
            for (s, x, y, _), scores in expected.items():
                if s == setting and scores[name] is not None:
                    cells.setdefault((x, y), []).append(scores[name])
            means = {pair: sum(values) / len(values) for pair, values in cells.items()}
            wanted[f"sample/{setting}/{name}"] = sum(means.values()) / len(means)
            for language in benchmark.languages:
                own = [mean for (x, _), mean in means.items() if x == language]
                if own:
                    wanted[f"sample/{setting}/{name}/{language}"] = sum(own) / len(own)
    of_queries = {key: value for key, value in evaluation.metrics.items() if key.split("/")[2] not in PAIR_METRICS}
    assert of_queries == pytest.approx(wanted, abs=1e-6)
    assert len(of_queries) == (3 * 7 + len(POOL_METRICS)) * 4
    assert len(evaluation.metrics) == len(of_queries) + len(PAIR_METRICS) * 4


def test_pair_map_is_query_language_by_passage_language(evaluation, expected, benchmark):
    for i, x in enumerate(benchmark.languages):
        for j, y in enumerate(benchmark.languages):
            values = [s["map"] for (_, a, b, _), s in expected.items() if (a, b) == (x, y)]
            assert evaluation.pair_map[i, j] == pytest.approx(np.mean(values), abs=1e-6)
    assert not np.allclose(evaluation.pair_map, evaluation.pair_map.T)
    assert np.mean(np.diag(evaluation.pair_map)) == pytest.approx(evaluation.metrics["sample/mono/map"])


def test_languages_of_the_first_ten_add_up_and_agree_with_the_queries(evaluation, benchmark):
    assert list(evaluation.first_languages) == list(benchmark.languages)
    for asked, shares in evaluation.first_languages.items():
        assert list(shares) == list(benchmark.languages)
        assert sum(shares.values()) == pytest.approx(1)
        assert shares[asked] == pytest.approx(evaluation.metrics[f"sample/multi/own_language@10/{asked}"])


def test_counts_and_kind(evaluation, benchmark):
    assert evaluation.languages == ("de", "en", "th")
    assert evaluation.candidates_kind == "sentence"
    c = only(benchmark)
    assert evaluation.query_counts == {x: c.query_languages.count(x) for x in benchmark.languages}
    assert evaluation.candidate_counts == {x: candidate_languages(c).count(x) for x in benchmark.languages}


def test_block_rows_change_nothing():
    benchmark = random_benchmark(questions=90)
    one, other = (evaluate(HashEncoder(), benchmark, block_rows=rows) for rows in (1, 1000))
    assert len(only(benchmark).question_ids) > 128
    assert one.metrics == other.metrics
    assert one.per_query.equals(other.per_query)


def test_one_language_leaves_cross_out_and_multi_equals_mono():
    evaluation = evaluate(HashEncoder(), random_benchmark(("en",)))
    assert not [key for key in evaluation.metrics if "/cross/" in key]
    for name in TREC:
        assert evaluation.metrics[f"sample/mono/{name}"] == evaluation.metrics[f"sample/multi/{name}"]
    assert "sample/multi/rank_distance" not in evaluation.metrics, "one candidate has no distance"
    assert evaluation.pair_map.shape == (1, 1)


def test_a_language_without_candidates_or_queries_has_no_keys_of_its_own():
    b = only(random_benchmark())
    keep = [i for i, language in enumerate(b.query_languages) if language != "de"]
    fields = {name: [getattr(b, name)[i] for i in keep] for name in ("question_ids", "query_languages", "query_texts")}
    without = replace(b, **fields, relevant=[b.relevant[i] for i in keep])
    evaluation = evaluate(HashEncoder(), Benchmark.of("sample", "sentence", without))
    assert np.isnan(evaluation.pair_map[0]).all()
    assert not np.isnan(evaluation.pair_map[1:]).any()
    # It has passages, whose vectors are compared.
    assert {key.split("/")[2].split("_")[0] for key in evaluation.metrics if key.endswith("/de")} == {"passage"}
    assert evaluation.metrics["sample/cross/map"] == pytest.approx(
        np.mean([evaluation.pair_map[i, j] for i, j in ((1, 0), (1, 2), (2, 0), (2, 1))])
    )


def test_a_repeated_text_is_encoded_once_and_progress_is_told():
    encoder, told = HashEncoder(), []
    b = only(random_benchmark())
    evaluate(encoder, random_benchmark(), batch_size=7, progress=lambda *state: told.append(state))
    (query, queries, size), (passage, passages, _) = encoder.asked
    assert (query, passage, size) == ("query", "passage", 7)
    assert len(b.candidate_texts) > len(passages) == len(set(b.candidate_texts))
    assert told == [("query", len(queries), len(queries)), ("passage", len(passages), len(passages))]


def test_encoders_that_go_wrong():
    class Short(HashEncoder):
        def encode(self, texts, side, batch_size=128, progress=None):
            return super().encode(texts, side)[1:]

    class Broken(HashEncoder):
        def encode(self, texts, side, batch_size=128, progress=None):
            return super().encode(texts, side) * np.nan

    with pytest.raises(ModelError, match="not one vector each"):
        evaluate(Short(), random_benchmark())
    with pytest.raises(ModelError, match="NaN"):
        evaluate(Broken(), random_benchmark())


@pytest.mark.parametrize("pairs", [1, 5, 40])
def test_scores_do_not_depend_on_how_many_queries_are_scored_at_one_time(monkeypatch, pairs):
    whole = evaluate(HashEncoder(), random_benchmark(questions=15))
    monkeypatch.setattr(scoring, "BLOCK_PAIRS", pairs)
    parts = evaluate(HashEncoder(), random_benchmark(questions=15))
    assert parts.per_query.combine_chunks() == whole.per_query.combine_chunks()
    assert (parts.ties, parts.metrics, parts.cells) == (whole.ties, whole.metrics, whole.cells)


def test_blocks_of_queries_some_of_whose_documents_are_never_found(tmp_path, monkeypatch):
    judged = {str(q): {str(d): 1 + (q + d) % 2 for d in range(q, 3 * q + 2)} for q in range(9)}
    beir_of(tmp_path, {str(d): f"text {d}" for d in range(12)}, {x: f"asked {x}" for x in judged}, judged)
    judging = Judging(ignore_identical_ids=True, allow_missing_documents=True)
    b = read_judged("beir", tmp_path, "mine", ["sw"], cache=tmp_path / "cache", judging=judging)
    whole = evaluate(HashEncoder(), b)
    assert whole.never_found
    monkeypatch.setattr(scoring, "BLOCK_PAIRS", 7)
    assert evaluate(HashEncoder(), b).per_query.combine_chunks() == whole.per_query.combine_chunks()
