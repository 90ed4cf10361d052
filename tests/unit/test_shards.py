"""Searching in parts gives what searching the whole gives; approximate indices are checked, seeded and measured."""

from functools import partial

import numpy as np
import pytest

from hbtrain.errors import ConfigError, ModelError, StorageError
from hbtrain.retrieval.collection_search import SearchOptions, recall_of, search_store
from hbtrain.retrieval.faiss_index import check_factory
from hbtrain.retrieval.shards import ShardIndex, split
from hbtrain.retrieval.store import EmbeddingStore, StoreWriter
from hbtrain.retrieval.top import NONE, Top, merge_top
from tests.unit.retrieval_samples import manifest, unit

ROWS, DIMENSION, PER_FILE = 1100, 16, 100
RNG = np.random.default_rng(1)
QUERIES = unit(RNG, 150, DIMENSION)  # more than one tile


def vectors_with_copies():
    """Every file begins with copies of one vector, and the files' last rows are copies of the queries' best."""
    vectors = unit(RNG, ROWS, DIMENSION)
    vectors[::PER_FILE] = vectors[0]
    vectors[PER_FILE - 1 :: PER_FILE] = QUERIES[0]
    vectors[1::PER_FILE] = QUERIES[0]
    return vectors


VECTORS = vectors_with_copies()


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store") / "store"
    return stored(folder, VECTORS)


def stored(folder, vectors, **changes):
    described = manifest(len(vectors), vectors.shape[1], **({"rows_per_shard": PER_FILE, "block_rows": 50} | changes))
    with StoreWriter(folder, described) as writer:
        for shard in writer.missing:
            for block in described.blocks(shard):
                writer.write(block.start, vectors[block.start : block.stop])
    return EmbeddingStore(folder)


def brute_force(k, vectors=VECTORS, queries=QUERIES):
    """In exact arithmetic as far as double precision goes, ties in the order of the pool."""
    scores = queries.astype(np.float64) @ vectors.astype(np.float64).T
    places = np.argsort(-scores.round(6), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(scores, places, axis=1), places


@pytest.mark.parametrize("shards", [1, 2, 3, 11, 50])
@pytest.mark.parametrize("k", [1, 15, 1100])
def test_exact_search_is_the_same_to_the_bit_for_any_number_of_shards(store, shards, k):
    found, recall = search_store(store, QUERIES, k, SearchOptions(shards=shards))[:2]
    whole, _ = search_store(store, QUERIES, k, SearchOptions())[:2]
    np.testing.assert_array_equal(found.scores, whole.scores)
    np.testing.assert_array_equal(found.places, whole.places)
    assert recall is None
    scores, places = brute_force(k)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    assert found.scores.dtype == np.float32
    if k < ROWS:  # among all are some that only the last bits of fp32 tell apart
        np.testing.assert_array_equal(found.places, places)


def test_copies_on_the_boundaries_of_shards_stand_in_the_order_of_the_pool(store):
    found, _ = search_store(store, QUERIES[:1], 15, SearchOptions(shards=4))[:2]
    copies = sorted([*range(1, ROWS, PER_FILE), *range(PER_FILE - 1, ROWS, PER_FILE)])
    assert found.places[0].tolist() == copies[:15]
    assert len(set(found.scores[0].tolist())) == 1


def test_faiss_over_all_agrees_with_exact_search(store):
    import faiss

    index = faiss.IndexFlatIP(DIMENSION)
    index.add(VECTORS)
    theirs, _ = index.search(QUERIES, 20)
    found, _ = search_store(store, QUERIES, 20, SearchOptions(shards=3))[:2]
    np.testing.assert_allclose(found.scores, theirs, atol=1e-6)


@pytest.mark.parametrize("index", ["HNSW32", "IVF4,Flat", "SQ8,RFlat"])
@pytest.mark.parametrize("shards", [1, 3])
def test_an_index_that_finds_all_equals_exact_search(tmp_path, index, shards):
    vectors = unit(np.random.default_rng(5), 300, DIMENSION)  # no ties, of which an index may choose any
    parameters = {"HNSW32": "efSearch=300", "IVF4,Flat": "nprobe=4", "SQ8,RFlat": "k_factor_rf=30"}[index]
    options = SearchOptions(index=index, parameters=parameters, shards=shards, recall_queries=1000)
    store = stored(tmp_path, vectors)
    found, recall = search_store(store, QUERIES, 10, options)[:2]
    scores, places = brute_force(10, vectors)
    np.testing.assert_array_equal(found.places, places)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    assert recall == 1


def test_recall_is_the_share_of_the_best_that_was_found(store):
    options = SearchOptions(index="IVF32,Flat", shards=2, recall_queries=1000)
    found, recall = search_store(store, QUERIES, 10, options)[:2]
    scores, _ = brute_force(10)
    expected = np.mean([(row >= best[-1] - 1e-5).mean() for row, best in zip(found.scores, scores, strict=True)])
    assert recall == pytest.approx(expected)
    assert 0.1 < recall < 0.95
    more, better = search_store(
        store, QUERIES, 10, SearchOptions(index="IVF32,Flat", parameters="nprobe=16", shards=2)
    )[:2]
    assert recall < better
    # Scores are those of the vectors, whatever the index keeps of them.
    exact = np.einsum("qkd,qd->qk", VECTORS[more.places], QUERIES)
    np.testing.assert_allclose(more.scores, exact, atol=1e-6)


def test_scores_of_quantized_vectors_are_the_vectors_own(store):
    options = SearchOptions(index="PQ4x4", seed=3)
    found, recall = search_store(store, QUERIES, 10, options)[:2]
    np.testing.assert_allclose(found.scores, np.einsum("qkd,qd->qk", VECTORS[found.places], QUERIES), atol=1e-6)
    assert np.all(np.diff(found.scores, axis=1) <= 0)
    assert 0 < recall < 1
    again, _ = search_store(store, QUERIES, 10, options)[:2]
    np.testing.assert_array_equal(found.places, again.places)


def test_training_takes_a_bounded_sample_drawn_with_the_seed(store, monkeypatch):
    monkeypatch.setattr("hbtrain.retrieval.faiss_index.FEWEST_SAMPLED", 10)
    monkeypatch.setattr("hbtrain.retrieval.faiss_index.TRAINING_VECTORS", 8)
    samples = [ShardIndex(str(store.folder), range(2, 6), "IVF16,Flat", seed=seed)._sample() for seed in (0, 0, 1)]
    assert samples[0].shape == (8 * 16, DIMENSION)
    np.testing.assert_array_equal(samples[0], samples[1])
    assert not np.array_equal(samples[0], samples[2])
    allowed = {row.tobytes() for row in VECTORS[200:600]}
    assert {row.tobytes() for row in samples[0]} <= allowed


def test_what_an_index_does_not_find_is_marked(tmp_path):
    vectors = np.repeat(np.eye(4, dtype=np.float32), 5, axis=0)
    store = stored(tmp_path, vectors, rows_per_shard=20, block_rows=20)
    options = SearchOptions(index="IVF4,Flat", recall_queries=4)
    found, recall = search_store(store, np.eye(4, dtype=np.float32), 20, options)[:2]
    for row, (scores, places) in enumerate(zip(found.scores, found.places, strict=True)):
        some = places[places != NONE].tolist()
        assert some == sorted(some)
        assert set(range(5 * row, 5 * row + 5)) <= set(some)
        assert np.isneginf(scores[places == NONE]).all()
        assert places[-1] == NONE
    assert recall < 1


def test_half_precision_is_searched_in_fp32(tmp_path):
    store = stored(tmp_path, VECTORS, dtype="float16")
    halved = VECTORS.astype(np.float16).astype(np.float32)
    found, _ = search_store(store, QUERIES, 10, SearchOptions(shards=2))[:2]
    scores, places = brute_force(10, halved)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    np.testing.assert_array_equal(found.places, places)


def test_parts_are_merged_by_score_then_place():
    one = Top(np.array([[3.0, 1.0, -np.inf]], np.float32), np.array([[7, 2, NONE]]))
    two = Top(np.array([[3.0, 3.0, 1.0]], np.float32), np.array([[4, 9, 1]]))
    found = merge_top([one, two], 5)
    assert found.places.tolist() == [[4, 7, 9, 1, 2]]
    assert found.scores.tolist() == [[3, 3, 3, 1, 1]]
    assert merge_top([one, two], 9).places.tolist() == [[4, 7, 9, 1, 2, NONE]]


@pytest.mark.parametrize(("files", "shards"), [(1, 1), (1, 5), (5, 2), (7, 7), (10, 3)])
def test_files_are_split_evenly_and_all(files, shards):
    parts = split(files, shards)
    assert [file for part in parts for file in part] == list(range(files))
    assert len(parts) == min(files, shards)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize(
    ("index", "parameters", "rows", "words"),
    [
        ("IVF64,Flat", "", 63, r"needs training on 64 vectors or more \(2496 to be good\), and a shard has 63"),
        ("PQ8", "", 255, "needs training on 256 vectors"),
        ("HNSW32_PQ8", "", 255, "needs training on 256 vectors"),
        ("PQ8,RFlat", "", 255, "needs training on 256 vectors"),
        ("PCA8,IVF4,Flat", "", 7, "needs training on 8 vectors"),
        ("OPQ8,IVF4,PQ8", "", 100, "needs training on 256 vectors"),
        ("RQ2x5", "", 31, "needs training on 32 vectors"),
        ("nonsense", "", 1000, "'nonsense' cannot be made .* could not parse"),
        ("", "", 1000, "'' cannot be made"),
        ("PQ7", "", 1000, "should be a multiple of the number of subquantizers"),
        ("IVF4,Flat", "nprobes=3", 1000, "'nprobes=3' do not fit"),
        ("HNSW32", "nprobe=3", 1000, "'nprobe=3' do not fit"),
        ("Flat", "nprobe=3", 1000, "'Flat' has none"),
    ],
)
def test_indices_that_cannot_be_are_one_line(index, parameters, rows, words):
    with pytest.raises(ConfigError, match=words) as error:
        check_factory(index, parameters, 16, rows)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("index", "rows"), [("Flat", 1), ("HNSW32", 1), ("IVF64,Flat", 64), ("IVF4,PQ8x4", 16), ("RQ2x5", 32)]
)
def test_indices_with_just_enough_to_train_on_pass_and_train(tmp_path, index, rows):
    check_factory(index, "", 16, rows)
    vectors = unit(np.random.default_rng(2), rows, 16)
    store = stored(tmp_path, vectors, rows_per_shard=rows, block_rows=rows)
    found = ShardIndex(str(tmp_path), range(1), index).nearest(QUERIES[:2], 1)
    assert found.places.shape == (2, 1)
    assert len(store) == rows


def test_queries_that_are_no_numbers_are_refused(store):
    queries = QUERIES.copy()
    queries[7, 0] = np.nan
    with pytest.raises(ModelError, match="embedding of query 7 holds NaN"):
        search_store(store, queries, 3, SearchOptions())


def test_a_shard_of_a_missing_store_is_one_line(tmp_path):
    with pytest.raises(StorageError, match="no embedding store"):
        ShardIndex(str(tmp_path / "gone"), range(1), "Flat")


def test_recall_counts_equals_of_the_last_as_found():
    exact = Top(np.array([[1.0, 0.5]], np.float32), np.array([[3, 4]]))
    for scores, expected in (([1.0, 0.5], 1.0), ([1.0, 0.4], 0.5), ([0.5, 0.5], 1.0), ([-np.inf, -np.inf], 0.0)):
        assert recall_of(Top(np.array([scores], np.float32), np.array([[8, 9]])), exact) == expected


def test_no_queries_find_nothing(store):
    found, _ = search_store(store, QUERIES[:0], 3, SearchOptions())[:2]
    assert found.scores.shape == found.places.shape == (0, 3)


def test_objects_of_workers_can_be_pickled(store):
    import pickle

    make = pickle.loads(pickle.dumps(partial(ShardIndex, str(store.folder), range(2), "Flat")))
    assert make().nearest(QUERIES[:1], 1).places.tolist() == [[1]]
