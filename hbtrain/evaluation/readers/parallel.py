"""Benchmarks from parallel JSON lines: every passage of every language is a candidate.

The file has the form sources have (`hbtrain.corpus.jsonl`). Rows with one passage id share a passage; a question's
relevant candidates are its passage in every language that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from hbtrain.corpus.jsonl import ParallelRow, read_rows
from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Benchmark, LanguagePart, assemble, choose_languages


def read_parallel(path: Path, name: str, languages: Sequence[str] | None = None) -> Benchmark:
    """The benchmark of a file, restricted to `languages` where given; a pool in their order, else alphabetical.

    Questions in a language without passages are asked all the same, of the passages in the other languages.

    Raises:
        DataError: an unreadable row, a question id that occurs twice, or a passage id with two texts in one language.
    """
    rows = list(read_rows(path))
    if not rows:
        raise DataError(f"benchmark {name} ({path}) holds no rows")
    _check_unique(rows, path)
    available = {language for row in rows for language in (*row.query, *row.passage)}
    chosen = choose_languages(sorted(available), languages, f"benchmark {name} ({path})")
    parts = {language: _part(rows, language, path) for language in chosen}
    return Benchmark.of(name, "passage", assemble(name, parts))


def _check_unique(rows: Sequence[ParallelRow], path: Path) -> None:
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise DataError(f"{path} question {row.id}: the id occurs twice; ids must be unique in a benchmark")
        seen.add(row.id)


def _part(rows: Sequence[ParallelRow], language: str, path: Path) -> LanguagePart:
    part = LanguagePart()
    places: dict[str, int] = {}
    for row in rows:
        text = row.passage.get(language)
        if text is None:
            continue
        place = places.setdefault(row.passage_id, len(places))
        if place == len(part.candidate_ids):
            part.candidate_ids.append(row.passage_id)
            part.candidate_texts.append(text)
        elif part.candidate_texts[place] != text:
            raise DataError(
                f"{path} question {row.id}: passage {row.passage_id} has another text in {language} than an earlier "
                "row; rows with one passage_id must repeat it exactly"
            )
    for row in rows:
        if language in row.query:
            part.queries[row.id] = row.query[language]
            if row.domain is not None:
                part.domains[row.id] = row.domain
        if row.passage_id in places:
            part.answers[row.id] = places[row.passage_id]
    return part
