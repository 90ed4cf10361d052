"""The best point of a sweep, as a recipe that `hbtrain train` takes."""

from __future__ import annotations

import statistics
import textwrap
from collections.abc import Sequence
from pathlib import Path

import yaml
from scipy.stats import rankdata

from hbtrain.config import Config
from tune.findings.points import Finished, Point, Score, benchmarks_of, losses, points_of, scores_of

PLACE = {"tracking": ("uri", "parent_run_id", "run_name"), "resources": ("address",)}
"""Keys of a trial that say where the sweep ran and not what is trained."""


def best_point(points: Sequence[Point], benchmark: str, scores: Sequence[Score]) -> Point:
    """The point whose ranks by the means of `scores` are lowest on average; of equals, the first.

    Ranks weigh scores of different scales alike. With one score it is simply the point that is best in it.
    """
    ranks = [rankdata(losses(points, benchmark, score)) for score in scores]
    means = [statistics.mean(of_point) for of_point in zip(*ranks, strict=True)]
    return points[means.index(min(means))]


def save_recipe(finished: Sequence[Finished], path: Path, objectives: Sequence[Score] = ()) -> None:
    """Write the best point's configuration as a recipe, which says above why it is the best.

    Args:
        finished: trials with at least one score.
        path: of the YAML file.
        objectives: scores of the first benchmark that decide; by default all that every point has.

    Raises:
        OSError: `path` cannot be written.
    """
    points = points_of(finished)
    benchmark = benchmarks_of(finished)[0]
    scores = list(objectives) or scores_of(benchmark, points)
    best = best_point(points, benchmark, scores)
    config = next(one.trial.config for one in finished if one.values == best.values)
    shown = ", ".join(
        f"{score.title} {best.shown(f'{benchmark}/{score.key}', score.form)}" for score in scores_of(benchmark, points)
    )
    names = ", ".join(score.title for score in scores)
    seeds = f"mean ± standard deviation of {len(best.runs)} seeds" if len(best.runs) > 1 else "one seed"
    rule = names if len(scores) == 1 else f"the mean of its ranks in {names}"
    why = f"{best.label}, the best of {len(points)} points on {benchmark} by {rule}. It has {shown} ({seeds})."
    head = textwrap.fill(why, 118, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
    path.write_text(f"{head}\n{recipe_of(config)}", encoding="utf-8")


def recipe_of(config: Config) -> str:
    """What of `config` differs from the defaults, as YAML, less where it ran."""
    tree = config.model_dump(mode="json", exclude_defaults=True, exclude={"storage"})
    for section, keys in PLACE.items():
        for key in keys:
            tree.get(section, {}).pop(key, None)
    kept = {key: value for key, value in tree.items() if value != {} and key != "name"}
    return yaml.safe_dump({"name": f"{config.name}-best", **kept}, sort_keys=False, allow_unicode=True)
