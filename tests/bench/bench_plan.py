"""A plan over mMARCO's shape, and what others need to shuffle the same. Prints a JSON line a side and one of ratios.

mMARCO's 39,780,811 rows in 7 languages, and the paper's eight other sources beside it (arXiv 2408.10536, table 9); no
text, ids alone. Times are of the processor (one core), so that others' load on the machine does not count. Sides, each
in a process of its own:

- hbtrain: all ids differ.
- hbtrain-triples: mMARCO's rows are triples, a hundred of each query, kept apart; their ids are in a file.
- numpy: a permutation of each source's rows, without languages, kinds, or a thought for shared queries.
- sentence-transformers: its default batch sampler over mMARCO's rows of one language.
- sentence-transformers-no-duplicates: its sampler that keeps equal ids apart, over the triples of one language.

python tests/bench/bench_plan.py
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.batching import BatchPlan
from hbtrain.config.batching import BatchingConfig
from hbtrain.corpus import SourceIndex
from hbtrain.corpus.conflicts import SizeClass
from tests.bench.measure import peak_mib, tell

NINE = ("ar", "de", "en", "es", "hi", "ru", "th", "tr", "zh")
MMARCO = 39_780_811
SEVEN = ("ar", "de", "en", "es", "hi", "ru", "zh")
OTHERS = {  # rows, languages
    "wikiqa": (1_469, NINE),
    "mr-tydi": (3_547, ("en",)),
    "duorc": (33_298, NINE),
    "newsqa": (59_496, NINE),
    "google-nq": (113_535, NINE),
    "yahoo-qa": (135_557, NINE),
    "entity-questions": (176_975, NINE),
    "mfaq": (3_567_659, ("en",)),
}
ROWS_OF_QUERY = 100
FAR = 1_000_000
"""A step far from the first."""


def mmarco(queries: Path | None) -> SourceIndex:
    if queries is None:
        return SourceIndex.complete("mmarco", MMARCO, SEVEN)
    full, left = np.ones((1, len(SEVEN)), bool), MMARCO % ROWS_OF_QUERY
    classes = SizeClass(ROWS_OF_QUERY, MMARCO // ROWS_OF_QUERY, 0), SizeClass(left, 1, MMARCO - left)
    ids = np.load(queries, mmap_mode="r")
    return SourceIndex("mmarco", MMARCO, SEVEN, full, full, np.array([MMARCO]), query_ids=ids, classes=classes)


def others() -> list[SourceIndex]:
    return [SourceIndex.complete(name, rows, languages) for name, (rows, languages) in OTHERS.items()]


def resident() -> tuple[float, float]:
    """MiB of main memory: all, and what of it are pages of files, which the system may drop at any time."""
    memory = psutil.Process().memory_info()
    return memory.rss / 2**20, _file_mib()


def _file_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("RssFile")).split()[1]) / 1024


def ours(size: int, queries: str | None) -> dict[str, float]:
    batching = BatchingConfig(global_batch_size=size)
    BatchPlan(others(), batching).batch(3)  # what is loaded when it is first used
    before, before_file = resident()
    start = time.process_time()
    plan = BatchPlan([mmarco(None if queries is None else Path(queries)), *others()], batching)
    plan.batch(0)
    ready_s = time.process_time() - start
    ready, _ = resident()
    start = time.process_time()
    steps = 2_000
    for step in range(steps):
        plan.batch(step)
    seconds = time.process_time() - start
    after, after_file = resident()
    start = time.process_time()
    plan.batch(FAR)
    first_far_s = time.process_time() - start
    far = [_seconds(plan, FAR + 1 + i) for i in range(300)]
    near = [_seconds(plan, i) for i in range(300)]
    return {
        "ready_s": ready_s,
        "ready_mib": ready - before,
        "peak_mib": peak_mib() - before,
        "of_it_file_mib": after_file - before_file,
        "beside_files_mib": (after - before) - (after_file - before_file),
        "pairs_per_s": steps * size / seconds,
        "first_call_at_a_million_s": first_far_s,
        "batch_at_a_million_by_batch_at_0": statistics.median(far) / statistics.median(near),
    }


def _seconds(plan: BatchPlan, step: int) -> float:
    start = time.process_time()
    plan.batch(step)
    return time.process_time() - start


def numpy_side(size: int, queries: str | None) -> dict[str, float]:
    np.random.default_rng(0).permutation(10)
    before, _ = resident()
    start = time.process_time()
    generator = np.random.default_rng(0)
    orders = [generator.permutation(rows) for rows in (MMARCO, *(rows for rows, _ in OTHERS.values()))]
    batches = iter(range(0, MMARCO - size, size))
    orders[0][:size].copy()
    ready_s = time.process_time() - start
    start = time.process_time()
    steps = 20_000
    for place in islice(batches, steps):
        orders[0][place : place + size].copy()
    seconds = time.process_time() - start
    ready, _ = resident()
    return {
        "ready_s": ready_s,
        "ready_mib": ready - before,
        "peak_mib": peak_mib() - before,
        "pairs_per_s": steps * size / seconds,
    }


def theirs(size: int, queries: str | None) -> dict[str, float]:
    import torch
    from torch.utils.data import SubsetRandomSampler

    if queries is None:
        from sentence_transformers.base.sampler import DefaultBatchSampler

        def sampler(rows: int) -> Iterator[list[int]]:
            generator = torch.Generator()
            samples = SubsetRandomSampler(range(rows), generator=generator)
            return iter(DefaultBatchSampler(samples, size, True, generator=generator, seed=0))

        next(sampler(1000))
        return _sample(lambda: sampler(MMARCO), size, 2_000)
    import datasets
    from sentence_transformers.base.sampler import NoDuplicatesBatchSampler

    ids = np.load(queries, mmap_mode="r")

    def table(rows: int) -> datasets.Dataset:
        return datasets.Dataset.from_dict({"query": ids[:rows], "passage": np.arange(rows) + MMARCO})

    def no_duplicates(dataset: datasets.Dataset) -> Iterator[list[int]]:
        return iter(NoDuplicatesBatchSampler(dataset, size, True, generator=torch.Generator()))

    next(no_duplicates(table(100_000)))
    whole = table(MMARCO)
    return _sample(lambda: no_duplicates(whole), size, 40)


def _sample(make: object, size: int, steps: int) -> dict[str, float]:
    before, _ = resident()
    start = time.process_time()
    batches = make()  # type: ignore[operator]
    next(batches)
    ready_s = time.process_time() - start
    ready, _ = resident()
    start = time.process_time()
    for _ in islice(batches, steps):
        pass
    seconds = time.process_time() - start
    return {
        "ready_s": ready_s,
        "ready_mib": ready - before,
        "peak_mib": peak_mib() - before,
        "pairs_per_s": steps * size / seconds,
    }


SIDES = {
    "hbtrain": (ours, False),
    "hbtrain-triples": (ours, True),
    "numpy": (numpy_side, False),
    "sentence-transformers": (theirs, False),
    "sentence-transformers-no-duplicates": (theirs, True),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        queries = Path(folder) / "queries.npy"
        np.save(queries, np.arange(MMARCO, dtype=np.int32) // ROWS_OF_QUERY)
        for name in arguments.sides:
            work, triples = SIDES[name]
            with context.Pool(1) as pool:
                found[name] = pool.apply(work, (arguments.batch, str(queries) if triples else None))
            tell("plan", side=name, batch=arguments.batch, **found[name])
    mine = found.get("hbtrain")
    if mine is not None:
        ratios = {
            f"{figure}_by_{name}": side[figure] / mine[figure]
            for name, side in found.items()
            for figure in ("ready_s", "pairs_per_s")
            if not name.startswith("hbtrain")
        }
        tell("plan", side="ratios to hbtrain", **ratios)


if __name__ == "__main__":
    main()
