"""Small benchmarks and an encoder for the tests of evaluation."""

from __future__ import annotations

import gzip
import json
import math
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np

from hbtrain.evaluation.benchmark import Benchmark, Collection, LanguagePart, assemble


class HashEncoder:
    """A random unit vector per text, side and text deciding; counts what it is asked for."""

    def __init__(self, dimension: int = 6) -> None:
        self.dimension = dimension
        self.asked: list[tuple[str, list[str], int]] = []

    def encode(self, texts, side, batch_size=128, progress=None):
        self.asked.append((side, list(texts), batch_size))
        vectors = np.array([self.vector(text) for text in texts], np.float32)
        if progress is not None:
            progress(len(texts))
        return vectors

    def vector(self, text: str) -> np.ndarray:
        vector = np.random.default_rng(zlib.crc32(text.encode())).standard_normal(self.dimension)
        return (vector / np.linalg.norm(vector)).astype(np.float32)


def paragraph(sentences: list[str], questions: dict[str, int]) -> dict:
    """A LAReQA paragraph; `questions` maps question ids to the sentence that holds the answer."""
    context = " ".join(sentences)
    starts = np.cumsum([0, *(len(s) + 1 for s in sentences)]).tolist()
    return {
        "context": context,
        "sentences": sentences,
        "sentence_breaks": [[a, min(b, len(context))] for a, b in pairwise(starts)],
        "qas": [
            {"id": q, "question": f"{q}?", "answers": [{"text": sentences[s][1:], "answer_start": starts[s] + 1}]}
            for q, s in questions.items()
        ],
    }


def write_lareqa(folder: Path, languages: dict[str, list[dict]], zipped: tuple[str, ...] = ()) -> Path:
    """A LAReQA folder; the languages' paragraphs lie in articles of two."""
    folder.mkdir(parents=True, exist_ok=True)
    for language, paragraphs in languages.items():
        articles = [
            {"title": f"t{i}", "paragraphs": paragraphs[i : i + 2]} for i in range(0, max(len(paragraphs), 1), 2)
        ]
        text = json.dumps({"version": "1.1", "data": articles}, ensure_ascii=False)
        if language in zipped:
            (folder / f"{language}.json.gz").write_bytes(gzip.compress(text.encode()))
        else:
            (folder / f"{language}.json").write_text(text, encoding="utf-8")
    return folder


def only(benchmark: Benchmark) -> Collection:
    """The collection of a benchmark that has one."""
    [collection] = benchmark.collections()
    return collection


def candidate_languages(collection: Collection) -> list[str]:
    """[N] the language of every candidate."""
    return [language for language, count in collection.candidate_counts.items() for _ in range(count)]


def random_benchmark(languages: tuple[str, ...] = ("de", "en", "th"), questions: int = 12, seed: int = 0) -> Benchmark:
    """Questions that exist in some languages only, as in MLQA-R, over candidates some of which repeat a text."""
    rng = np.random.default_rng(seed)
    parts = {}
    for language in languages:
        part = LanguagePart()
        size = int(rng.integers(8, 15))
        part.candidate_ids = [str(i) for i in range(size)]
        part.candidate_texts = [f"passage {language} {i % 7}" for i in range(size)]
        for q in range(questions):
            if language == languages[0] or rng.random() < 0.6:
                part.queries[f"q{q}"] = f"question {language} {q}"
                part.answers[f"q{q}"] = int(rng.integers(size))
        parts[language] = part
    return Benchmark.of("sample", "sentence", assemble("sample", parts))


def scores_by_hand(ranking: list[str], gains: dict[str, float]) -> dict[str, float]:
    """trec_eval's metrics of one query, from its whole ranking and the gains of all that is judged relevant."""
    hits = [rank for rank, document in enumerate(ranking, 1) if document in gains]
    ideal = sorted(gains.values(), reverse=True)

    def dcg(values):
        return sum(gain / math.log2(rank + 1) for rank, gain in enumerate(values, 1))

    return {
        "map": sum(nth / rank for nth, rank in enumerate(hits, 1)) / len(gains),
        "mrr": 1 / hits[0] if hits else 0.0,
        "mrr@10": 1 / hits[0] if hits and hits[0] <= 10 else 0.0,
        "ndcg@10": dcg([gains.get(document, 0) for document in ranking[:10]]) / dcg(ideal[:10]),
        **{f"recall@{k}": sum(rank <= k for rank in hits) / len(gains) for k in (1, 10, 100)},
    }
