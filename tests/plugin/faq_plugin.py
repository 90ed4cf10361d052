"""An example of a package that extends hbtrain: a form of data with its reader and benchmark, and a metric.

A file of frequently asked questions has blocks between empty lines: one question, a line for each language, which holds
the language, the question and the answer, with tabs in between.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hbtrain.evaluation.benchmark import Benchmark, LanguagePart, assemble
from hbtrain.evaluation.metrics import Floats, Rankings


def blocks(path: Path) -> Iterator[list[tuple[str, str, str]]]:
    """(language, question, answer) of every language, question by question."""
    for block in path.read_text(encoding="utf-8").strip().split("\n\n"):
        yield [tuple(line.split("\t", 2)) for line in block.splitlines()]


def read_faq(files: Sequence[str]) -> Iterable[dict[str, Any]]:
    """Rows in the form of parallel JSON lines."""
    for file in map(Path, files):
        for number, block in enumerate(blocks(file)):
            yield {
                "id": f"{file.stem}-{number}",
                "query": {language: question for language, question, _ in block},
                "passage": {language: answer for language, _, answer in block},
            }


def faq_benchmark(path: Path, name: str, languages: Sequence[str] | None) -> Benchmark:
    """Every question, asked in its languages, over the answers to all questions."""
    parts: dict[str, LanguagePart] = {}
    for number, block in enumerate(blocks(path)):
        for language, question, answer in block:
            if languages is not None and language not in languages:
                continue
            part = parts.setdefault(language, LanguagePart())
            part.candidate_ids.append(str(number))
            part.candidate_texts.append(answer)
            part.queries[str(number)] = question
            part.answers[str(number)] = len(part.candidate_ids) - 1
    return Benchmark.of(name, "passage", assemble(name, parts))


def success_at_3(rankings: Rankings) -> Floats:
    """[G] 1 where the best relevant candidate of a ranking is among the first three, else 0."""
    return (rankings.rank[rankings.start] <= 3).astype(np.float64)
