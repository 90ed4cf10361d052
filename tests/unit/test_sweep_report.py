"""A sweep's report judges its points against the best sampling of a single kind."""

import json

import pytest

from hbtrain.config import absolute_paths
from hbtrain.launch.run_folder import RunFolder
from tests.unit.comparison_samples import macro_means, rows_of, write_results
from tune.points import Finished
from tune.report import is_single_kind, save_report
from tune.space import load_space, trials_of, with_flags


def trained(tmp_path, space, qualities, flags):
    """Finished trials with made-up results: {the value of the first key: quality}."""
    done = []
    for trial in trials_of(with_flags(load_space(space), {"storage": str(tmp_path), **flags})):
        folder = RunFolder.open(absolute_paths(trial.config))
        rows = rows_of(qualities[next(iter(trial.values.values()))], seed=trial.config.seed)
        write_results(folder.results, rows)
        folder.remember(finished=True)
        done.append(Finished(trial, macro_means(rows), folder.path))
    return done


@pytest.mark.parametrize(
    ("qualities", "baseline"), [({0: 0.1, 0.5: 0.3, 1: 0.2}, "α = 1"), ({0: 0.2, 0.5: 0.0, 1: 0.1}, "α = 0")]
)
def test_ratios_are_judged_against_the_better_end(tmp_path, cache, qualities, baseline):
    flags = {"batching.alpha": [0, 0.5, 1], "seed": [0, 1]}
    save_report(trained(tmp_path, "alpha-grid", qualities, flags), tmp_path / "report")
    found = json.loads((tmp_path / "report" / "comparison.json").read_text())
    assert baseline in found["baseline"]
    assert len(found["systems"]) == 3
    assert "<html" in (tmp_path / "report" / "report.html").read_text()


def test_samplings_are_judged_against_the_best_that_is_not_hybrid(tmp_path, cache):
    modes = ["monolingual", "hybrid", "multilingual"]
    done = trained(
        tmp_path, "samplings", dict(zip(modes, (0.0, 0.3, 0.2), strict=True)), {"batching.mode": modes, "seed": 0}
    )
    assert [is_single_kind(one.trial.config) for one in done] == [True, False, True]
    save_report(done, tmp_path / "report")
    assert "ultilingual" in json.loads((tmp_path / "report" / "comparison.json").read_text())["baseline"]
