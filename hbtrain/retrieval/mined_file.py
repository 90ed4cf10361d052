"""The file of mined negatives: the rows of its sources as they were, with `negatives` put in."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, BinaryIO

from hbtrain.corpus import ParallelCorpus, Source, source_path
from hbtrain.corpus.jsonl import read_records
from hbtrain.errors import DataError, StorageError
from hbtrain.retrieval.mining import Miner
from hbtrain.storage import Place
from hbtrain.storage.atomic import unwritable


@dataclass
class MiningSummary:
    """Counts over all rows."""

    rows: int = 0
    negatives: int = 0
    too_close: int = 0
    """Passages dropped by the margin."""
    rows_without: int = 0
    """Rows that got no negative."""


def write_mined(miner: Miner, corpus: ParallelCorpus, sources: Sequence[str], stream: BinaryIO) -> MiningSummary:
    """Write the rows of `sources`, from which `corpus` was opened, to `stream` as JSON lines with mined negatives.

    Negatives that a row had before are replaced; all else stays. Where there are several sources, ids get the
    source's name in front, so that rows of different sources do not become one.

    Raises:
        DataError: a source changed while it was mined.
    """
    summary = MiningSummary()
    for source, name in zip(corpus.sources.values(), sources, strict=True):
        prefix = f"{source.name}/" if len(sources) > 1 else ""
        for read, mined in zip_longest(_records(source, source_path(name)), miner.rows(source)):
            if read is None or mined is None:
                raise DataError(f"source {name} changed while it was mined; run again")
            record = _with_negatives(read, mined.negatives, prefix)
            stream.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
            summary.rows += 1
            summary.negatives += len(mined.negatives)
            summary.too_close += mined.too_close
            summary.rows_without += not mined.negatives
    return summary


def check_sources(corpus: ParallelCorpus) -> None:
    """Raise DataError if the rows of the sources cannot stand in one file."""
    by_form = {source.index.sentences: name for name, source in corpus.sources.items()}
    if len(by_form) > 1:
        raise DataError(
            f"--data: source {by_form[True]} holds parallel sentences (text), {by_form[False]} queries and passages; "
            "one file cannot hold both, mine them one by one"
        )


def check_output(path: Place) -> None:
    """Raise StorageError if `path` cannot be written; its folder is made. Remote storage has been tried already."""
    try:
        if path.is_dir():
            raise StorageError(f"--output {path} is a folder; give a file's name, such as {path}/mined.jsonl.gz")
        if not isinstance(path, Path):
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise unwritable(f"--output {path}", error) from error


def _records(source: Source, path: Path) -> Iterator[dict[str, Any]]:
    return source.records() if path.is_dir() else (record for record, _ in read_records(path))


def _with_negatives(record: dict[str, Any], negatives: list[dict[str, str]], prefix: str) -> dict[str, Any]:
    record.pop("negatives", None)
    if prefix:
        record |= {key: f"{prefix}{record[key]}" for key in ("id", "passage_id") if key in record}
    return record | {"negatives": negatives} if negatives else record
