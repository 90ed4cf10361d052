import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.retrieval.ranks import exact_ranks


@st.composite
def searches(draw):
    """Small integers, whose inner products are exact, so that ties are real and many."""
    sizes = draw(st.lists(st.integers(1, 9), min_size=1, max_size=5))
    languages = draw(st.permutations(range(len(sizes))))
    codes = np.repeat(languages, sizes)
    queries = draw(st.integers(1, 12))
    dimension = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    q = rng.integers(-2, 3, (queries, dimension)).astype(np.float32)
    p = rng.integers(-2, 3, (len(codes), dimension)).astype(np.float32)
    relevant = [np.flatnonzero(rng.random(len(codes)) < 0.3) for _ in range(queries)]
    return q, p, codes, relevant


@given(searches(), st.integers(1, 300))
@settings(deadline=None)
def test_rank_is_the_place_in_a_stable_sort(search, block_rows):
    q, p, codes, relevant = search
    ranks = exact_ranks(q, p, codes, relevant, block_rows)
    pool, own = [], []
    for query, candidates in zip(q, relevant, strict=True):
        scores = [sum(float(a) * float(b) for a, b in zip(query, passage, strict=True)) for passage in p]
        order = sorted(range(len(p)), key=lambda i: (-scores[i], i))
        for candidate in candidates:
            pool.append(order.index(candidate) + 1)
            own.append([i for i in order if codes[i] == codes[candidate]].index(candidate) + 1)
    assert ranks.in_pool.tolist() == pool
    assert ranks.in_language.tolist() == own
