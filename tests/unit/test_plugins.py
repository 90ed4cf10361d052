"""Readers, benchmarks and metrics of other packages: the example in tests/plugin, and such as are broken."""

import csv
import json
import sys
from pathlib import Path

import numpy as np
import pytest

import hbtrain
from hbtrain.corpus.source import Source
from hbtrain.errors import ConfigError, DataError
from hbtrain.evaluation.benchmarks import benchmark_files, load_benchmarks, parse_benchmark
from hbtrain.evaluation.metrics import METRICS, metrics
from hbtrain.plugins import PluginError, plugins
from tests.unit.evaluation_samples import HashEncoder

EXAMPLE = Path(__file__).parents[1] / "plugin"
FAQ = "\n\n".join(
    "\n".join(f"{x}\tquestion {number} in {x}?\tanswer {number} in {x}" for x in ("de", "en")) for number in range(5)
)


@pytest.fixture
def installed(monkeypatch):
    """Puts folders where installed packages lie; nothing of them is left afterwards."""

    def install(folder):
        monkeypatch.syspath_prepend(str(folder))
        forget()

    yield install
    monkeypatch.undo()
    forget()


def forget():
    plugins.cache_clear()
    metrics.cache_clear()
    for name in ("faq_plugin", "broken_plugin"):
        sys.modules.pop(name, None)


@pytest.fixture
def broken(installed, tmp_path):
    """A function that installs a package with one entry point, whose module has some code."""

    def install(group, name, code, package="broken"):
        about = tmp_path / f"{package}-0.1.dist-info"
        about.mkdir()
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.1\n")
        (about / "entry_points.txt").write_text(f"[hbtrain.{group}]\n{name} = broken_plugin:made\n")
        (tmp_path / "broken_plugin.py").write_text(code)
        installed(tmp_path)

    return install


@pytest.fixture
def faq(tmp_path):
    path = tmp_path / "office.faq"
    path.write_text(FAQ)
    return path


def test_a_reader_makes_a_corpus(installed, faq, hbtrain, tmp_path):
    installed(EXAMPLE)
    code, out, err = hbtrain("prepare", "plugin", "faq", faq, "--output", tmp_path / "corpus")
    assert code == 0, err
    assert "5 rows" in out
    source = Source.from_prepared(tmp_path / "corpus", "corpus")
    assert source.texts("query", np.array([3, 0]), ["de", "en"]) == ["question 3 in de?", "question 0 in en?"]
    options = json.loads((tmp_path / "corpus" / "manifest.json").read_text())["options"]
    assert options["package"] == "faq-plugin 1.2", "another version may read other rows"


def test_a_benchmark_and_a_metric_stand_beside_the_others(installed, faq, tmp_path):
    installed(EXAMPLE)
    assert list(metrics()) == [*METRICS, "success@3"]
    found = hbtrain.evaluate(HashEncoder(), f"faq={faq}", output=tmp_path / "scores")
    assert found["office.faq"].languages == ("de", "en")
    table = found["office.faq"].per_query
    for success, recall in zip(table["success@3"].to_pylist(), table["mrr"].to_pylist(), strict=True):
        assert success == (recall >= 1 / 3)
    with (tmp_path / "scores" / "scores.csv").open() as stream:
        assert "success@3" in next(csv.reader(stream))
    assert benchmark_files(parse_benchmark(f"faq={faq}")) == [str(faq)]
    (one,) = load_benchmarks([f"faq={faq}"], ["en"])
    assert one.languages == ("en",)


def test_without_the_package_its_forms_are_unknown(faq):
    forget()
    with pytest.raises(DataError, match="unknown benchmark 'faq'"):
        parse_benchmark(f"faq={faq}")


def test_an_unknown_reader_is_one_line_with_those_that_are_there(installed, hbtrain, faq, tmp_path):
    installed(EXAMPLE)
    code, _, err = hbtrain("prepare", "plugin", "fag", faq, "--output", tmp_path / "corpus")
    assert code == 2
    assert "there is no reader 'fag' of another package: did you mean faq?" in err


@pytest.mark.parametrize(
    ("group", "name", "code", "said"),
    [
        ("benchmarks", "odd", "import nowhere_to_be_found", "cannot be loaded: ModuleNotFoundError: No module named"),
        ("benchmarks", "odd", "made = 3", "broken_plugin:made must be a function, not 3"),
        (
            "benchmarks",
            "odd",
            "def made(*_):\n    raise ValueError('half\\na file')",
            "failed: ValueError: half a file",
        ),
        (
            "benchmarks",
            "odd",
            "def made(*_):\n    return None",
            "must return a Benchmark named 'office.faq', and returned",
        ),
        ("readers", "odd", "def made(files):\n    yield {'id': 'a'}", "row 1: not a row: query must be an object"),
        ("readers", "odd", "def made(files):\n    yield {}[0]", "failed: KeyError: 0"),
        ("metrics", "odd", "def made(rankings):\n    return [1.0]", "must return a finite number or NaN for each of"),
        ("metrics", "odd", "def made(rankings):\n    return rankings.nothing", "failed: AttributeError: 'Rankings'"),
        ("metrics", "map", "def made(rankings):\n    return 1", "hbtrain has that name itself"),
        ("metrics", "a/b", "def made(rankings):\n    return 1", "a name has no blanks and none of /"),
    ],
)
def test_a_broken_plugin_is_named_in_one_line(broken, faq, group, name, code, said):
    broken(group, name, code)
    with pytest.raises((PluginError, DataError)) as caught:
        if group == "readers":
            from hbtrain.corpus.drops import Drops
            from hbtrain.corpus.readers.inline import PluginReader

            list(PluginReader(name, [str(faq)]).rows(Drops(skip=False, path=None)))
        elif group == "metrics":
            hbtrain.evaluate(HashEncoder(), "demo", languages=["de"])
        else:
            load_benchmarks([f"{name}={faq}"])
    text = str(caught.value)
    assert said in text
    assert f"{group[:-1]} {name!r} of broken 0.1" in text
    assert "\n" not in text


def test_two_packages_of_one_name_are_refused(installed, broken):
    installed(EXAMPLE)
    broken("readers", "faq", "def made(files):\n    return ()")
    with pytest.raises(PluginError, match="has a reader of that name as well; uninstall one of them"):
        plugins("reader")


def test_a_catalogue_may_name_a_reader(installed, faq, hub, tmp_path):
    from hbtrain.corpus import ParallelCorpus
    from tests.unit.data_set_samples import write_entry

    installed(EXAMPLE)
    entry = write_entry(
        tmp_path, "office", hub, {"all.faq": FAQ.encode()}, ["*.faq"], "faq", ["training"], ["de", "en"]
    )
    (source,) = ParallelCorpus.open(["hub:office"], catalogue=[entry]).sources.values()
    assert source.index.rows == 5
    bad = write_entry(tmp_path, "other", hub, {"b.faq": b"x"}, ["*.faq"], "fax", ["training"], ["de"])
    with pytest.raises(ConfigError, match="unknown form 'fax': did you mean faq"):
        ParallelCorpus.open(["hub:other"], catalogue=[bad])
