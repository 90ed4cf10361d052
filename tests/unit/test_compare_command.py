"""`hbtrain compare` from the command line: folders, MLflow runs and sweeps, files, and what it refuses."""

import csv
import json
import re
from html.parser import HTMLParser

import pytest
from matplotlib.image import imread

from hbtrain.comparison.compare import compare
from hbtrain.comparison.estimates import Method
from hbtrain.comparison.save import markdown, save_comparison
from hbtrain.comparison.tables import language_tables, main_tables
from hbtrain.config import load_config, override
from hbtrain.reporting.table import terminal
from hbtrain.tracking.past_runs import TrackedRuns
from hbtrain.tracking.tracker import Tracker, TrackingError
from tests.unit.comparison_samples import rows_of, write_results, write_run

QUICK = Method(flips=199, resamples=100)


@pytest.fixture
def runs(tmp_path):
    return [write_run(tmp_path / f"run-{a}-{s}", a, s) for a in (0, 1) for s in (0, 1)]


@pytest.fixture
def tracked(tmp_path):
    """(uri, a sweep's run, its two finished runs); a third one has failed."""
    uri = f"sqlite:///{tmp_path / 'tracking.db'}"
    base = override(load_config("quickstart"), {"tracking.uri": uri, "storage": str(tmp_path / "store")})
    parent = Tracker(base, None, "alpha-grid-1", command="tune/sweep.py alpha-grid")
    children = []
    for alpha in (0, 1):
        folder = write_run(tmp_path / f"child-{alpha}", alpha, 0)
        child = Tracker(override(base, {"tracking.parent_run_id": parent.run_id}), None, f"alpha={alpha}")
        child.artifact(folder / "config.yaml")
        child.artifact(folder / "results", "results")
        assert child.finish() == ""
        children.append(child.run_id)
    late = Tracker(override(base, {"tracking.parent_run_id": parent.run_id}), None, "alpha=0.5")
    assert late.finish("FAILED") == ""
    assert parent.finish() == ""
    return uri, parent.run_id, children, late.run_id


def test_tables_are_printed_and_files_written(hbtrain, runs, tmp_path):
    code, out, err = hbtrain("compare", *runs, "--output", "out", "--paper")
    assert code == 0, err
    assert "mAP by setting: sample (sentence candidates)" in out
    assert "X-Y only (α = 0)" in out
    assert "No published figures stand beside sample: there are none." in re.sub(r"\s+", " ", out)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        "comparison.csv", "comparison.json", "comparison.md", "difference-sample-1.png", "rank-distance-sample.png",
        "report.html", "settings-sample.png",
    }  # fmt: skip
    for name in names:
        if name.endswith(".png"):
            picture = imread(tmp_path / "out" / name)
            assert picture[..., :3].std() > 0.02, "something is drawn"


def test_csv_json_and_markdown_hold_the_same(runs, tmp_path):
    found = compare(runs, method=QUICK)
    save_comparison(found, tmp_path / "out")
    kept = json.loads((tmp_path / "out" / "comparison.json").read_text())
    with (tmp_path / "out" / "comparison.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == len(kept["scores"]) == len(found.estimates)
    for row, score, estimate in zip(rows, kept["scores"], found.estimates, strict=True):
        assert float(row["value"]) == score["value"] == estimate.value
        assert row["part"] == score["part"]
        p = "" if estimate.difference is None else str(estimate.difference.p_holm)
        assert row["p_holm"] == p
    estimate = found.get("X-Y only (α = 0)", "sample", "mono", "map")
    line = next(x for x in markdown(found).splitlines() if x.startswith("| X-Y only") and "±" in x)
    assert f"{estimate.value:.3f} ± {estimate.spread:.3f}" in line
    assert f"{estimate.low:.3f} to {estimate.high:.3f}" in line


class Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.rows, self.links, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.links += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(attributes)
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_needs_no_other_file(runs, tmp_path):
    found = compare(runs, names=["a <b>", "c & d"], method=QUICK)
    save_comparison(found, tmp_path)
    text = (tmp_path / "report.html").read_text()
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.links
    assert all(link.startswith("data:image/png;base64,") for link in page.links)
    assert "a &lt;b&gt;" in text
    assert "<b>a <b>" not in text
    assert "{{" not in text
    values = {float(cell["data-value"]) for row in page.rows for cell in row if "data-value" in cell}
    assert {e.value for e in found.estimates} <= values


@pytest.mark.parametrize("count", [2, 12])
def test_the_longer_side_of_a_table_goes_down(runs, tmp_path, count):
    rows = rows_of(0.0, questions=3)
    folders = [write_results(tmp_path / f"s{i:02}", rows) for i in range(count)]
    for table in language_tables(compare(folders, method=QUICK)):
        assert len(table.rows) == max(count, 4)
        assert all(len(row.cells) == len(table.head) - 1 for row in table.rows)


def test_tables_of_a_terminal_show_marks(runs):
    from rich.console import Console

    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    for table in main_tables(compare(runs, method=QUICK)):
        console.print(terminal(table))
    text = console.export_text()
    assert "…" not in text
    assert "▲" in text


def test_mlflow_runs_by_id_and_beginning(hbtrain, tracked, tmp_path):
    uri, _, (first, second), _ = tracked
    code, out, err = hbtrain("compare", first, second[:12], "--tracking-uri", uri)
    assert code == 0, err
    assert "X-X only (α = 1)" in out
    by_id = compare([first, second], tracking_uri=uri, method=QUICK)
    by_folder = compare([tmp_path / "child-0", tmp_path / "child-1"], method=QUICK)
    assert by_id.estimates == by_folder.estimates


def test_a_sweep_stands_for_its_finished_runs_and_keeps_the_report(hbtrain, tracked):
    from mlflow import MlflowClient

    uri, parent, children, _ = tracked
    code, out, err = hbtrain("compare", parent, "--tracking-uri", uri, "--log-to", parent)
    assert code == 0, err
    assert "note: alpha=0.5 of alpha-grid-1 has the status FAILED" in out
    found = compare([parent], tracking_uri=uri, method=QUICK)
    assert [run.run_id for system in found.systems for run in system.runs] == children[::-1]
    client = MlflowClient(uri)
    kept = {artifact.path for artifact in client.list_artifacts(parent, "comparison")}
    assert {"comparison/report.html", "comparison/comparison.md", "comparison/settings-sample.png"} <= kept


def test_mlflow_runs_that_are_refused(hbtrain, tracked):
    uri, parent, (first, _second), late = tracked
    for arguments, words in (
        ([first, "0" * 32], "is neither a folder nor the id of an MLflow run in sqlite"),
        ([first, late], "has the status FAILED; only finished runs are compared"),
        ([first, parent], "are the same run; name it once"),
        ([first, ""], "a run's name is empty"),
    ):
        code, _, err = hbtrain("compare", *arguments, "--tracking-uri", uri)
        assert code == 2, err
        assert words in err
        assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize("command", ["tune/sweep.py alpha-grid", "hbtrain sweep alpha-grid"])
def test_a_sweep_without_runs_is_called_one(hbtrain, tmp_path, command):
    uri = f"sqlite:///{tmp_path / 'tracking.db'}"
    base = override(load_config("quickstart"), {"tracking.uri": uri, "storage": str(tmp_path / "store")})
    parent = Tracker(base, None, "alpha-grid-1", command=command)
    assert parent.finish() == ""
    code, _, err = hbtrain("compare", parent.run_id, "--tracking-uri", uri)
    assert code == 2, err
    assert "has no results in MLflow: it is a sweep without runs" in err


def test_a_beginning_that_several_ids_have(tracked, monkeypatch):
    uri, _, (first, second), _ = tracked
    server = TrackedRuns(uri)
    both = [server.find(first), server.find(second)]
    monkeypatch.setattr(server, "_search", lambda condition: both)
    with pytest.raises(
        TrackingError, match=r"run 'ab': 2 runs begin so, such as .* \(alpha=0\), .*write more of the id"
    ):
        server.find("ab")
    assert server.find(second) is both[1], "a whole id is that run's, whatever begins so"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "no runs are named"),
        (["RUN", "nowhere/at-all"], "there is no such folder"),
        (["RUN", "0123abcd"], "there is no MLflow database"),
        (["RUN", "file.txt"], "is a file"),
        (["RUN", "OTHER", "--metric", "mapp"], "has no 'mapp'"),
        (["RUN", "OTHER", "--baseline", "best"], "--baseline 'best'"),
        (["RUN", "OTHER", "--output", "file.txt"], "--output file.txt cannot be written: Not a directory"),
        (["RUN", "OTHER", "--tracking-uri", "sqlite:///none.db", "--log-to", "abc"], "there is no MLflow database"),
    ],
)
def test_bad_input_is_one_line(hbtrain, tmp_path, arguments, words):
    (tmp_path / "file.txt").write_text("")
    places = {"RUN": write_run(tmp_path / "a", 0, 0), "OTHER": write_run(tmp_path / "b", 1, 0)}
    code, _, err = hbtrain("compare", *(places.get(a, a) for a in arguments))
    assert code == 2, err
    assert err.startswith("error: ")
    assert words in err
    assert len(err.strip().splitlines()) == 1, err
    assert not (tmp_path / "none.db").exists()
