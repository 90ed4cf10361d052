"""Small judged collections on disk, as MIRACL, Mr. TyDi, BEIR and mteb publish theirs."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from hbtrain.evaluation.benchmarks import load_benchmarks

TOPICS = {"1": "wapi?", "2": "nani?", "3": "lini?"}
DOCUMENTS = [("10#0", "Mji", "Nairobi."), ("10#1", "Mji", "Mombasa."), ("11#0", "Mtu", "Nyerere.")]
QRELS = [("1", "10#1", 1), ("1", "10#0", 1), ("2", "11#0", 1), ("2", "10#0", 0), ("3", "10#0", 0)]


def write(path: Path, text: str) -> Path:
    """Write text, zipped where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.name.endswith(".gz") else text.encode())
    return path


def json_lines(path: Path, records: list[dict]) -> Path:
    """Write JSON lines."""
    return write(path, "".join(json.dumps(record) + "\n" for record in records))


def topics(path: Path, rows: dict[str, str] = TOPICS) -> Path:
    """Write topics."""
    return write(path, "".join(f"{key}\t{text}\n" for key, text in rows.items()))


def qrels(path: Path, rows: list[tuple[str, str, int]] = QRELS, separator: str = "\t") -> Path:
    """Write judgements in TREC's columns."""
    return write(path, "".join(separator.join([q, "Q0", d, str(grade)]) + "\n" for q, d, grade in rows))


def miracl(folder: Path, language: str = "sw", judged: list[tuple[str, str, int]] = QRELS) -> Path:
    """One language of MIRACL, its corpus in two files."""
    version = folder / f"miracl-v1.0-{language}"
    topics(version / "topics" / f"topics.miracl-v1.0-{language}-dev.tsv")
    qrels(version / "qrels" / f"qrels.miracl-v1.0-{language}-dev.tsv.gz", judged)
    corpus = folder / "corpora" / f"miracl-corpus-v1.0-{language}"
    for number, documents in enumerate((DOCUMENTS[:2], DOCUMENTS[2:])):
        records = [{"docid": x, "title": title, "text": text} for x, title, text in documents]
        json_lines(corpus / f"docs-{number}.jsonl.gz", records)
    return folder


def mr_tydi(folder: Path, language: str = "swahili") -> Path:
    """One language of Mr. TyDi."""
    own = folder / f"mrtydi-v1.1-{language}"
    topics(own / "topic.test.tsv")
    qrels(own / "qrels.test.txt", separator=" ")
    json_lines(own / "collection" / "docs.jsonl.gz", [{"id": x, "contents": f"{a}\n\n{b}"} for x, a, b in DOCUMENTS])
    return folder


def beir(folder: Path, grades: tuple[int, ...] = (1, 1, 1, 0, 0)) -> Path:
    """One language in BEIR's form."""
    json_lines(folder / "corpus.jsonl", [{"_id": x, "title": a, "text": b, "metadata": {}} for x, a, b in DOCUMENTS])
    asked = [{"_id": x, "text": text, "metadata": {}} for x, text in TOPICS.items()]
    json_lines(folder / "queries.jsonl", [*asked, {"_id": "of-train", "text": "?"}])
    rows = [f"{q}\t{d}\t{grade}\n" for (q, d, _), grade in zip(QRELS, grades, strict=True)]
    write(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


def beir_of(
    folder: Path, documents: dict[str, str], queries: dict[str, str], judged: dict[str, dict[str, int]]
) -> Path:
    """One language in BEIR's form, from texts by id and {query: {document: grade}}."""
    json_lines(folder / "corpus.jsonl", [{"_id": x, "text": text} for x, text in documents.items()])
    json_lines(folder / "queries.jsonl", [{"_id": x, "text": text} for x, text in queries.items()])
    rows = [f"{q}\t{d}\t{grade}\n" for q, own in judged.items() for d, grade in own.items()]
    write(folder / "qrels" / "test.tsv", "query-id\tcorpus-id\tscore\n" + "".join(rows))
    return folder


def parquet(path: Path, records: list[dict]) -> Path:
    """Write records as a Parquet file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(records), path)
    return path


def shard(split: str, number: int = 0, of: int = 1, end: str = "") -> str:
    """The name of a file as `push_to_hub` of datasets writes it."""
    return f"{split}-{number:05d}-of-{of:05d}{end}.parquet"


def mteb(folder: Path, subset: str = "", split: str = "test", texts: str = "test", start: str = "") -> Path:
    """One subset in mteb's layout. `texts` is the split of corpus and queries; texts begin with `start`."""
    prefix = f"{subset}-" if subset else ""
    documents = [{"_id": x, "title": a, "text": f"{start}{b}"} for x, a, b in DOCUMENTS]
    asked = [{"_id": int(x), "text": f"{start}{text}"} for x, text in TOPICS.items()]  # ids as numbers
    judged = [{"query-id": q, "corpus-id": d, "score": float(grade)} for q, d, grade in QRELS]
    parquet(folder / f"{prefix}corpus" / shard(texts, 0, 2), documents[:2])
    parquet(folder / f"{prefix}corpus" / shard(texts, 1, 2), documents[2:])
    parquet(folder / f"{prefix}queries" / shard(texts), [*asked, {"_id": 9, "text": "of another split"}])
    parquet((folder / f"{prefix}qrels" if subset else folder / "data") / shard(split), judged)
    return folder


ALL_FORMS = (
    "lareqa=texts",
    "squad=texts",
    "miracl=miracl",
    "mr-tydi=tydi",
    "beir=beir",
    "tatoeba=pairs",
    "parallel=a.jsonl",
)
"""A benchmark of each form, and what it is called in the folder that holds them all."""


def read_all_forms(base, options=""):
    """What evaluation reads in a place, form by form."""
    found = []
    for text in ALL_FORMS:
        form, _, name = text.partition("=")
        (benchmark,) = load_benchmarks([f"{form}={base}/{name}{options}"])
        for c in benchmark.collections():
            relevant = [places.tolist() for places in c.relevant]
            found.append([c.name, list(c.query_texts), list(c.candidate_ids), list(c.candidate_texts), relevant])
    return found
