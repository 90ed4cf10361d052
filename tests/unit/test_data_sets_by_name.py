"""Data sets by name among benchmarks and sources: what a name means, what is refused, and that data come from it."""

import hashlib
import shutil
import threading

import pytest

from hbtrain.config import absolute_paths, load_config
from hbtrain.corpus import ParallelCorpus, source_path
from hbtrain.corpus.data_sets import BENCHMARK, TRAINING, Told, WantedData, provenance
from hbtrain.corpus.prepare import named
from hbtrain.errors import ConfigError, DataError
from hbtrain.evaluation.benchmarks import load_benchmarks, parse_benchmark, parse_benchmarks
from hbtrain.hub import catalogue
from tests.unit.data_set_samples import benchmark, pairs, rows, write_entry


def test_names_and_forms_stand_side_by_side(tmp_path):
    assert parse_benchmark("xquad-r").wanted.data_set.name == "xquad-r"
    assert parse_benchmark("hub:xquad-r").wanted == parse_benchmark("xquad-r").wanted
    some = parse_benchmark("miracl?languages=sw,yo")
    assert (some.name, some.form, some.path, some.wanted.languages) == ("miracl", "miracl", None, ("sw", "yo"))
    own = parse_benchmark(f"miracl={tmp_path}")
    assert (own.name, own.path, own.wanted) == ("miracl", str(tmp_path), None)
    assert parse_benchmark("demo").wanted is None


def test_a_family_is_all_its_sets():
    found = parse_benchmarks(["demo", "multilingual-nano?languages=de,en"])
    members = [name for name, one in catalogue().items() if one.family == "multilingual-nano"]
    assert [spec.name for spec in found] == ["demo", *members]
    assert {spec.wanted.languages for spec in found[1:]} == {("de", "en")}


@pytest.mark.parametrize(
    ("text", "purposes", "words"),
    [
        ("xqad-r", BENCHMARK, "unknown benchmark 'xqad-r' in 'xqad-r': did you mean xquad-r?"),
        ("belebelle", BENCHMARK, "did you mean belebele?"),
        ("mirakl?languages=sw", BENCHMARK, "unknown data set 'mirakl': did you mean miracl?"),
        ("mmarco", BENCHMARK, "mmarco: it is for training; name it in data.sources (hub:mmarco)"),
        ("miracl?languages=sw,el", BENCHMARK, "language 'el' is not in data set miracl; it has ar, "),
        ("miracl?split=tests", BENCHMARK, "data set miracl: split 'tests' must be dev"),
        ("miracl?languages", BENCHMARK, "'hub:miracl?languages': must be hub:NAME or hub:NAME?languages=ar,de"),
        ("lareqa", BENCHMARK, "benchmark 'lareqa' needs its data: write lareqa=FOLDER"),
        ("hub:mmarko", TRAINING, "unknown data set 'mmarko': did you mean mmarco?"),
        ("hub:xquad-r", TRAINING, "it is a benchmark; name it in evaluation.benchmarks (--benchmark xquad-r)"),
        ("hub:mmarco?translator=deepl", TRAINING, "translator 'deepl' must be google or helsinki"),
        ("hub:mmarco?translator=helsinki&languages=ar", TRAINING, "nothing in ar for helsinki"),
        ("hub:mmarco?translater=google", TRAINING, "no option 'translater'"),
        ("hub:ntrex", TRAINING, "languages, and a corpus holds 63 at most"),
        ("mmarco", TRAINING, "source mmarco does not exist; the data set of that name is hub:mmarco"),
    ],
)
def test_what_a_name_cannot_mean_is_one_line(text, purposes, words, cache, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as error:
        parse_benchmark(text) if purposes == BENCHMARK else source_path(text)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_recipes_take_names_wherever_files_of_such_names_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("xquad-r", "sw,yo", "mine.yaml"):
        (tmp_path / name).mkdir()
    text = "data:\n  sources: ['hub:mmarco?languages=ar,de']\n  catalogue: mine.yaml\n"
    (tmp_path / "r.yaml").write_text(text + "evaluation:\n  benchmarks: [xquad-r, 'miracl?languages=sw,yo']\n")
    config = absolute_paths(load_config("r.yaml"))
    assert config.data.sources == ("hub:mmarco?languages=ar,de",)
    assert config.evaluation.benchmarks == ("xquad-r", "miracl?languages=sw,yo")
    assert config.data.catalogue == (str(tmp_path / "mine.yaml"),)


def test_a_benchmark_is_fetched_in_the_languages_asked_for_and_says_where_it_is_from(hub, tmp_path):
    mine, said = benchmark(tmp_path, hub), []
    (found,) = load_benchmarks(["capitals"], ["fr", "de"], catalogue=[mine], notify=said.append)
    assert (found.name, found.languages) == ("capitals", ("fr", "de"))
    assert [line.partition(":")[0] for line in said] == ["fetching capitals"]
    assert not hub.asked("en.json")
    files = found.data["files"]
    assert set(files) == {"de.json", "fr.json"}
    lines = "".join(f"{path} {digest}\n" for path, digest in sorted(files.items()))
    assert found.data["digest"] == hashlib.sha256(lines.encode()).hexdigest()
    commit = hub.repositories["owner/capitals"].commit
    assert provenance(found.data) == f"owner/capitals at {commit}; sha256 of its files' digests: {found.data['digest']}"
    said.clear()
    (again,) = load_benchmarks(["capitals?languages=fr,de"], catalogue=[mine], notify=said.append)
    assert said == []
    assert again.languages == ("fr", "de")
    with pytest.raises(DataError, match=r"language 'en' is not in capitals\?languages=fr,de"):
        load_benchmarks(["capitals?languages=fr,de"], ["en"], catalogue=[mine])


def test_a_source_is_prepared_once_and_read_without_the_hub_from_then_on(hub, tmp_path, cache):
    mine, said = pairs(tmp_path, hub), []
    path = source_path("hub:pairs", None, [mine], said.append)
    assert [line.partition(":")[0] for line in said] == ["fetching pairs", "preparing the corpus of pairs, once"]
    corpus = ParallelCorpus.open(["hub:pairs", "demo"], None, [mine])
    source = corpus.sources["pairs"]
    assert source.index.languages == ("de", "en", "fr")
    assert sorted(text for _, language, text in source.queries() if language == "de") == [
        f"lake {n} de" for n in range(8)
    ]
    assert source.data_set["sources"] == {"owner/pairs": hub.repositories["owner/pairs"].commit}
    asked = len(hub.requests)
    shutil.rmtree(tmp_path / "hf")
    shutil.rmtree(cache / "hub" / "folders")
    said.clear()
    assert source_path("hub:pairs", None, [mine], said.append) == path
    assert (said, len(hub.requests)) == ([], asked)


def test_sources_of_one_set_have_names_of_their_own(hub, tmp_path):
    mine = pairs(tmp_path, hub, options={"kind": ["one", "other"]})
    corpus = ParallelCorpus.open(["hub:pairs", "hub:pairs?kind=other", "demo"], None, [mine])
    assert list(corpus.sources) == ["pairs", "pairs?kind=other", "demo"]


def test_bad_rows_of_a_data_set_are_left_out_and_counted(hub, tmp_path):
    files, said = {"data.jsonl": rows("lake") + b"no row\n"}, []
    mine = write_entry(tmp_path, "odd", hub, files, ["data.jsonl"], "parallel", ["training"])
    source_path("hub:odd", None, [mine], said.append)
    assert said[-1].startswith("odd: left out 1: not a row; listed in ")


def test_two_processes_prepare_a_source_once(hub, tmp_path, monkeypatch):
    mine, made, prepare = pairs(tmp_path, hub), [], named.prepare
    monkeypatch.setattr(named, "prepare", lambda *a, **k: made.append(1) or prepare(*a, **k))
    paths = []
    threads = [threading.Thread(target=lambda: paths.append(source_path("hub:pairs", None, [mine]))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert len(paths) == 3
    assert len(set(paths)) == 1


def test_what_cannot_be_fetched_is_one_line(hub, tmp_path):
    mine = benchmark(tmp_path, hub, gated=True)
    with pytest.raises(DataError, match="owner/capitals") as error:
        load_benchmarks(["capitals"], catalogue=[mine])
    assert "HF_TOKEN" in str(error.value)
    with pytest.raises(ConfigError, match="cannot read catalogue"):
        parse_benchmark("capitals", [str(tmp_path / "none.yaml")])


def test_long_downloads_tell_how_far_they_are_once_a_minute():
    said, now = [], [0.0]
    told = Told("mmarco", said.append, lambda: now[0])
    for second in range(0, 151, 10):
        now[0] = float(second)
        told(second * 2**20, 300 * 2**20)
    assert said == [
        "fetching mmarco: 60 MiB of 300 MiB, 4 min left",
        "fetching mmarco: 120 MiB of 300 MiB, 3 min left",
    ]


def test_wanted_is_what_was_asked_for():
    one = WantedData.parse("hub:mmarco?languages=ar,de", TRAINING)
    assert dict(one.options) == {"translator": "google", "split": "train"}
    assert (
        one.corpus_folder()
        == WantedData.parse("hub:mmarco?translator=google&languages=ar,de", TRAINING).corpus_folder()
    )
    assert (
        one.corpus_folder() != WantedData.parse("hub:mmarco?translator=helsinki&languages=de", TRAINING).corpus_folder()
    )
