import json

import numpy as np
import pytest

from hbtrain.cli.main import app, main
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.trec_runs import TrecRunWriter
from tests.unit.evaluation_samples import HashEncoder
from tests.unit.judged_samples import beir_of


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    [demo] = load_benchmarks(["demo"], ["de", "en"])
    evaluate(HashEncoder(), demo, takers=[TrecRunWriter(folder, "hash", 20)])
    return folder / "demo"


def call(monkeypatch, *arguments):
    monkeypatch.setattr("sys.argv", ["hbtrain", "evaluate-run", *map(str, arguments)])
    main(app)


def test_a_folder_of_runs_becomes_an_evaluation(runs, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, runs, "--benchmark", "demo", "--languages", "de", "en", "--output", tmp_path / "out")
    assert end.value.code in (0, None)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert 0 < metrics["demo/multi/ndcg@10"] < 1
    assert np.isclose(
        metrics["demo/mono/recall@10"], np.mean([metrics[f"demo/mono/recall@10/{x}"] for x in ["de", "en"]])
    )
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["benchmarks"]["demo"]["search"] == "run files of depth 20"
    assert "run files of depth 20" in capsys.readouterr().out


def test_what_does_not_fit_is_told(tmp_path, monkeypatch, capsys):
    beir_of(tmp_path / "data" / "en", {"a": "x", "b": "y"}, {"a": "q", "r": "?"}, {"a": {"b": 1, "gone": 1}})
    run = tmp_path / "runs" / "mono" / "en.trec"
    run.parent.mkdir(parents=True)
    run.write_text("a Q0 a 1 3 x\na Q0 b 2 2 x\na Q0 other 3 1 x\nr Q0 a 1 1 x\n")
    flags = ("--ignore-identical-ids", "--allow-missing-documents", "--output", tmp_path / "o")
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, tmp_path / "runs", "--benchmark", f"beir={tmp_path / 'data'}", *flags)
    assert end.value.code in (0, None)
    metrics = json.loads((tmp_path / "o" / "metrics.json").read_text())
    assert metrics["data/mono/map"] == pytest.approx(1 / 2)
    told = [line.partition("note: ")[2] for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert told == json.loads((tmp_path / "o" / "about.json").read_text())["benchmarks"]["data"]["notes"]
    assert [note.removeprefix(f"{run}: ") for note in told] == [
        "1 topic without relevant candidates left out",
        "1 of 3 lines name documents that are not among the candidates, such as 'other'; they keep their ranks and "
        "count as not relevant",
        "1 line with a query's own document left out",
        "data in en: the corpus lacks 1 relevant document (gone), counted as never found",
        "data in en: 1 own document left out of the rankings",
    ]


def test_a_folder_without_runs_is_one_line(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, tmp_path, "--benchmark", "demo", "--output", tmp_path / "out")
    assert end.value.code == 2
    assert "no run file in" in capsys.readouterr().err
