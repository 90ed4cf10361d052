"""A benchmark: collections of one form, and the settings in which it makes sense to ask them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from hbtrain.errors import DataError
from hbtrain.evaluation.collection import Collection, Int64s, check_unique

Setting = Literal["mono", "cross", "multi"]
SETTINGS: tuple[Setting, ...] = ("mono", "cross", "multi")
"""`mono` asks in x the candidates in x; `cross` asks in x the candidates in another language y; `multi` asks in x the
pool of all languages."""

CandidatesKind = Literal["sentence", "sentence+context", "passage", "title+text"]


@dataclass(frozen=True)
class Benchmark:
    """Collections that are evaluated one after the other and whose scores stand under one name."""

    name: str
    """The first part of its metrics' keys."""
    candidates_kind: CandidatesKind
    languages: tuple[str, ...]
    """Of all collections, in the order of tables."""
    openers: tuple[Callable[[], Collection], ...]
    """Each gives a collection; nothing of a corpus is read before its turn."""
    settings: tuple[Setting, ...] = SETTINGS
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Groups of languages that are averaged as well, such as those of low resource; languages not in `languages` are
    passed over."""
    parallel: bool = True
    """Whether a question id means the same question in every language."""

    @classmethod
    def of(cls, name: str, kind: CandidatesKind, collection: Collection) -> Benchmark:
        """A benchmark of one collection, asked in all settings."""
        return cls(name, kind, collection.languages, (lambda: collection,))

    def collections(self) -> Iterator[Collection]:
        """The collections, each opened when it is its turn.

        Raises:
            DataError: the corpus of one does not fit its judgements or is not of the form expected.
        """
        for opened in self.openers:
            yield opened()

    def check(self) -> None:
        """Open every collection once, so that what is wrong is said, and corpora converted, before anything is encoded.

        Raises:
            DataError: as `collections`.
        """
        for _ in self.collections():
            pass


@dataclass
class LanguagePart:
    """What one language brings to a collection."""

    candidate_ids: list[str] = field(default_factory=list)
    candidate_texts: list[str] = field(default_factory=list)
    queries: dict[str, str] = field(default_factory=dict)
    """Question id -> text."""
    answers: dict[str, int] = field(default_factory=dict)
    """Question id -> place of its relevant candidate in this language."""
    domains: dict[str, str] = field(default_factory=dict)
    """Question id -> domain, for the questions that have one."""


def assemble(name: str, parts: Mapping[str, LanguagePart]) -> Collection:
    """The collection of the languages in `parts`, in their order.

    A question's relevant candidates are its answers in all languages. A query whose question has no answer in any of
    them is left out.

    Raises:
        DataError: the parts do not fit together.
    """
    offsets = dict(zip(parts, np.cumsum([0, *(len(p.candidate_ids) for p in parts.values())]).tolist(), strict=False))
    asked: list[tuple[str, str, str, str | None]] = []
    relevant: list[Int64s] = []
    for language, part in parts.items():
        for question, text in part.queries.items():
            found = [offsets[other] + p.answers[question] for other, p in parts.items() if question in p.answers]
            if found:
                asked.append((question, language, text, part.domains.get(question)))
                relevant.append(np.array(found, np.int64))
    ids, languages, texts, domains = (list(column) for column in zip(*asked, strict=True)) if asked else ([],) * 4
    candidate_ids = [f"{language}/{c}" for language, part in parts.items() for c in part.candidate_ids]
    if candidate_ids:
        check_unique(candidate_ids, f"benchmark {name}: candidate")
    return Collection(
        name=name,
        question_ids=ids,
        query_languages=languages,
        query_texts=texts,
        candidate_ids=candidate_ids,
        candidate_texts=[text for part in parts.values() for text in part.candidate_texts],
        candidate_counts={language: len(part.candidate_ids) for language, part in parts.items()},
        relevant=relevant,
        domains=domains if any(domain is not None for domain in domains) else None,
        left_out=sum(len(part.queries) for part in parts.values()) - len(asked),
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
