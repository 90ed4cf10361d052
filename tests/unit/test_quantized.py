"""Ranks over quantized vectors are those of a sort by the stated rule, in memory and in any number of shards."""

import json

import numpy as np
import pytest
from sentence_transformers.util.quantization import quantize_embeddings

from hbtrain.errors import ConfigError, ModelError
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.judged import Judging, read_judged
from hbtrain.evaluation.rankers import ExactRanker, SearchRanker, SpreadRanker
from hbtrain.modeling import Encoder
from hbtrain.retrieval.collection_search import SearchOptions
from hbtrain.retrieval.quantized_search import quantized_search
from hbtrain.retrieval.quantizing import Quantization, Quantizer, quality_in_words
from hbtrain.retrieval.ranks import exact_search
from tests.unit.evaluation_samples import random_benchmark
from tests.unit.judged_samples import beir_of
from tests.unit.retrieval_samples import Hashed, unit
from tests.unit.tiny_models import TEXTS, encoder_config

RNG = np.random.default_rng(5)
LANGUAGES = np.repeat([0, 1, 2], [40, 70, 30])
PASSAGES = unit(RNG, 140, 12)
PASSAGES[90] = PASSAGES[3]
QUERIES = unit(RNG, 25, 12)
RELEVANT = [np.sort(RNG.choice(140, size, replace=False)) for size in RNG.integers(0, 9, 25)]
KINDS = [Quantization("int8"), Quantization("binary"), Quantization("binary", 15)]


def whole(how, **where):
    def exact(*arguments):
        return exact_search(*arguments, **where)

    return quantized_search(exact, QUERIES, PASSAGES, LANGUAGES, RELEVANT, 12, how, "cosine")


def hamming_scores():
    bits = np.unpackbits(quantize_embeddings(PASSAGES, "ubinary"), axis=1)[:, :12].astype(int)
    asked = np.unpackbits(quantize_embeddings(QUERIES, "ubinary"), axis=1)[:, :12].astype(int)
    return 12 - 2 * (asked[:, None] != bits).sum(axis=2), bits


def brute_order(how, query, places):
    """Places of a pool in the order of a query's ranking, by sorting."""
    if how.kind == "int8":
        ranges = np.stack([PASSAGES.min(axis=0), PASSAGES.max(axis=0)]).astype(np.float64)
        codes = quantize_embeddings(PASSAGES, "int8", ranges=ranges).astype(int) + 128
        scores = (ranges[0] + (codes + 0.5) * (ranges[1] - ranges[0]) / 255) @ QUERIES[query].astype(np.float64)
        return sorted(places, key=lambda place: (-round(scores[place], 6), place))
    scores, bits = hamming_scores()
    order = sorted(places, key=lambda place: (-scores[query, place], place))
    anew = (2 * bits - 1) @ QUERIES[query].astype(np.float64)
    first = sorted(order[: how.rescore], key=lambda place: (-round(anew[place], 6), place))
    return first + order[how.rescore :]


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_ranks_and_lists_are_those_of_a_sort(how):
    found = whole(how)
    ranks = found.ranks
    assert found.pool.places.shape == (25, 12)
    for query in range(len(QUERIES)):
        pool = brute_order(how, query, range(140))
        assert found.pool.places[query].tolist() == pool[:12]
        pairs = np.flatnonzero(ranks.query == query)
        assert [pool.index(place) + 1 for place in ranks.candidate[pairs]] == ranks.in_pool[pairs].tolist()
        for code in range(3):
            own = brute_order(how, query, np.flatnonzero(code == LANGUAGES).tolist())
            assert found.by_language[code].places[query].tolist() == own[:12]
            here = pairs[ranks.language[pairs] == code]
            assert [own.index(place) + 1 for place in ranks.candidate[here]] == ranks.in_language[here].tolist()


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_recall_is_the_share_of_the_full_vectors_first_ten(how):
    found = whole(how)
    shares = []
    for query, q_D in enumerate(QUERIES.astype(np.float64)):
        full = np.argsort(-(PASSAGES @ q_D), kind="stable")[:10].tolist()
        shares.append(len({*full} & {*brute_order(how, query, range(140))[:10]}) / 10)
    assert found.quality.recall == pytest.approx(np.mean(shares))
    assert found.quality[1:] == (25, 12)
    assert 0.2 < found.quality.recall < 1


def test_scores_of_binary_vectors_are_whole_numbers_and_counts_of_ties_right():
    scores, _ = hamming_scores()
    ranks = whole(Quantization("binary")).ranks
    assert ranks.score.tolist() == scores[ranks.query, ranks.candidate].tolist()
    expected = (scores[ranks.query] == ranks.score[:, None]).sum(axis=1)
    assert ranks.equal_in_pool.tolist() == expected.tolist()
    anew = whole(Quantization("binary", 15)).ranks
    scored, codes = scores, hamming_scores()[1]
    for pair in np.flatnonzero(anew.in_pool <= 15).tolist():
        query, candidate = anew.query[pair], anew.candidate[pair]
        first = sorted(range(140), key=lambda place: (-scored[query, place], place))[:15]
        assert anew.equal_in_pool[pair] == sum(np.all(codes[place] == codes[candidate]) for place in first)


def test_binary_ranks_are_the_same_by_the_rule_of_gpus():
    one, other = whole(Quantization("binary", 15)), whole(Quantization("binary", 15), gpus=("cpu:0",))
    np.testing.assert_array_equal(one.ranks.in_pool, other.ranks.in_pool)
    np.testing.assert_array_equal(one.pool.places, other.pool.places)


def test_a_dimension_in_which_all_are_equal_has_that_value():
    vectors = np.array([[1, 0.25], [-1, 0.25], [0.5, 0.25]], np.float32)
    found = Quantizer.of(Quantization("int8"), [vectors[:2], vectors[2:]]).passages(vectors)
    np.testing.assert_array_equal(found[:, 1], [0.25] * 3)
    np.testing.assert_allclose(found[:, 0], vectors[:, 0], atol=1 / 255)


@pytest.mark.parametrize("side", ["query", "passage"])
@pytest.mark.parametrize("how", KINDS, ids=str)
def test_vectors_that_are_not_finite_are_refused(how, side):
    q, p = QUERIES.copy(), PASSAGES.copy()
    (q if side == "query" else p)[4, 2] = np.nan
    with pytest.raises(ModelError, match=f"embedding of {side} 4 holds NaN"):
        quantized_search(exact_search, q, p, LANGUAGES, RELEVANT, 12, how, "cosine")


def options(tmp_path, how, **changes):
    given = {"rows_per_shard": 8, "block_rows": 4, "cache": tmp_path / "cache", "quantization": how}
    return SearchOptions(**(given | changes))


@pytest.mark.parametrize("how", KINDS, ids=str)
def test_shards_of_a_store_give_what_memory_gives(tmp_path, how):
    benchmark = random_benchmark()
    here = evaluate(Hashed(), benchmark, ranker=ExactRanker(quantization=how))
    full = evaluate(Hashed(), benchmark)
    assert here.search["search"] == f"exact {how}"
    assert here.metrics["sample/multi/map"] != full.metrics["sample/multi/map"]
    for shards in (1, 3, 7):
        found = evaluate(Hashed(), benchmark, ranker=SpreadRanker(options(tmp_path, how, shards=shards)))
        assert found.search == here.search | {"embeddings": "float32"}
        assert found.per_query.equals(here.per_query)
        listed = evaluate(Hashed(), benchmark, ranker=SearchRanker(options(tmp_path, how, shards=shards), depth=12))
        assert listed.search["quantized"] == here.search["quantized"]
        assert listed.metrics["sample/multi/ndcg@10"] == pytest.approx(here.metrics["sample/multi/ndcg@10"])


def test_what_was_measured_is_told(tmp_path):
    found = evaluate(Hashed(), random_benchmark(), ranker=ExactRanker(quantization=Quantization("binary", 15)))
    about = found.search["quantized"]
    assert (about["to"], about["rescored"]) == ("binary", 15)
    assert (about["bytes_per_vector"], about["full_bytes_per_vector"]) == (1, 32)
    words = quality_in_words(about)
    assert words.startswith("binary vectors take 1 bytes each, in single precision 32 (32 times as many)")
    assert f"hold {about['recall@10']:.1%} of those by full vectors" in words
    json.dumps(found.search)


def test_a_querys_own_document_is_left_out_of_rankings_that_are_scored_anew(tmp_path):
    texts = {f"d{i}": f"text {i}" for i in range(30)}
    folder = beir_of(
        tmp_path / "own", texts, {f"d{i}": f"text {i}" for i in range(6)}, {f"d{i}": {f"d{i + 6}": 1} for i in range(6)}
    )
    how = Quantization("binary", 12)
    found = []
    for judging in (Judging(), Judging(ignore_identical_ids=True)):
        benchmark = read_judged("beir", folder, "own", ["en"], cache=tmp_path / "cache", judging=judging)
        found.append(evaluate(Hashed(32), benchmark, ranker=ExactRanker(quantization=how)).per_query)
    # Its own document ranks first for each query, as it has the same vector; all others move up by one.
    ranks = [1 / np.array(table.column("mrr").to_pylist()) for table in found]
    np.testing.assert_allclose(ranks[0], ranks[1] + 1)


@pytest.mark.parametrize(
    ("kind", "rescore", "words"),
    [("int8", 10, "--rescore 10: .* for --quantize binary"), ("binary", -1, "--rescore -1: must be 0 or more")],
)
def test_what_does_not_go_together_is_refused(kind, rescore, words):
    with pytest.raises(ConfigError, match=words):
        Quantization(kind, rescore)


def test_an_index_with_codes_of_its_own_is_refused():
    with pytest.raises(ConfigError, match=r"--quantize binary with --index IVF4,Flat: .* IVF4096,SQ8"):
        SearchOptions(index="IVF4,Flat", quantization=Quantization("binary"))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "mine"
    Encoder.build(encoder_config("static"), lambda: TEXTS, 0).save(folder)
    return folder


def test_evaluate_tells_what_was_used(hbtrain, model):
    flags = ("--benchmark", "demo", "--languages", "en", "de", "--output", "out")
    code, out, err = hbtrain("evaluate", model, *flags, "--quantize", "binary", "--rescore", "20")
    assert code == 0, err
    assert "demo (passage candidates, exact binary, 20 rescored search)" in out
    assert "note: demo: binary vectors take 2 bytes each, in single precision 64 (32 times as many)" in out
    with open("out/about.json") as stream:  # noqa: PTH123
        about = json.load(stream)["benchmarks"]["demo"]
    assert about["search"] == "exact binary, 20 rescored"
    assert 0 < about["quantized"]["recall@10"] < 1


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--rescore", "20"], "--rescore 20: is for --quantize binary; add it"),
        (["--quantize", "int8", "--rescore", "20"], "int8 vectors are scored by the query as it is"),
        (
            ["--quantize", "binary", "--rescore", "5"],
            "--rescore 5: must be 10 or more, the length of the lists (--run-depth)",
        ),
        (["--quantize", "binary", "--rescore", "50", "--run-depth", "60"], "--rescore 50: must be 60 or more"),
        (
            ["--quantize", "binary", "--rescore", "50", "--index", "Flat"],
            "must be 100 or more, the length of the lists (--depth)",
        ),
        (
            ["--quantize", "int8", "--index", "IVF4,Flat"],
            "--quantize int8 with --index IVF4,Flat: an index of FAISS has",
        ),
        (["--quantize", "float16"], "Invalid value"),
    ],
)
def test_refused_combinations_are_one_line(hbtrain, model, flags, words):
    code, out, err = hbtrain("evaluate", model, "--benchmark", "demo", "--output", "out", *flags)
    assert code != 0
    assert words in " ".join((out + err).split())


def test_a_question_is_answered_from_bits(hbtrain, model):
    code, out, err = hbtrain("search", model, "hello world", "--quantize", "binary", "--rescore", "10")
    assert code == 0, err
    assert "note: binary vectors take 2 bytes each" in out
    assert "of those by full vectors (1 query)" in out
    full = hbtrain("search", model, "hello world", "--quantize", "int8", "--top", "3")[1]
    assert "note: int8 vectors take 16 bytes each, in single precision 64 (4 times as many)" in full
    assert (
        "--rescore 5: must be 10 or more" in hbtrain("search", model, "x", "--quantize", "binary", "--rescore", "5")[2]
    )
