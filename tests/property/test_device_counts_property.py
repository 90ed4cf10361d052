"""Exact ranks as on a GPU, against whole numbers, and beside those of the CPU; on any devices, with any memory."""

from contextlib import ExitStack
from fractions import Fraction
from unittest import mock

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.retrieval import device_counts, sort_keys
from hbtrain.retrieval.ranks import exact_search

LARGEST = 2**13


@st.composite
def searches(draw):
    """Vectors of whole numbers whose products need more digits than float32 has and fewer than float64; beside
    candidates that are equal there are some that differ by one in a component, or by a permutation that sums alike."""
    sizes = draw(st.lists(st.integers(1, 20), min_size=1, max_size=3))
    codes = np.repeat(draw(st.permutations(range(len(sizes)))), sizes)
    queries, dimension = draw(st.integers(1, 12)), draw(st.integers(1, 5))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    q = rng.integers(-LARGEST, LARGEST + 1, (queries, dimension))
    p = rng.integers(-LARGEST, LARGEST + 1, (len(codes), dimension))
    for row in range(1, len(p)):
        like = rng.integers(0, row)
        match rng.integers(0, 5):
            case 0:
                p[row] = p[like]
            case 1 | 2:
                p[row] = p[like]
                p[row, rng.integers(0, dimension)] += rng.integers(-1, 2)
            case 3:
                p[row] = rng.permutation(p[like])
    q[rng.random(queries) < 0.3] = rng.integers(-LARGEST, LARGEST + 1)  # all components alike: permutations are ties
    relevant = [np.flatnonzero(rng.random(len(codes)) < 0.4 * rng.random()) for _ in range(queries)]
    return q, p, codes, relevant


def patched(stack, draw):
    """Products and groups of any size, and a device with any memory; gives one to three such devices."""
    values = {
        "PRODUCT_QUERIES": draw(st.integers(1, 7)),
        "PRODUCT_CANDIDATES": draw(st.integers(1, 30)),
        "BLOCK_CANDIDATES": draw(st.integers(1, 60)),
        "free_bytes": mock.Mock(return_value=draw(st.sampled_from([None, 0, 30_000, 10**6]))),
    }
    for name, value in values.items():
        stack.enter_context(mock.patch.object(device_counts, name, value))
    stack.enter_context(mock.patch.object(sort_keys, "COMPARED", draw(st.sampled_from([0, 96]))))
    stack.enter_context(mock.patch.object(sort_keys, "GROUPS", draw(st.integers(1, 3))))
    return ["cpu"] * draw(st.integers(1, 3))


def sorted_by_float64(q, p, codes, relevant, depth):
    """Ranks in the pool and in the language, candidates of equal score, and lists: of products rounded to float32."""
    pool, own, equals, best = [], [], [], {}
    for query, wanted in zip(q.tolist(), relevant, strict=True):
        exact = [sum(a * b for a, b in zip(query, passage, strict=True)) for passage in p.tolist()]
        found = np.array(exact, np.float64).astype(np.float32).tolist()
        order = sorted(range(len(p)), key=lambda i: (-found[i], i))
        for candidate in wanted:
            pool.append(order.index(candidate) + 1)
            own.append([i for i in order if codes[i] == codes[candidate]].index(candidate) + 1)
            equal = [i for i in order if found[i] == found[candidate]]
            equals.append((sum(codes[i] == codes[candidate] for i in equal), len(equal)))
        for code in set(codes.tolist()):
            best.setdefault(code, []).append([(found[i], i) for i in order if codes[i] == code][:depth])
    return pool, own, equals, best


@given(searches(), st.integers(0, 9), st.data())
@settings(deadline=None, max_examples=150)
def test_ranks_are_those_of_products_in_float64_on_any_devices_with_any_memory(search, depth, data):
    q, p, codes, relevant = search
    with ExitStack() as stack:
        gpus = patched(stack, data.draw)
        found = exact_search(q.astype(np.float32), p.astype(np.float32), codes, relevant, depth, gpus=gpus)
    pool, own, equals, best = sorted_by_float64(q, p, codes, relevant, depth)
    assert found.ranks.in_pool.tolist() == pool
    assert found.ranks.in_language.tolist() == own
    assert list(zip(found.ranks.equal_in_language, found.ranks.equal_in_pool, strict=True)) == equals
    assert list(found.by_language) == (list(dict.fromkeys(codes.tolist())) if depth else [])
    for code, top in found.by_language.items():
        lists = zip(top.scores.tolist(), top.places.tolist(), strict=True)
        assert [list(zip(*listed, strict=True)) for listed in lists] == best[code]


@given(searches(), st.data())
@settings(deadline=None, max_examples=100)
def test_ranks_differ_from_those_of_the_cpu_by_candidates_within_rounding_only(search, data):
    q, p, codes, relevant = search
    x, y = q.astype(np.float32), p.astype(np.float32)
    with ExitStack() as stack:
        gpus = patched(stack, data.draw)
        found = exact_search(x, y, codes, relevant, 3, gpus=gpus).ranks
    on_cpu = exact_search(x, y, codes, relevant, 3).ranks
    rounding = Fraction(q.shape[1], 2**24)
    for row, (query, candidate) in enumerate(zip(found.query, found.candidate, strict=True)):
        scores = [Fraction(int(q[query] @ passage)) for passage in p]
        lengths = int(np.ceil(np.linalg.norm(q[query]))) * np.ceil(np.linalg.norm(p, axis=1)).astype(int)
        close = [
            abs(score - scores[candidate]) <= 2 * rounding * int(max(length, lengths[candidate]))
            for score, length in zip(scores, lengths, strict=True)
        ]
        assert abs(found.in_pool[row] - on_cpu.in_pool[row]) <= sum(close) - 1
