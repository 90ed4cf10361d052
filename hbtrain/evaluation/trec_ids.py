"""Which queries and candidates of a benchmark the lines of a run file mean.

Ids are taken as they stand in the file. hbtrain's own files, which escape blanks and %, are told by an id that is known
only when it is unescaped. What does not fit is counted and said; a file most of which does not fit is refused, as its
scores would say nothing but that.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hbtrain.errors import DataError
from hbtrain.evaluation.benchmark import Collection, Int64s
from hbtrain.reporting.text import counted
from hbtrain.retrieval.trec_files import TrecRun, unescape_id

BOTH_OF_ONE = "give run files and data of the same benchmark"


@dataclass(frozen=True)
class Asked:
    """A query that a run file may answer."""

    name: str  # its id in run files, not escaped
    collection: Collection  # whose candidates it ranks
    pool: range  # places of the candidates that it ranks
    own: int = -1  # place of the candidate that is left out of its ranking; -1 for none


@dataclass(frozen=True)
class Ranking:
    """What a run file lists for a query, best first: places of candidates, -1 for one that is not in the query's pool,
    and their scores."""

    places: list[int]
    scores: list[float]


@dataclass(frozen=True)
class MatchedRun:
    """A run file in the terms of a benchmark."""

    rankings: dict[str, Ranking]  # {name of a query: what the file lists for it}
    depth: int  # the longest list of the file
    notes: list[str]  # what does not fit, a sentence each


def match_run(run: TrecRun, benchmark: str, asked: Sequence[Asked], names: Container[str]) -> MatchedRun:
    """Match a run file with the queries that it should answer.

    Args:
        run: the file.
        benchmark: its name, for messages.
        asked: the queries, by name unique.
        names: of all queries of the benchmark; lists for those that have no relevant candidate are passed over.

    Raises:
        DataError: most queries of the file are unknown, or none is asked; most of its documents are no candidates; or
            a document or query is there twice under two spellings.
    """
    written = list(run.documents)
    number = {query.name: place for place, query in enumerate(asked)}
    meant = find_written(written, lambda ids: np.array([number.get(x, -1) for x in ids], np.int64)).tolist()
    _check_once(run, "query", written, meant)
    notes = list(run.notes)
    rest = [name for name, place in zip(written, meant, strict=True) if place < 0]
    unknown = [name for name in rest if name not in names and unescape_id(name) not in names]
    if 2 * len(unknown) > len(written):
        raise DataError(
            f"{run.path}: {len(unknown):,} of {len(written):,} query ids are not in benchmark {benchmark}, "
            f"such as {unknown[0]!r}; {BOTH_OF_ONE}"
        )
    if len(rest) == len(written):
        raise DataError(
            f"{run.path}: none of its queries, such as {rest[0]!r}, has a relevant candidate in benchmark {benchmark} "
            f"in this setting and language; {BOTH_OF_ONE}"
        )
    if unknown:
        told = counted(len(unknown), "query id")
        notes.append(f"{run.path}: {told} not in the benchmark, such as {unknown[0]!r}; left out")
    if left_out := len(rest) - len(unknown):
        notes.append(f"{run.path}: {counted(left_out, 'topic')} without relevant candidates left out")
    if missing := len(asked) - (len(written) - len(rest)):
        notes.append(f"{run.path}: no line for {missing} queries; they score 0")
    answered = {name: asked[place] for name, place in zip(written, meant, strict=True) if place >= 0}
    rankings, more = _rankings(run, benchmark, answered)
    depth = max(len(run.documents[name]) for name in answered)
    return MatchedRun(rankings, depth, notes + more)


def find_written(written: Sequence[str], find: Callable[[Sequence[str]], Int64s]) -> Int64s:
    """[n] what `find` gives for ids that stand in a run file as they are, or escaped in hbtrain's way."""
    plain = find(written)
    escaped = [number for number, identifier in enumerate(written) if "%" in identifier]
    if not escaped:
        return plain
    inverse = plain.copy()
    inverse[escaped] = find([unescape_id(written[number]) for number in escaped])
    if not np.any((plain < 0) & (inverse >= 0)):
        return plain
    return np.where(inverse >= 0, inverse, plain)


def _rankings(run: TrecRun, benchmark: str, answered: Mapping[str, Asked]) -> tuple[dict[str, Ranking], list[str]]:
    """{name of a query: its ranking}, and notes.

    Args:
        run: the file.
        benchmark: its name, for messages.
        answered: {query id as written: query}.
    """
    rankings: dict[str, Ranking] = {}
    lines = own = 0
    unknown: list[str] = []
    places = _places(run, answered)
    for written, query in answered.items():
        documents, place = run.documents[written], places[query.collection.name]
        found = [place[document] for document in documents]
        _check_once(run, f"query {written!r}: document", documents, found)
        inside = [at if at in query.pool else -1 for at in found]
        unknown += [document for document, at in zip(documents, inside, strict=True) if at < 0]
        lines += len(documents)
        keep = [n for n, at in enumerate(inside) if at < 0 or at != query.own]
        own += len(inside) - len(keep)
        rankings[query.name] = Ranking([inside[n] for n in keep], [run.scores[written][n] for n in keep])
    if 2 * len(unknown) > lines:
        raise DataError(
            f"{run.path}: {len(unknown):,} of {lines:,} lines name documents that are not among the "
            f"candidates of benchmark {benchmark} in this setting, such as {unknown[0]!r}; {BOTH_OF_ONE}"
        )
    notes = []
    if unknown:
        notes.append(
            f"{run.path}: {len(unknown):,} of {lines:,} lines name documents that are not among the candidates"
            f", such as {unknown[0]!r}; they keep their ranks and count as not relevant"
        )
    if own:
        notes.append(f"{run.path}: {counted(own, 'line')} with a query's own document left out")
    return rankings, notes


def _places(run: TrecRun, answered: Mapping[str, Asked]) -> dict[str, dict[str, int]]:
    """{name of a collection: {document id as written: place}}; each collection looks up all of its documents once."""
    collections = {query.collection.name: query.collection for query in answered.values()}
    wanted: dict[str, dict[str, None]] = {name: {} for name in collections}
    for written, query in answered.items():
        wanted[query.collection.name].update(dict.fromkeys(run.documents[written]))
    return {
        name: dict(zip(documents, find_written(list(documents), collections[name].find).tolist(), strict=True))
        for name, documents in wanted.items()
    }


def _check_once(run: TrecRun, what: str, written: Sequence[str], places: Sequence[int]) -> None:
    seen: dict[int, str] = {}
    for identifier, place in zip(written, places, strict=True):
        if place >= 0 and seen.setdefault(place, identifier) != identifier:
            raise DataError(
                f"{run.path}: {what} is there twice, as {seen[place]!r} and as {identifier!r}; keep one of them"
            )
