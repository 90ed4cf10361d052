"""The picture of a sweep over mixtures of three kinds: when it is drawn, and what stands where in it."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.patches import Circle

from hbtrain.reporting.metric_names import shown
from hbtrain.sweeps import charts, triangle
from hbtrain.sweeps.charts import front_picture
from hbtrain.sweeps.findings import Summary
from hbtrain.sweeps.points import SCORES, points_of
from hbtrain.sweeps.ranges import Simplex
from hbtrain.sweeps.triangle import CORNERS, corners_of, triangles
from tests.unit.test_sweep_summary import finished

HALVES = {"batching.mixture": {"simplex": ["mono", "cross", "multi"], "step": 0.5}}
TWO_SEEDS = {**HALVES, "seed": [0, 1]}


@pytest.fixture
def figures(monkeypatch):
    """The figures that are saved."""
    saved = []
    for module in (triangle, charts):
        monkeypatch.setattr(module, "save_png", lambda figure, path: saved.append(figure))
    return saved


def panels_of(figure):
    """{title: axes} of the triangles, without colour bars."""
    return {axes.get_title(loc="left"): axes for axes in figure.axes if axes.get_title(loc="left")}


def discs(axes):
    """{centre: disc}."""
    return {tuple(np.round(one.center, 3)): one for one in axes.patches if isinstance(one, Circle)}


def crosses(axes):
    return {tuple(np.round(one.get_xydata()[0], 3)) for one in axes.lines if one.get_marker() == "x"}


def place(*shares):
    """Of a mixture of mono, cross and multi."""
    return tuple(np.round(np.array(shares) @ CORNERS, 3))


def test_it_is_for_constant_mixtures_of_three_kinds_alone():
    three = points_of(finished(HALVES, space="mixture"))
    assert corners_of(three) == ("mono", "cross", "multi")
    two = finished({"batching.mixture": [{"mono": 1}, {"mono": 1, "multi": 1}], "seed": 0}, space="mixture")
    assert corners_of(points_of(two)) == ()
    assert corners_of(three[:1]) == ()
    assert corners_of([]) == ()
    changing = [{"mono": 1}, {0: {"mono": 1}, 9: {"cross": 1, "multi": 1}}]
    assert corners_of(points_of(finished({"batching.mixture": changing, "seed": 0}, space="mixture"))) == ()
    assert corners_of(points_of(finished({}))) == (), "of alpha there is a curve"
    rest = [point for point in three if not point.shares.get("multi")]
    trials = [one.trial for one in finished(HALVES, space="mixture")]
    assert corners_of(rest, trials) == ("mono", "cross", "multi"), "failed trials count"


def test_every_mixture_is_where_its_weights_say_and_what_failed_is_a_cross(figures, tmp_path):
    failed = "mixture=0.5 mono : 0.5 multi"
    done = finished(TWO_SEEDS, space="mixture", drop=(f"{failed} seed=0", f"{failed} seed=1", "mixture=1 mono seed=1"))
    labels = {one.trial.label for one in done}
    missing = [one.trial for one in finished(TWO_SEEDS, space="mixture") if one.trial.label not in labels]
    assert len(missing) == 3
    points = points_of(done)
    triangles("demo", points, missing, tmp_path / "x.png", SCORES)
    (figure,) = figures
    found = panels_of(figure)
    assert len(found) == 4
    for axes, score in zip(found.values(), SCORES, strict=True):
        drawn = discs(axes)
        expected = [(1, 0, 0), (0.5, 0.5, 0), (0, 1, 0), (0, 0.5, 0.5), (0, 0, 1)]
        assert drawn.keys() == {place(*shares) for shares in expected}
        assert crosses(axes) == {place(0.5, 0, 0.5)}, "the corner has another seed"
        means = {
            place(*(p.shares.get(k, 0) for k in ("mono", "cross", "multi"))): p.mean(f"demo/{score}") for p in points
        }
        ordered = sorted(means, key=means.get, reverse="distance" in score)  # from worst to best
        lightness = [sum(drawn[at].get_facecolor()[:3]) for at in ordered]
        assert lightness == sorted(lightness), "the better, the lighter"
        (star,) = (line for line in axes.lines if line.get_marker() == "*")
        nearest = min(means, key=lambda at: np.linalg.norm(star.get_xydata()[0] - at))
        assert nearest == ordered[-1]
        texts = {text.get_text() for text in axes.texts}
        assert {"← mono", "cross →", "multi →", "0", "0.5", "1"} <= texts
        assert {shown(mean, score.rpartition("/")[2]) for mean in means.values()} <= texts, "all are labelled"
    assert "cross: failed" in figure._supxlabel.get_text()
    assert "mean of 1 to 2 seeds" in figure._supxlabel.get_text()


def test_the_pareto_set_has_dark_rings_and_its_own_picture_short_names(figures, tmp_path):
    points = points_of(finished(HALVES, space="mixture"))
    front = ["mono/map", "multi/map"]
    triangles("demo", points, [], tmp_path / "x.png", front)
    front_picture("demo", points, tmp_path / "y.png", front)
    rings = {at for at, disc in discs(next(iter(panels_of(figures[0]).values()))).items() if disc.get_linewidth() == 2}
    beaten = {
        place(*(p.shares.get(k, 0) for k in ("mono", "cross", "multi")))
        for p in points
        if any(all(o.mean(f"demo/{score}") >= p.mean(f"demo/{score}") for score in front) for o in points if o is not p)
    }
    assert rings
    assert beaten
    assert not rings & beaten
    assert len(rings | beaten) == 6
    names = {text.get_text() for text in figures[1].axes[0].texts}
    assert {"100 : 0 : 0", "0 : 50 : 50"} <= names
    assert "mono : cross : multi in %" in figures[1]._supxlabel.get_text()


def test_drawn_mixtures_that_are_close_keep_clear_of_each_other(figures, tmp_path):
    simplex = Simplex(("mono", "cross", "multi"))
    mixtures = [simplex.rounded(weights) for weights in ([8, 1, 1], [8, 2, 1], [1, 4, 4], [1, 1, 9])]
    points = points_of(finished({"batching.mixture": mixtures, "seed": 0}, space="mixture"))
    triangles("demo", points, [], tmp_path / "x.png", [])
    drawn = list(discs(next(iter(panels_of(figures[0]).values()))).values())
    for number, one in enumerate(drawn):
        for other in drawn[:number]:
            assert np.linalg.norm(np.subtract(one.center, other.center)) >= one.radius + other.radius
    assert "its size says nothing" in figures[0]._supxlabel.get_text()


@pytest.mark.parametrize("same", [False, True])
def test_the_summary_writes_it(tmp_path: Path, same):
    from matplotlib.image import imread

    done = finished(HALVES, space="mixture")
    if same:  # all points have one score
        done = [type(one)(one.trial, done[0].scores, one.folder) for one in done]
    made = Summary(done).save(tmp_path)
    assert tmp_path / "mixture-triangle-demo.png" in made
    assert not list(tmp_path.glob("alpha-curve*"))
    picture = imread(tmp_path / "mixture-triangle-demo.png")
    assert min(picture.shape[:2]) > 1000
    assert picture[..., :3].std() > 0.01, "something is drawn"
