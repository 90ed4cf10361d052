"""What the measures of language bias cost, beside the rest of an evaluation. Prints a JSON line.

Vectors are made up, of the size of XQuAD-R by default, so that nothing is spent on encoding; `--encoding-s` adds the
seconds that encoding takes with a real model to what the measures are compared with.

python tests/bench/bench_measures.py
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from hbtrain.evaluation import scoring
from hbtrain.evaluation.benchmark import Benchmark, LanguagePart, assemble
from hbtrain.evaluation.evaluate import evaluate
from tests.bench.measure import peak_mib, tell


class Spent:
    """Calls a function and adds up the seconds that it took."""

    def __init__(self, function: object) -> None:
        self.function, self.seconds = function, 0.0

    def __call__(self, *arguments: object) -> object:
        begun = time.perf_counter()
        try:
            return self.function(*arguments)
        finally:
            self.seconds += time.perf_counter() - begun


class MadeUp:
    """An encoder of unit vectors that lie near those of the same text in other languages, and of their language."""

    similarity = "cosine"

    def __init__(self, dimension: int, seed: int) -> None:
        self._dimension, self._seed = dimension, seed

    def encode(self, texts, side, batch_size=0, progress=None):
        found = np.empty((len(texts), self._dimension), np.float32)
        for row, text in enumerate(texts):
            _, language, number = text.split()
            found[row] = self._noise(1, int(number)) + 0.7 * self._noise(2, int(language))
            found[row] += 0.7 * self._noise(3 + len(side), int(language) * 100_003 + int(number))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def _noise(self, kind: int, number: int):
        return np.random.default_rng([self._seed, kind, number]).normal(size=self._dimension)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--languages", type=int, default=11)
    parser.add_argument("--questions", type=int, default=1190)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--encoding-s", type=float, default=0.0)
    arguments = parser.parse_args()
    parts = {}
    for language in range(arguments.languages):
        numbers = range(arguments.questions)
        parts[f"x{language}"] = LanguagePart(
            [str(n) for n in numbers],
            [f"passage {language} {n}" for n in numbers],
            {str(n): f"query {language} {n}" for n in numbers},
            {str(n): n for n in numbers},
        )
    benchmark = Benchmark.of("made-up", "passage", assemble("made-up", parts))
    encoder = MadeUp(arguments.dimension, 0)
    texts = {"query": lambda part: part.queries.values(), "passage": lambda part: part.candidate_texts}
    vectors = {
        side: encoder.encode([text for part in parts.values() for text in of_part(part)], side)
        for side, of_part in texts.items()
    }
    encoder.encode = lambda texts, side, **_: vectors[side]
    names = ("_of_vectors", "_of_first_places", "preferences", "best_ranks", "language_bias", "first_languages")
    spent = {name: Spent(getattr(scoring, name)) for name in names}
    with patch.multiple(scoring, **spent):
        found = evaluate(encoder, benchmark)
    measures = spent["_of_vectors"].seconds + spent["preferences"].seconds + spent["best_ranks"].seconds
    # What was measured before stands within `_of_first_places`.
    measures += spent["_of_first_places"].seconds - spent["language_bias"].seconds - spent["first_languages"].seconds
    rest = found.seconds - measures + arguments.encoding_s
    tell(
        "measures",
        languages=arguments.languages,
        queries=sum(found.query_counts.values()),
        candidates=sum(found.candidate_counts.values()),
        seconds=measures,
        of_vectors_s=spent["_of_vectors"].seconds,
        rest_s=rest,
        share_on_top=measures / rest,
        peak_mib=peak_mib(),
    )


if __name__ == "__main__":
    main()
