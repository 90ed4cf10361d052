"""Learning curves from MLflow: what is read, steps to 95 % of the best, tables, pictures, sweeps."""

import json
import math
import statistics

import pytest
from matplotlib.image import imread
from mlflow import MlflowClient

from hbtrain.comparison.compare import compare
from hbtrain.comparison.curves import ScoreCurves
from hbtrain.comparison.estimates import Method
from hbtrain.comparison.pictures import learning_pictures
from hbtrain.comparison.save import markdown, save_comparison
from hbtrain.comparison.tables import steps_table
from hbtrain.sweeps.findings import Summary
from hbtrain.sweeps.marks import Judged
from hbtrain.tracking.past_runs import CONTINUES, TrackedRuns
from hbtrain.tracking.uris import TrackingError
from tests.unit.comparison_samples import write_run

QUICK = Method(flips=99, resamples=50)
RISING = {0: 0.2, 10: 0.6, 20: 0.755, 30: 0.8}
SLOW = {0: 0.2, 10: 0.4, 20: 0.5, 30: 0.78}
FLAT = {0: 0.2, 10: 0.3, 20: 0.31, 30: 0.3}


class Server:
    """Stands for MLflow: gives every run the curve of its name for mAP, and one that falls for rank distance."""

    def __init__(self, curves):
        self.curves = curves

    def history(self, run_id, metric):
        _, benchmark, _, name = metric.split("/")
        assert benchmark == "sample"
        curve = self.curves.get(run_id, {})
        return {step: 1000 * (1 - score) for step, score in curve.items()} if name == "rank_distance" else curve


@pytest.fixture
def compared(tmp_path, monkeypatch):
    """Compares runs of {(alpha, seed): curve}."""

    def make(curves, **options):
        told = {f"id-{alpha}-{seed}": curve for (alpha, seed), curve in curves.items()}
        monkeypatch.setattr("hbtrain.tracking.past_runs.TrackedRuns", lambda uri: Server(told))
        runs = [write_run(tmp_path / f"run-{a}-{s}", a, s, run_id=f"id-{a}-{s}") for a, s in curves]
        return compare(runs, method=QUICK, **options)

    return make


def test_steps_are_the_first_measured_ones_near_the_best_mean():
    curves = ScoreCurves("map", {"a": [RISING, {**RISING, 20: 0.77}], "b": [SLOW, FLAT]})
    assert curves.best == pytest.approx(0.8)  # of system a at step 30
    assert curves.target == pytest.approx(0.76)
    assert curves.steps("a") == [30, 20]
    assert curves.steps("b") == [30, None]
    at_20 = next(measured for measured in curves.of_systems["a"] if measured.step == 20)
    assert at_20.mean == pytest.approx(0.7625)
    assert at_20.spread == pytest.approx(statistics.stdev([0.755, 0.77]))


def test_lower_is_better_for_rank_distance():
    curves = ScoreCurves("rank_distance", {"a": [{0: 1000, 5: 220, 10: 200}], "b": [{0: 150, 5: 209, 10: 190}]})
    assert curves.best == 150
    assert curves.target == pytest.approx(150 / 0.95)
    assert curves.steps("a") == [None]
    assert curves.steps("b") == [0]


def test_a_mean_is_over_steps_that_all_seeds_have():
    curves = ScoreCurves("map", {"a": [{10: 0.5, 20: 0.9}, {10: 0.7}]})
    assert [tuple(measured) for measured in curves.of_systems["a"]] == [
        (10, pytest.approx(0.6), pytest.approx(0.1414, abs=1e-4))
    ]
    assert curves.last_step("a") == 10
    assert curves.best == pytest.approx(0.6)


def test_the_table_has_means_spreads_and_those_that_never_came_near(compared):
    found = compared({(0, 0): RISING, (0, 1): SLOW, (1, 0): FLAT, (1, 1): FLAT, (0.5, 0): SLOW, (0.5, 1): FLAT})
    table = steps_table(found)
    rows = {row.label: row for row in table.rows}
    assert table.head == ("", "mAP monolingual", "mAP cross-lingual", "mAP multilingual", "rank distance")
    # The best mean is that of alpha = 0 at step 30: (0.8 + 0.78) / 2.
    assert found.curves.scores[("sample", "mono", "map")].target == pytest.approx(0.79 * 0.95)
    cell = rows["X-Y only (α = 0)"].cells[0]
    assert (cell.text, cell.detail, cell.best, cell.value) == ("25 ± 7", "", True, 25)
    assert rows["X-X only (α = 1)"].cells[0].text == "> 30"
    half = rows["hybrid (α = 0.5)"].cells[0]
    assert (half.text, half.detail, half.best) == ("30", "1 of 2 seeds", False)
    assert rows["score at 95%"].cells[0].text == "0.750"
    # A rank distance of 210 is the best, so 221 is near it: at step 30, of the slow seed 220 as well.
    assert rows["X-Y only (α = 0)"].cells[3].text == "30 ± 0"
    assert "nothing is interpolated" in table.note.lower()


def test_files_have_the_table_the_picture_and_the_curves(compared, tmp_path):
    found = compared({(0, 0): RISING, (0, 1): SLOW, (1, 0): FLAT, (1, 1): FLAT})
    files = {file.name: file for file in save_comparison(found, tmp_path / "out")}
    assert imread(files["learning-curves-sample.png"])[..., :3].std() > 0.02
    for name in ("comparison.md", "report.html"):
        text = files[name].read_text()
        assert "Steps to 95% of the best" in text
        assert "evaluation.every" not in text
    learning = json.loads(files["comparison.json"].read_text())["learning"]
    one = next(x for x in learning if (x["system"], x["setting"], x["metric"]) == ("X-Y only (α = 0)", "multi", "map"))
    assert one["steps_by_run"] == [20, 30]
    assert one["curves_by_run"][0] == {str(step): score for step, score in RISING.items()}


@pytest.mark.parametrize("curve", [{}, {0: 0.2, 30: 0.8}], ids=["nothing", "before and after"])
def test_runs_without_curves_lack_table_and_picture_and_the_report_says_why(compared, curve):
    found = compared({(0, 0): curve, (1, 0): curve})
    assert steps_table(found) is None
    assert learning_pictures(found) == []
    assert "Training with evaluation.every: N measures them" in markdown(found)
    assert "Learning curves, and steps to 95% of the best, are left out" in found.curves.note


def test_systems_without_curves_are_named_and_have_no_cell(compared):
    found = compared({(0, 0): RISING, (0, 1): {}, (1, 0): FLAT, (1, 1): FLAT})
    cells = {row.label: row.cells[0].text for row in steps_table(found).rows}
    assert cells["X-Y only (α = 0)"] == "–"
    assert cells["X-X only (α = 1)"] == "10 ± 0"
    assert "of X-Y only (α = 0) are left out" in found.curves.note


def test_a_tracking_server_that_is_away_costs_the_curves_only(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = [write_run(tmp_path / f"run-{a}", a, 0, run_id=f"id-{a}") for a in (0, 1)]
    found = compare(runs, method=QUICK)
    assert "there is no MLflow database" in found.curves.note
    assert found.estimates


@pytest.mark.parametrize(("systems", "seeds"), [(2, 1), (3, 2), (9, 2)])
def test_the_picture_is_drawn_for_any_number_of_systems_and_seeds(compared, tmp_path, systems, seeds):
    curves = {(a / 8, s): {x: y + a / 50 for x, y in RISING.items()} for a in range(systems) for s in range(seeds)}
    (picture,) = learning_pictures(compared(curves))
    picture.draw(tmp_path / "curves.png")
    assert imread(tmp_path / "curves.png")[..., :3].std() > 0.02


def test_a_sweeps_summary_has_the_table_and_the_picture(compared, tmp_path):
    found = compared({(0, 0): RISING, (1, 0): FLAT})
    summary = Summary([], judged=Judged(found, {}, ""))
    names = [file.name for file in summary.save(tmp_path)]
    assert "learning-curves-sample.png" in names
    assert "Steps to 95% of the best" in (tmp_path / "summary.md").read_text()
    assert len(summary.tables()) == 1


def test_histories_are_read_from_mlflow(tmp_path):
    uri = f"sqlite:///{tmp_path / 'tracking.db'}"
    client = MlflowClient(tracking_uri=uri)
    first, fork = (client.create_run("0").info.run_id for _ in range(2))
    told = [(20, 0.6, 3), (0, 0.1, 1), (10, 0.5, 2), (30, 0.7, 4), (30, 0.9, 5), (20, 0.65, 6), (25, math.nan, 3)]
    for step, value, time in told:
        client.log_metric(first, "eval/xq_v2_-0caf61/multi/recall_at_10", value, timestamp=time, step=step)
    for step, value in ((20, 0.55), (30, 0.8)):
        client.log_metric(fork, "eval/xq_v2_-0caf61/multi/recall_at_10", value, timestamp=9, step=step)
    client.set_tag(fork, CONTINUES, first)
    runs = TrackedRuns(uri)
    name = "eval/xq_v2_-0caf61/multi/recall@10"
    assert list(runs.history(first, name).items()) == [(0, 0.1), (10, 0.5), (20, 0.6), (30, 0.7)]
    assert list(runs.history(fork, name).items()) == [(0, 0.1), (10, 0.5), (20, 0.55), (30, 0.8)]
    assert runs.history(first, "eval/xq/mono/map") == {}
    assert runs.history("0" * 32, name) == {}
    with pytest.raises(TrackingError, match="there is no MLflow database"):
        TrackedRuns(f"sqlite:///{tmp_path / 'none.db'}")
