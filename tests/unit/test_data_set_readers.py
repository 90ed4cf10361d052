"""Every form that a training set of the catalogue may have becomes a corpus of the rows that its files hold."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hbtrain.corpus import ParallelCorpus
from hbtrain.errors import ConfigError, DataError
from tests.unit.data_set_samples import write_entry


def parquet(columns):
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def lines(records):
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def squad(language):
    context = f"A lake. {language}"
    answers = [{"text": "lake", "answer_start": 2}]
    asked = [{"id": "q", "question": f"what, {language}?", "answers": answers}]
    return json.dumps({"data": [{"title": "t", "paragraphs": [{"context": context, "qas": asked}]}]}).encode()


def page(language):
    asked = [{"question": f"what, {language}?", "answer": f"a lake, {language}"}]
    return lines([{"id": 1, "domain": "example.org", "qa_pairs": asked}])


def judged(language):
    documents = [{"_id": "d", "text": f"a lake, {language}"}, {"_id": "e", "text": "a hill"}, {"_id": "f", "text": "?"}]
    return {
        f"{language}/corpus.jsonl": lines(documents),
        f"{language}/queries-train.jsonl": lines([{"_id": "q", "text": f"what, {language}?"}]),
        f"{language}/qrels-train.jsonl": lines(
            [{"query-id": "q", "corpus-id": x, "score": y} for x, y in (("d", 1), ("e", 0))]
        ),
    }


NAMES = {"de": "deu", "en": "eng"}
FORMS = {
    "squad": ({f"data/{x}.json": squad(x) for x in NAMES.values()}, ["data/{language}.json"], {}),
    "pages": ({f"{x}/train.jsonl": page(x) for x in NAMES.values()}, ["{language}/train.jsonl"], {}),
    "columns": (
        {f"{x}/0.parquet": parquet({"q": [f"what, {x}?"], "a": [f"a lake, {x}"]}) for x in NAMES.values()},
        ["{language}/*.parquet"],
        {"columns": {"query": "q", "passage": "a"}},
    ),
    "mteb": (judged("deu") | judged("eng"), ["{language}/*.jsonl"], {"splits": {"training": ["train"]}}),
}


def opened(entry, name="mine", **more):
    (source,) = ParallelCorpus.open([f"hub:{name}"], catalogue=[entry], **more).sources.values()
    return source


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_those_of_the_files_under_the_codes_of_the_catalogue(form, hub, tmp_path):
    files, patterns, more = FORMS[form]
    source = opened(write_entry(tmp_path, "mine", hub, files, patterns, form, ["training"], NAMES, **more))
    assert source.index.languages == ("de", "en")
    assert {(x, text) for _, x, text in source.queries()} == {(x, f"what, {y}?") for x, y in NAMES.items()}
    passages = {(x, text) for _, x, text in source.passages()}
    assert len(passages) == 2
    assert all("lake" in text and (x, text[-3:]) in NAMES.items() for x, text in passages)


def test_a_table_with_a_column_for_each_language_holds_parallel_sentences(hub, tmp_path):
    files = {"all.parquet": parquet({"s_deu": ["eins", "zwei", ""], "s_eng": ["one", "two", "three"], "n": [1, 2, 3]})}
    more = {"columns": {"text": "s_{language}"}}
    source = opened(write_entry(tmp_path, "mine", hub, files, ["*"], "columns", ["sentences"], NAMES, **more))
    assert source.index.sentences
    assert [r["text"] for r in source.records()] == [
        {"de": "eins", "en": "one"},
        {"de": "zwei", "en": "two"},
        {"en": "three"},
    ]


def test_of_parallel_rows_only_the_languages_asked_for_are_taken(hub, tmp_path):
    rows = [
        {
            "id": "1",
            "query": {"deu": "q", "eng": "q"},
            "passage": {"eng": "p"},
            "negatives": [{"deu": "n"}, {"eng": "n"}],
        },
        {"id": "2", "query": {"deu": "q"}, "passage": {"deu": "p", "eng": "p"}},
    ]
    entry = write_entry(
        tmp_path, "mine", hub, {"a.jsonl": lines(rows)}, ["*"], "parallel", ["training"], ["deu", "eng"]
    )
    source = opened(entry, "mine?languages=eng")
    assert source.index.languages == ("eng",)
    assert [(r["query"], r["passage"], r["negatives"]) for r in source.records()] == [
        ({"eng": "q"}, {"eng": "p"}, [{"eng": "n"}])
    ]


def test_pairs_of_a_page_in_another_language_are_left_out(hub, tmp_path):
    asked = [{"question": f"{x}?", "answer": x, "language": x} for x in ("deu", "en", "fr", "german")]
    files = {"deu.jsonl": lines([{"qa_pairs": asked}])}
    entry = write_entry(tmp_path, "mine", hub, files, ["{language}.jsonl"], "pages", ["training"], {"de": "deu"})
    assert [text for _, _, text in opened(entry).passages()] == ["deu", "german"]


def test_line_i_of_one_file_translates_line_i_of_the_others(hub, tmp_path):
    files = {"deu.txt": "eins\n\nü\n".encode(), "eng.txt": b"one\ntwo\n\n"}
    source = opened(write_entry(tmp_path, "mine", hub, files, ["{language}.txt"], "lines", ["sentences"], NAMES))
    assert source.index.sentences
    assert sorted(map(str, (r["text"] for r in source.records()))) == [
        "{'de': 'eins', 'en': 'one'}",
        "{'de': 'ü'}",
        "{'en': 'two'}",
    ]


@pytest.mark.parametrize(
    ("form", "files", "error", "words"),
    [
        ("lines", {"deu.txt": b"eins\nzwei\n", "eng.txt": b"one\n"}, DataError, "not equally many lines"),
        ("lines", {"deu.txt": b"eins\n\xff\n", "eng.txt": b"one\ntwo\n"}, DataError, "deu.txt line 2: not UTF-8"),
        ("line", {"deu.txt": b"eins\n", "eng.txt": b"one\n"}, ConfigError, "unknown form 'line': did you mean lines?"),
    ],
)
def test_what_does_not_go_together_is_one_line(form, files, error, words, hub, tmp_path):
    entry = write_entry(tmp_path, "mine", hub, files, ["{language}.txt"], form, ["sentences"], NAMES)
    with pytest.raises(error) as raised:
        opened(entry)
    assert words in str(raised.value)


def test_mmarco_takes_the_translator_that_is_asked_for(hub, tmp_path):
    files = {"data/triples.train.ids.small.tsv": b"1\t7\t8\n"}
    for translator in ("google", "helsinki"):
        for language in ("german", "english"):
            texts = f"7\ta lake by {translator}\n8\ta hill\n".encode()
            files[f"data/{translator}/collections/{language}_collection.tsv"] = texts
            files[f"data/{translator}/queries/train/{language}_queries.train.tsv"] = b"1\twhat?\n"
    patterns = [
        "data/{translator}/collections/{language}_collection.tsv",
        "data/{translator}/queries/train/{language}_queries.train.tsv",
        "data/triples.train.ids.small.tsv",
    ]
    more = {"options": {"translator": ["google", "helsinki"]}}
    names = {"de": "german", "en": "english"}
    entry = write_entry(tmp_path, "mine", hub, files, patterns, "mmarco", ["training"], names, **more)
    for name, translator in (("mine", "google"), ("mine?translator=helsinki", "helsinki")):
        source = opened(entry, name)
        assert {text for _, _, text in source.passages()} == {f"a lake by {translator}"}
