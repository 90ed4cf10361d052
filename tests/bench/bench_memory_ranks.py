"""Exact ranks and lists of 100,000 queries over 1,000,000 candidates in bounded memory. Prints one JSON line.

The vectors lie on disk and are memory-mapped. All candidates are gone through for a part of the queries; the time of
the rest is extrapolated, and the peak of memory does not grow with it but for the results themselves.

python tests/bench/bench_memory_ranks.py [--measured 4096]
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch

from hbtrain.retrieval.ranks import exact_search
from hbtrain.retrieval.shard_counts import Blocks
from tests.bench.measure import memory_mib, seconds, tell

WRITTEN_ROWS = 50_000


def vectors(path: Path, rows: int, dimension: int, seed: int) -> np.ndarray:
    """Random unit vectors [rows, dimension] on disk, read-only."""
    rng = np.random.default_rng(seed)
    out = np.lib.format.open_memmap(path, "w+", np.float32, (rows, dimension))
    for start in range(0, rows, WRITTEN_ROWS):
        x = rng.standard_normal((min(WRITTEN_ROWS, rows - start), dimension), np.float32)
        out[start : start + len(x)] = x / np.linalg.norm(x, axis=1, keepdims=True)
    out.flush()
    return np.load(path, mmap_mode="r")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100_000)
    parser.add_argument("--candidates", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=384)
    parser.add_argument("--languages", type=int, default=10)
    parser.add_argument("--relevant", type=int, default=2)
    parser.add_argument("--depth", type=int, default=10)
    parser.add_argument("--measured", type=int, default=4096, help="queries gone through")
    parser.add_argument("--block-queries", type=int, default=4096)
    parser.add_argument("--block-candidates", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--folder", type=Path, default=None, help="where the vectors are written, 4 bytes a number")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    rng = np.random.default_rng(2)
    languages = np.sort(np.arange(args.candidates) % args.languages)
    measured = min(args.measured, args.queries)
    relevant = [rng.choice(args.candidates, args.relevant, replace=False) for _ in range(measured)]
    blocks = Blocks(args.block_queries, args.block_candidates, args.threads)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        q = vectors(Path(folder) / "q.npy", args.queries, args.dim, 0)
        p = vectors(Path(folder) / "p.npy", args.candidates, args.dim, 1)
        times: list[float] = []

        def work() -> None:
            times.append(seconds(lambda: exact_search(q[:measured], p, languages, relevant, args.depth, blocks)))

        exact_search(q[:512], p[:1024], languages[:1024], [np.zeros(1, np.int64)] * 512, 1, blocks)  # libraries loaded
        peak = memory_mib(work)
    tell(
        "memory_ranks",
        queries=args.queries,
        candidates=args.candidates,
        dimension=args.dim,
        block_queries=args.block_queries,
        block_candidates=args.block_candidates,
        threads=args.threads,
        depth=args.depth,
        peak_mib_above_start=peak,
        embeddings_mib=(args.queries + args.candidates) * args.dim * 4 / 2**20,
        score_matrix_mib=args.queries * args.candidates * 4 / 2**20,
        measured_queries=measured,
        measured_s=times[0],
        gflops=2e-9 * measured * args.candidates * args.dim / times[0],
        extrapolated_s=times[0] * args.queries / measured,
    )


if __name__ == "__main__":
    main()
