"""Two shards on two actors against one index: the whole search, and the merge. Prints one JSON line for each index.

The vectors are random unit vectors in a store in `--folder` (1,000,000 of 128 dimensions take 512 MB), which is kept
for the next run if it is named. Indices are built before the time is taken.

python tests/bench/bench_shards.py --vectors 1000000 --dimension 128 --queries 1000 --indices Flat IVF1024,Flat
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.cluster.capacity import Demand
from hbtrain.retrieval.actors import actor_session
from hbtrain.retrieval.collection_search import recall_of
from hbtrain.retrieval.manifest import Manifest
from hbtrain.retrieval.shards import ShardIndex, split
from hbtrain.retrieval.store import EmbeddingStore, StoreWriter
from hbtrain.retrieval.top import Top, merge_top
from hbtrain.retrieval.workers import Workers
from tests.bench.measure import in_turns, seconds, tell


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--vectors", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=128)
    parser.add_argument("--queries", type=int, default=500)
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--indices", nargs="+", default=["Flat"], help="factory strings; parameters after a colon")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        store = store_of(arguments.folder or Path(temporary), arguments)
        rng = np.random.default_rng(1)
        q_QD = unit(rng, arguments.queries, arguments.dimension)
        for index in arguments.indices:
            compare(store, q_QD, index, arguments)


def compare(store: EmbeddingStore, q_QD: np.ndarray, index: str, arguments: argparse.Namespace) -> None:
    """One index in this process, then the shards' in actors; each has one thread, so that actors are what is added."""
    factory, _, parameters = index.partition(":")
    k, files = arguments.k, len(store.manifest.shards)
    shard = partial(ShardIndex, str(store.folder.absolute()), factory=factory, parameters=parameters)
    with actor_session(Demand("--shards", arguments.shards, 1)) as start:
        with start([partial(shard, range(files))]) as one:
            build_one_s = seconds(lambda: one.each("nearest", q_QD[:1], k))
            one_s = in_turns({"one": lambda: one.each("nearest", q_QD, k)}, arguments.repeats)["one"]
            (whole,) = one.each("nearest", q_QD, k)
            (exact,) = one.each("exact", q_QD[:100], k)
        with start([partial(shard, part) for part in split(files, arguments.shards)]) as several:
            build_several_s = seconds(lambda: several.each("nearest", q_QD[:1], k))
            several_s = in_turns({"several": lambda: search(several, q_QD, k)}, arguments.repeats)["several"]
            parts = several.each("nearest", q_QD, k)
    found = merge_top(parts, k)
    merge_s = in_turns({"merge": lambda: merge_top(parts, k)}, 5)["merge"]
    tell(
        "shards",
        index=index,
        vectors=len(store),
        dimension=store.manifest.dimension,
        queries=len(q_QD),
        k=k,
        shards=arguments.shards,
        threads=os.environ.get("OMP_NUM_THREADS"),
        one_s=one_s,
        shards_s=several_s,
        ratio=several_s / one_s,
        merge_s=merge_s,
        merge_share=merge_s / several_s,
        first_one_s=build_one_s,
        first_shards_s=build_several_s,
        equal=bool(np.array_equal(found.places, whole.places) and np.array_equal(found.scores, whole.scores)),
        recall_one=recall_of(Top(*(x[:100] for x in whole)), exact),
        recall_shards=recall_of(Top(*(x[:100] for x in found)), exact),
    )


def search(workers: Workers, q_QD: np.ndarray, k: int) -> Top:
    return merge_top(workers.call_all("nearest", q_QD, k), k)


def store_of(folder: Path, arguments: argparse.Namespace) -> EmbeddingStore:
    """Random vectors around 2,000 centres, as embeddings have neighbours; every thousandth is a copy of the first."""
    rows, dimension = arguments.vectors, arguments.dimension
    manifest = Manifest(f"random-{dimension}", "passage", "", f"random-{rows}", rows, dimension)
    centres = unit(np.random.default_rng(2), 2000, dimension)
    with StoreWriter(folder, manifest) as writer:
        for shard in writer.missing:
            rows_here = manifest.shards[shard]
            rng = np.random.default_rng(shard)
            noise = unit(rng, len(rows_here), dimension)
            vectors = centres[rng.integers(0, len(centres), len(rows_here))] + noise
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors[::1000] = centres[0]
            writer.write(rows_here.start, vectors)
    return EmbeddingStore(folder)


def unit(rng: np.random.Generator, rows: int, dimension: int) -> np.ndarray:
    x = rng.standard_normal((rows, dimension), dtype=np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
