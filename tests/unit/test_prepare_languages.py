"""Languages of a prepared corpus: as many as it holds, and those that its rows have."""

import json
from itertools import product
from string import ascii_lowercase

import pytest

from hbtrain.batching import BatchPlan
from hbtrain.config import load_config
from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers.by_id import MmarcoReader, SquadReader
from hbtrain.corpus.readers.columns import parse_columns
from hbtrain.corpus.readers.inline import PagesReader, ParallelReader
from hbtrain.errors import DataError
from tests.prepared_samples import Row, check_rows, miracl_reader, prepared

CODES = ["".join(letters) for letters in product(ascii_lowercase, repeat=2)]


def source(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ParallelReader([str(path)])


@pytest.mark.parametrize("partial", [False, True])
def test_63_languages_are_kept(tmp_path, partial):
    codes = CODES[:63]
    rows = [Row({x: f"q{i} {x}" for x in codes}, {x: f"p{i} {x}" for x in codes}, (), i, i) for i in range(3)]
    if partial:
        rows[1] = Row({codes[-1]: "q"}, {codes[-1]: "p", codes[0]: "p"}, (), 1, 1)
    reader = source(
        tmp_path / "a.jsonl", [{"id": i, "query": r.query, "passage": r.passage} for i, r in enumerate(rows)]
    )
    check_rows(prepared(reader, tmp_path / "corpus"), rows, codes)


@pytest.mark.parametrize("partial", [False, True])
def test_64_languages_are_refused_where_they_are_seen(tmp_path, partial):
    codes = CODES[:64]
    texts = [dict.fromkeys(codes[:40], "t"), dict.fromkeys(codes[40:], "t")] if partial else [dict.fromkeys(codes, "t")]
    reader = source(tmp_path / "a.jsonl", [{"id": i, "query": t, "passage": {"aa": "p"}} for i, t in enumerate(texts)])
    for skip in (False, True):
        with pytest.raises(DataError, match=rf"line {len(texts)}: .* has 64 languages, and a corpus holds 63") as error:
            prepare(reader, tmp_path / "corpus", skip)
        assert "\n" not in str(error.value)
        assert not (tmp_path / "corpus").exists()


def test_a_file_for_training_may_have_any_number_of_languages(tmp_path, cache):
    codes = CODES[:130]
    rows = [
        Row({x: f"q{i} {x}" for x in own}, {x: f"p{i} {x}" for x in own}, ({codes[i]: "n"},), i, i)
        for i, own in enumerate([codes, codes[60:120], codes[119:121], codes[:1]])
    ]
    lines = [
        {"id": i, "query": r.query, "passage": r.passage, "negatives": list(r.negatives)} for i, r in enumerate(rows)
    ]
    source(tmp_path / "a.jsonl", lines)
    (found,) = ParallelCorpus.open([str(tmp_path / "a.jsonl")]).sources.values()
    check_rows(found, rows, codes)


@pytest.mark.parametrize(
    "refused",
    [
        lambda number: SquadReader({x: x for x in CODES[:number]}).options["languages"],
        lambda number: PagesReader({x: x for x in CODES[:number]}).options["languages"],
        lambda number: parse_columns([f"{x}={x}" for x in CODES[:number]], "--query"),
        lambda number: MmarcoReader("all", CODES[:number]).options["languages"],
        lambda number: miracl_reader("all", CODES[:number]).options["languages"],
    ],
)
def test_64_languages_are_refused_before_work_starts(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for code in CODES[:70]:
        (tmp_path / "all" / f"miracl-corpus-v1.0-{code}").mkdir(parents=True)
        names = [f"{code}_collection.tsv", f"{code}_queries.train.tsv", f"miracl-corpus-v1.0-{code}/docs-0.jsonl"]
        for name in (*names, *(f"{kind}.miracl-v1.0-{code}-train.tsv" for kind in ("topics", "qrels"))):
            (tmp_path / "all" / name).touch()
    (tmp_path / "all" / "triples.train.ids.small.tsv").touch()
    assert len(refused(63)) == 63
    with pytest.raises(DataError, match="has 64 languages, and a corpus holds 63 at most; prepare several"):
        refused(64)


@pytest.fixture
def german_negatives(tmp_path):
    """Rows in English and French, with negatives in German as well."""
    rows = [
        {
            "id": i,
            "query": {"en": f"q{i}", "fr": f"d{i}"},
            "passage": {"en": f"p{i}", "fr": f"r{i}"},
            "negatives": [{"en": f"n{i}", "de": f"g{i}"}],
        }
        for i in range(8)
    ]
    folder = prepare(source(tmp_path / "a.jsonl", rows), tmp_path / "corpus").folder
    return rows, folder


def test_a_language_of_negatives_alone_is_none_of_the_rows(german_negatives):
    rows, folder = german_negatives
    (found,) = ParallelCorpus.open([str(folder)]).sources.values()
    assert found.index.languages == ("en", "fr")
    check_rows(
        found, [Row(r["query"], r["passage"], tuple(r["negatives"]), r["id"], r["id"]) for r in rows], ("en", "fr")
    )
    assert [record["negatives"] for record in found.records()] == [row["negatives"] for row in rows]


def test_hybrid_batches_over_such_a_corpus(german_negatives, monkeypatch, tmp_path):
    monkeypatch.setenv("HBTRAIN_CACHE", str(tmp_path / "cache"))
    changes = {"data.sources": [str(german_negatives[1])], "data.validation": None, "batching.global_batch_size": 2}
    config = load_config("quickstart", changes)
    plan = BatchPlan.over(ParallelCorpus.from_config(config), config)
    assert {x for step in range(8) for x in plan.batch(step).query_languages} == {"en", "fr"}
