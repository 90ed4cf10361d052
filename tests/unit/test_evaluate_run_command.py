import json

import numpy as np
import pytest

from hbtrain.cli.main import app, main
from hbtrain.evaluation.benchmarks import load_benchmarks
from hbtrain.evaluation.evaluate import evaluate
from hbtrain.evaluation.trec_runs import TrecRunWriter
from tests.unit.evaluation_samples import HashEncoder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    [demo] = load_benchmarks(["demo"], ["de", "en"])
    evaluate(HashEncoder(), demo, trec_runs=TrecRunWriter(folder, "hash", 20))
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


def test_a_folder_without_runs_is_one_line(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        call(monkeypatch, tmp_path, "--benchmark", "demo", "--output", tmp_path / "out")
    assert end.value.code == 2
    assert "no run file in" in capsys.readouterr().err
