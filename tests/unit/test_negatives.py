"""Hard negatives of a source: on disk, known by identity, refused where they are broken."""

import json
import tracemalloc

import numpy as np
import pytest

from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.columns import CHUNK, TextColumn
from hbtrain.corpus.prepare import database
from hbtrain.corpus.prepare.cached import build_cached
from hbtrain.errors import DataError


def open_one(path):
    (source,) = ParallelCorpus.open([str(path)]).sources.values()
    return source


def test_a_negative_that_is_a_passage_in_another_language_has_its_id(cache, write_source, rows):
    table = rows(CHUNK + 20)
    last = len(table) - 1
    table[5]["negatives"] = [{"de": f"answer {last} in en", "en": "elsewhere"}, {"en": "answer 3 in en"}]
    table[last]["negatives"] = [{"ru": "elsewhere"}]
    source = open_one(write_source(table))
    wanted, languages = np.array([last, 5, 5, 5]), ["ru", "de", "en", "ru"]
    assert source.negative_counts(wanted, languages).tolist() == [1, 1, 2, 0]
    assert source.negatives(wanted, languages, 4, 0) == [
        "elsewhere",
        f"answer {last} in en",
        "elsewhere",
        "answer 3 in en",
    ]
    ids = source.negative_ids(wanted, languages, 4, 0)
    assert ids[[1, 3]].tolist() == source.index.passage_ids_of(np.array([last, 3])).tolist()
    assert ids[0] == ids[2] < 0


def test_ids_are_those_of_named_passages(cache, write_source, rows):
    table = rows(6)
    for i, row in enumerate(table):
        row["passage_id"] = f"p{i // 2}"
    table[0]["negatives"] = [{"en": "answer 5 in de"}]
    source = open_one(write_source(table))
    assert source.negative_ids(np.array([0]), ["en"], 1, 7).tolist() == source.index.passage_ids[[4]].tolist()


def test_sentences_may_have_negatives(cache, write_source):
    table = [{"id": i, "text": {"de": f"Satz {i}", "en": f"sentence {i}"}, "negatives": []} for i in range(3)]
    table[1]["negatives"] = [{"de": "Satz 2"}, {"de": "fremd"}]
    source = open_one(write_source(table))
    ids = source.negative_ids(np.array([1]), ["de"], 2, 0)
    assert ids[0] == source.index.passage_ids_of(np.array([2]))[0]
    assert ids[1] < 0


def test_sources_without_negatives_have_none(cache, write_source, rows):
    source = open_one(write_source(rows(4)))
    languages = ["de", "en", "ru", "sw"]
    assert source.negative_counts(np.arange(4), languages).tolist() == [0] * 4
    assert source.negatives(np.arange(4), languages, 8, 1) == []
    assert source.negative_ids(np.arange(4), languages, 8, 1).shape == (0,)
    (folder,) = (cache / "sources").iterdir()
    assert not [*folder.glob("negative*"), *folder.glob("passage_identity*")]


def test_blocks_make_no_difference(monkeypatch, cache, tmp_path, write_source, rows):
    table = rows(50)
    for i, row in enumerate(table):
        row["negatives"] = [{"en": f"answer {(i * 7 + j) % 80} in en"} for j in range(i % 4)]
    path = write_source(table)

    def everything():
        source = open_one(path)
        wanted, languages = np.arange(50), ["en"] * 50
        return source.negatives(wanted, languages, 3, 1), source.negative_ids(wanted, languages, 3, 1).tolist()

    whole = everything()
    monkeypatch.setattr(database, "BLOCK", 7)
    monkeypatch.setenv("HBTRAIN_CACHE", str(tmp_path / "second"))
    assert everything() == whole


def test_negatives_are_not_held_in_memory(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("w") as stream:
        for row in range(9_000):
            negatives = [{"en": f"{row} " + "x" * 1000}, {"en": f"{row} " + "y" * 1000}]
            record = {"id": row, "query": {"en": "q"}, "passage": {"en": "p"}, "negatives": negatives}
            stream.write(json.dumps(record) + "\n")
    (tmp_path / "built").mkdir()
    tracemalloc.start()
    build_cached(path, tmp_path / "built")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2.5 * CHUNK * 1000, "only a chunk of texts is in memory"
    assert not [x for x in (tmp_path / "built").iterdir() if x.is_dir()], "what was needed for building is gone"


def test_equal_negatives_are_stored_once(cache, write_source, rows):
    table = rows(4)
    for row in table:
        row["negatives"] = [{"en": "elsewhere", "de": "anderswo"}]
    source = open_one(write_source(table))
    assert source.negatives(np.arange(4), ["en"] * 4, 1, 0) == ["elsewhere"] * 4
    (folder,) = (cache / "sources").iterdir()
    assert len(TextColumn(folder / "passage.en.arrow")) == 4 + 1
    assert len(list(source.every_text())) == 4 * 3 * 2, "negatives are no part of what vocabularies are made of"
    assert [record["negatives"] for record in source.records()] == [row["negatives"] for row in table]


def test_two_questions_under_one_id_keep_their_texts_and_are_one_query(cache, write_source, rows):
    table = rows(3)
    table[2]["id"] = table[0]["id"]
    table[2]["passage_id"] = "another"
    source = open_one(write_source(table))
    assert source.texts("query", np.arange(3), ["en"] * 3) == [row["query"]["en"] for row in table]
    ids = source.index.query_ids_of(np.arange(3)).tolist()
    assert ids[0] == ids[2] != ids[1]
    assert [(c.size, c.clusters) for c in source.index.size_classes] == [(2, 1), (1, 1)]


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        ('{"en": "x"}', "negatives must be a list"),
        ("null", "negatives must be a list"),
        ('["x"]', "negatives[0] must be an object"),
        ('[{"en": "x"}, {}]', "negatives[1] must be an object"),
        ('[{"en": " "}]', "negatives[0] in en is empty"),
        ('[{"en/../x": "y"}]', "in negatives[0] is not a language code"),
    ],
)
def test_broken_negatives_are_named(cache, tmp_path, broken, words):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"id": 1, "query": {"en": "q"}, "passage": {"en": "p"}, "negatives": ' + broken + "}\n")
    with pytest.raises(DataError) as error:
        open_one(path)
    assert words in str(error.value)
    assert "line 1" in str(error.value)
