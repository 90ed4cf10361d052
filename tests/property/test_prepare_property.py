"""Alignment: query and passage of a row are one item in every language, for every reader, against dicts."""

import csv
import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hbtrain.corpus.prepare import database
from hbtrain.corpus.readers.by_id import MmarcoReader, SquadReader
from hbtrain.corpus.readers.columns import ColumnReader, Columns, HuggingFaceReader
from hbtrain.corpus.readers.inline import PagesReader, ParallelReader
from hbtrain.formats import tables
from tests.prepared_samples import Row, check_rows, miracl_reader, mr_tydi_reader, prepared, scratch

LANGUAGES = ("de", "en", "zh")
NAMES = {"de": "german", "en": "english", "zh": "chinese"}
# Few texts, so that items often have equal ones.
TEXTS = st.sampled_from(["a", "b b", "ü", "漢字。", 'with "quotes", commas', "d"])
MULTILINGUAL = st.dictionaries(st.sampled_from(LANGUAGES), TEXTS, min_size=1)
LONG = {"en": "english", "fi": "finnish", "sw": "swahili"}
LAW = settings(deadline=None, max_examples=25)


@pytest.fixture(autouse=True, scope="module")
def small_blocks():
    """Blocks of a few numbers, so that a corpus has many."""
    before = database.BLOCK, tables.BATCH_ROWS
    database.BLOCK, tables.BATCH_ROWS = 3, 2
    progress_bar = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    yield
    database.BLOCK, tables.BATCH_ROWS = before
    if progress_bar:
        datasets.enable_progress_bars()


def key(texts):
    return tuple(sorted(texts.items()))


def linked(items):
    """What each item belongs to, where items (collections of labels) that share a label belong together."""
    groups = []
    for labels in map(set, items):
        joined = [group for group in groups if group & labels]
        groups = [group for group in groups if not group & labels] + [labels.union(*joined)]
    return [next(number for number, group in enumerate(groups) if group & set(labels)) for labels in items]


def with_ids(rows, query_labels, passage_labels):
    queries, passages = linked(query_labels), linked(passage_labels)
    return [row._replace(query_id=q, passage_id=p) for row, q, p in zip(rows, queries, passages, strict=True)]


@given(st.lists(st.tuples(MULTILINGUAL, MULTILINGUAL, st.lists(MULTILINGUAL, max_size=2)), min_size=1, max_size=9))
@LAW
def test_parallel_rows(table):
    with scratch() as name:
        folder = Path(name)
        lines = [
            {
                "id": f"{key(query)}",
                "query": query,
                "passage": passage,
                "passage_id": f"p{i // 2}",
                "negatives": negatives,
            }
            for i, (query, passage, negatives) in enumerate(table)
        ]
        half = len(lines) // 2
        for file, part in (("a.jsonl", lines[:half]), ("b.jsonl.gz", lines[half:])):
            raw = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in part).encode()
            (folder / file).write_bytes(gzip.compress(raw) if file.endswith("gz") else raw)
        source = prepared(ParallelReader([str(folder / "a.jsonl"), str(folder / "b.jsonl.gz")]), folder / "corpus")
        expected = with_ids(
            [Row(query, passage, tuple(negatives)) for query, passage, negatives in table],
            [[key(query)] for query, _, _ in table],
            [[key(passage), i // 2] for i, (_, passage, _) in enumerate(table)],
        )
        check_rows(source, expected)


@given(
    st.lists(st.tuples(MULTILINGUAL, MULTILINGUAL, st.lists(TEXTS, max_size=2)), min_size=1, max_size=8),
    st.sampled_from(["csv", "tsv.gz", "jsonl", "parquet", "arrow"]),
)
@LAW
def test_columns(table, form):
    records = [
        {f"q_{x}": query.get(x, "") for x in LANGUAGES}
        | {f"p_{x}": passage.get(x, "") for x in LANGUAGES}
        | {"n": negatives[0] if negatives else ""}
        for query, passage, negatives in table
    ]
    with scratch() as name:
        path = Path(name) / f"table.{form}"
        write_table(path, records)
        columns = Columns({x: f"q_{x}" for x in LANGUAGES}, {x: f"p_{x}" for x in LANGUAGES}, {"en": "n"})
        source = prepared(ColumnReader([str(path)], columns), Path(name) / "corpus")
        expected = with_ids(
            [Row(query, passage, ({"en": n[0]},) if n else ()) for query, passage, n in table],
            [[key(query)] for query, _, _ in table],
            [[key(passage)] for _, passage, _ in table],
        )
        check_rows(source, expected)


@given(
    st.lists(st.tuples(MULTILINGUAL, MULTILINGUAL, st.lists(TEXTS, max_size=2)), min_size=1, max_size=8),
    st.booleans(),
)
@LAW
def test_huggingface(table, split):
    records = [
        {f"q_{x}": query.get(x) for x in LANGUAGES}
        | {"passage": {x: passage.get(x) for x in LANGUAGES}, "n": negatives, "other": number}
        for number, (query, passage, negatives) in enumerate(table)
    ]
    with scratch() as name:
        data = datasets.Dataset.from_list(records)
        saved = datasets.DatasetDict({"train": data, "test": data.select([0])}) if split else data
        saved.save_to_disk(str(Path(name) / "data"))
        columns = Columns(
            {x: f"q_{x}" for x in LANGUAGES}, {x: f"passage.{x}" for x in LANGUAGES}, {"en": "n", "zh": "n"}
        )
        source = prepared(HuggingFaceReader(str(Path(name) / "data"), columns), Path(name) / "corpus")
        expected = with_ids(
            [Row(q, p, tuple({x: text} for x in ("en", "zh") for text in n)) for q, p, n in table],
            [[key(query)] for query, _, _ in table],
            [[key(passage)] for _, passage, _ in table],
        )
        check_rows(source, expected)


def write_table(path, records):
    if path.suffix == ".csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(records[0]))
            writer.writeheader()
            writer.writerows(records)
    elif path.name.endswith(".tsv.gz"):
        lines = ["\t".join(records[0]), *("\t".join(record.values()) for record in records)]
        path.write_bytes(gzip.compress("\r\n".join(lines).encode()))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path, row_group_size=3)
    else:
        table = pa.Table.from_pylist(records)
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)


@st.composite
def squad_files(draw):
    """{language: [(paragraph, [question ids])]}; paragraphs and their questions differ from language to language."""
    files = {}
    for language in draw(st.sets(st.sampled_from(LANGUAGES), min_size=1)):
        ids = draw(st.lists(st.integers(0, 6), min_size=1, max_size=6, unique=True))
        cuts = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
        paragraphs = []
        for number, (question, cut) in enumerate(zip(ids, cuts, strict=True)):
            if cut or not number:
                paragraphs.append((f"paragraph {number} in {language}", []))
            paragraphs[-1][1].append(f"q{question}")
        files[language] = paragraphs
    return dict(sorted(files.items()))


@given(squad_files())
@LAW
def test_squad(files):
    with scratch() as name:
        folder = Path(name)
        queries, passages = {}, {}
        for language, paragraphs in files.items():
            for context, ids in paragraphs:
                for q in ids:
                    queries.setdefault(q, {})[language] = f"{q} in {language}?"
                    passages.setdefault(q, {})[language] = context
            data = [
                {
                    "paragraphs": [
                        {
                            "context": context,
                            "qas": [
                                {
                                    "id": q,
                                    "question": f"{q} in {language}?",
                                    "answers": [{"answer_start": 0, "text": ""}],
                                }
                                for q in ids
                            ],
                        }
                    ]
                }
                for context, ids in paragraphs
            ]
            (folder / f"{language}.json").write_text(json.dumps({"version": "1", "data": data}))
        paths = {language: str(folder / f"{language}.json") for language in files}
        source = prepared(SquadReader(paths, complete=False), folder / "corpus")
        order = list(dict.fromkeys(q for paragraphs in files.values() for _, ids in paragraphs for q in ids))
        expected = with_ids(
            [Row(queries[q], passages[q]) for q in order], [[q] for q in order], [key(passages[q]) for q in order]
        )
        check_rows(source, expected)


@st.composite
def triples(draw):
    queries, passages = draw(st.integers(1, 4)), draw(st.integers(2, 6))
    rows = draw(
        st.lists(
            st.tuples(st.integers(0, queries - 1), st.integers(0, passages - 1), st.integers(0, passages - 1)),
            min_size=1,
            max_size=10,
        )
    )
    languages = sorted(draw(st.sets(st.sampled_from(LANGUAGES), min_size=1)))
    orders = {x: draw(st.permutations(range(passages))) for x in languages}
    missing = {
        x: draw(st.sets(st.integers(0, passages - 1), max_size=1)) if x != languages[0] else set() for x in languages
    }
    return queries, rows, orders, missing


@given(triples())
@LAW
def test_mmarco(world):
    queries, rows, orders, missing = world
    with scratch() as name:
        folder = Path(name) / "raw"
        (folder / "google" / "collections").mkdir(parents=True)
        for language, order in orders.items():
            there = [p for p in order if p not in missing[language]]
            (folder / "google" / "collections" / f"{NAMES[language]}_collection.tsv").write_text(
                "".join(f"{p}\tpassage {p} in {language}\n" for p in there)
            )
            (folder / f"{NAMES[language]}_queries.train.tsv").write_text(
                "".join(f"{q}\tquery {q} in {language}\n" for q in range(queries))
            )
        (folder / "triples.train.ids.small.tsv").write_text("".join(f"{q}\t{p}\t{n}\n" for q, p, n in rows))
        source = prepared(MmarcoReader(str(folder), complete=False), Path(name) / "corpus")

        def passage(p):
            return {x: f"passage {p} in {x}" for x in orders if p not in missing[x]}

        check_rows(
            source,
            [Row({x: f"query {q} in {x}" for x in orders}, passage(p), (passage(n),), q, p) for q, p, n in rows],
        )


@st.composite
def judged(draw):
    """{language: (documents, {query: {document: grade}})}."""
    world = {}
    for language in sorted(draw(st.sets(st.sampled_from(["en", "fi", "sw"]), min_size=1))):
        documents = draw(st.lists(st.integers(0, 8), min_size=1, max_size=8, unique=True))
        grades = st.dictionaries(st.sampled_from(documents), st.integers(0, 2), min_size=1)
        world[language] = documents, draw(st.dictionaries(st.integers(0, 5), grades, min_size=1))
    return world


@pytest.mark.parametrize("kind", ["miracl", "mr-tydi"])
@given(world=judged())
@LAW
def test_judged(kind, world):
    if not any(grade for _, qrels in world.values() for found in qrels.values() for grade in found.values()):
        return  # no rows, which is refused
    with scratch() as name:
        folder = Path(name) / "raw"
        expected = []
        for language, (documents, qrels) in world.items():
            write_judged(folder, kind, language, documents, qrels)
            texts = {d: {language: f"title {d} text in {language}"} for d in documents}
            for q, found in qrels.items():
                negatives = tuple(texts[d] for d, grade in found.items() if grade == 0)
                expected += [
                    Row({language: f"{q} in {language}?"}, texts[d], negatives, (language, q), (language, d))
                    for d, grade in found.items()
                    if grade
                ]
        read = miracl_reader if kind == "miracl" else mr_tydi_reader
        check_rows(prepared(read(str(folder)), Path(name) / "corpus"), expected, ("en", "fi", "sw"))


def write_judged(folder, kind, language, documents, qrels):
    if kind == "miracl":
        own, corpus = folder / f"miracl-v1.0-{language}", folder / f"miracl-corpus-v1.0-{language}"
        topics, judgements = (f"{x}.miracl-v1.0-{language}-train.tsv" for x in ("topics", "qrels"))
        files = ["docs-0.jsonl", "docs-1.jsonl.gz"]
    else:
        own = folder / f"mrtydi-v1.1-{LONG[language]}"
        corpus, topics, judgements, files = own / "collection", "topic.train.tsv", "qrels.train.txt", ["docs.jsonl.gz"]
    own.mkdir(parents=True)
    corpus.mkdir(parents=True)
    (own / topics).write_text("".join(f"{q}\t{q} in {language}?\n" for q in qrels))
    (own / judgements).write_text("".join(f"{q} Q0 {d} {g}\n" for q, found in qrels.items() for d, g in found.items()))
    for number, file in enumerate(files):
        part = documents[number :: len(files)]
        lines = [json.dumps({"docid": str(d), "title": f"title {d}", "text": f"text in {language}"}) for d in part]
        raw = "".join(line + "\n" for line in lines).encode()
        (corpus / file).write_bytes(gzip.compress(raw) if file.endswith("gz") else raw)


@given(
    st.dictionaries(
        st.sampled_from(LANGUAGES),
        st.lists(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), min_size=1),
        min_size=1,
    ),
    st.integers(0, 3),
)
@LAW
def test_pages(world, limit):
    with scratch() as name:
        folder, expected = Path(name), []
        for language, pages in sorted(world.items()):
            (folder / f"{language}.jsonl").write_text(
                "".join(
                    json.dumps({"domain": "x", "qa_pairs": [{"question": q, "answer": a} for q, a in page]}) + "\n"
                    for page in pages
                )
            )
            for page in pages:
                for at, (question, answer) in enumerate(page):
                    others = [a for _, a in page[at + 1 :] + page[:at]]
                    negatives = [a for a in dict.fromkeys(others) if a != answer][:limit]
                    expected.append(
                        Row(
                            {language: question},
                            {language: answer},
                            tuple({language: a} for a in negatives),
                            (language, question),
                            (language, answer),
                        )
                    )
        paths = {language: str(folder / f"{language}.jsonl") for language in sorted(world)}
        check_rows(prepared(PagesReader(paths, limit), folder / "corpus"), expected)
