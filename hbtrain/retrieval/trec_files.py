"""Run files in the format of TREC: `query Q0 document rank score tag`, a line for each candidate found, plain or gz.

Ids must not hold blanks, so blanks and % are written as in web addresses (%20). Equal scores are written apart, so that
every reader finds the order that was meant: trec_eval itself goes by the score and, where these are equal, by the
document id backwards.
"""

from __future__ import annotations

import gzip
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO
from urllib.parse import quote, unquote

import numpy as np

from hbtrain.errors import DataError, StorageError, shown
from hbtrain.formats.inputs import numbered_lines
from hbtrain.retrieval.scores import Floats
from hbtrain.retrieval.top import Top

FIELDS = 6
RANK_DIGITS = 18  # ranks of more digits are no ranks; the scores decide in any case


@dataclass(frozen=True)
class TrecRun:
    """The content of a run file."""

    path: Path  # of the file
    documents: dict[str, list[str]]  # {query id: document ids, best first}, ids as they are written in the file
    scores: dict[str, list[float]]  # {query id: scores of these documents}
    notes: list[str] = field(default_factory=list)  # a line about everything that was unusual but harmless


def escape_id(identifier: str) -> str:
    """The id as it is written in run files, without blanks; `unescape_id` is the inverse."""
    return re.sub(r"[\s%]", lambda found: quote(found.group(), safe=""), identifier)


def unescape_id(identifier: str) -> str:
    """The inverse of `escape_id`."""
    return unquote(identifier)


def write_trec_run(path: Path, queries: Iterable[str], top: Top, documents: Iterable[Iterable[str]], tag: str) -> None:
    """Append the lists of some queries to a run file; the file and its folder are made if they are not there.

    Args:
        path: gzip if the name ends in .gz.
        queries: ids of Q queries, not escaped.
        top: scores [Q, K], best first; entries whose place is below 0 are left out.
        documents: ids [Q, K], not escaped.
        tag: name of the system.

    Raises:
        StorageError: the file cannot be written.
    """
    tag = escape_id(tag) or "run"
    scores = _falling(top.scores)
    rows = zip(queries, documents, scores.tolist(), (top.places >= 0).tolist(), strict=True)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open(path) as stream:
            for query, ids, values, there in rows:
                name = escape_id(query)
                found = enumerate(zip(ids, values, there, strict=True), 1)
                stream.writelines(
                    f"{name} Q0 {escape_id(identifier)} {rank} {value:.9g} {tag}\n"
                    for rank, (identifier, value, listed) in found
                    if listed
                )
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; choose a folder that can be written"
        ) from error


def read_trec_run(path: Path) -> TrecRun:
    """Read a run file that any system may have written.

    Documents are sorted as trec_eval does: by score, and equal scores by document id backwards. The order of the lines
    and the column of ranks do not matter.

    Args:
        path: plain, or gzip where its content or the name's end, .gz, says so.

    Raises:
        DataError: no such file; no line; or a line with too few or too many fields, with a score that is no finite
            number, or with a document that the query had before.
    """
    found: dict[str, dict[str, float]] = {}
    ranked: dict[str, list[tuple[int, float]]] = {}
    for line, position in numbered_lines(path):
        fields = line.split()
        where = f"{path}, line {position.number}"
        if len(fields) != FIELDS:
            raise DataError(
                f"{where}: {len(fields)} fields, not the {FIELDS} of a TREC run (query Q0 document rank score tag)"
            )
        query, _, document, rank, score, _ = fields
        value = _number(score)
        if value is None:
            raise DataError(f"{where}: score {shown(score)} must be a finite number")
        own = found.setdefault(query, {})
        if document in own:
            raise DataError(f"{where}: query {query!r} has document {document!r} twice; keep one of the lines")
        own[document] = value
        if rank.isdecimal() and len(rank) <= RANK_DIGITS:
            ranked.setdefault(query, []).append((int(rank), value))
    if not found:
        raise DataError(f"{path} holds no line; a TREC run has lines of: query Q0 document rank score tag")
    documents = {query: _in_order(own) for query, own in found.items()}
    scores = {query: [found[query][document] for document in own] for query, own in documents.items()}
    return TrecRun(path, documents, scores, list(_notes(path, found, ranked)))


def _in_order(scores: dict[str, float]) -> list[str]:
    return sorted(sorted(scores, reverse=True), key=lambda document: -scores[document])


def _notes(path: Path, found: dict[str, dict[str, float]], ranked: dict[str, list[tuple[int, float]]]) -> Iterator[str]:
    unsorted = sum(any(a < b for a, b in pairwise(list(scores.values()))) for scores in found.values())
    if unsorted:
        yield f"{path}: lines of {unsorted} queries do not stand in the order of their scores; they were sorted"
    by_rank = [sorted(pairs, key=lambda pair: (pair[0], -pair[1])) for pairs in ranked.values()]
    contrary = sum(any(a[1] < b[1] for a, b in pairwise(pairs)) for pairs in by_rank)
    if contrary:
        yield f"{path}: ranks of {contrary} queries contradict the scores; the scores decide, as in trec_eval"
    tied = sum(len(set(scores.values())) < len(scores) for scores in found.values())
    if tied:
        yield f"{path}: {tied} queries have equal scores; these stand by document id backwards, as in trec_eval"


def _number(text: str) -> float | None:
    """The number rounded to fp32, as trec_eval reads it; None if it is no finite number."""
    try:
        value = float(text.replace("_", "x"))  # Python would read 1_0 as 10, other readers as 1
    except ValueError:
        return None
    with np.errstate(over="ignore"):
        single = float(np.float32(value))
    return single if math.isfinite(single) else None


def _falling(scores_QK: Floats) -> Floats:
    """The scores made strictly descending: an equal score is lowered to the next smaller fp32 number."""
    falling = scores_QK.astype(np.float32)
    for k in range(1, falling.shape[1]):
        below = np.nextafter(falling[:, k - 1], np.float32(-np.inf))
        np.minimum(falling[:, k], below, out=falling[:, k])
    return falling


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "at", encoding="utf-8", compresslevel=5)
    return path.open("a", encoding="utf-8")
