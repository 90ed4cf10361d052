"""A benchmark: collections of one form, and the settings in which it makes sense to ask them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hbtrain.errors import DataError
from hbtrain.evaluation.documents import StoredIds

Int64s = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Collection:
    """Q queries over one pool of N candidates.

    A question in two languages is two queries of one question id. Candidates may lie on disk: their ids and texts are
    read by place and never copied whole.

    Raises:
        DataError: the parts do not fit together.
    """

    name: str  # its name in messages, such as `xquad-r` or `miracl in sw`
    question_ids: Sequence[str]  # [Q] unique within a language
    query_languages: Sequence[str]  # [Q]
    query_texts: Sequence[str]  # [Q]
    candidate_ids: Sequence[str]  # [N] unique, which is not checked here
    candidate_texts: Sequence[str]  # [N] grouped by language
    candidate_counts: Mapping[str, int]
    """How many candidates each language has, in the order of the pool; 0 where there are only queries."""
    relevant: Sequence[Int64s]
    """[Q] for each query the places of its relevant candidates in the pool, ascending; at least one, unless some are
    `missing`."""
    gains: Sequence[Floats] | None = None  # [Q] the gain of each relevant candidate, above 0; None: all gains are 1
    domains: Sequence[str | None] | None = None  # [Q] subject of each query, if the benchmark states subjects
    left_out: int = 0  # number of queries of the data that are left out, because they have no relevant candidate
    repeated: int = 0  # number of documents of the data that are left out, because they came before, word for word
    unasked: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """{query language: ids of the data's questions that are not asked}: those left out, and those of other splits."""
    missing: Sequence[Floats] | None = None
    """[Q] gains of relevant candidates that can never be found, as they are not in the pool or are left out of the
    query's ranking; they count in the denominators of all metrics. Only where the pool has one language."""
    own: Int64s | None = None
    """[Q] place of the candidate that is left out of a query's ranking, as it is the query itself; -1 for none."""
    notes: tuple[str, ...] = ()  # what readers of the scores should know, a sentence each

    def __post_init__(self) -> None:
        _check_lengths(self)
        _check_queries(self)
        _check_relevant(self)

    @property
    def languages(self) -> tuple[str, ...]:
        """The languages, in the order of the pool."""
        return tuple(self.candidate_counts)

    def of_queries(self, first: int, last: int) -> Collection:
        """The queries [first, last) over the same pool; the collection itself, where these are all."""
        if last - first == len(self.question_ids):
            return self
        return self._with_queries(lambda column: column[first:last])

    def only(self, places: Sequence[int]) -> Collection:
        """The queries at some places, over the same pool."""
        return self._with_queries(lambda column: [column[place] for place in places])

    def _with_queries(self, take: Callable[[Any], Any]) -> Collection:
        """The queries that `take` takes out of a column [Q], over the same pool."""
        return replace(
            self,
            question_ids=take(self.question_ids),
            query_languages=take(self.query_languages),
            query_texts=take(self.query_texts),
            relevant=take(self.relevant),
            gains=None if self.gains is None else take(self.gains),
            domains=None if self.domains is None else take(self.domains),
            missing=None if self.missing is None else take(self.missing),
            own=None if self.own is None else np.asarray(take(self.own)),
        )

    @property
    def pool_language(self) -> str | None:
        """The language of all candidates; None: they are in several."""
        there = [language for language, count in self.candidate_counts.items() if count]
        return there[0] if len(there) == 1 else None

    def find(self, ids: Sequence[str]) -> Int64s:
        """[n] the places of candidates by their ids; -1 where no candidate has the id."""
        if isinstance(self.candidate_ids, StoredIds):
            return self.candidate_ids.find(ids)
        places = {identifier: place for place, identifier in enumerate(self.candidate_ids)}
        return np.array([places.get(identifier, -1) for identifier in ids], np.int64)

    @property
    def query_counts(self) -> dict[str, int]:
        """{language: queries}, for all languages of the pool."""
        counts = Counter(self.query_languages)
        return {language: counts[language] for language in self.languages}

    @property
    def query_codes(self) -> Int64s:
        """[Q] the language of each query, as an index of `languages`."""
        place = {language: code for code, language in enumerate(self.languages)}
        return np.array([place[language] for language in self.query_languages], np.int64)

    @property
    def candidate_codes(self) -> Int64s:
        """[N] the language of each candidate, as an index of `languages`; ascending."""
        return np.repeat(np.arange(len(self.languages)), list(self.candidate_counts.values()))


def check_unique(ids: Sequence[str], what: str) -> None:
    """Raise DataError if one of `ids` occurs twice."""
    identifier, times = Counter(ids).most_common(1)[0]
    if times > 1:
        raise DataError(f"{what} {identifier} occurs {times} times; ids must be unique")


def _check_lengths(c: Collection) -> None:
    aligned: list[Sequence[object] | Int64s] = [c.question_ids, c.query_languages, c.query_texts, c.relevant]
    aligned += [column for column in (c.gains, c.domains, c.missing, c.own) if column is not None]
    candidates = {len(c.candidate_ids), len(c.candidate_texts), sum(c.candidate_counts.values())}
    if len({len(column) for column in aligned}) > 1 or len(candidates) > 1:
        raise DataError(f"benchmark {c.name}: lists of queries or of candidates differ in length")
    if c.missing is not None and c.pool_language is None:
        raise DataError(f"benchmark {c.name}: only a pool of one language can have candidates that are never found")
    if not c.question_ids or candidates == {0}:
        raise DataError(f"benchmark {c.name}: no question has an answer in the languages {', '.join(c.languages)}")


def _check_queries(c: Collection) -> None:
    unknown = set(c.query_languages) - set(c.languages)
    if unknown:
        raise DataError(f"benchmark {c.name}: language {min(unknown)!r} is none of {', '.join(c.languages)}")
    names = [f"{x} in {y}" for x, y in zip(c.question_ids, c.query_languages, strict=True)]
    check_unique(names, f"benchmark {c.name}: question")


def _check_relevant(c: Collection) -> None:
    """Raise DataError if relevant candidates are no ascending places in the pool: at once, as they may be millions."""
    sizes = np.array([len(places) for places in c.relevant], np.int64)
    places = np.concatenate([np.zeros(0, np.int64), *c.relevant])
    query = np.repeat(np.arange(len(sizes)), sizes)
    wrong = (places < 0) | (places >= len(c.candidate_ids))
    wrong[1:] |= (np.diff(places) <= 0) & (np.diff(query) == 0)
    bad = np.zeros(len(sizes), bool)
    bad[query[wrong]] = True
    never = 0 if c.missing is None else np.array([len(gains) for gains in c.missing], np.int64)
    bad |= sizes + never == 0
    if c.gains is not None:
        unlike = np.array([len(gains) for gains in c.gains]) != sizes
        bad |= unlike | np.array([not np.all(gains > 0) for gains in c.gains])
    for number in np.flatnonzero(bad)[:1].tolist():
        gains = None if c.gains is None else c.gains[number]
        raise DataError(
            f"benchmark {c.name}: relevant candidates of question {c.question_ids[number]} in "
            f"{c.query_languages[number]} must be ascending places in the pool of {len(c.candidate_ids)}, at "
            f"least one, not {c.relevant[number].tolist()}"
            + ("" if gains is None else f", with as many gains above 0, not {gains.tolist()}")
        )


Setting = Literal["mono", "cross", "multi"]
SETTINGS: tuple[Setting, ...] = ("mono", "cross", "multi")
"""A query in language x ranks the candidates in x (`mono`), in one other language y (`cross`), or in all languages
(`multi`)."""

CandidatesKind = Literal["sentence", "sentence+context", "passage", "title+text"]


@dataclass(frozen=True)
class Benchmark:
    """One or more collections that are evaluated one after another and averaged under one name."""

    name: str  # first part of the metrics' keys
    candidates_kind: CandidatesKind  # what a candidate is
    languages: tuple[str, ...]  # of all collections, in the order of tables
    openers: tuple[Callable[[], Collection], ...]  # each opens one collection, and reads nothing before it is called
    settings: tuple[Setting, ...] = SETTINGS  # in which queries are asked
    # {name: languages} that get a mean of their own, such as those of low resource; languages that the benchmark does
    # not have are ignored
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    parallel: bool = True  # whether a question id means the same question in every language
    # where its data come from, if it is a data set of the catalogue (`hbtrain.corpus.data_sets.about`)
    data: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, kind: CandidatesKind, collection: Collection) -> Benchmark:
        """A benchmark of one collection, asked in all settings."""
        return cls(name, kind, collection.languages, (lambda: collection,))

    def listed_language(self, collection: Collection) -> str | None:
        """The language of all candidates where lists of the best are answers in `mono` or `cross`; None: in `multi`."""
        one = len(collection.languages) == 1 or "multi" not in self.settings
        return collection.pool_language if one else None

    def collections(self) -> Iterator[Collection]:
        """The collections, opened one after another.

        Raises:
            DataError: a corpus does not fit its judgements, or a file is not of the expected form.
        """
        for opener in self.openers:
            yield opener()

    def check(self) -> None:
        """Open every collection once, so that errors come, and corpora are converted, before anything is encoded.

        Raises:
            DataError: see `collections`.
        """
        for _ in self.collections():
            pass


@dataclass
class LanguagePart:
    """The candidates and queries of a collection in one language."""

    candidate_ids: list[str] = field(default_factory=list)  # unique within the language
    candidate_texts: list[str] = field(default_factory=list)  # one for each id
    queries: dict[str, str] = field(default_factory=dict)  # {question id: text}
    # {question id: place of its relevant candidate in the lists above}
    answers: dict[str, int] = field(default_factory=dict)
    domains: dict[str, str] = field(default_factory=dict)  # {question id: domain}, of the questions that have one


def assemble(name: str, parts: Mapping[str, LanguagePart]) -> Collection:
    """The collection of the languages in `parts`, in their order.

    A question's relevant candidates are its answers in all languages. A query whose question has no answer in any of
    them is left out.

    Raises:
        DataError: the parts do not fit together.
    """
    offsets = dict(zip(parts, np.cumsum([0, *(len(p.candidate_ids) for p in parts.values())]).tolist(), strict=False))
    ids: list[str] = []
    languages: list[str] = []
    texts: list[str] = []
    domains: list[str | None] = []
    relevant: list[Int64s] = []
    unasked: dict[str, list[str]] = {language: [] for language in parts}
    answers: dict[str, list[int]] = {}  # {question: places of its answers in all languages}
    for language, part in parts.items():
        for question, place in part.answers.items():
            answers.setdefault(question, []).append(offsets[language] + place)
    places = {question: np.array(found, np.int64) for question, found in answers.items()}
    for language, part in parts.items():
        for question, text in part.queries.items():
            if question not in places:
                unasked[language].append(question)
            else:
                ids.append(question)
                languages.append(language)
                texts.append(text)
                domains.append(part.domains.get(question))
                relevant.append(places[question])
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
        left_out=sum(map(len, unasked.values())),
        unasked=unasked,
    )
