"""The best point of a sweep and its Pareto front, against plain computations."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from hbtrain.config import load_config, override
from hbtrain.sweeps.charts import front_picture
from hbtrain.sweeps.findings import Summary, recipe_of
from hbtrain.sweeps.points import SCORES, Finished, Point, best_point, front_scores, pareto_front, points_of
from tests.unit.test_sweep_summary import KEYS, finished

tables = st.integers(1, 7).flatmap(
    lambda points: st.lists(st.lists(st.integers(0, 4), min_size=4, max_size=4), min_size=points, max_size=points)
)
"""Scores of some points, with ties."""


def as_points(table):
    return [
        Point({"p": i}, [{f"demo/{key}": float(x) for key, x in zip(KEYS, row, strict=True)}])
        for i, row in enumerate(table)
    ]


def goodness(table):
    """[points, scores], more is better."""
    return np.array(table, float) * [1, 1, 1, -1]


@given(tables)
def test_the_front_holds_what_no_other_point_beats(table):
    good = goodness(table)
    for mine, on_front in zip(good, pareto_front(as_points(table), "demo", SCORES), strict=True):
        beaten = any(all(a >= b for a, b in zip(o, mine, strict=True)) and list(o) != list(mine) for o in good)
        assert on_front is not beaten


@given(tables, st.sets(st.integers(0, 3), min_size=1))
def test_the_best_point_is_on_the_front_of_its_objectives_and_has_the_least_mean_rank(table, chosen):
    chosen = sorted(chosen)
    points, scores = as_points(table), [SCORES[i] for i in chosen]
    place = points.index(best_point(points, "demo", scores))
    ranks = np.mean([rankdata(-goodness(table)[:, i]) for i in chosen], axis=0)
    assert place == int(np.argmin(ranks))
    assert pareto_front(points, "demo", scores)[place]


def test_the_recipe_is_the_best_trial_and_says_why(tmp_path):
    trials = finished({"batching.alpha": [0, 0.25, 1], "seed": [7, 8], "training.steps": 12})
    path = tmp_path / "best.yaml"
    path.write_text(Summary(trials, objectives=["cross/map"]).best_recipe())
    means = {
        a: np.mean([f.scores["demo/cross/map"] for f in trials if f.values["batching.alpha"] == a])
        for a in (0, 0.25, 1)
    }
    alpha = max(means, key=means.get)
    head = " ".join(line.removeprefix("# ") for line in path.read_text().splitlines() if line.startswith("#"))
    assert head.startswith(f"alpha={alpha:g}, the best of 3 points on demo by mAP cross-lingual. It has")
    assert f"mAP cross-lingual {means[alpha]:.3f} ±" in head
    trial = next(f.trial for f in trials if f.values["batching.alpha"] == alpha)
    again = load_config(path, {"name": trial.config.name})
    assert again == trial.config


def test_a_recipe_leaves_out_where_the_trial_ran():
    config = load_config("quickstart")
    ran = override(
        config,
        {"storage": "/elsewhere", "tracking.uri": "sqlite:///x.db", "tracking.parent_run_id": "1",
         "tracking.run_name": "a", "resources.address": "127.0.0.1:6379", "tracking.experiment": "kept"},
    )  # fmt: skip
    text = recipe_of(ran)
    assert "elsewhere" not in text
    assert "kept" in text
    assert not any(word in text for word in ("uri", "parent", "run_name", "address"))


@pytest.mark.parametrize("flags", [{}, {"batching.alpha": [0, 1], "seed": 0}])
def test_the_front_is_drawn(tmp_path: Path, flags):
    from matplotlib.image import imread

    points = points_of(finished(flags))
    assert front_scores("demo", points) == list(SCORES)
    assert front_scores("demo", points[:1]) == []
    front_picture("demo", points, tmp_path / "front.png", front_scores("demo", points))
    picture = imread(tmp_path / "front.png")
    assert min(picture.shape[:2]) > 400
    assert picture[..., :3].std() > 0.01, "something is drawn"


def test_what_is_searched_for_is_what_is_shown(tmp_path: Path):
    """Scores that a summary does not show by itself stand in the table first, and make up the front."""
    objectives = ["mono/ndcg@10", "cross/map"]
    trials = [
        Finished(one.trial, {**one.scores, "demo/mono/ndcg@10": 0.1 * i}, one.folder)
        for i, one in enumerate(finished({"batching.alpha": [0, 1], "seed": 0}))
    ]
    assert front_scores("demo", points_of(trials), objectives) == objectives
    summary = Summary(trials, objectives=objectives)
    head = summary.markdown().splitlines()[2]
    assert head.startswith("| alpha | seeds | nDCG@10 monolingual | mAP cross-lingual | mAP monolingual |")
    assert head.count("cross-lingual") == 1
    made = {path.name for path in summary.save(tmp_path)}
    assert "pareto-front-demo.png" in made
    assert "mono/ndcg@10 mean" in (tmp_path / "summary.csv").read_text().splitlines()[0]
