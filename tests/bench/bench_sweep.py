"""A sweep's trials side by side against the same runs started alone, and what a run's start is made of. One JSON line.

The sweep has one Ray cluster; a run that is started alone brings up its own. `busy` is the share of time between the
first trial's start and the last one's end in which a place for a trial was in use.

python tests/bench/bench_sweep.py --trials 8 --alone 8
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.measure import tell

ROOT = Path(__file__).parents[2]
PHASES = {
    "checking": "imports_s",
    "starting Ray": "checks_s",
    "building": "ray_s",
    "training": "encoder_s",
    "step ": "workers_s",
    "evaluating": "steps_s",
    "model ": "evaluation_s",
}
"""What is printed when a phase is over, and what the time up to it is called."""


def lines_of(command: list[str], folder: Path) -> list[tuple[float, str]]:
    """(seconds since the start, line) of a command's output."""
    found: list[tuple[float, str]] = []
    began = time.monotonic()
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    with subprocess.Popen(
        [sys.executable, *command], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        found.extend((time.monotonic() - began, line.strip()) for line in process.stdout)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n" + "\n".join(x for _, x in found))
    return [*found, (time.monotonic() - began, "")]


def busy(lines: list[tuple[float, str]], places: int) -> float:
    """See above."""
    starts = [at for at, line in lines if line.endswith("  started")]
    ends = [(at, float(found[1])) for at, line in lines if (found := re.search(r"finished in (\d+) s", line))]
    used = sum(seconds for _, seconds in ends)
    return used / (places * (max(at for at, _ in ends) - min(starts)))


def phases(lines: list[tuple[float, str]]) -> dict[str, float]:
    """Seconds that a run spent in each phase."""
    found, before = {}, 0.0
    for sign, name in PHASES.items():
        at = next(at for at, line in lines if at >= before and sign in line)
        found[name] = at - before
        before = at
    return found | {"end_s": lines[-1][0] - before}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--alone", type=int, default=8, help="how many of them are also started alone")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    places = min(len(os.sched_getaffinity(0)), arguments.trials)
    alphas = [str(round(i / max(1, arguments.trials - 1), 3)) for i in range(arguments.trials)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        shared = [
            "--training.steps", str(arguments.steps), "--training.log_every", "10", "--resources.workers", "1",
            "--evaluation.before", "false", "--tracking.log_model", "false", "--data.cache", str(folder / "cache"),
        ]  # fmt: skip
        sweep = [str(ROOT / "tune" / "sweep.py"), "alpha-grid", "--batching.alpha", *alphas, "--seed", "0", *shared]
        together = lines_of([*sweep, "--storage", str(folder / "sweep")], folder)
        alone, parts = [], []
        for alpha in alphas[: arguments.alone]:
            train = ["-m", "hbtrain.cli.main", "train", "quickstart", "--batching.alpha", alpha, *shared]
            lines = lines_of([*train, "--storage", str(folder / "alone")], folder)
            alone.append(lines[-1][0])
            parts.append(phases(lines))
        wall, mean = together[-1][0], sum(alone) / len(alone)
        tell(
            "sweep",
            trials=arguments.trials,
            at_once=places,
            sweep_s=wall,
            alone_s=mean,
            wall_to_sum=wall / (mean * arguments.trials),
            wall_to_sum_at_once=wall / (mean * arguments.trials / places),
            busy=busy(together, places),
            **{f"alone_{key}": sum(part[key] for part in parts) / len(parts) for key in parts[0]},
        )


if __name__ == "__main__":
    main()
