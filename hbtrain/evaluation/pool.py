"""A benchmark in memory: queries, the pool of candidates of all languages, and which are relevant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from hbtrain.errors import DataError

Int64s = npt.NDArray[np.int64]
CandidatesKind = Literal["sentence", "passage"]


@dataclass(frozen=True)
class Benchmark:
    """Q queries in several languages over one pool of N candidates.

    A question in two languages is two queries of one question id. Its relevant candidates are the translations of
    its answer: one in each language that has it, the query's own included.

    Raises:
        DataError: the parts do not fit together.
    """

    name: str
    candidates_kind: CandidatesKind
    languages: tuple[str, ...]
    """In the order of the pool."""
    question_ids: list[str]
    query_languages: list[str]
    query_texts: list[str]
    candidate_ids: list[str]
    """Unique in the pool."""
    candidate_languages: list[str]
    """Grouped, in the order of `languages`."""
    candidate_texts: list[str]
    relevant: list[Int64s]
    """For each query the indices of its relevant candidates in the whole pool, at least one, ascending."""

    def __post_init__(self) -> None:
        _check_lengths(self)
        _check_languages(self)
        _check_ids(self)
        _check_relevant(self)

    @property
    def query_codes(self) -> Int64s:
        """[Q] the queries' languages as places in `languages`."""
        return self._codes(self.query_languages)

    @property
    def candidate_codes(self) -> Int64s:
        """[N] the candidates' languages as places in `languages`; ascending."""
        return self._codes(self.candidate_languages)

    def query_counts(self) -> dict[str, int]:
        """Queries per language, all languages of the pool."""
        counts = Counter(self.query_languages)
        return {language: counts[language] for language in self.languages}

    def candidate_counts(self) -> dict[str, int]:
        """Candidates per language, all languages of the pool."""
        counts = Counter(self.candidate_languages)
        return {language: counts[language] for language in self.languages}

    def _codes(self, languages: list[str]) -> Int64s:
        place = {language: code for code, language in enumerate(self.languages)}
        return np.array([place[language] for language in languages], np.int64)


@dataclass
class LanguagePart:
    """What one language brings to a benchmark."""

    candidate_ids: list[str] = field(default_factory=list)
    candidate_texts: list[str] = field(default_factory=list)
    queries: dict[str, str] = field(default_factory=dict)
    """Question id -> text."""
    answers: dict[str, int] = field(default_factory=dict)
    """Question id -> place of its relevant candidate in this language."""


def assemble(name: str, kind: CandidatesKind, parts: dict[str, LanguagePart]) -> Benchmark:
    """The benchmark of the languages in `parts`, in their order.

    A query whose question has no answer in any of these languages is left out.
    """
    offsets = dict(zip(parts, np.cumsum([0, *(len(p.candidate_ids) for p in parts.values())]).tolist(), strict=False))
    question_ids: list[str] = []
    query_languages: list[str] = []
    query_texts: list[str] = []
    relevant: list[Int64s] = []
    for language, part in parts.items():
        for question, text in part.queries.items():
            found = [offsets[other] + p.answers[question] for other, p in parts.items() if question in p.answers]
            if found:
                question_ids.append(question)
                query_languages.append(language)
                query_texts.append(text)
                relevant.append(np.array(found, np.int64))
    return Benchmark(
        name=name,
        candidates_kind=kind,
        languages=tuple(parts),
        question_ids=question_ids,
        query_languages=query_languages,
        query_texts=query_texts,
        candidate_ids=[f"{language}/{c}" for language, part in parts.items() for c in part.candidate_ids],
        candidate_languages=[language for language, part in parts.items() for _ in part.candidate_ids],
        candidate_texts=[text for part in parts.values() for text in part.candidate_texts],
        relevant=relevant,
    )


def choose_languages(available: Sequence[str], wanted: Sequence[str] | None, place: str) -> tuple[str, ...]:
    """`wanted` in its order, or all of `available` in alphabetical order.

    Raises:
        DataError: a wanted language is not available or is named twice.
    """
    if wanted is None:
        return tuple(sorted(available))
    for language in wanted:
        if language not in available:
            raise DataError(f"language {language!r} is not in {place}; it has {', '.join(sorted(available))}")
    if not wanted or len(set(wanted)) < len(wanted):
        raise DataError(f"languages {list(wanted)} of {place} must be at least one, each named once")
    return tuple(wanted)


def _check_lengths(b: Benchmark) -> None:
    queries = {len(b.question_ids), len(b.query_languages), len(b.query_texts), len(b.relevant)}
    candidates = {len(b.candidate_ids), len(b.candidate_languages), len(b.candidate_texts)}
    if len(queries) > 1 or len(candidates) > 1:
        raise DataError(f"benchmark {b.name}: lists of queries or of candidates differ in length")
    if queries == {0} or candidates == {0}:
        raise DataError(f"benchmark {b.name}: no question has an answer in the languages {', '.join(b.languages)}")


def _check_languages(b: Benchmark) -> None:
    if not b.languages or len(set(b.languages)) < len(b.languages):
        raise DataError(f"benchmark {b.name}: languages {list(b.languages)} must be at least one, each named once")
    strange = set(b.query_languages + b.candidate_languages) - set(b.languages)
    if strange:
        raise DataError(f"benchmark {b.name}: language {min(strange)!r} is none of {', '.join(b.languages)}")
    if np.any(np.diff(b.candidate_codes) < 0):
        raise DataError(f"benchmark {b.name}: candidates must be grouped by language as {', '.join(b.languages)}")


def _check_ids(b: Benchmark) -> None:
    for what, ids in (
        ("question", [f"{x} in {y}" for x, y in zip(b.question_ids, b.query_languages, strict=True)]),
        ("candidate", b.candidate_ids),
    ):
        identifier, times = Counter(ids).most_common(1)[0]
        if times > 1:
            raise DataError(f"benchmark {b.name}: {what} {identifier} occurs {times} times; ids must be unique")


def _check_relevant(b: Benchmark) -> None:
    for question, language, indices in zip(b.question_ids, b.query_languages, b.relevant, strict=True):
        ascending = len(indices) > 0 and np.all(np.diff(indices) > 0)
        if not ascending or indices[0] < 0 or indices[-1] >= len(b.candidate_ids):
            raise DataError(
                f"benchmark {b.name}: relevant candidates of question {question} in {language} must be ascending "
                f"places in the pool of {len(b.candidate_ids)}, at least one, not {indices.tolist()}"
            )
