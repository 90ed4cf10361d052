import numpy as np
import pytest
import torch

from hbtrain.errors import ModelError
from hbtrain.retrieval.ranks import exact_ranks
from hbtrain.retrieval.scores import TILE_CANDIDATES, TILE_QUERIES, scoring_threads, tile_of, tile_scores


def unit(rng, rows, dimension):
    x = rng.standard_normal((rows, dimension)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def sample(queries=300, candidates=157, dimension=24, languages=4, seed=0):
    rng = np.random.default_rng(seed)
    q, p = unit(rng, queries, dimension), unit(rng, candidates, dimension)
    codes = np.sort(rng.integers(0, languages, candidates))
    relevant = [np.sort(rng.choice(candidates, rng.integers(0, 6), replace=False)) for _ in range(queries)]
    return q, p, codes, relevant


def test_ranks_are_positions_in_the_sorted_scores():
    _, _, codes, relevant = sample()
    rng = np.random.default_rng(2)
    q = rng.integers(-9, 10, (300, 24)).astype(np.float32)  # whole numbers: products are exact, ties happen
    p = rng.integers(-9, 10, (157, 24)).astype(np.float32)
    ranks = exact_ranks(q, p, codes, relevant)

    order = np.argsort(-(q.astype(np.int64) @ p.astype(np.int64).T), axis=1, kind="stable")
    for query, candidate, language, own, pool in zip(
        ranks.query, ranks.candidate, ranks.language, ranks.in_language, ranks.in_pool, strict=True
    ):
        assert codes[candidate] == language
        assert order[query, pool - 1] == candidate
        assert order[query][codes[order[query]] == language][own - 1] == candidate
    assert ranks.query.tolist() == [i for i, r in enumerate(relevant) for _ in r]
    assert ranks.candidate.tolist() == [c for r in relevant for c in r]


def test_equal_scores_rank_in_the_order_of_the_pool():
    p = np.array([[1.0], [0.5], [1.0], [1.0], [1.0], [0.0]], np.float32)
    codes = [7, 7, 7, 3, 3, 3]
    ranks = exact_ranks(np.ones((1, 1), np.float32), p, codes, [np.arange(6)])
    assert ranks.in_pool.tolist() == [1, 5, 2, 3, 4, 6]
    assert ranks.in_language.tolist() == [1, 3, 2, 1, 2, 3]
    assert ranks.language.tolist() == codes


@pytest.mark.parametrize("dimension", [24, 1024])  # matrix libraries split long sums by the shape of the operands
def test_any_block_size_and_number_of_queries_gives_the_same_ranks(dimension):
    q, p, codes, relevant = sample(dimension=dimension)
    p[101] = p[3]
    whole = exact_ranks(q, p, codes, relevant, block_rows=1000)
    for block_rows in (1, 128, 200):
        ranks = exact_ranks(q, p, codes, relevant, block_rows=block_rows)
        assert np.array_equal(ranks.in_pool, whole.in_pool)
        assert np.array_equal(ranks.in_language, whole.in_language)
    few = exact_ranks(q[:5], p, codes, relevant[:5])
    assert np.array_equal(few.in_pool, whole.in_pool[: len(few.in_pool)])


@pytest.mark.parametrize("dimension", [1, 3, 17, 100, 257, 384, 768, 1000, 1024, 4096])
def test_a_score_does_not_depend_on_its_place_in_the_tile_to_the_last_bit(dimension):
    rng = np.random.default_rng(dimension)
    q, p = unit(rng, 5, dimension), unit(rng, 7, dimension)
    row, column = rng.integers(0, 5, TILE_QUERIES), rng.integers(0, 7, TILE_CANDIDATES)
    row[:5], column[:7] = range(5), range(7)
    scores = torch.empty(TILE_QUERIES, TILE_CANDIDATES)
    with scoring_threads(2) as pool:
        pool.submit(tile_scores, torch.from_numpy(q[row]), torch.from_numpy(p[column]), scores).result()
        alone = torch.empty_like(scores)
        tile_scores(tile_of(q[:1], TILE_QUERIES), tile_of(p[:1], TILE_CANDIDATES), alone)
    np.testing.assert_allclose(scores[:5, :7], q.astype(float) @ p.T.astype(float), atol=1e-6)
    assert torch.equal(scores, scores[:5, :7][row][:, column])
    assert alone[0, 0] == scores[0, 0]


def test_threads_and_precision_are_put_back():
    before = torch.get_num_threads(), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    with pytest.raises(RuntimeError), scoring_threads(3):
        assert torch.get_float32_matmul_precision() == "highest"
        raise RuntimeError
    assert (torch.get_num_threads(), torch.get_float32_matmul_precision()) == (before[0], "medium")
    torch.set_float32_matmul_precision(before[1])


def test_copies_of_a_candidate_tie_wherever_they_stand():
    rng = np.random.default_rng(1)
    for candidates in (501, 131, 67):
        p = np.repeat(unit(rng, 1, 256), candidates, axis=0)
        ranks = exact_ranks(unit(rng, 3, 256), p, np.zeros(candidates), [np.arange(candidates)] * 3)
        assert ranks.in_pool.reshape(3, -1).tolist() == [list(range(1, candidates + 1))] * 3


@pytest.mark.filterwarnings("error")
def test_read_only_embeddings_are_fine():
    q, p, codes, relevant = sample()
    q.flags.writeable = p.flags.writeable = False
    assert len(exact_ranks(q, p, codes, relevant).query) == sum(map(len, relevant))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_embeddings_that_are_not_finite_are_an_error(value):
    q, p, codes, relevant = sample()
    p[9, 2] = value
    with pytest.raises(ModelError, match=r"passage 9 holds NaN or infinity \(1 of 157"):
        exact_ranks(q, p, codes, relevant)
    q[4] = value
    with pytest.raises(ModelError, match="query 4"):
        exact_ranks(q, p, codes, relevant)


def test_arguments_that_do_not_fit_are_refused():
    q, p, codes, relevant = sample()
    with pytest.raises(ValueError, match="grouped by language"):
        exact_ranks(q, p, np.arange(157) % 2, relevant)
    with pytest.raises(ValueError, match="outside"):
        exact_ranks(q, p, codes, [np.array([157])] * 300)
    with pytest.raises(ValueError, match="twice"):
        exact_ranks(q, p, codes, [np.array([3, 3])] * 300)
    with pytest.raises(ValueError, match="2 lists"):
        exact_ranks(q, p, codes, relevant[:2])
    with pytest.raises(ValueError, match="codes"):
        exact_ranks(q, p, codes[:5], relevant)
    with pytest.raises(ValueError, match=r"\[Q, D\]"):
        exact_ranks(q[:, :5], p, codes, relevant)
    with pytest.raises(ValueError, match="positive"):
        exact_ranks(q, p, codes, relevant, block_rows=0)


def test_vectors_whose_scores_would_overflow_are_an_error():
    q, p, codes, relevant = sample()
    q[7] *= np.float32(1e30)
    with pytest.raises(ModelError, match=r"query 7 holds NaN or infinity \(1 of 300 do\), or is too long"):
        exact_ranks(q, p, codes, relevant)


def test_memory_mapped_half_precision_is_scored_in_fp32(tmp_path):
    q, p, codes, relevant = sample()
    half = p.astype(np.float16)
    np.save(tmp_path / "p.npy", half)
    mapped = np.load(tmp_path / "p.npy", mmap_mode="r")
    ranks = exact_ranks(q, mapped, codes, relevant, block_columns=1)
    assert np.array_equal(ranks.in_pool, exact_ranks(q, half.astype(np.float32), codes, relevant).in_pool)
    assert np.array_equal(mapped, half)
