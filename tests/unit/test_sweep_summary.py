import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hbtrain.sweeps.charts import is_curve, score_curves
from hbtrain.sweeps.findings import Summary
from hbtrain.sweeps.points import Finished, points_of
from hbtrain.sweeps.ranges import Choices
from hbtrain.sweeps.space import trials_of
from hbtrain.sweeps.space_file import load_space, with_flags

KEYS = ("mono/map", "cross/map", "multi/map", "multi/rank_distance")


def finished(flags, space="alpha-grid", drop=()):
    """Trials with made-up scores: {label: {key: score}} follow from alpha and seed."""
    trials = trials_of(with_flags(load_space(space), flags))
    generator = np.random.default_rng(0)
    scores = [{f"demo/{key}": float(x) for key, x in zip(KEYS, generator.random(4), strict=True)} for _ in trials]
    return [Finished(t, s, Path(t.label)) for t, s in zip(trials, scores, strict=True) if t.label not in drop]


def test_points_are_means_over_seeds_as_numpy_has_them(tmp_path):
    trials = finished({"batching.alpha": [0, 0.5, 1], "seed": [3, 4, 5]}, drop=("alpha=1 seed=4",))
    Summary(trials).save(tmp_path)
    with (tmp_path / "summary.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["batching.alpha"] for row in rows] == ["0", "0.5", "1"]
    assert [row["seeds"] for row in rows] == ["3", "3", "2"]
    for row in rows:
        alpha = float(row["batching.alpha"])
        for key in KEYS:
            values = [f.scores[f"demo/{key}"] for f in trials if f.trial.config.batching.alpha == alpha]
            assert float(row[f"{key} mean"]) == pytest.approx(np.mean(values), abs=1e-6)
            assert float(row[f"{key} std"]) == pytest.approx(np.std(values, ddof=1), abs=1e-6)


def test_the_table_marks_the_best_mean_of_each_column():
    trials = finished({"batching.alpha": [0, 0.5, 1], "seed": [0, 1]})
    table = Summary(trials, {"alpha=0.7 seed=0": "its driver died"}).markdown()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert rows[0] == ["alpha", "seeds", "mAP monolingual", "mAP cross-lingual", "mAP multilingual", "rank distance"]
    for column, key in enumerate(KEYS, 2):
        means = [np.mean(point.of(f"demo/{key}")) for point in points_of(trials)]
        best = int(np.argmin(means) if "distance" in key else np.argmax(means))
        assert [row[column].startswith("**") for row in rows[2:]] == [i == best for i in range(3)]
    assert "- alpha=0.7 seed=0: its driver died" in table


def test_one_seed_has_no_spread(tmp_path):
    trials = finished({"batching.alpha": [0, 1], "seed": 0})
    assert "±" not in Summary(trials).markdown().partition("|")[2]
    Summary(trials).save(tmp_path)
    with (tmp_path / "summary.csv").open() as stream:
        assert next(csv.DictReader(stream))["mono/map std"] == ""
    assert all(math.isfinite(x) for f in trials for x in f.scores.values())


def test_no_finished_trial_is_a_summary_of_failures(tmp_path):
    summary = Summary([], {"alpha=0 seed=0": "no more memory"})
    summary.save(tmp_path)
    assert (tmp_path / "summary.md").read_text() == "Failed:\n\n- alpha=0 seed=0: no more memory\n"
    assert summary.tables() == []


def test_a_benchmark_without_a_setting_lacks_its_column():
    trials = [
        replace(f, scores={key: x for key, x in f.scores.items() if "cross" not in key})
        for f in finished({"batching.alpha": [0, 1], "seed": 0})
    ]
    table = Summary(trials).markdown()
    assert "cross-lingual" not in table
    assert "monolingual" in table


def test_the_curve_is_for_numbers_of_alpha_alone(tmp_path):
    assert is_curve(points_of(finished({})))
    assert not is_curve(points_of(finished({"batching.alpha": 0.5})))
    assert not is_curve(points_of(finished({"batching.alpha": [0.5, {0: 1.0}]})))
    assert not is_curve(points_of(finished({}, space="samplings")))


def test_what_varies_besides_alpha_has_a_curve_of_its_own(tmp_path):
    from matplotlib.image import imread

    trials = finished({"seed": [0, 1]}, space="ratio-batch")
    assert is_curve(points_of(trials))
    path = tmp_path / "curves.png"
    score_curves("demo", points_of(trials), path)
    alone = [one for one in trials if one.values["batching.global_batch_size"] == 32]
    score_curves("demo", points_of(alone), tmp_path / "alone.png")
    assert (imread(path) != imread(tmp_path / "alone.png")).any()
    assert not is_curve(points_of([*alone, next(one for one in trials if one not in alone)])), "one alpha is no curve"


def test_the_picture_is_drawn_for_any_number_of_scores_and_seeds(tmp_path):
    from matplotlib.image import imread

    one = finished({"batching.alpha": [1, 0], "seed": 0})
    for number, trials in enumerate([finished({}), one, [replace(f, scores={"demo/mono/map": 0.5}) for f in one]]):
        path = tmp_path / f"{number}.png"
        score_curves("demo", points_of(trials), path)
        picture = imread(path)
        assert min(picture.shape[:2]) > 400
        assert picture[..., :3].std() > 0.01, "something is drawn"


@pytest.mark.parametrize("varied", ["batching.alpha", "batching.global_batch_size"])
def test_trials_whose_candidates_an_index_ranks_are_compared_by_ndcg(tmp_path, varied):
    space = with_flags(load_space("alpha-grid"), {"batching.alpha": [0, 0.5, 1], "seed": 0, "evaluation.index": "Flat"})
    if varied != "batching.alpha":
        space = replace(space, draws={varied: Choices((8, 16, 32))})
    trials = trials_of(space)
    own = [{"demo/multi/ndcg@10": x, "demo/multi/recall@10": 1 - x} for x in (0.2, 0.9, 0.5)]
    summary = Summary([Finished(t, s, Path(t.label)) for t, s in zip(trials, own, strict=True)])
    assert summary.best.trial.label == trials[1].label
    assert "best of 3 points on demo by nDCG@10 multilingual. It has nDCG@10 multilingual 0.900" in " ".join(
        summary.best_recipe().replace("#", "").split()
    )
    assert "| **0.900** |" in summary.markdown()
    made = {path.name for path in summary.save(tmp_path)}
    assert ("alpha-curve-demo.png" in made) == (varied == "batching.alpha")
    with (tmp_path / "summary.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["multi/ndcg@10 mean"] for row in rows] == ["0.200000", "0.900000", "0.500000"]
    assert [row["multi/map mean"] for row in rows] == ["", "", ""]
