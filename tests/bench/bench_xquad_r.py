"""The whole XQuAD-R table from saved embeddings, against the bare matrix product and against sentence-transformers'
InformationRetrievalEvaluator on the same vectors. Prints one JSON line.

The table: 121 language pairs and the pool for eleven query languages, every metric of every query, means. The matrix
product: nothing but the scores, in the same run with the same threads. The evaluator takes long, so some settings of
each kind are measured and the rest counted as their mean; where both computed it, mAP must agree.

python tests/bench/bench_xquad_r.py [--data ../shared/data/xquad-r]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from hbtrain.evaluation.aligned import read_squad
from hbtrain.evaluation.benchmark import Benchmark, Collection
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.summary import Evaluation
from hbtrain.retrieval.ranks import exact_search
from hbtrain.retrieval.shard_counts import Blocks
from tests.bench.measure import in_turns, tell

LANGUAGES = ("ar", "de", "el", "en", "es", "hi", "ru", "th", "tr", "vi", "zh")
QUESTIONS, CANDIDATES = 1190, 13_014
PRODUCT_ROWS = 4096
"""Queries of one product of the bare side: enough for its full speed."""


def like_xquad_r() -> Benchmark:
    """Its counts without its texts: every question has an answer in every language, candidates in random places."""
    rng = np.random.default_rng(0)
    sizes = [CANDIDATES // len(LANGUAGES) + (i < CANDIDATES % len(LANGUAGES)) for i in range(len(LANGUAGES))]
    starts = np.cumsum([0, *sizes[:-1]])
    answers = rng.integers(0, min(sizes), QUESTIONS)
    collection = Collection(
        name="like xquad-r",
        question_ids=[str(i) for _ in LANGUAGES for i in range(QUESTIONS)],
        query_languages=[x for x in LANGUAGES for _ in range(QUESTIONS)],
        query_texts=[""] * (QUESTIONS * len(LANGUAGES)),
        candidate_ids=[str(i) for i in range(CANDIDATES)],
        candidate_texts=[""] * CANDIDATES,
        candidate_counts=dict(zip(LANGUAGES, sizes, strict=True)),
        relevant=[starts + answer for _ in LANGUAGES for answer in answers],
    )
    return Benchmark.of("xquad-r", "sentence", collection)


def embeddings(collection: Collection, dimension: int) -> tuple[np.ndarray, np.ndarray]:
    """Random unit vectors, queries a little nearer to their answers than to the rest."""
    rng = np.random.default_rng(1)
    p = rng.standard_normal((len(collection.candidate_ids), dimension), np.float32)
    q = rng.standard_normal((len(collection.question_ids), dimension), np.float32)
    q += 0.12 * np.array([p[places].sum(axis=0) for places in collection.relevant])
    return tuple(x / np.linalg.norm(x, axis=1, keepdims=True) for x in (q, p))


class Saved:
    """A ranker that has the embeddings already."""

    about = {"search": "exact"}  # noqa: RUF012

    def __init__(self, q: np.ndarray, p: np.ndarray, threads: int) -> None:
        self.q, self.p, self.threads = q, p, threads

    def __call__(self, encoder, collection):
        codes = collection.candidate_codes
        return exact_search(self.q, self.p, codes, collection.relevant, 10, Blocks(threads=self.threads))


def bare_product(q: np.ndarray, p: np.ndarray) -> None:
    candidates = torch.from_numpy(p).T
    out = torch.empty(PRODUCT_ROWS, len(p))
    for start in range(0, len(q), PRODUCT_ROWS):
        block = torch.from_numpy(q[start : start + PRODUCT_ROWS])
        torch.mm(block, candidates, out=out[: len(block)])


def by_evaluator(
    collection: Collection, q: np.ndarray, p: np.ndarray, asked: str, answered: str
) -> tuple[float, float]:
    """Seconds and uncut mAP of sentence-transformers for one query language and one passage language or "all"."""
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
    from sentence_transformers.util import dot_score

    class OnVectors(InformationRetrievalEvaluator):
        def embed_inputs(self, model, sentences, **kwargs):
            return torch.from_numpy(q[[int(text) for text in sentences]])

    rows = [i for i, x in enumerate(collection.query_languages) if x == asked]
    languages = np.repeat(collection.languages, list(collection.candidate_counts.values()))
    pool = np.flatnonzero((languages == answered) | (answered == "all"))
    # What a user of the evaluator would ask for to get what the table has; map_at_k of the whole pool is uncut.
    evaluator = OnVectors(
        queries={str(i): str(i) for i in rows},
        corpus={_name(c): str(c) for c in pool.tolist()},
        relevant_docs=_relevant(collection, rows, set(pool.tolist())),
        mrr_at_k=[10],
        ndcg_at_k=[10],
        accuracy_at_k=[1],
        precision_recall_at_k=[1, 10, 100],
        map_at_k=[len(pool)],
        score_functions={"dot": dot_score},
        write_csv=False,
    )
    start = time.perf_counter()
    scores = evaluator.compute_all_metrics(None, corpus_embeddings=torch.from_numpy(p[pool]))
    return time.perf_counter() - start, scores["dot"]["map@k"][len(pool)]


def _name(candidate: int) -> str:
    """The evaluator puts equal scores in the order of their ids: with these it has our rule for ties."""
    return f"{candidate:08d}"


def _relevant(collection: Collection, rows: list[int], pool: set[int]) -> dict[str, set[str]]:
    return {str(i): {_name(c) for c in collection.relevant[i].tolist() if c in pool} for i in rows}


def our_map(evaluation: Evaluation, asked: str, answered: str) -> float:
    return next(c.means["map"] for c in evaluation.cells if (c.query_language, c.passage_language) == (asked, answered))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/xquad-r"))
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--processor-time", action="store_true", help="measure that, for a machine that is busy")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--evaluator-pairs", type=int, default=4, help="language pairs measured of the 121; 0: none")
    parser.add_argument("--evaluator-pools", type=int, default=1, help="query languages measured against the pool")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    real = args.data.is_dir()
    benchmark = read_squad(args.data, "xquad-r", candidates="sentence") if real else like_xquad_r()
    [collection] = benchmark.collections()
    q, p = embeddings(collection, args.dim)
    ranker = Saved(q, p, args.threads)
    found = evaluate(None, benchmark, ranker=ranker)
    sides = {"product": lambda: bare_product(q, p), "table": lambda: evaluate(None, benchmark, ranker=ranker)}
    times = in_turns(sides, args.repeats, time.process_time if args.processor_time else time.perf_counter)
    languages = collection.languages
    figures: dict[str, object] = {}
    if args.evaluator_pairs or args.evaluator_pools:
        pairs = [
            (languages[i % len(languages)], languages[i * 4 % len(languages)]) for i in range(args.evaluator_pairs)
        ]
        pools = [(languages[3 + i], "all") for i in range(args.evaluator_pools)]
        measured = {pair: by_evaluator(collection, q, p, *pair) for pair in [*pairs, *pools]}
        gaps = [abs(value - our_map(found, *pair)) for pair, (_, value) in measured.items()]
        if max(gaps) > 1e-6:
            raise SystemExit(f"mAP differs from sentence-transformers' by {max(gaps)}")
        pair_s = float(np.mean([measured[pair][0] for pair in pairs])) if pairs else 0.0
        pool_s = float(np.mean([measured[pool][0] for pool in pools])) if pools else 0.0
        total_s = pair_s * len(languages) ** 2 + pool_s * len(languages)
        figures = {
            "evaluator_pair_s": pair_s,
            "evaluator_pool_s": pool_s,
            "evaluator_measured": [f"{x}-{y}" for x, y in measured],
            "evaluator_extrapolated_s": total_s,
            "times_faster": total_s / times["table"],
            "largest_map_gap": float(max(gaps)),
        }
    tell(
        "xquad_r",
        structure="xquad-r" if real else "its counts",
        queries=len(q),
        candidates=len(p),
        dimension=args.dim,
        threads=args.threads,
        processor_time=args.processor_time,
        rows=found.per_query.num_rows,
        product_s=times["product"],
        table_s=times["table"],
        ratio=times["table"] / times["product"],
        **figures,
    )


if __name__ == "__main__":
    main()
