"""Sources whose rows are ids: mMARCO, MIRACL and Mr. TyDi in small; what they refuse and pass over."""

import gzip
import json
import shutil

import numpy as np
import pytest

from hbtrain.corpus.prepare.prepare import prepare
from hbtrain.corpus.readers.by_id import MmarcoReader
from hbtrain.errors import DataError
from hbtrain.formats.inputs import REFUSED
from hbtrain.formats.judged import read_judgements, read_topics
from tests.prepared_samples import Row, check_rows, miracl_reader, mr_tydi_reader, prepared
from tests.unit.judged_samples import DOCUMENTS, TOPICS
from tests.unit.judged_samples import miracl as write_miracl
from tests.unit.judged_samples import mr_tydi as write_mr_tydi

PASSAGES = {"10": "zehn", "2": "zwei", "30": "dreißig"}
TRIPLES = "1\t10\t2\n1\t10\t30\n5\t2\t10\n"


def mmarco(folder, languages=("english", "german")):
    (folder / "google" / "collections").mkdir(parents=True)
    for language in languages:
        lines = "".join(f"{p}\t{text} ({language})\n" for p, text in PASSAGES.items())
        (folder / "google" / "collections" / f"{language}_collection.tsv").write_text(lines)
        (folder / f"{language}_queries.train.tsv").write_text(f"1\teins ({language})\n5\tfünf\tTab ({language})\n")
    (folder / "triples.train.ids.small.tsv").write_text(TRIPLES)
    return folder


def change(path, old, new):
    before = path.read_bytes()
    assert old in before
    path.write_bytes(before.replace(old, new))


def test_mmarco_texts_stand_once_and_negatives_are_ids(tmp_path):
    folder = mmarco(tmp_path / "raw")
    source = prepared(MmarcoReader(str(folder)), tmp_path / "corpus")
    p = {k: {"en": f"{text} (english)", "de": f"{text} (german)"} for k, text in PASSAGES.items()}
    q = {k: {"en": f"{t} (english)", "de": f"{t} (german)"} for k, t in (("1", "eins"), ("5", "fünf\tTab"))}
    check_rows(
        source,
        [
            Row(q["1"], p["10"], (p["2"],), 1, 10),
            Row(q["1"], p["10"], (p["30"],), 1, 10),
            Row(q["5"], p["2"], (p["10"],), 5, 2),
        ],
    )
    assert sorted(source.every_text()) == sorted(
        [*q["1"].values(), *q["5"].values(), *(t for x in p.values() for t in x.values())]
    )
    rows = np.array([0, 2])
    ids = source.negative_ids(rows, ["de", "en"], 1, 5)
    assert ids.tolist() == source.index.passage_ids_of(np.array([2, 0])).tolist()


def test_mmarco_by_folders_of_languages_and_some_languages_only(tmp_path):
    folder = tmp_path / "raw"
    for code in ("de", "en", "zh"):
        (folder / code).mkdir(parents=True)
        (folder / code / "collection.tsv").write_text(f"1\tp {code}\n2\tn {code}\n")
        (folder / code / "queries.tsv").write_text(f"7\tq {code}\n")
    (folder / "triples.train.ids.small.tsv.gz").write_bytes(gzip.compress(b"7\t1\t2\n"))
    source = prepared(MmarcoReader(str(folder), ["zh", "en"]), tmp_path / "corpus")
    p, n, q = ({x: f"{side} {x}" for x in ("en", "zh")} for side in "pnq")
    check_rows(source, [Row(q, p, (n,), 7, 1)])
    with pytest.raises(DataError, match="language 'sw' is not in .*it has de, en, zh"):
        MmarcoReader(str(folder), ["sw"])


@pytest.mark.parametrize(
    ("file", "old", "new", "words"),
    [
        (
            "triples.train.ids.small.tsv",
            b"5\t2\t10",
            b"5\t99\t10",
            "small.tsv line 3: a passage that the corpus lacks (99)",
        ),
        (
            "triples.train.ids.small.tsv",
            b"5\t2\t10",
            b"8\t2\t10",
            "small.tsv line 3: a query without a text (8)",
        ),
        (
            "triples.train.ids.small.tsv",
            b"1\t10\t2\n",
            b"1\t10\t3\n",
            "line 1: a negative passage that the corpus lacks (3)",
        ),
        (
            "triples.train.ids.small.tsv",
            b"5\t2\t10",
            b"5\t2",
            "small.tsv line 3: a triple without three columns: it has 2",
        ),
        ("german_queries.train.tsv", b"5\t", b"5 ", "german_queries.train.tsv line 2: a query id that en lacks"),
        ("german_queries.train.tsv", b"5\tf\xc3\xbcnf\tTab (german)\n", b"5\n", "line 2: a row with too few columns"),
        (
            "german_queries.train.tsv",
            b"5\t",
            b"1\t",
            "german_queries.train.tsv line 2: a query id that came before, with another text (1, at ",
        ),
        ("german_queries.train.tsv", b"f\xc3\xbcnf", b"f\xfcnf", "german_queries.train.tsv line 2: not UTF-8"),
        ("german_queries.train.tsv", b"eins (german)", b"  ", "line 1: an empty text (query 1 in de)"),
        (
            "google/collections/german_collection.tsv",
            "30\tdreißig (german)\n".encode(),
            b"",
            "english_collection.tsv line 3: a passage id that de lacks, one of 1",
        ),
    ],
)
def test_mmarco_refuses(tmp_path, file, old, new, words):
    folder = mmarco(tmp_path / "raw")
    change(folder / file, old, new)
    with pytest.raises(DataError) as error:
        prepare(MmarcoReader(str(folder)), tmp_path / "corpus")
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "corpus").exists()


def test_mmarco_bad_rows_are_listed_and_the_rest_stays_aligned(tmp_path):
    folder = mmarco(tmp_path / "raw")
    change(folder / "german_queries.train.tsv", b"1\teins (german)\n", b"1\teins (german)\n1\tanders\n\xff\tx\n6\t \n")
    with (folder / "triples.train.ids.small.tsv").open("a") as stream:
        stream.write("5\t2\t77\n5\t77\t2\n6\t2\t2\n5\n")
    corpus = prepare(MmarcoReader(str(folder), complete=False), tmp_path / "corpus", True)
    assert corpus.manifest["dropped"] == {
        "a negative passage that the corpus lacks": 1,
        "a passage that the corpus lacks": 1,
        "a query id that came before, with another text": 1,
        "a query without a text": 1,
        "a triple without three columns": 1,
        "an empty text": 1,
        "not UTF-8": 1,
    }
    listed = [json.loads(line) for line in (corpus.folder / "drops.jsonl").read_text().splitlines()]
    assert sorted((one["file"].rsplit("/", 1)[1], one["line"]) for one in listed) == [
        ("german_queries.train.tsv", 2),
        ("german_queries.train.tsv", 3),
        ("german_queries.train.tsv", 4),
        *[("triples.train.ids.small.tsv", line) for line in (4, 5, 6, 7)],
    ]
    assert corpus.manifest["rows"] == 4, "the row without its negative stays"
    (tmp_path / "second").mkdir()
    source = prepared(MmarcoReader(str(folder), complete=False), tmp_path / "again", True)
    assert source.texts("query", np.array([0]), ["de"]) == ["eins (german)"]
    assert source.negative_counts(np.array([2, 3]), ["de", "de"]).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("triples.train.ids.small.tsv", "holds no triples.train.ids.small.tsv"),
        ("german_queries.train.tsv", "has no queries in de, but the other kind"),
        ("google/collections/german_collection.tsv", "has no collection in de, but the other kind"),
    ],
)
def test_mmarco_lacks_files(tmp_path, gone, words):
    folder = mmarco(tmp_path / "raw")
    (folder / gone).unlink()
    with pytest.raises(DataError, match=words):
        MmarcoReader(str(folder))


def clone(folder):
    """A clone of the hub's repository, with other texts by each translator."""
    for translator, languages in (("google", ("arabic", "english", "german")), ("helsinki", ("english", "german"))):
        for language in languages:
            for kind, name, ids in (
                ("collections", f"{language}_collection.tsv", PASSAGES),
                ("queries/train", f"{language}_queries.train.tsv", ("1", "5")),
                ("queries/dev", f"{language}_queries.dev.tsv", ("1",)),
            ):
                path = folder / "data" / translator / kind / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("".join(f"{x}\t{translator} {language} {x}\n" for x in ids))
    (folder / "data" / "triples.train.ids.small.tsv").write_text(TRIPLES)
    return folder


@pytest.mark.parametrize("inside", ["", "data"])
def test_a_clone_of_mmarco_has_two_translators_whose_texts_are_not_mixed(tmp_path, inside):
    folder = str(clone(tmp_path / "mmarco") / inside)
    with pytest.raises(DataError, match="by google and by helsinki, .*: give --translator google or --translator hels"):
        MmarcoReader(folder)
    for translator, languages in (("google", ["ar", "de", "en"]), ("helsinki", ["de", "en"])):
        reader = MmarcoReader(folder, translator=translator)
        assert reader.options == {"languages": languages, "complete": True, "translator": translator}
        source = prepared(reader, tmp_path / translator)
        assert {text.split()[0] for text in source.every_text()} == {translator}
    with pytest.raises(DataError, match="language 'ar' is not in .*it has de, en"):
        MmarcoReader(folder, ["ar"], translator="helsinki")


def test_parts_of_a_clone(tmp_path):
    folder = clone(tmp_path / "mmarco")
    shutil.rmtree(folder / "data" / "helsinki" / "queries")
    with pytest.raises(DataError, match="holds translations by google and by helsinki"):
        MmarcoReader(str(folder))
    with pytest.raises(DataError, match="holds no queries"):
        MmarcoReader(str(folder), translator="helsinki")
    shutil.rmtree(folder / "data" / "helsinki")
    assert "translator" not in MmarcoReader(str(folder)).options
    with pytest.raises(DataError, match="holds no translations by helsinki; it has those by google"):
        MmarcoReader(str(folder), translator="helsinki")
    plain = mmarco(tmp_path / "raw")
    shutil.move(plain / "google" / "collections", plain / "collections")
    with pytest.raises(DataError, match="no translations by google; no folder is called google or helsinki"):
        MmarcoReader(str(plain), translator="google")


def test_a_query_of_dots_only_is_a_bad_row(tmp_path):
    folder = mmarco(tmp_path / "raw")
    change(folder / "german_queries.train.tsv", b"eins (german)", b". . . .")
    with pytest.raises(DataError, match=r"line 1: a query without letters and digits \(1 in de: '. . . .'\)"):
        prepare(MmarcoReader(str(folder)), tmp_path / "corpus")
    corpus = prepare(MmarcoReader(str(folder), complete=False), tmp_path / "corpus", True)
    assert corpus.manifest["dropped"] == {"a query without letters and digits": 1}
    assert corpus.manifest["texts"]["query"] == {"de": 1, "en": 2}


def judged_rows(language):
    text = {x: {language: f"{title} {text}"} for x, title, text in DOCUMENTS}
    query = {k: {language: v} for k, v in TOPICS.items()}
    return [
        Row(query["1"], text["10#1"], (), (language, 1), (language, "10#1")),
        Row(query["1"], text["10#0"], (), (language, 1), (language, "10#0")),
        Row(query["2"], text["11#0"], (text["10#0"],), (language, 2), (language, "11#0")),
    ]


def test_miracl_languages_are_not_parallel(tmp_path):
    for language in ("te", "sw"):
        write_miracl(tmp_path / "raw", language)
    source = prepared(miracl_reader(str(tmp_path / "raw"), split="dev"), tmp_path / "corpus")
    check_rows(source, judged_rows("sw") + judged_rows("te"), ("sw", "te"))
    only = prepared(miracl_reader(str(tmp_path / "raw"), ["te"], "dev", negatives=False), tmp_path / "te")
    check_rows(only, [row._replace(negatives=()) for row in judged_rows("te")], ("te",))
    assert len(list(only.every_text())) == 3 + 3, "topics, and documents that answer one"


def test_mr_tydi_contents_are_title_and_text(tmp_path):
    folder = write_mr_tydi(tmp_path / "raw")
    source = prepared(mr_tydi_reader(str(folder), split="test"), tmp_path / "corpus")
    contents = {x: {"sw": f"{title}\n\n{text}"} for x, title, text in DOCUMENTS}
    expected = [
        row._replace(passage=contents[row.passage_id[1]], negatives=(contents["10#0"],) if row.query_id[1] == 2 else ())
        for row in judged_rows("sw")
    ]
    check_rows(source, expected, ("sw",))
    own = prepared(mr_tydi_reader(str(folder / "mrtydi-v1.1-swahili"), split="test"), tmp_path / "own")
    assert own.index.rows == 3


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"10#1\t1", b"99#9\t1", "dev.tsv.gz line 1: a passage that the corpus lacks (sw:99#9)"),
        (b"2\tQ0\t10#0\t0", b"2\tQ0\t99#9\t0", "line 3: a negative passage that the corpus lacks (sw:99#9)"),
        (b"1\tQ0\t10#1", b"9\tQ0\t10#1", "line 1: a query without a text (sw:9)"),
        (b"1\tQ0\t10#1\t1", b"1\t10#1\t1", "line 1: not a judgement"),
        (b"1\tQ0\t10#1\t1", b"1\tQ0\t10#1\t--1", "line 1: not a judgement"),
        (b"1\tQ0\t10#1\t1", "1\tQ0\t10#1\t²".encode(), "line 1: not a judgement"),
        (b"1\tQ0\t10#0\t1", b"1\tQ0\t10#1\t0", "line 2: a judgement that contradicts an earlier one"),
    ],
)
def test_miracl_refuses_judgements(tmp_path, old, new, words):
    write_miracl(tmp_path / "raw")
    path = next((tmp_path / "raw").glob("*/qrels/*"))
    raw = gzip.decompress(path.read_bytes())
    assert old in raw
    path.write_bytes(gzip.compress(raw.replace(old, new)))
    with pytest.raises(DataError) as error:
        prepare(miracl_reader(str(tmp_path / "raw"), split="dev"), tmp_path / "corpus")
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_miracl_lacks_files_and_documents_are_broken(tmp_path):
    folder = write_miracl(tmp_path / "raw")
    with pytest.raises(DataError, match=r"holds no topics.miracl-v1.0-<language>-train.tsv"):
        miracl_reader(str(folder))
    corpus = folder / "corpora" / "miracl-corpus-v1.0-sw"
    (corpus / "docs-1.jsonl.gz").write_bytes(gzip.compress(b'{"docid": "11#0"}\n'))
    with pytest.raises(DataError, match="docs-1.jsonl.gz line 1: not a document: document 11#0 needs its text"):
        prepare(miracl_reader(str(folder), split="dev"), tmp_path / "corpus")
    for path in corpus.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="has topics in sw but no miracl-corpus-v1.0-sw/docs-0.jsonl"):
        miracl_reader(str(folder), split="dev")


@pytest.mark.shared
def test_published_topics_and_judgements_of_miracl(shared, tmp_path):
    """Real topics and judgements over a corpus made of the judged ids."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for kind in ("topics", "qrels"):
        name = f"{kind}.miracl-v1.0-te-train.tsv.gz"
        (folder / name).write_bytes((shared / "miracl-topics" / name).read_bytes())
    topics = {x.id: x.text for x in read_topics(str(folder / "topics.miracl-v1.0-te-train.tsv.gz"), REFUSED)}
    qrels = {}
    for one in read_judgements(str(folder / "qrels.miracl-v1.0-te-train.tsv.gz"), REFUSED):
        qrels.setdefault(one.question, {})[one.document] = one.grade
    corpus = folder / "miracl-corpus-v1.0-te"
    corpus.mkdir()
    ids = sorted({d for found in qrels.values() for d in found})
    lines = [json.dumps({"docid": d, "title": "t", "text": d}) for d in ids]
    (corpus / "docs-0.jsonl").write_text("".join(line + "\n" for line in lines))
    source = prepared(miracl_reader(str(folder)), tmp_path / "corpus")
    expected = [
        Row({"te": topics[q]}, {"te": f"t {d}"}, tuple({"te": f"t {n}"} for n, g in found.items() if g == 0), q, d)
        for q, found in qrels.items()
        for d, grade in found.items()
        if grade > 0
    ]
    assert len(expected) > 3000
    rows = np.arange(len(expected))
    assert source.texts("query", rows, ["te"] * len(rows)) == [row.query["te"] for row in expected]
    assert source.texts("passage", rows, ["te"] * len(rows)) == [row.passage["te"] for row in expected]
    assert source.negative_counts(rows, ["te"] * len(rows)).tolist() == [len(row.negatives) for row in expected]
    assert source.negatives(rows, ["te"] * len(rows), 99, 0) == [n["te"] for row in expected for n in row.negatives]
