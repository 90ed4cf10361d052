"""Evaluating from lists of the best gives the scores of exact ranks, as far as the lists go."""

import numpy as np
import pytest
import torch

from hbtrain.config import EvaluationConfig
from hbtrain.errors import ConfigError, ModelError, RetrievalError
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.judged import read_judged
from hbtrain.evaluation.rankers import ExactRanker, SearchRanker, SpreadRanker, ranker_of, search_options
from hbtrain.evaluation.trec_runs import TrecRunWriter
from hbtrain.retrieval import device_counts
from hbtrain.retrieval.collection_search import SearchOptions
from hbtrain.retrieval.trec_files import read_trec_run
from tests.unit.evaluation_samples import HashEncoder, random_benchmark
from tests.unit.judged_samples import miracl
from tests.unit.retrieval_samples import Hashed


def options(tmp_path, **changes):
    return SearchOptions(**({"rows_per_shard": 8, "block_rows": 4, "cache": tmp_path / "cache"} | changes))


@pytest.mark.parametrize("shards", [1, 3])
def test_scores_with_a_cutoff_are_those_of_exact_ranks(tmp_path, shards):
    benchmark = random_benchmark()
    ranker = SearchRanker(options(tmp_path, shards=shards), depth=20)
    found = evaluate(Hashed(), benchmark, ranker=ranker)
    exact = evaluate(Hashed(), benchmark)
    assert found.search["search"] == "exact"
    assert found.search["recall"] is None
    compared = [key for key in found.metrics if "/multi/" in key]
    assert {"sample/multi/ndcg@10", "sample/multi/recall@10"} <= set(compared)
    for key in compared:
        assert found.metrics[key] == pytest.approx(exact.metrics[key]), key
    assert not any(key.startswith("sample/multi/map") for key in compared)


@pytest.mark.parametrize(("shards", "dtype"), [(1, "float32"), (2, "float32"), (7, "float32"), (3, "float16")])
def test_exact_ranks_are_the_same_from_any_number_of_shards(tmp_path, shards, dtype):
    benchmark = random_benchmark()
    ranker = SpreadRanker(options(tmp_path, shards=shards, dtype=dtype))
    found, exact = evaluate(Hashed(), benchmark, ranker=ranker), evaluate(Hashed(), benchmark)
    assert found.search == {"search": "exact", "embeddings": dtype}
    if dtype == "float32":
        assert found.metrics == exact.metrics
        assert found.per_query.equals(exact.per_query)
    else:
        assert found.metrics == pytest.approx(exact.metrics, rel=0.1)


@pytest.mark.parametrize(("shards", "devices", "free"), [(1, 1, None), (3, 1, 0), (1, 2, 0), (4, 3, None)])
def test_exact_ranks_of_a_store_on_gpus_are_those_of_memory(tmp_path, monkeypatch, shards, devices, free):
    for name, size in (("PRODUCT_QUERIES", 8), ("PRODUCT_CANDIDATES", 16)):
        monkeypatch.setattr(device_counts, name, size)
    monkeypatch.setattr(device_counts, "free_bytes", lambda where: free)
    benchmark = random_benchmark()
    exact = evaluate(Hashed(), benchmark, ranker=ExactRanker(gpus=("cpu:0",)))
    ranker = SpreadRanker(options(tmp_path, shards=shards, devices=("cpu:0",) * devices))
    found = evaluate(Hashed(), benchmark, ranker=ranker)
    assert found.search == {"search": "exact", "embeddings": "float32", "device": "gpu"}
    assert found.metrics == exact.metrics
    assert found.per_query.equals(exact.per_query)
    assert found.metrics == pytest.approx(evaluate(Hashed(), benchmark).metrics)


@pytest.mark.parametrize("step", ["lowest_keys", "rows_at"])
def test_a_gpu_whose_memory_is_too_small_for_ranks_is_one_line(monkeypatch, step):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    monkeypatch.setattr(device_counts, step, full)
    monkeypatch.setattr(device_counts, "free_bytes", lambda where: 3 * 2**28)
    for name, size in (("PRODUCT_QUERIES", 8), ("PRODUCT_CANDIDATES", 16)):
        monkeypatch.setattr(device_counts, name, size)
    with pytest.raises(
        RetrievalError, match=r"^exact ranks do not fit .* of cpu:0, of which 0\.8 GiB are free: [^\n]*$"
    ):
        evaluate(Hashed(), random_benchmark(), ranker=ExactRanker(gpus=("cpu:0",)))


def test_actors_and_indices_have_rankers_of_their_own():
    def ranker(**chosen):
        config = EvaluationConfig(**chosen)
        return ranker_of(config, search_options(config))

    exact = ranker(batch_size=7)
    assert isinstance(exact, ExactRanker)
    assert (exact.batch_size, exact.gpus, exact.about) == (7, (), {"search": "exact"})
    on_gpus = ranker_of(EvaluationConfig(), SearchOptions(devices=("cuda", "cuda:1")), 30)
    assert (on_gpus.gpus, on_gpus.depth, on_gpus.about["device"]) == (("cuda", "cuda:1"), 30, "gpu")
    spread = ranker(actors=2, run_depth=30)
    assert isinstance(spread, SpreadRanker)
    assert (spread.depth, spread.options.actors) == (30, 2)
    indexed = ranker(index="HNSW8", depth=50, actors=2)
    assert isinstance(indexed, SearchRanker)
    assert (indexed.about["search"], indexed.about["depth"]) == ("HNSW8", 50)


def test_options_of_an_evaluation_are_those_of_its_search(tmp_path):
    given = {"index": "HNSW8", "index_parameters": "efSearch=9", "actors": 3, "batch_size": 7}
    config = EvaluationConfig(**given, embeddings="s3://b/x")
    found = search_options(config, "float16", cpus_per_actor=2.0, cache=str(tmp_path))
    assert (found.index, found.parameters, found.actors, found.cpus_per_actor) == ("HNSW8", "efSearch=9", 3, 2.0)
    assert (found.dtype, found.batching.batch_size, found.cache) == ("float16", 7, tmp_path)
    assert str(found.mirror) == "s3://b/x"
    exact = search_options(EvaluationConfig())
    assert (exact.index, exact.dtype, exact.cache, exact.mirror) == ("Flat", "float32", None, None)


def test_collections_of_one_language_each_are_searched_one_by_one(tmp_path):
    for language in ("sw", "en"):
        miracl(tmp_path, language)
    benchmark = read_judged("miracl", tmp_path, "miracl", None, cache=tmp_path / "texts")
    ranker = SearchRanker(options(tmp_path, index="HNSW8", recall_queries=1))
    found = evaluate(Hashed(), benchmark, ranker=ranker)
    exact = evaluate(Hashed(), benchmark)
    assert found.metrics["miracl/mono/ndcg@10/sw"] == pytest.approx(exact.metrics["miracl/mono/ndcg@10/sw"])
    assert found.search["search"] == "HNSW8"
    assert (found.search["device"], found.search["device_note"]) == ("cpu", None)
    assert len(found.search["recall_of_collections"]) == 2
    assert found.search["recall"] == pytest.approx(np.mean(list(found.search["recall_of_collections"].values())))
    assert set(found.search["recall_queries"].values()) == {1}


def test_stores_lie_where_they_are_wanted(tmp_path):
    evaluate(Hashed(), random_benchmark(), ranker=SearchRanker(options(tmp_path), 5, lambda name: tmp_path / name))
    assert (tmp_path / "sample" / "manifest.json").is_file()


def test_what_cannot_be_searched_is_one_line(tmp_path):
    with pytest.raises(ModelError, match="of type HashEncoder has no digest"):
        evaluate(HashEncoder(), random_benchmark(), ranker=SpreadRanker(options(tmp_path)))
    with pytest.raises(ModelError, match="of type HashEncoder has no digest"):
        evaluate(HashEncoder(), random_benchmark(), ranker=SearchRanker(options(tmp_path)))
    with pytest.raises(ConfigError, match="lists of 0 candidates"):
        SearchRanker(options(tmp_path), depth=0)


def test_run_files_hold_what_was_found_with_its_scores_and_no_more(tmp_path):
    miracl(tmp_path)
    benchmark = read_judged("miracl", tmp_path, "miracl", None, cache=tmp_path / "texts")
    for name, ranker in (("found", SearchRanker(options(tmp_path))), ("exact", None)):
        runs = TrecRunWriter(tmp_path / name, "system", 10)
        evaluate(Hashed(), benchmark, ranker=ranker, takers=[runs])
    found, exact = (read_trec_run(tmp_path / name / "miracl" / "mono" / "sw.trec.gz") for name in ("found", "exact"))
    assert found.documents == exact.documents
    assert {len(documents) for documents in found.documents.values()} == {3}
