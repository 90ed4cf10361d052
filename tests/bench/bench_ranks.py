"""Time of exact ranks and metrics against the bare matrix product, in one run. Prints one JSON line.

python tests/bench/bench_ranks.py --queries 13090 --candidates 13014 --dim 768 --languages 11
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

from hbtrain.evaluation.metrics import METRICS, Rankings
from hbtrain.retrieval.ranks import exact_ranks


def seconds(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def unit(rng: np.random.Generator, rows: int, dim: int) -> np.ndarray:
    x = rng.standard_normal((rows, dim), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bare_product(q: np.ndarray, p: np.ndarray, rows: int = 2048) -> None:
    """Nothing but scores, in blocks large enough for the full speed of the matrix product."""
    candidates = torch.from_numpy(p).T
    out = torch.empty(rows, len(p))
    for start in range(0, len(q), rows):
        block = torch.from_numpy(q[start : start + rows])
        torch.mm(block, candidates, out=out[: len(block)])


def ranks_and_metrics(q: np.ndarray, p: np.ndarray, codes: np.ndarray, relevant: list, block_rows: int) -> None:
    ranks = exact_ranks(q, p, codes, relevant, block_rows)
    languages = int(codes.max()) + 1
    for group, rank in (
        (ranks.query * languages + ranks.language, ranks.in_language),
        (ranks.query, ranks.in_pool),
    ):
        rankings = Rankings.of(group, rank)
        for metric in METRICS.values():
            metric(rankings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queries", type=int, default=3000)
    parser.add_argument("--candidates", type=int, default=6000)
    parser.add_argument("--dim", type=int, default=256)
    parser.add_argument("--languages", type=int, default=11)
    parser.add_argument("--block-rows", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    q, p = unit(rng, args.queries, args.dim), unit(rng, args.candidates, args.dim)
    codes = np.sort(np.arange(args.candidates) % args.languages)
    starts = np.searchsorted(codes, np.arange(args.languages))
    sizes = np.bincount(codes)
    relevant = [starts + rng.integers(0, sizes) for _ in range(args.queries)]

    # The ranks come first: the peak is theirs, embeddings and torch included, not the wider blocks of the product's.
    before = peak_mib()
    ranks_and_metrics(q, p, codes, relevant, args.block_rows)
    peak = peak_mib()
    bare_product(q, p)
    product_s = seconds(lambda: bare_product(q, p), args.repeats)
    ranks_s = seconds(lambda: ranks_and_metrics(q, p, codes, relevant, args.block_rows), args.repeats)
    print(
        json.dumps(
            {
                "bench": "ranks",
                **vars(args),
                "threads": torch.get_num_threads(),
                "product_s": round(product_s, 4),
                "ranks_and_metrics_s": round(ranks_s, 4),
                "ratio": round(ranks_s / product_s, 3),
                "embeddings_mib": round((q.nbytes + p.nbytes) / 2**20, 1),
                "score_matrix_mib": round(args.queries * args.candidates * 4 / 2**20, 1),
                "peak_before_mib": round(before, 1),
                "peak_mib": round(peak, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
