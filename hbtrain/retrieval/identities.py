"""The pool of passages that negatives are mined from, and which of them must not be a negative of which row.

In memory are numbers only, some 40 bytes for each passage and language; texts stay on disk.

Shapes: R rows of all sources, N texts of the pool, L languages, C passages by id, E entries: (row, language) with a
text.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from hbtrain.corpus import ParallelCorpus, Source
from hbtrain.corpus.conflicts import Int64s, clusters
from hbtrain.corpus.negatives import digest_number

Bools = npt.NDArray[np.bool_]


class PassagePool:
    """Every passage of a corpus in every language it has; a text that several rows share stands here once.

    Texts stand by language (in the order of `languages`), and within one by source and row. Two of them are one
    *passage* when they belong to one passage id of a source, or when passage ids that they belong to are linked by an
    equal text. In the same way rows are one *question* by query id or by an equal query.

    Attributes:
        languages: of the corpus, sorted; a language's code is its place in this list.
        language: int64 [N], language code of each text.
        identity: int64 [N], number of the passage that each text belongs to.
        row_texts: int64 [R, L], the place in the pool of each row's passage; -1 where it lacks the language.
    """

    def __init__(self, corpus: ParallelCorpus) -> None:
        self._sources = list(corpus.sources.values())
        self._starts = np.cumsum([0, *(source.index.rows for source in self._sources)])
        self.languages = corpus.languages
        rows_E, codes_E, digests_E = self._entries(source.passages() for source in self._sources)
        text_E = self._number_texts(rows_E, codes_E, digests_E)
        self.row_texts = np.full((self._starts[-1], len(self.languages)), -1, np.int64)
        self.row_texts[rows_E, codes_E] = text_E
        self._identify(rows_E, codes_E, digests_E, text_E)

    def __len__(self) -> int:
        return len(self.language)

    def rows_of(self, source: Source) -> range:
        """The numbers, from 0 to R - 1, of a source's rows."""
        place = self._sources.index(source)
        return range(int(self._starts[place]), int(self._starts[place + 1]))

    def span(self, language: int) -> slice:
        """The places of the texts in a language."""
        start, stop = np.searchsorted(self.language, (language, language + 1)).tolist()
        return slice(start, stop)

    def is_own(self, rows: Int64s, texts: Int64s) -> Bools:
        """bool [n]: whether each text belongs to a passage that answers the row's question.

        Passages that answer it are the row's own, and those of all rows with the same question.

        Args:
            rows: int64 [n], numbers of rows.
            texts: int64 [n], places of texts in the pool.
        """
        wanted = self._question_of_row[rows] * self._passages + self.identity[texts]
        place = np.minimum(np.searchsorted(self._answers, wanted), len(self._answers) - 1)
        return np.asarray(self._answers[place] == wanted)

    def texts(self, places: Int64s) -> list[str]:
        """The texts at places of the pool."""
        rows, found = self._row[places], np.empty(len(places), object)
        owner = np.searchsorted(self._starts, rows, side="right") - 1
        for number in np.unique(owner).tolist():
            at = np.flatnonzero(owner == number)
            languages = [self.languages[code] for code in self.language[places[at]].tolist()]
            found[at] = self._sources[number].texts("passage", rows[at] - self._starts[number], languages)
        return list(found)

    def translations(self, places: Int64s) -> list[dict[str, str]]:
        """{language: text} of each text's passage, by its id, in all languages that the passage has."""
        wanted = self._texts_of_id[self._id_of_row[self._row[places]]]
        wanted[np.arange(len(places)), self.language[places]] = places
        owner, code = np.nonzero(wanted >= 0)
        found: list[dict[str, str]] = [{} for _ in places]
        for number, language, text in zip(owner.tolist(), code.tolist(), self.texts(wanted[owner, code]), strict=True):
            found[number][self.languages[language]] = text
        return found

    def _entries(self, sides: Iterable[Iterator[tuple[int, str, str]]]) -> tuple[Int64s, Int64s, Int64s]:
        """Row, language code and text digest of every entry, int64 [E] each, sorted by language and row."""
        code_of = {language: code for code, language in enumerate(self.languages)}
        rows, codes, digests = array("q"), array("q"), array("q")
        for start, side in zip(self._starts[:-1].tolist(), sides, strict=True):
            for row, language, text in side:
                rows.append(start + row)
                codes.append(code_of[language])
                digests.append(digest_number(text))
        rows_E, codes_E, digests_E = (np.frombuffer(numbers, np.int64) for numbers in (rows, codes, digests))
        order = np.lexsort((rows_E, codes_E))
        return rows_E[order], codes_E[order], digests_E[order]

    def _number_texts(self, rows_E: Int64s, codes_E: Int64s, digests_E: Int64s) -> Int64s:
        """int64 [E]: the place of each text in the pool."""
        order = np.lexsort((digests_E, codes_E))  # stable: the first of equal texts is that of the first row
        new = np.ones(len(order), bool)
        new[1:] = (np.diff(codes_E[order]) != 0) | (np.diff(digests_E[order]) != 0)
        first = np.sort(order[new])
        self._row, self.language = rows_E[first], codes_E[first]
        text_E = np.empty(len(order), np.int64)
        text_E[order] = np.searchsorted(first, order[new])[np.cumsum(new) - 1]
        return text_E

    def _identify(self, rows_E: Int64s, codes_E: Int64s, digests_E: Int64s, text_E: Int64s) -> None:
        everything = [(source, np.arange(source.index.rows)) for source in self._sources]
        self._id_of_row = _compact(source.index.passage_ids_of(rows) for source, rows in everything)
        self._texts_of_id = np.full((self._id_of_row.max() + 1, len(self.languages)), -1, np.int64)
        # From the last row to the first, so that the first row that has a language is the one that stays.
        self._texts_of_id[self._id_of_row[rows_E[::-1]], codes_E[::-1]] = text_E[::-1]
        identity_E = clusters(self._id_of_row[rows_E], digests_E)
        self.identity = np.empty(len(self.language), np.int64)
        self.identity[text_E] = identity_E
        self._passages = int(identity_E.max()) + 1

        query_id_of_row = _compact(source.index.query_ids_of(rows) for source, rows in everything)
        asked_E, _, queries_E = self._entries(source.queries() for source in self._sources)
        self._question_of_row = np.empty(len(query_id_of_row), np.int64)
        self._question_of_row[asked_E] = clusters(query_id_of_row[asked_E], queries_E)
        self._answers = np.unique(self._question_of_row[rows_E] * self._passages + identity_E)


def _compact(ids: Iterable[Int64s]) -> Int64s:
    """The ids of all sources in one array, numbered from 0; no two sources share a number."""
    parts, first = [], 0
    for part in ids:
        _, codes = np.unique(part, return_inverse=True)
        parts.append(codes + first)
        first += int(codes.max()) + 1
    return np.concatenate(parts)
