"""All pairs of very many languages in one pass, as Belebele has them: time and memory of an evaluation with results.
Prints one JSON line.

Every question has an answer in every language, so that rankings grow with the square of the languages. The time is set
against that of the ranks alone, from the same vectors in the same run; memory is what the process takes at its peak.

python -m tests.bench.bench_languages [--languages 122] [--questions 458]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np

from hbtrain.evaluation.benchmark import Benchmark, LanguagePart, assemble
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.rankers import ExactRanker
from hbtrain.evaluation.results import save_evaluation
from tests.bench.measure import peak_mib, tell


class RandomVectors:
    """Gives every text a unit vector by chance."""

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension

    def encode(self, texts, side, batch_size=0, progress=None):
        found = np.random.default_rng(len(side)).standard_normal((len(texts), self.dimension), np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)


class Timed(ExactRanker):
    """The ranker, which keeps how long it took."""

    def __call__(self, encoder, collection):
        start = time.process_time()
        found = super().__call__(encoder, collection)
        object.__setattr__(self, "seconds", time.process_time() - start)
        return found


def many_languages(languages: int, questions: int) -> Benchmark:
    """Two questions a passage, the same in all languages."""
    parts = {}
    for number in range(languages):
        part = parts[f"x{number:03d}"[-4:]] = LanguagePart()
        part.candidate_ids = [str(x) for x in range(-(-questions // 2))]
        part.candidate_texts = [f"passage {x} in {number}" for x in part.candidate_ids]
        part.queries = {
            f"https://example.org/wiki/page_{x // 2}#{x % 2}": f"{x} in {number}?" for x in range(questions)
        }
        part.answers = {key: place // 2 for place, key in enumerate(part.queries)}
    return Benchmark.of("languages", "passage", assemble("languages", parts))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--languages", type=int, default=122)
    parser.add_argument("--questions", type=int, default=458)
    parser.add_argument("--dimension", type=int, default=64)
    options = parser.parse_args()
    benchmark, ranker = many_languages(options.languages, options.questions), Timed()
    start = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        evaluation = evaluate(RandomVectors(options.dimension), benchmark, ranker=ranker)
        save_evaluation([evaluation], Path(folder))
    whole = time.process_time() - start
    rankings = evaluation.per_query.num_rows
    tell(
        "languages",
        rankings=rankings,
        cpu_s=whole,
        to_ranks_alone=whole / ranker.seconds,
        peak_mib=peak_mib(),
        bytes_a_ranking=peak_mib() * 2**20 / rankings,
    )


if __name__ == "__main__":
    main()
