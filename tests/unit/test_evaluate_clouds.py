"""Benchmarks in Google's storage (an emulator), on the Hugging Face hub and the web (stand-ins)."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from hbtrain.config import load_config
from hbtrain.errors import ConfigError, DataError, StorageError
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.formats.inputs import local_copy
from hbtrain.runs.preflight import fetch_inputs
from tests import clouds
from tests.unit.evaluation_samples import paragraph, write_lareqa
from tests.unit.judged_samples import beir, miracl, mr_tydi, read_all_forms
from tests.unit.test_mine_command import model
from tests.web import serving

__all__ = ["model"]  # a fixture
ROOT = Path(__file__).parents[2]
ROW = '{"id": "1", "query": {"en": "q", "de": "f"}, "passage": {"en": "p", "de": "t"}}\n'


@pytest.fixture
def data(tmp_path):
    """A folder with a benchmark of each form."""
    folder = tmp_path / "data"
    texts = {"en": [paragraph(["One.", "Two."], {"a": 1})], "de": [paragraph(["Eins."], {"a": 0})]}
    write_lareqa(folder / "texts", texts, zipped=("de",))
    miracl(miracl(folder / "miracl"), "te")
    mr_tydi(folder / "tydi")
    beir(folder / "beir" / "en")
    (folder / "pairs").mkdir()
    (folder / "pairs" / "de-en.tsv").write_text("eins\tone\nzwei\ttwo\n")
    (folder / "a.jsonl").write_text(ROW)
    return folder


@pytest.fixture
def google(data):
    """The options of a URL that lead to an emulator, whose bucket holds the folder."""
    with clouds.google_storage(data) as address:
        yield f"?scheme=http&endpoint_override={address}"


def test_googles_storage(cache, data, google):
    remote = read_all_forms("gs://anonymous@bucket/data", google)
    assert len(remote) == 8
    assert remote == read_all_forms(data)


def test_the_command(hbtrain, model, data, google, tmp_path):
    for output, base, options in (("remote", "gs://anonymous@bucket/data", google), ("local", data, "")):
        benchmarks = [f"{text.replace('=', f'={base}/')}{options}" for text in ("miracl=miracl", "lareqa=texts")]
        code, _, err = hbtrain("evaluate", model, "--benchmark", *benchmarks, "--output", output)
        assert code == 0, err
    remote, local = (json.loads((tmp_path / x / "metrics.json").read_text()) for x in ("remote", "local"))
    assert remote == local
    assert {key.partition("/")[0] for key in remote} == {"miracl", "texts"}


def test_a_copy_is_fetched_once_and_again_when_it_changes(cache, google, observer):
    url = f"gs://anonymous@bucket/data/a.jsonl{google}"
    config = load_config("quickstart", {"evaluation.benchmarks": [f"parallel={url}"], "data.validation": None})
    for _ in range(2):
        fetch_inputs(config, observer)
    assert observer.said == [f"fetching {url} (0.0 MiB)"]
    assert local_copy(url).read_text() == ROW
    clouds.put(google.rpartition("=")[2], "data/a.jsonl", ROW.replace('"q"', '"w"').encode())
    fetch_inputs(config, observer)
    assert len(observer.said) == 2
    (benchmark,) = load_benchmarks([f"parallel={url}"])
    assert next(benchmark.collections()).query_texts == ["f", "w"]


@pytest.fixture
def observer():
    """Notes what it is told of the phases of a run."""

    class Observer:
        said: list[str] = []  # noqa: RUF012

        def phase(self, text):
            self.said.append(text)

    return Observer()


@pytest.mark.parametrize("form", ["squad", "parallel"])
def test_what_is_not_there_is_one_line(hbtrain, google, form):
    url = f"gs://anonymous@bucket/nothing{google}"
    code, _, err = hbtrain("train", "quickstart", "--evaluation.benchmarks", f"{form}={url}")
    assert code == 2
    assert err.startswith(f"error: cannot fetch {url}: ")
    assert err.count("\n") == 1


def test_places_that_nobody_knows(cache):
    with pytest.raises(ConfigError, match="nonsense://x: nonsense:// cannot be read here"):
        load_benchmarks(["squad=nonsense://x"])


def test_a_cache_that_cannot_be_written(google, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot keep a copy of gs://.*set HBTRAIN_CACHE"):
        load_benchmarks([f"lareqa=gs://anonymous@bucket/data/texts{google}"], cache=str(tmp_path / "file" / "cache"))
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".fetching")] == []


PROGRAM = """
import json, sys
from tests.unit.judged_samples import read_all_forms
for place in sys.argv[1:]:
    print(json.dumps(read_all_forms(place)), flush=True)
"""


def test_the_hub(cache, data):
    """In a process of its own: the library reads its settings when it is imported."""
    with clouds.hub(data) as address:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, "hf://datasets/org/name/data", "hf://datasets/org/other/data"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": address, "HF_HUB_OFFLINE": "0"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert [json.loads(line) for line in done.stdout.splitlines()] == [read_all_forms(data)], done.stderr
    assert "DataError: cannot fetch hf://datasets/org/other/data/texts: " in done.stderr.strip().splitlines()[-1]


class Site(BaseHTTPRequestHandler):
    """One file."""

    def do_GET(self):
        if self.path != "/a.jsonl?download=1":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(ROW)))
        self.send_header("ETag", '"1"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(ROW.encode())

    def do_HEAD(self):
        self.do_GET()

    def log_message(self, *_):
        pass


def test_the_web(cache):
    with serving(Site) as address:
        (benchmark,) = load_benchmarks([f"parallel={address}/a.jsonl?download=1"])
        assert (benchmark.name, benchmark.languages) == ("a", ("de", "en"))
        with pytest.raises(DataError, match=r"cannot fetch http://.*/b\.jsonl: "):
            load_benchmarks([f"parallel={address}/b.jsonl"])
