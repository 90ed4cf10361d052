"""Whatever JSON stands in whatever place of an input file: it is read, or refused in one line that names the file."""

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hbtrain.corpus.drops import Drops
from hbtrain.corpus.readers.by_id import JudgedReader, SquadReader
from hbtrain.corpus.readers.columns import ColumnReader, Columns
from hbtrain.corpus.readers.inline import PagesReader, ParallelReader
from hbtrain.errors import DataError
from hbtrain.evaluation.aligned import read_parallel, read_squad
from hbtrain.evaluation.benchmark import Benchmark
from hbtrain.evaluation.judged import read_judged
from hbtrain.formats.inputs import REFUSED
from hbtrain.formats.judged import find_beir, read_judgements, read_topics
from hbtrain.formats.mmarco import read_triples
from hbtrain.formats.tatoeba import find_tatoeba
from hbtrain.retrieval.trec_files import read_trec_run
from tests.prepared_samples import scratch

HUGE = "7" * 5000
"""Stands for the number of these digits; Python's own JSON cannot write it."""
ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        3.0,
        2.5,
        1e300,
        float("nan"),
        float("-inf"),
        "",
        " ",
        "x\ud800",
        "\udc00",
        "a\nb",
        "\ufeff",
        HUGE,
    ]
) | st.sampled_from([[], {}, [None], [["x"]], {"en": 1}, {"x\ud800": "y"}, {"text": "x"}, 2**70, "x" * 9000])
SQUAD = {
    "data": [
        {
            "paragraphs": [
                {
                    "context": "One. Two.",
                    "sentences": ["One.", "Two."],
                    "sentence_breaks": [[0, 5], [5, 9]],
                    "qas": [
                        {
                            "id": "q",
                            "question": "?",
                            "answers": [{"text": "Two", "answer_start": 5}],
                            "is_impossible": False,
                            "domain": "d",
                        }
                    ],
                }
            ]
        }
    ]
}
ROW = {
    "id": "r",
    "query": {"en": "q", "de": "f"},
    "passage": {"en": "p"},
    "passage_id": 3,
    "negatives": [{"en": "n"}],
    "domain": "d",
}
PAGE = {"qa_pairs": [{"question": "q", "answer": "a"}, {"question": "r", "answer": "b"}]}
BEIR = {
    "corpus": {"_id": "d", "title": "t", "text": "p"},
    "queries": {"_id": "q", "text": "?", "metadata": {"domain": "d"}},
}


def changed(document, draw, odd):
    """A copy of the document in which some value, drawn among all of them, is `odd`."""
    copy, places = deepcopy(document), []

    def visit(node) -> None:
        for key in range(len(node)) if isinstance(node, list) else list(node):
            places.append((node, key))
            if isinstance(node[key], list | dict):
                visit(node[key])

    visit(copy)
    node, key = places[draw(st.integers(0, len(places) - 1))]
    node[key] = odd
    return copy


def lines(*records) -> str:
    return "".join(json.dumps(record).replace(f'"{HUGE}"', HUGE) + "\n" for record in records)


def readings(form, folder, document) -> Iterator[object]:
    """Every way in which a file of that form is read, one after the other."""
    path = folder / ("en.json" if form == "squad" else "en.jsonl")
    path.write_text(lines(document))
    if form == "squad":
        for passage in ("paragraph", "sentence"):
            yield lambda p=passage: consume(SquadReader({"en": str(path)}, p))
        for candidates in ("passage", "sentence"):
            yield lambda c=candidates: checked(read_squad(folder, "x", None, c))
    elif form == "parallel":
        yield lambda: consume(ParallelReader([str(path)]))
        yield lambda: checked(read_parallel(path, "x"))
    elif form == "pages":
        yield lambda: consume(PagesReader({"en": str(path)}, 1))
    elif form == "columns":
        where = {"domain": "1"} if document.get("domain") != "d" else {}
        columns = Columns({"en": "query.en"}, {"en": "passage.en"}, {"en": "negatives.en"}, "id", "passage_id", where)
        yield lambda: consume(ColumnReader([str(path)], columns))
    else:
        (folder / "en" / "qrels").mkdir(parents=True)
        (folder / "en" / "qrels" / "test.tsv").write_text("q\td\t1\n")
        for name, record in document.items():
            (folder / "en" / f"{name}.jsonl").write_text(lines(record))
        yield lambda: consume(JudgedReader(find_beir(str(folder), "test")))
        yield lambda: checked(read_judged("beir", folder, "x", cache=folder / "cache"))


def consume(reader) -> None:
    for drops in (Drops.silent(), Drops(False, None)):
        for item in [*(item for part in reader.parts() for item in part.read(drops)), *reader.pairs(drops)]:
            for text in (x for x in item if isinstance(x, str)):
                text.encode()


def checked(benchmark: Benchmark) -> None:
    for collection in benchmark.collections():
        for texts in (collection.question_ids, collection.query_texts, collection.candidate_texts):
            for text in texts:
                text.encode()
        assert len(collection.question_ids) > 0


FORMS = {"squad": SQUAD, "parallel": ROW, "columns": ROW, "pages": PAGE, "beir": BEIR}


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data(), odd=ODD)
def test_odd_values_are_read_or_refused_in_one_line(form, data, odd):
    document = changed(FORMS[form], data.draw, odd)
    with scratch() as folder:
        for read in readings(form, Path(folder), document):
            try:
                read()
            except DataError as error:
                assert str(error).isprintable()
                assert len(str(error).replace(folder, "")) < 900
                assert folder in str(error) or "benchmark x" in str(error)


TOKENS = [
    "q",
    "d",
    "Q0",
    "1",
    "1.0",
    "nan",
    HUGE,
    "x" * 300,
    "\t",
    "\t",
    " ",
    "\n",
    "\r\n",
    '"',
    ",",
    "\0",
    "\x85",
    "\u2028",
    "\u3000",
]
BYTES = st.lists(st.sampled_from([*(token.encode() for token in TOKENS), b"\xff", b"\xef\xbb\xbf"]), max_size=25).map(
    b"".join
)
BY_LINE = {
    "topics.tsv": lambda path: list(read_topics(path, REFUSED)),
    "qrels.tsv": lambda path: list(read_judgements(path, REFUSED, three_columns=True)),
    "triples.tsv": lambda path: list(read_triples(path, REFUSED)),
    "run.trec": lambda path: read_trec_run(Path(path)),
    "th-en.tsv": lambda path: find_tatoeba(str(Path(path).parent)).read("th"),
    "rows.csv": lambda path: list(ColumnReader([path], Columns({"en": "q"}, {"en": "d"}, {})).rows(Drops(False, None))),
    "rows.tsv": lambda path: list(ColumnReader([path], Columns({"en": "q"}, {"en": "d"}, {})).rows(Drops(False, None))),
}


@pytest.mark.parametrize("name", BY_LINE)
@given(content=BYTES, header=st.sampled_from([b"", b"q\td\n", b"q,d\n", b"\xef\xbb\xbfq,d\n"]))
def test_odd_bytes_are_read_or_refused_in_one_line(name, content, header):
    with scratch() as folder:
        path = Path(folder) / name
        path.write_bytes(header + content)
        try:
            BY_LINE[name](str(path))
        except DataError as error:
            assert "\n" not in str(error)
            assert len(str(error).replace(folder, "")) < 900
            assert folder in str(error)
