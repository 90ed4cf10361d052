"""Each set of the catalogue, in small: files where its patterns have them, in a stand-in of the hub, open by its name.

What is in the files is made here, in the forms that their publishers describe; so this holds that patterns, forms and
readers fit together, and not what the hub holds.
"""

import gzip
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hbtrain.corpus.data_sets import TRAINING, WantedData
from hbtrain.corpus.parallel import ParallelCorpus
from hbtrain.corpus.prepare.named import prepared_corpus
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.hub import Download, catalogue
from hbtrain.hub.data_set import filled
from tests.unit.evaluation_samples import paragraph

SHIPPED = {one.family or name: one for name, one in sorted(catalogue().items(), reverse=True)}  # of a family the first
BENCHMARKS = [name for name, one in SHIPPED.items() if "benchmark" in one.purposes]
SOURCES = [name for name, one in SHIPPED.items() if {"training", "sentences"} & {*one.purposes}]
TEXTS = [f"A text of some {'more ' * n}words" for n in range(8)]  # lines that are of different lengths, as in Tatoeba


def lines(*records):
    return "".join(f"{x if isinstance(x, str) else json.dumps(x)}\n" for x in records).encode()


def table(**columns):
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def squad(path, form):
    made = paragraph(["Nairobi is large.", "Mombasa is old."], {"1": 0, "2": 1})
    if form not in ("xquad-r", "mlqa-r"):
        made = {key: value for key, value in made.items() if key in ("context", "qas")}
    return lines({"data": [{"title": "t", "paragraphs": [made]}]})


DOCUMENTS = [
    {"_id": "1#0", "docid": "1#0", "title": "Town", "text": "Nairobi."},
    {"_id": "1#1", "docid": "1#1", "text": "Sea."},
]
PAGE = {"id": 1, "domain": "a", "qa_pairs": [{"question": "Q?", "answer": "A."}, {"question": "R?", "answer": "B."}]}
BELEBELE = [{"link": x, "question_number": 1, "flores_passage": f"p {x}", "question": f"q {x}"} for x in "ab"]
CONTENTS = (  # (what is in the path of a file, its content); the first that fits
    ("_queries.", lines("0\twhere?", "1\twhat?")),
    ("corpus/", table(_id=["1#0", "1#1"], text=["Nairobi.", "Sea."])),
    ("queries/", table(_id=["1", "2"], text=["where?", "what?"])),
    ("-corpus/", table(_id=["1#0", "1#1"], title=["Town", ""], text=["Nairobi.", "Sea."])),
    ("-queries/", table(_id=["1", "2"], text=["where?", "what?"])),
    ("-qrels/", table(**{"query-id": ["1", "2"], "corpus-id": ["1#0", "1#1"], "score": [1, 1]})),
    ("pair/", table(query=["where?", "what?"], answer=["Nairobi.", "Sea."])),
    ("_collection.tsv", lines(*(f"{n}\tPassage {n}." for n in range(3)))),
    ("triples", lines("0\t0\t1", "1\t1\t2")),
    ("qrels.", lines("1\tQ0\t1#0\t1", "2\tQ0\t1#1\t1")),
    ("qrels-", lines(*({"query-id": q, "corpus-id": d, "score": 1} for q, d in (("1", "1#0"), ("2", "1#1"))))),
    ("qrels/", table(**{"query-id": ["1", "2"], "corpus-id": ["1#0", "1#1"]})),  # Nano sets have no scores
    ("queries-", lines({"_id": "1", "text": "where?"}, {"_id": "2", "text": "what?"})),
    ("topics.", lines("1\twhere?", "2\twhat?")),
    ("docs-", gzip.compress(lines(*DOCUMENTS))),
    ("corpus.jsonl.gz", gzip.compress(lines(*DOCUMENTS))),
    ("corpus.jsonl", lines(*DOCUMENTS)),
    ("_passages.jsonl", lines(*DOCUMENTS)),
    ("/train.jsonl", lines(PAGE)),
    ("data/", lines(*BELEBELE)),
    (".json", squad),
    ("tatoeba.", lines(*TEXTS)),
    ("", lines(*TEXTS)),
)
STARS = {  # what a pattern's star stands for
    "docs-*": "docs-0",
    "train-*": "train-00000-of-00001",
    "}*.": "}-00000-of-00001.",
    "*.parquet": "test-00000-of-00001.parquet",
}


def content(path, form):
    found = next(made for part, made in CONTENTS if part in path)
    return found(path, form) if callable(found) else found


def archive(files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as packed:
        for path, made in files.items():
            member = tarfile.TarInfo(f"./{path}")
            member.size = len(made)
            packed.addfile(member, io.BytesIO(made))
    return stream.getvalue()


def stand_in(hub, name, purpose, languages):
    """The data set as it ships, but for where its files come from: small ones in the stand-in, in these languages."""
    one = SHIPPED[name]
    tree = one.model_dump(mode="json", exclude_defaults=True) | {"languages": dict(one.languages), "sources": []}
    for source in one.sources:
        if purpose not in (source.purposes or one.purposes):
            continue
        values = one.chosen(purpose, {})
        filling = [{**values, "language": one.languages[x], "other": one.languages[x], "code": x} for x in languages]
        about = source.model_dump(mode="json", exclude_defaults=True, exclude={"sha256", "optional"})
        if isinstance(source, Download):
            urls = {filled(source.url, spelled): spelled for spelled in filling}
            for url in urls:
                path = url.partition("://")[2]
                hub.plain[path] = content(url, one.form_for(purpose))
                if source.unpack is not None:
                    paths = (filled(source.unpack, one_filling) for one_filling in filling)
                    hub.plain[path] = archive({path: content(path, one.form_for(purpose)) for path in paths})
                    break
            about["url"] = f"{hub.url}/raw/{source.url.partition('://')[2]}"
        else:
            patterns = [*source.files]
            for star, number in STARS.items():
                patterns = [pattern.replace(star, number) for pattern in patterns]
            paths = {filled(pattern, spelled) for pattern in patterns for spelled in filling}
            made = {path: content(path, one.form_for(purpose)) for path in paths}
            about["revision"] = hub.add(source.repository, made)
        tree["sources"].append(about)
    return tree


def page(tmp_path, hub, name, purpose, languages):
    tree = stand_in(hub, name, purpose, languages)
    file = tmp_path / f"{name}.yaml"
    file.write_text(json.dumps(tree))
    return str(file), tree["name"]


def two_languages(name, purpose):
    one = SHIPPED[name]
    return one.in_languages(purpose, one.chosen(purpose, {}))[:2]


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_opens(tmp_path, hub, cache, name):
    languages = two_languages(name, "benchmark")
    file, own = page(tmp_path, hub, name, "benchmark", languages)
    (benchmark,) = load_benchmarks([own], list(languages), catalogue=[file])
    assert benchmark.name == own
    assert {*languages} <= {*benchmark.languages} or name == "tatoeba"
    found = list(benchmark.collections())
    assert found and all(len(one.question_ids) >= 2 for one in found)
    parallel = SHIPPED[name].parallel
    assert ("multi" in benchmark.settings) == (parallel or SHIPPED[name].form_for("benchmark") == "squad")


@pytest.mark.parametrize("name", SOURCES)
def test_each_source_is_prepared(tmp_path, hub, cache, name):
    purpose = next(x for x in SHIPPED[name].purposes if x in TRAINING)
    languages = two_languages(name, purpose)
    file, own = page(tmp_path, hub, name, purpose, languages)
    wanted = WantedData.parse(f"hub:{own}?languages={','.join(languages)}", TRAINING, [file])
    corpus = ParallelCorpus.open([str(prepared_corpus(wanted))])
    (source,) = corpus.sources.values()
    assert source.index.languages == tuple(sorted(languages))
    assert source.index.rows >= 2
