"""Every space that ships, at a small size: those that no other test runs, to their end."""

import csv
import os

import pytest

from hbtrain.sweeps.space_file import SPACES
from tests.integration.command import PROCESSES, ROOT, Command, fork_server, unpacked_wheel
from tests.processes.fork_server import WORKERS

SMALL = [
    "--training.steps", "4", "--resources.workers", "1", "--encoder.static.dimension", "16",
    "--encoder.static.vocabulary_size", "500",
]  # fmt: skip
ONE_TRIAL = {"mixture", "samplings"}  # one is enough: what differs from other grids are the batches
RUN_HERE = {
    "alpha-pareto": ["--search.trials", "2"],
    "mixture": ["--batching.mixture", "{mono: 1, cross: 1, multi: 2}", "--seed", "0"],
    "backbones": ["--backbone", "static", "transformer", "--batching.alpha", "0.5", "--seed", "0"],
    "samplings": ["--batching.mode", "multilingual", "--seed", "0"],
}
RUN_ELSEWHERE = {
    "alpha-grid": "test_sweep.py",
    "alpha-asha": "test_search_sweeps.py",
    "alpha-pbt": "test_search_sweeps.py",
}

LIKE_OTHERS = {"kinds", "objectives", "ratio-batch", "ratio-size"}  # grids as alpha-grid: test_search_space.py


def test_no_space_is_forgotten():
    assert {path.stem for path in SPACES.glob("*.yaml")} == RUN_HERE.keys() | RUN_ELSEWHERE.keys() | LIKE_OTHERS
    for space, file in RUN_ELSEWHERE.items():
        assert f'"{space}"' in (ROOT / "tests" / "integration" / file).read_text()


@pytest.mark.ray
@pytest.mark.parametrize("space", RUN_HERE)
def test_its_trials_and_their_summary(space, tmp_path):
    trials = 1 if space in ONE_TRIAL else 2
    arguments = [space, *RUN_HERE[space], *SMALL, "--data.cache", tmp_path / "cache"]
    how = {"program": [ROOT / "tune" / "sweep.py"]}
    if space == "samplings":  # from the wheel, outside the checkout
        path = {"PYTHONPATH": os.pathsep.join([str(unpacked_wheel(tmp_path)), PROCESSES])}
        how = {"program": ("-m", "hbtrain.cli.main", "sweep"), WORKERS: fork_server().path, **path}
    with Command(tmp_path, *arguments, **how) as command:
        assert command.finish() == 0, command.output
    assert "Traceback" not in command.output
    (folder,) = (tmp_path / "runs").glob(f"{space}-*")
    assert len(list(folder.glob("quickstart-*/results/metrics.json"))) == trials
    with (folder / "summary.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == trials
    assert all(0 < float(row["multi/map mean"]) < 1 for row in rows)
    made = {"best.yaml", "space.yaml", "summary.md"} | ({"pareto-front-demo.png"} if trials > 1 else set())
    assert made <= {path.name for path in folder.iterdir()}
