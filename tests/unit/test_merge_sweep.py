"""`hbtrain sweep merge`: its points, the command from end to end, what it does again and what it does not."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient

from hbtrain.cli.submit import _check
from hbtrain.comparison.runs import RunFinder
from hbtrain.errors import ConfigError
from hbtrain.evaluation import evaluate as evaluation
from hbtrain.modeling.card import ModelCard
from hbtrain.modeling.encoder import Encoder
from hbtrain.sweeps import merge_summary
from hbtrain.sweeps.charts import Axis, is_curve, score_curves
from hbtrain.sweeps.merges import merge_points
from hbtrain.sweeps.points import SCORES, Point
from tests.unit.tiny_models import encoder_config

WORDS = ["Wo steht der Brunnen?", "Where is the fountain?", "Hoe laat komt de trein?", "The train comes at nine."]
BENCHMARK = ("--benchmark", "demo", "--languages", "de", "en")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A folder with `start`, and `one` and the run `two` that have moved away from it."""
    root = tmp_path_factory.mktemp("merged models")
    start = Encoder.build(encoder_config("static"), lambda: WORDS, 0)
    start.save(root / "start", ModelCard(languages=("de", "en")))
    for number, place in enumerate(("one", "two/model")):
        moved = Encoder.load(str(root / "start"))
        torch.manual_seed(number)
        for parameter in moved.model.parameters():
            parameter.data += torch.randn_like(parameter)
        moved.save(root / place, ModelCard(languages=("de", "en")))
    return root


@pytest.fixture
def evaluated(monkeypatch):
    """What was evaluated, in words; with `fails_at`, the evaluation of that number is interrupted."""
    plain, calls = evaluation.evaluate_all, []

    def count(encoder, benchmarks, options, search=None, *, system, **others):
        calls.append(system)
        if len(calls) == getattr(count, "fails_at", None):
            raise KeyboardInterrupt
        return plain(encoder, benchmarks, options, search, system=system, **others)

    monkeypatch.setattr(evaluation, "evaluate_all", count)
    count.calls = calls
    return count


@pytest.fixture
def quick(monkeypatch):
    """Without the report and the pictures, which are not looked at."""
    monkeypatch.setattr(merge_summary.MergeSummary, "comparison", None)
    monkeypatch.setattr(merge_summary, "score_curves", lambda benchmark, points, path, axis: path.touch())


def scores(folder):
    return json.loads((Path(folder) / "metrics.json").read_text())


def runs(parent=None):
    client = MlflowClient(f"sqlite:///{Path('runs/mlflow.db').absolute()}")  # else it would be that of an earlier test
    found = client.search_runs([client.get_experiment_by_name("hbtrain").experiment_id])
    return [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent]


def shares(points):
    return [(point.label, point.weights, point.number) for point in points]


def test_a_number_is_the_weight_of_the_first_of_two_and_of_all_in_task_arithmetic():
    two = [("0.3", (0.3, 0.7), 0.3), ("0.2", (0.2, 0.8), 0.2)]
    assert shares(merge_points("linear", 2, ["0.3", "0.2,0.8"], False)) == two
    assert shares(merge_points("task-arithmetic", 2, ["-1", "0.5,2"], True)) == [
        ("-1", (-1, -1), -1.0),
        ("0.5,2", (0.5, 2), None),
    ]
    assert shares(merge_points("task-arithmetic", 1, ["1"], True)) == [("1", (1,), 1.0)]
    assert [point.label for point in merge_points("slerp", 2, None, False)] == ["0", "0.25", "0.5", "0.75", "1"]


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=8, unique=True))
def test_points_of_two_models_add_up_to_1_and_have_names_of_their_own(thousandths):
    points = merge_points("linear", 2, [str(x / 1000) for x in thousandths], False)
    assert [float(point.label) for point in points] == [x / 1000 for x in thousandths]
    assert all(abs(sum(point.weights) - 1) < 1e-12 for point in points)
    assert len({point.label for point in points}) == len(points)


@pytest.mark.parametrize(
    ("method", "models", "given", "base", "words"),
    [
        ("linear", 2, ["half"], False, "--weights half: must be a number"),
        ("linear", 2, ["nan"], False, "--weights nan: must be a number"),
        ("linear", 2, ["1.5"], False, "must be from 0 to 1"),
        ("linear", 2, ["0.2,0.2"], False, "add up to 1"),
        ("linear", 2, ["0.25", "0.25,0.75"], False, "0.25,0.75 and 0.25 are the same point"),
        ("linear", 2, ["-0", "0"], False, "are the same point"),
        ("linear", 3, ["0.5"], False, "--weights 0.5: a point of these models is 3 numbers"),
        ("linear", 3, None, False, "--weights: needed for 3 models"),
        ("linear", 2, ["0.2,0.3,0.5"], False, "is one number, or 2 with commas"),
        ("linear", 1, ["1"], False, "needs two models or more"),
        ("slerp", 3, ["1,0,0"], False, "merges two models, not 3"),
        ("linear", 2, None, True, "has no --base"),
        ("task-arithmetic", 2, None, False, "needs --base"),
    ],
)
def test_points_that_cannot_be_are_refused(method, models, given, base, words):
    with pytest.raises(ConfigError, match=words):
        merge_points(method, models, given, base)


def test_points_are_what_merging_and_evaluating_by_hand_gives(hbtrain, models):
    one, two = models / "one", models / "two"
    arguments = ("sweep", "merge", one, two, *BENCHMARK, "--weights", 0, 0.4, 1, "--output", "swept")
    code, out, err = hbtrain(*arguments)
    assert code == 0, err
    assert hbtrain("merge", one, two, "--weights", 0.4, 0.6, "--output", "merged")[0] == 0
    for label, model in (("0", two / "model"), ("0.4", "merged"), ("1", one)):
        assert hbtrain("evaluate", model, *BENCHMARK, "--output", "by-hand")[0] == 0
        assert scores(f"swept/points/{label}") == scores("by-hand"), label
    assert "mAP multilingual" in out
    assert f"the weight is that of {one}" in " ".join(out.split())
    summary = Path("swept/summary.md").read_text()
    lines = [line.split("|")[1].strip() for line in summary.splitlines() if line.startswith("| ")]
    assert [label for label in lines if label[0].isdigit()] == ["0", "0.4", "1"]
    assert "Best: `hbtrain merge" in summary
    assert Path("swept/merge-curve-demo.png").read_bytes()[1:4] == b"PNG"
    assert Path("swept/report/report.html").stat().st_size > 1000
    rows = Path("swept/summary.csv").read_text().splitlines()
    assert rows[0].startswith("benchmark,point,weight of ")
    assert [row.split(",")[1:4] for row in rows[1:]] == [
        ["0", "0.0", "1.0"],
        ["0.4", "0.4", "0.6"],
        ["1", "1.0", "0.0"],
    ]
    found = RunFinder(None, Path("downloads")).find("swept")
    assert [run.about["model"] for run in found] == [
        f"{weight:g} × one + {1 - weight:g} × two (linear)" for weight in (0, 0.4, 1)
    ]


def test_mlflow_has_a_run_for_each_point_and_more_weights_go_on(hbtrain, models, evaluated, quick):
    arguments = ("sweep", "merge", models / "one", models / "two", *BENCHMARK, "--output", "swept", "--weights")
    evaluated.fails_at = 2
    assert hbtrain(*arguments, 0, 0.5)[0] == 130
    assert len(evaluated.calls) == 2
    (parent,) = runs()
    assert parent.info.status == "KILLED"
    code, out, err = hbtrain(*arguments, 1, 0.5, 0)
    assert code == 0, err
    assert "3 merges, 1 evaluated before" in out
    assert len(evaluated.calls) == 4, "the first is kept, the second is evaluated again"
    (again,) = runs()
    assert again.info.run_id == parent.info.run_id
    assert again.info.status == "FINISHED"
    assert again.data.params["method"] == "linear"
    assert again.data.tags["mlflow.source.name"].startswith("hbtrain sweep merge ")
    assert "| 0.5 |" in again.data.tags["mlflow.note.content"]
    children = {run.data.params["weight"]: run for run in runs(parent.info.run_id)}
    assert sorted(children) == ["0.0", "0.5", "1.0"], "a point is recorded once"
    for weight, run in children.items():
        assert run.info.status == "FINISHED"
        assert run.data.params["weight.2"] == str(1 - float(weight))
        known = scores(f"swept/points/{float(weight):g}")
        assert run.data.metrics["eval/demo/multi/map"] == pytest.approx(known["demo/multi/map"])


def test_a_run_and_its_model_before_training_by_task_arithmetic(hbtrain, models, quick):
    task = ("--method", "task-arithmetic", "--base", models / "start", "--weights", 0, 0.5, 1)
    code, out, err = hbtrain("sweep", "merge", models / "one", *task, *BENCHMARK, "--output", "swept")
    assert code == 0, err
    for label, model in (("0", "start"), ("1", "one")):
        assert hbtrain("evaluate", models / model, *BENCHMARK, "--output", "by-hand")[0] == 0
        assert scores(f"swept/points/{label}") == scores("by-hand")
    assert "what the models have learned beyond" in out


def test_three_models_have_a_table_and_no_curve(hbtrain, models, quick):
    three = [models / name for name in ("one", "two", "start")]
    points = ("--weights", "0.2,0.3,0.5", "1,0,0")
    code, out, err = hbtrain("sweep", "merge", *three, *points, *BENCHMARK, "--output", "swept")
    assert code == 0, err
    assert "0.2,0.3,0.5" in out
    assert not list(Path("swept").glob("*.png"))


def test_what_cannot_be_merged_or_written_is_one_line_and_code_2(hbtrain, models, evaluated, tmp_path, quick):
    Encoder.build(encoder_config("static", query_prefix="ask: "), lambda: WORDS, 0).save(tmp_path / "asks")
    one, two = models / "one", models / "two"
    assert hbtrain("sweep", "merge", one, two, *BENCHMARK, "--output", "swept", "--weights", 1)[0] == 0
    before = len(evaluated.calls)
    for arguments, words in (
        ((one, tmp_path / "asks", *BENCHMARK, "--output", "out"), "cannot be merged: "),
        ((one, models / "none", *BENCHMARK, "--output", "out"), "none"),
        ((one, two, *BENCHMARK, "--output", two), "is one of the models that are merged"),
        ((one, two, *BENCHMARK, "--output", "swept", "--method", "slerp"), "--method was linear, not slerp"),
        ((one, models / "start", *BENCHMARK, "--output", "swept"), "MODELS was"),
        ((one, two, "--benchmark", "demo", "--output", "swept"), "--languages was de en, not all"),
        ((one, two, "--benchmark", "nowhere", "--output", "out"), "nowhere"),
        ((one, two, *BENCHMARK, "--weights", "2", "--output", "out"), "must be from 0 to 1"),
        ((one, two, *BENCHMARK, "--candidates", "sentence+context", "--output", "out"), "--candidates"),
    ):
        code, _, err = hbtrain("sweep", "merge", *arguments)
        assert code == 2, (arguments, err)
        assert len(err.strip().splitlines()) == 1, err
        assert words in err
        assert not Path("out").exists()
    assert len(evaluated.calls) == before


def test_a_model_that_has_changed_under_its_name_is_refused(hbtrain, models, tmp_path, quick):
    own = Encoder.load(str(models / "one"))
    own.save(tmp_path / "own")
    arguments = ("sweep", "merge", models / "two", "own", *BENCHMARK, "--output", "swept", "--weights", 1)
    assert hbtrain(*arguments)[0] == 0
    next(own.model.parameters()).data += 1
    own.save(tmp_path / "own")
    code, _, err = hbtrain(*arguments)
    assert code == 2
    assert "its points are of other merges: content of own is another now; give another folder" in err


@pytest.mark.parametrize("name", ["merge.yaml", "./merge"])
def test_a_space_may_be_called_merge(hbtrain, tmp_path, name):
    (tmp_path / name).write_text("recipe: quickstart\nspace: {}\nwrong: 1\n")
    code, _, err = hbtrain("sweep", name)
    assert code == 2
    assert f"unknown part 'wrong' in space {name}" in err


def test_a_job_writes_where_all_nodes_see_it():
    arguments = ["merge", "/runs/a", "/runs/b", "--benchmark", "demo", "--weights", "0", "1", "--output"]
    _check("sweep", [*arguments, "/shared/swept"])
    with pytest.raises(ConfigError, match="--output = 'swept': a job's own folder is temporary"):
        _check("sweep", [*arguments, "swept"])


def test_the_picture_marks_the_ends(tmp_path):
    from matplotlib.image import imread

    points = [
        Point({"weight": weight}, [{f"demo/{score}": 0.4 + weight * (1 - weight) for score in SCORES}])
        for weight in (0.0, 0.3, 1.0)
    ]
    pictures = []
    for number, ends in enumerate(({}, {0.0: "runs/cross", 1.0: "runs/mono"})):
        axis = Axis("weight", "weight", "weight of mono", "merges by weight (linear)", ends)
        assert is_curve(points, axis)
        score_curves("demo", points, tmp_path / f"{number}.png", axis)
        pictures.append(imread(tmp_path / f"{number}.png"))
    assert pictures[0].shape != pictures[1].shape or (pictures[0] != pictures[1]).any()
