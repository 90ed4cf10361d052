"""Blocks, shards, threads and processes against a brute force in Python."""

from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.retrieval import counting, scores, shard_counts
from hbtrain.retrieval.counting import Pairs
from hbtrain.retrieval.ranks import exact_search, ranks_of
from hbtrain.retrieval.shard_counts import (
    Blocks,
    ShardCounts,
    count_in_shard,
    joined_scores,
    relevant_scores,
    sum_counts,
)
from hbtrain.retrieval.top import Top


@st.composite
def searches(draw):
    """Few different vectors of small integers: products are exact, copies and ties many; some queries ask nothing."""
    sizes = draw(st.lists(st.integers(1, 25), min_size=1, max_size=4))
    codes = np.repeat(draw(st.permutations(range(len(sizes)))), sizes)
    queries, dimension = draw(st.integers(1, 30)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    q = rng.integers(-2, 3, (queries, dimension)).astype(np.float32)
    p = rng.integers(-2, 3, (len(codes), dimension)).astype(np.float32)
    share = draw(st.sampled_from([0.02, 0.3, 1.0]))
    relevant = [np.flatnonzero(rng.random(len(codes)) < share * rng.random()) for _ in range(queries)]
    return q, p, codes, relevant


def cuts(size):
    return st.lists(st.integers(0, size), max_size=3).map(lambda inner: sorted({0, size, *inner}))


def small_tiles(queries, candidates):
    """Tiles of another size wherever it was imported."""
    return [
        mock.patch.object(module, name, size)
        for module in (scores, shard_counts, counting)
        for name, size in (("TILE_QUERIES", queries), ("TILE_CANDIDATES", candidates))
        if hasattr(module, name)
    ]


def brute_force(q, p, codes, relevant, depth):
    pool_ranks, own_ranks, best, equals = [], [], {}, []
    for query, wanted in zip(q.tolist(), relevant, strict=True):
        found = [sum(a * b for a, b in zip(query, passage, strict=True)) for passage in p.tolist()]
        order = sorted(range(len(p)), key=lambda i: (-found[i], i))
        for candidate in wanted:
            pool_ranks.append(order.index(candidate) + 1)
            equal = [i for i in order if found[i] == found[candidate]]
            equals.append((sum(codes[i] == codes[candidate] for i in equal), len(equal)))
            own_ranks.append([i for i in order if codes[i] == codes[candidate]].index(candidate) + 1)
        for code in set(codes.tolist()):
            best.setdefault(code, []).append([i for i in order if codes[i] == code][:depth])
        best.setdefault("all", []).append(order[:depth])
    return pool_ranks, own_ranks, best, equals


@given(
    searches(),
    st.integers(1, 12),
    st.integers(1, 40),
    st.integers(1, 60),
    st.integers(1, 3),
    st.tuples(st.integers(1, 8), st.integers(1, 16)),
)
@settings(deadline=None, max_examples=150)
def test_ranks_and_lists_are_those_of_a_stable_sort_for_any_blocks(search, depth, queries, candidates, threads, tile):
    q, p, codes, relevant = search
    patches = small_tiles(*tile)
    for patch in patches:
        patch.start()
    try:
        found = exact_search(q, p, codes, relevant, depth, Blocks(queries, candidates, threads))
    finally:
        for patch in patches:
            patch.stop()
    pool_ranks, own_ranks, best, equals = brute_force(q, p, codes, relevant, depth)
    assert found.ranks.in_pool.tolist() == pool_ranks
    assert found.ranks.in_language.tolist() == own_ranks
    assert list(zip(found.ranks.equal_in_language, found.ranks.equal_in_pool, strict=True)) == equals
    assert found.pool.places.tolist() == best["all"]
    assert list(found.by_language) == list(dict.fromkeys(codes.tolist()))
    for code, top in found.by_language.items():
        assert top.places.tolist() == best[code]
        assert np.array_equal(top.scores, np.einsum("qd,qkd->qk", q, p[top.places]))


def of_queries(pairs, start, stop):
    """The pairs of a shard of the queries, which are counted from 0 again."""
    span = pairs.span(start, stop)
    return Pairs(stop - start, pairs.query[span] - start, pairs.candidate[span], pairs.language[span])


def join(parts):
    """The shards of the queries together, in the order of the queries."""
    return ShardCounts(
        np.concatenate([part.in_language for part in parts]),
        np.concatenate([part.in_pool for part in parts]),
        np.concatenate([part.equal_in_language for part in parts]),
        np.concatenate([part.equal_in_pool for part in parts]),
        {
            code: Top(*map(np.concatenate, zip(*(part.top[code] for part in parts), strict=True)))
            for code in parts[0].top
        },
    )


@given(searches(), st.integers(0, 12), st.data())
@settings(deadline=None, max_examples=60)
def test_shards_of_queries_and_of_candidates_add_up_to_the_whole(search, depth, data):
    q, p, codes, relevant = search
    # Not whole numbers now: what is compared are bits.
    rng = np.random.default_rng(0)
    q, p = (x + rng.standard_normal(x.shape[1]).astype(np.float32) / 3 for x in (q, p))
    whole = exact_search(q, p, codes, relevant, depth)
    q_cuts, p_cuts = data.draw(cuts(len(q))), data.draw(cuts(len(p)))
    pairs = Pairs.of(relevant, codes)
    joined, scored = [], []
    for q_start, q_stop in pairwise(q_cuts):
        some, own = q[q_start:q_stop], of_queries(pairs, q_start, q_stop)
        shards = list(pairwise(p_cuts))
        targets = joined_scores([relevant_scores(some, p[a:b], own, a) for a, b in shards])
        parts = [count_in_shard(some, p[a:b], codes[a:b], own, targets, a, depth) for a, b in shards]
        joined.append(sum_counts(parts, depth))
        scored.append(targets)
    found = join(joined)
    ranks = ranks_of(pairs, np.concatenate(scored), found)
    assert np.array_equal(ranks.in_pool, whole.ranks.in_pool)
    assert np.array_equal(ranks.in_language, whole.ranks.in_language)
    assert np.array_equal(ranks.equal_in_pool, whole.ranks.equal_in_pool)
    assert np.array_equal(ranks.equal_in_language, whole.ranks.equal_in_language)
    assert list(found.top) == list(whole.by_language)
    for code, top in found.top.items():
        assert np.array_equal(top.places, whole.by_language[code].places)
        assert np.array_equal(top.scores, whole.by_language[code].scores)


def test_comparing_and_looking_up_count_the_same():
    rng = np.random.default_rng(0)
    values = rng.integers(-3, 4, (40, 333)).astype(np.float32) * np.float32(0.1)
    targets = values[:, :2].copy()
    targets[0, 0], targets[1, 1] = 0.0, -0.0
    compared = counting.higher_and_equal(values, targets)
    with mock.patch.object(counting, "COMPARED", 0):
        looked_up = counting.higher_and_equal(values, targets)
    assert np.array_equal(compared[0], (values[:, :, None] > targets[:, None]).sum(1))
    assert np.array_equal(compared[1], (values[:, :, None] == targets[:, None]).sum(1))
    assert all(np.array_equal(one, other) for one, other in zip(compared, looked_up, strict=True))


def shard_on_disk(folder, start, stop, codes, pairs, targets):
    """What a worker does: it opens the files, and sees its candidates only."""
    q, p = np.load(folder / "q.npy", mmap_mode="r"), np.load(folder / "p.npy", mmap_mode="r")
    if targets is None:
        return relevant_scores(q, p[start:stop], pairs, start, threads=1)
    return count_in_shard(q, p[start:stop], codes[start:stop], pairs, targets, start, 7, Blocks(512, 512, 1))


@pytest.mark.timeout(120)
def test_processes_with_memory_mapped_shards_give_what_one_gives(tmp_path):
    rng = np.random.default_rng(5)
    q, p = (rng.standard_normal((n, 33)).astype(np.float32) for n in (700, 1900))
    p[1500:1510] = p[3:13]
    codes = np.repeat([2, 0, 1], [700, 900, 300])
    relevant = [rng.choice(1900, rng.integers(0, 5), replace=False) for _ in range(700)]
    np.save(tmp_path / "q.npy", q)
    np.save(tmp_path / "p.npy", p)
    whole = exact_search(q, p, codes, relevant, 7)
    pairs = Pairs.of(relevant, codes)
    shards = [(0, 650), (650, 1300), (1300, 1900)]
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(shard_on_disk, tmp_path, a, b, codes, pairs, None) for a, b in shards]
        targets = joined_scores([job.result() for job in jobs])
        jobs = [pool.submit(shard_on_disk, tmp_path, a, b, codes, pairs, targets) for a, b in shards]
        merged = sum_counts([job.result() for job in jobs], 7)
    assert np.array_equal(ranks_of(pairs, targets, merged).in_pool, whole.ranks.in_pool)
    assert np.array_equal(ranks_of(pairs, targets, merged).in_language, whole.ranks.in_language)
    assert all(np.array_equal(merged.top[c].places, whole.by_language[c].places) for c in (0, 1, 2))


def test_a_relevant_candidate_in_no_shard_is_an_error():
    q, p = np.ones((2, 3), np.float32), np.ones((9, 3), np.float32)
    pairs = Pairs.of([np.array([1]), np.array([8])], np.zeros(9, np.int64))
    with pytest.raises(ValueError, match="1 relevant candidates are in no shard"):
        joined_scores([relevant_scores(q, p[:4], pairs, 0), relevant_scores(q, p[4:8], pairs, 4)])
