import gzip
import json
import tracemalloc

import numpy as np
import pytest

from hbtrain.corpus import ParallelCorpus
from hbtrain.corpus.columns import CHUNK, ColumnWriter, TextColumn
from hbtrain.errors import DataError, StorageError


def open_one(path):
    corpus = ParallelCorpus.open([str(path)])
    (source,) = corpus.sources.values()
    return source


def test_texts_by_row_language_and_side(cache, write_source, rows):
    count = CHUNK + 10
    source = open_one(write_source(rows(count)))
    wanted = np.array([0, count - 1, 7, 7, CHUNK])
    languages = ["de", "ru", "en", "de", "ru"]
    assert source.texts("query", wanted, languages) == [
        f"question {row} in {language}" for row, language in zip(wanted, languages, strict=True)
    ]
    assert source.texts("passage", wanted[:1], ["en"]) == ["answer 0 in en"]
    assert source.index.rows == count
    assert source.index.languages == ("de", "en", "ru")
    assert len(source.index.pattern_counts) == 1


def test_missing_languages_are_known_and_never_invented(cache, write_source, rows):
    source = open_one(write_source(rows(100, missing=lambda i, x: x == "ru" and i % 3 == 0)))
    counts = dict(zip(map(tuple, source.index.query_patterns.tolist()), source.index.pattern_counts, strict=True))
    assert counts == {(True, True, False): 34, (True, True, True): 66}
    with pytest.raises(DataError, match="row 3 has no query in ru"):
        source.texts("query", np.array([3]), ["ru"])
    with pytest.raises(DataError, match="no query in th"):
        source.texts("query", np.array([1]), ["th"])


def test_a_language_that_first_appears_late(cache, write_source, rows):
    source = open_one(write_source(rows(2 * CHUNK + 5, missing=lambda i, x: x == "ru" and i < CHUNK + 3)))
    assert source.texts("passage", np.array([CHUNK + 3]), ["ru"]) == [f"answer {CHUNK + 3} in ru"]
    assert sum(1 for _ in source.passages()) == 2 * (2 * CHUNK + 5) + CHUNK + 2


def test_gzip_and_plain_give_the_same(cache, tmp_path, write_source, rows):
    plain = write_source(rows(20))
    zipped = tmp_path / "zipped.jsonl.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    first, second = open_one(plain), open_one(zipped)
    assert list(first.passages()) == list(second.passages())
    assert second.name == "zipped"


def test_parallel_sentences_ask_for_each_other(cache, write_source):
    source = open_one(write_source([{"id": i, "text": {"de": f"Satz {i}", "en": f"sentence {i}"}} for i in range(3)]))
    assert source.texts("query", np.array([2]), ["de"]) == ["Satz 2"]
    assert source.texts("passage", np.array([2]), ["en"]) == ["sentence 2"]
    assert len(list(source.every_text())) == 6
    assert source.index.sentences


def test_cache_is_found_by_content_not_by_name(cache, tmp_path, write_source, rows):
    path = write_source(rows(10))
    open_one(path)
    copy = tmp_path / "copy.jsonl"
    copy.write_bytes(path.read_bytes())
    open_one(copy)
    assert len(list((cache / "sources").iterdir())) == 1
    path.write_text(path.read_text().replace("answer 0", "changed 0"))
    assert open_one(path).texts("passage", np.array([0]), ["en"]) == ["changed 0 in en"]
    assert len(list((cache / "sources").iterdir())) == 2


def test_passage_identity_is_kept(cache, write_source, rows):
    table = rows(6)
    for i, row in enumerate(table):
        row["passage_id"] = f"p{i // 2}"
    index = open_one(write_source(table)).index
    ids = index.passage_ids_of(np.arange(6))
    assert [len(set(ids[i : i + 2].tolist())) for i in (0, 2, 4)] == [1, 1, 1]
    assert len(set(ids.tolist())) == 3
    assert len(set(index.query_ids_of(np.arange(6)).tolist())) == 6
    assert [(c.size, c.clusters) for c in index.size_classes] == [(2, 3)]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2 is not JSON"),
        ("[1]", "line 2 must be an object"),
        ('{"id": "a", "query": {"en": "x"}}', "line 2: passage must be an object"),
        ('{"id": "a", "query": {}, "passage": {"en": "x"}}', "line 2: query must be an object"),
        ('{"query": {"en": "x"}, "passage": {"en": "x"}}', "line 2: id must be"),
        ('{"id": "a", "query": {"en": " "}, "passage": {"en": "x"}}', "line 2: query in en is empty"),
        ('{"id": "a", "query": {"English!": "x"}, "passage": {"en": "x"}}', "'English!'"),
        ('{"id": "a", "query": {"en": "x"}, "passage": {"en": "x"}, "pasage_id": "b"}', "unknown key 'pasage_id'"),
        ('{"id": "a", "text": {"en": "x"}}', "not both"),
    ],
)
def test_a_broken_line_is_named(cache, tmp_path, line, words):
    path = tmp_path / "broken.jsonl"
    path.write_text('{"id": 1, "query": {"en": "q"}, "passage": {"en": "p"}}\n' + line + "\n")
    with pytest.raises(DataError) as error:
        open_one(path)
    assert words in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((cache / "sources").iterdir()), "a broken source leaves nothing behind"


def test_garbage_and_absence(cache, tmp_path):
    with pytest.raises(DataError, match="cannot read source .*missing.jsonl"):
        open_one(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DataError, match="is empty"):
        open_one(tmp_path / "empty.jsonl")
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(DataError, match="holds no rows"):
        open_one(tmp_path / "blank.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\xff\xfe\x00garbage")
    with pytest.raises(DataError, match="line 1 is not UTF-8"):
        open_one(tmp_path / "binary.jsonl")
    whole = gzip.compress(b'{"id": 1, "query": {"en": "q"}, "passage": {"en": "p"}}\n' * 1000)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="broken gzip"):
        open_one(tmp_path / "cut.jsonl.gz")
    with pytest.raises(DataError, match="is a folder without manifest.json"):
        open_one(tmp_path)


def test_sources_listed_twice_or_alike(cache, tmp_path, write_source, rows):
    path = write_source(rows(4))
    with pytest.raises(DataError, match="listed twice"):
        ParallelCorpus.open([str(path), str(path)])
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "source.jsonl"
    other.write_bytes(path.read_bytes())
    corpus = ParallelCorpus.open([str(path), str(other)])
    assert sorted(corpus.sources) == sorted([f"{tmp_path.name}/source", "other/source"])


def test_a_cache_that_is_a_file(monkeypatch, tmp_path, write_source, rows):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HBTRAIN_CACHE", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="set data.cache"):
        open_one(write_source(rows(4)))


def test_damaged_cache_says_what_to_do(cache, write_source, rows):
    path = write_source(rows(4))
    open_one(path)
    (manifest,) = (cache / "sources").glob("*/manifest.json")
    manifest.write_text("{")
    with pytest.raises(StorageError, match="delete that folder"):
        open_one(path)


def test_a_large_source_is_not_held_in_memory(tmp_path):
    writer = ColumnWriter(tmp_path)
    tracemalloc.start()
    for i in range(40_000):
        writer.append({"query.en": f"{i} " + "x" * 1000})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    writer.close()
    assert peak < 2.5 * CHUNK * 1000, "only the rows of a chunk are in memory"
    assert TextColumn(tmp_path / "query.en.arrow").get([39_999])[0].startswith("39999 ")


def test_demo_ships_and_is_whole():
    corpus = ParallelCorpus.open(["demo", "demo-heldout"])
    assert corpus.languages == ("ar", "de", "en", "es", "ru", "zh")
    train, held = (corpus.sources[name] for name in ("demo", "demo-heldout"))
    assert (train.index.rows, held.index.rows) == (330, 110)
    assert all(len(s.index.pattern_counts) == 1 for s in (train, held)), "every fact in every language"
    texts = list(train.every_text()) + list(held.every_text())
    assert all(text.strip() == text for text in texts)


def test_demo_holds_out_facts_not_copies():
    from hbtrain.corpus import source_path

    rows = {n: [json.loads(line) for line in source_path(n).read_text().splitlines()] for n in ("demo", "demo-heldout")}
    train, held = ({(x, t) for row in rows[n] for x, t in row["passage"].items()} for n in ("demo", "demo-heldout"))
    assert not train & held
    assert not {row["id"] for row in rows["demo"]} & {row["id"] for row in rows["demo-heldout"]}
