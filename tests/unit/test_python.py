"""What Python calls, as scripts and notebooks do: the same as the commands, and results that a notebook shows."""

import json
from html.parser import HTMLParser

import pytest

import hbtrain
from hbtrain.config import load_config
from hbtrain.errors import ConfigError, DataError, HbtrainError, ModelError
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.evaluation.model_evaluation import evaluate_model
from hbtrain.events import Event
from hbtrain.modeling.encoder import Encoder
from hbtrain.reporting.html import html
from hbtrain.reporting.table import Cell, Row, Table
from hbtrain.runs.outcome import Outcome
from hbtrain.runs.run_folder import RunFolder
from tests.unit.evaluation_samples import HashEncoder
from tests.unit.tiny_models import TEXTS, encoder_config


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny") / "model"
    Encoder.build(encoder_config("static"), lambda: TEXTS, 0).save(folder)
    return folder


class Page(HTMLParser):
    """The texts of a page's cells, row by row; fails where an element is left open."""

    def __init__(self, text):
        super().__init__()
        self.rows, self._open = [], []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag != "br":
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1] in ("td", "th", "b", "span") and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_a_table_in_html_holds_its_texts_as_they_are():
    rows = (Row("<b>", (Cell("0.5", "[0.4, 0.6]", "▲", best=True), Cell("a & b", trend=-1))), Row("x", (Cell(""),) * 2))
    page = Page(html(Table("key", "title", ("", "m\nAP", "other"), rows, "a note")))
    assert page.rows == [["", "mAP", "other"], ["<b>", "0.5 ▲[0.4, 0.6]", "a & b"], ["x", "", ""]]


def test_evaluate_gives_what_the_command_writes(model, tmp_path, hbtrain):
    found = evaluate_model(str(model), "demo", output=tmp_path / "python", batch_size=7)
    code, _, err = hbtrain(
        "evaluate", model, "--benchmark", "demo", "--output", tmp_path / "command", "--batch-size", "7"
    )
    assert code == 0, err
    python, command = (
        {file.relative_to(folder): file for file in folder.rglob("*") if file.is_file()}
        for folder in (tmp_path / "python", tmp_path / "command")
    )
    assert python.keys() == command.keys()
    assert any(path.parts[0] == "runs" for path in python)
    for path in python:
        if path.suffix in (".json", ".csv"):
            assert python[path].read_bytes() == command[path].read_bytes(), path
    assert found.metrics == json.loads((tmp_path / "python" / "metrics.json").read_text())
    page = Page(found._repr_html_())
    assert ["mono", "all"] in [row[:2] for row in page.rows]


def test_evaluations_are_by_name_and_compared_without_naming_their_folders(tmp_path):
    benchmarks = load_benchmarks(["demo"], ["de", "en"])
    first, second = (hbtrain.evaluate(HashEncoder(size), benchmarks) for size in (6, 12))
    assert first["demo"] is first[0]
    with pytest.raises(KeyError, match="there are demo"):
        first["other"]
    with pytest.raises(DataError, match="are in no folder"):
        hbtrain.compare([first, second])
    saved = [first.save(tmp_path / "a"), second.save(tmp_path / "b")]
    comparison = hbtrain.compare(saved, names=["a", "b"])
    shown = Page(comparison._repr_html_())
    assert [row[0] for row in shown.rows[1:3]] == ["a", "b"]


@pytest.mark.parametrize(
    ("call", "kind", "said"),
    [
        (lambda m: hbtrain.evaluate(m / "nowhere", "demo"), ModelError, "does not exist"),
        (lambda m: hbtrain.evaluate(m, "demmo"), DataError, "did you mean demo"),
        (lambda m: hbtrain.evaluate(m, []), ConfigError, "no benchmark is named"),
        (lambda m: hbtrain.evaluate(m, "demo", batch_size=0), ConfigError, "evaluation.batch_size = 0"),
        (lambda m: hbtrain.evaluate(m, "demo", batchsize=1), ConfigError, "did you mean evaluation.batch_size"),
        (lambda m: hbtrain.search(m, "what?", top=0), ConfigError, "top = 0"),
        (lambda m: hbtrain.train("quickstart", batching__alfa=1), ConfigError, "did you mean batching.alpha"),
        (lambda m: hbtrain.train("quikstart"), ConfigError, "did you mean quickstart"),
    ],
)
def test_errors_are_those_of_the_commands(model, cache, call, kind, said):
    with pytest.raises(kind) as caught:
        call(model)
    assert said in str(caught.value)
    assert isinstance(caught.value, HbtrainError)


def test_search_answers_and_shows_what_it_found(model, cache):
    searcher = hbtrain.Searcher(model, "demo-heldout")
    hits = searcher.search("hello <world>", top=4)
    assert len(hits) == 4
    assert hits[0].score >= hits[3].score
    assert [row[0] for row in Page(hits._repr_html_()).rows[1:]] == [hit.passage.language for hit in hits]
    assert [hit.passage for hit in hbtrain.search(model, "hello <world>", "demo-heldout", 4)] == [
        hit.passage for hit in hits
    ]
    assert str(hits).count("\n") == 3


def test_the_outcome_of_a_run_stands_for_its_model_and_its_folder(tmp_path, model):
    config = load_config("quickstart", {"storage": str(tmp_path)})
    folder = RunFolder.open(config)
    folder.model.symlink_to(model)
    before, after = (hbtrain.evaluate(HashEncoder(size), "demo", languages=["de", "en"])[0] for size in (6, 12))
    outcome = Outcome(folder, "1234", "sqlite:////x:hunter2@y/z.db", (before,), (after,), step=7)
    shown = Page(outcome._repr_html_())
    assert shown.rows[0] == ["", "before", "after", "change"]
    assert len(shown.rows) == 5
    assert hbtrain.evaluate(outcome, "demo", languages=["de"]).model == str(folder.model)
    finished_before = Outcome(folder, "1234", "sqlite:///z.db", (), (), step=7, scores={"demo/multi/map": 0.25})
    assert ["demo", "mAP multilingual", "0.250"] in Page(finished_before._repr_html_()).rows


def test_a_script_sees_phases_and_notes(capsys):
    observer = hbtrain.PrintingObserver()
    observer.phase("starting Ray")
    observer.event(Event(3, {"train/loss": 1.0}))
    observer.event(Event(4, {}, note="a worker died"))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("s  ", 1)[1] for line in lines] == ["starting Ray", "step 4: a worker died"]
