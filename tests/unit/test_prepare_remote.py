"""Inputs of `hbtrain prepare` in other places: S3-compatible storage by URI with options, and the web."""

import gzip
import json
from http.server import BaseHTTPRequestHandler

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hbtrain.errors import DataError
from hbtrain.formats.inputs import numbered_lines
from hbtrain.formats.locations import file_state, list_files
from tests.unit.judged_samples import json_lines, miracl
from tests.unit.test_readers_ids import mmarco
from tests.web import serving

MAPPING = ("--query", "en=question", "--passage", "en=answer")


@pytest.fixture
def options(bucket, monkeypatch):
    """The options of a URI that lead to the server, which the environment does not."""
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    return f"?endpoint_override={bucket.endpoint.removeprefix('http://')}&scheme=http&region=us-east-1"


def put_folder(bucket, folder, zipped=()):
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            zip_it = any(path.name.endswith(ending) for ending in zipped)
            raw = path.read_bytes()
            name = f"{folder.name}/{path.relative_to(folder)}{'.gz' * zip_it}"
            bucket.put(name, gzip.compress(raw) if zip_it else raw)


def same_corpus(one, other):
    names = sorted(path.name for path in one.iterdir())
    assert names == sorted(path.name for path in other.iterdir())
    for name in names:
        if name != "manifest.json":
            assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.parametrize("form", ["mmarco", "miracl", "mr-tydi", "pages", "squad"])
def test_folders_in_a_bucket(hbtrain, tmp_path, bucket, options, form):
    raw = tmp_path / "raw"
    if form == "mmarco":
        mmarco(raw)
    elif form == "miracl":
        miracl(raw)
    elif form == "mr-tydi":
        own = raw / "mrtydi-v1.1-english"
        json_lines(own / "collection" / "docs.jsonl", [{"id": "d", "contents": "p"}])
        (own / "topic.train.tsv").write_text("1\tq\n")
        (own / "qrels.train.txt").write_text("1 0 d 1\n")
    elif form == "pages":
        json_lines(raw / "en.jsonl", [{"qa_pairs": [{"question": "q", "answer": "p"}]}])
    else:
        question = {"id": "1", "question": "q", "answers": [{"answer_start": 0}]}
        raw.mkdir()
        (raw / "en.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": "p", "qas": [question]}]}]}))
    put_folder(bucket, raw, ("collection.tsv", "docs.jsonl", "en.jsonl"))
    more = ("--split", "dev") if form == "miracl" else ()
    code, _, err = hbtrain("prepare", form, f"{bucket.uri}/raw{options}", *more, "--output", "remote")
    assert code == 0, err
    assert hbtrain("prepare", form, raw, *more, "--output", "local")[0] == 0
    same_corpus(tmp_path / "remote", tmp_path / "local")
    if form in ("pages", "squad"):
        file = "en.jsonl.gz" if form == "pages" else "en.json"
        assert hbtrain("prepare", form, f"en={bucket.uri}/raw/{file}{options}", "--output", "named")[0] == 0
        same_corpus(tmp_path / "named", tmp_path / "local")


@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "a.jsonl", "a.parquet", "a.arrow"])
def test_columns_in_a_bucket(hbtrain, tmp_path, bucket, options, name):
    table(tmp_path / name)
    bucket.put(f"x/{name}", (tmp_path / name).read_bytes())
    code, _, err = hbtrain("prepare", "columns", f"{bucket.uri}/x/{name}{options}", *MAPPING, "--output", "remote")
    assert code == 0, err
    assert hbtrain("prepare", "columns", name, *MAPPING, "--output", "local")[0] == 0
    same_corpus(tmp_path / "remote", tmp_path / "local")


def test_paths_in_a_bucket(bucket, options):
    bucket.put("x/b/c.txt", b"one\n")
    paths = list_files(f"{bucket.uri}/x/{options}")
    assert paths == [f"{bucket.uri}/x/b/c.txt{options}"]
    assert [(text, str(where)) for text, where in numbered_lines(paths[0])] == [("one", f"{paths[0]} line 1")]
    before = file_state(paths[0])
    assert before == {
        "bytes": 4,
        "changed": bucket.client.head_object(Bucket=bucket.name, Key="x/b/c.txt")["ETag"][1:-1],
    }
    with pytest.raises(DataError, match=r"cannot read s3://.*nothing"):
        file_state(f"{bucket.uri}/nothing{options}")


@pytest.mark.parametrize(
    ("uri", "words"),
    [("s3://key:word@bucket/a.jsonl", "keys before its @"), ("s3://bucket/a.jsonl?colour=red", "option 'colour'")],
)
def test_uris_that_are_refused(hbtrain, uri, words):
    code, _, err = hbtrain("prepare", "parallel", uri, "--output", "corpus")
    assert code == 2
    assert words in err.strip().splitlines()[-1]


def table(path):
    records = [{"question": f"q {i}", "answer": f"a {i}"} for i in range(3)]
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(records), path)
    elif path.suffix == ".arrow":
        rows = pa.Table.from_pylist(records)
        with pa.ipc.new_file(path, rows.schema) as writer:
            writer.write_table(rows)
    elif path.suffix == ".jsonl":
        json_lines(path, records)
    else:
        between = "," if path.suffix == ".csv" else "\t"
        raw = "".join(between.join(record) + "\n" for record in (records[0], *(r.values() for r in records))).encode()
        path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)


class Site(BaseHTTPRequestHandler):
    """Files by name: without length, with length (`/sized/`) or not at all (`/broken/`)."""

    files: dict[str, bytes] = {}  # noqa: RUF012

    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, with_body):
        _, kind, name = self.path.partition("?")[0].split("/")
        if kind == "broken":
            self.send_error(500)
            return
        body = self.files[name]
        self.send_response(200)
        if kind == "sized":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def site():
    """A web server; gives its address."""
    with serving(Site) as address:
        yield address


@pytest.mark.parametrize("kind", ["sized", "unsized"])
@pytest.mark.parametrize("name", ["a.csv", "a.tsv.gz", "a.jsonl", "a.parquet", "a.arrow"])
def test_columns_of_the_web(hbtrain, tmp_path, site, kind, name):
    table(tmp_path / name)
    Site.files = {name: (tmp_path / name).read_bytes()}
    code, _, err = hbtrain("prepare", "columns", f"{site}/{kind}/{name}?download=1", *MAPPING, "--output", "remote")
    if kind == "unsized" and name in ("a.parquet", "a.arrow"):
        assert code == 2
        assert "without its length" in err.strip().splitlines()[-1]
        return
    assert code == 0, err
    assert hbtrain("prepare", "columns", name, *MAPPING, "--output", "local")[0] == 0
    same_corpus(tmp_path / "remote", tmp_path / "local")


def test_a_site_that_is_broken(hbtrain, site):
    code, _, err = hbtrain("prepare", "columns", f"{site}/broken/a.csv", *MAPPING, "--output", "corpus")
    assert code == 2
    assert err.strip().splitlines()[-1].startswith("error: cannot read http://127.0.0.1")
