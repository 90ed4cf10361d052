"""Limits: hundreds of languages and thousands of shards need neither much memory nor many open files."""

import os
import resource
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from hbtrain.audit.counts import count
from hbtrain.batching import BatchPlan
from hbtrain.config.batching import BatchingConfig
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.conflicts import SourceIndex
from hbtrain.errors import StorageError
from hbtrain.retrieval.store import EmbeddingStore, StoreWriter
from tests.unit.retrieval_samples import manifest, unit

FREE = 48  # files that a process may still open


@pytest.fixture
def few_files():
    """This process may open `FREE` more files."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    there = [int(path.name) for path in Path("/proc/self/fd").iterdir()]
    filled = [os.open(os.devnull, os.O_RDONLY) for _ in range(max(there) + 1 - len(there))]  # the gaps between them
    resource.setrlimit(resource.RLIMIT_NOFILE, (max([*there, *filled]) + 1 + FREE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
    for file in filled:
        os.close(file)


def codes(number):
    return tuple(f"x{chr(97 + code // 26)}{chr(97 + code % 26)}" for code in range(number))


def peak_bytes(act):
    tracemalloc.start()
    try:
        act()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("temperature", [None, 2.0])
def test_memory_of_a_plan_of_one_pair_a_batch_grows_with_pairs_of_languages(temperature):
    """It grows with the square of languages, not with the fourth power: three times as many take nine times as much."""

    def plan(languages):
        source = SourceIndex.complete("all", 10_000, codes(languages))
        batching = BatchingConfig(
            mode="cross-lingual", cross_languages="batch", global_batch_size=8, pair_temperature=temperature
        )
        return BatchPlan([source], batching)

    plan(5)
    few, many = (peak_bytes(lambda n=n: plan(n)) for n in (24, 72))
    assert many < 14 * few


def test_300_languages_in_one_pair_a_batch_and_audited():
    source = SourceIndex.complete("all", 10_000, codes(300))
    batching = BatchingConfig(mode="hybrid", alpha=0.5, cross_languages="batch", global_batch_size=8)
    plan = BatchPlan([source], batching)
    assert len(plan.catalogue.offers) == 300 * 300
    counts = count(plan, [source], 400)
    pairs = counts.all_pairs[0]
    assert pairs.sum() == 400 * 8
    assert 150 * 8 < np.trace(pairs) < 250 * 8
    batch = plan.batch(0)
    assert pairs[batch.query_codes[0], batch.passage_codes[0]] > 0


@pytest.mark.parametrize("mode", ["cross-lingual", "multilingual"])
def test_memory_of_rows_that_lack_most_of_300_languages_is_that_of_their_pairs(mode):
    """Each of 1,000 patterns has three languages: a table of all patterns and pairs would have 90 million cells."""
    rng = np.random.default_rng(0)
    patterns = np.zeros((1000, 300), bool)
    for pattern in patterns:
        pattern[rng.choice(300, 3, replace=False)] = True
    source = SourceIndex(
        "sparse", 2000, codes(300), patterns, patterns, np.full(1000, 2), np.arange(2000, dtype=np.int32) % 1000
    )
    plan = BatchPlan([source], BatchingConfig(mode=mode, global_batch_size=8))
    assert peak_bytes(lambda: plan.batch(0)) < 2**25
    for step in range(20):
        batch = plan.batch(step)
        has = patterns[batch.rows % 1000]
        at = np.arange(8)
        assert has[at, batch.query_codes].all()
        assert has[at, batch.passage_codes].all()
        assert ((batch.query_codes == batch.passage_codes) == (mode == "multilingual")).all()


@pytest.mark.usefixtures("few_files", "cache")
def test_texts_of_more_languages_than_files_can_be_open(write_source):
    languages = codes(2 * FREE)

    def texts(row, side):
        """Rows lack languages, so that there are arrays beside the columns."""
        return {x: f"{side} {row} in {x}" for i, x in enumerate(languages) if (i + row) % 7}

    negatives = [{x: f"negative in {x}" for x in languages[:FREE]}]
    path = write_source(
        [{"id": row, "query": texts(row, "q"), "passage": texts(row, "p"), "negatives": negatives} for row in range(20)]
    )
    (source,) = ParallelCorpus.open([str(path)]).sources.values()
    for _ in range(2):
        for side in ("query", "passage"):
            for code, language in enumerate(languages):
                rows = [row for row in range(20) if (code + row) % 7]
                found = source.texts(side, np.array(rows), [language] * len(rows))
                assert found == [f"{side[0]} {row} in {language}" for row in rows]
    for language in languages[:FREE]:
        assert source.negatives(np.array([3]), [language], 1, 0) == [f"negative in {language}"]
        assert source.negative_ids(np.array([3]), [language], 1, 0)[0] < 0


@pytest.mark.usefixtures("few_files")
def test_a_store_of_more_shards_than_files_can_be_open(tmp_path):
    shards = 2 * FREE
    vectors = unit(np.random.default_rng(0), shards, 4)
    plan = manifest(rows=shards, rows_per_shard=1, block_rows=1)
    with StoreWriter(tmp_path, plan) as writer:
        for row in range(shards):
            writer.write(row, vectors[row : row + 1])
    store = EmbeddingStore(tmp_path, plan)
    places = np.arange(shards)[::-1]
    np.testing.assert_array_equal(store.take(places), vectors[places])
    np.testing.assert_array_equal(
        np.concatenate([store.shard(shard) for shard in range(FREE // 2)]), vectors[: FREE // 2]
    )
    store.verify()


def test_a_shard_that_cannot_be_opened_is_not_called_damaged(tmp_path, monkeypatch):
    vectors = unit(np.random.default_rng(0), 8, 4)
    with StoreWriter(tmp_path, manifest(rows=8)) as writer:
        for row in (0, 4):
            writer.write(row, vectors[row : row + 4])

    def none_left(*_, **__):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(np, "load", none_left)
    for open_store in (lambda: EmbeddingStore(tmp_path), lambda: StoreWriter(tmp_path, manifest(rows=8))):
        with pytest.raises(StorageError, match="cannot read the embedding store .*: Too many open files$"):
            open_store()
