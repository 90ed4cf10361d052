"""On a simulated GPU exact ranks and the best of every query are right, and the host waits as often for many products
as for few."""

import numpy as np
import pytest
import torch

from hbtrain.retrieval import device_counts, top
from hbtrain.retrieval.ranks import exact_search
from hbtrain.retrieval.top import top_scores
from tests.distributed.ranks import run_ranks
from tests.simulated_gpu import SimulatedGPU

SIZES = [(8, 60), (40, 60), (8, 300), (40, 300)]
"""(queries, candidates): with products of 8 x 32, one and five tiles of queries, and two and ten of candidates."""
DEPTH = 5


def searched(queries, candidates):
    """Vectors of whole numbers, whose products are exact everywhere, with many ties; three languages."""
    rng = np.random.default_rng(queries + candidates)
    q, p = (rng.integers(-2, 3, (rows, 6)).astype(np.float32) for rows in (queries, candidates))
    codes = np.repeat([2, 0, 1], candidates // 3)
    return q, p, codes, [rng.choice(candidates, rng.integers(0, 4), replace=False) for _ in range(queries)]


def on_both():
    """For each size what the CPU and the simulated GPU give, and (kernels, waits) of the GPU."""
    device_counts.PRODUCT_QUERIES, device_counts.PRODUCT_CANDIDATES = 8, 32
    device_counts.BLOCK_CANDIDATES = 128
    top.TILE_QUERIES, top.CHUNK_COLUMNS = 8, 32
    gpu, found = SimulatedGPU(), []
    for size in SIZES:
        q, p, codes, relevant = searched(*size)
        spans = [slice(3, len(p) - 2)]
        on_cpu = exact_search(q, p, codes, relevant, DEPTH), top_scores(q, torch.from_numpy(p), spans, DEPTH)
        with gpu:
            gpu.clear()
            ranked = exact_search(q, p, codes, relevant, DEPTH, gpus=["simulated"])
            counts = [(gpu.kernels.total(), dict(gpu.waits))]
            p_ND = torch.from_numpy(p).to(gpu.device)
            gpu.clear()
            best = top_scores(q, p_ND, spans, DEPTH)
            counts.append((gpu.kernels.total(), dict(gpu.waits)))
        found.append((on_cpu, (ranked, best), counts))
    return found


@pytest.fixture(scope="module")
def found():
    return run_ranks(on_both, 1)[0]


def test_ranks_and_lists_are_those_of_the_cpu(found):
    for (search, best), (ranked, listed), _ in found:
        for name, values in vars(search.ranks).items():
            np.testing.assert_array_equal(getattr(ranked.ranks, name), values)
        assert list(ranked.by_language) == list(search.by_language)
        pairs = [(ranked.by_language[code], of_code) for code, of_code in search.by_language.items()]
        for one, other in [*pairs, (listed, best)]:
            np.testing.assert_array_equal(one.places, other.places)
            np.testing.assert_array_equal(one.scores, other.scores)


def test_the_host_waits_for_blocks_and_results_and_for_no_product(found):
    for (_, candidates), (*_, ((_, ranking), (_, listing))) in zip(SIZES, found, strict=True):
        blocks = -(-candidates // 128)
        assert sum(ranking.values()) <= blocks + 3, "scores of relevant candidates, counts and lists"
        assert {why for _, why in ranking} == {"from the CPU", "to the CPU"}
        assert sum(listing.values()) <= 2, "queries and lists"


KERNELS = 2480, 630
"""Of 50 products of ranking, 60 with their languages, and of 50 of listing; as measured, and 4 % more."""


def test_kernels_of_five_tiles_of_queries_and_ten_of_candidates(found):
    (*_, ((ranking, _), (listing, _))) = found[-1]
    assert ranking <= KERNELS[0]
    assert listing <= KERNELS[1]
