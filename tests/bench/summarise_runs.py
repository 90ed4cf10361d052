"""Mean and standard deviation over seeds of runs that differ in alpha, as a Markdown table.

python tests/bench/summarise_runs.py xquad-r runs/alpha-*
"""

from __future__ import annotations

import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path

import yaml

SCORES = {"mono/map": 3, "cross/map": 3, "multi/map": 3, "multi/rank_distance": 0}
"""Scores shown, and their decimals."""


def main(benchmark: str, folders: list[str]) -> None:
    runs: dict[float, list[dict[str, float]]] = defaultdict(list)
    for folder in map(Path, folders):
        config = yaml.safe_load((folder / "config.yaml").read_text())
        runs[config["batching"]["alpha"]].append(json.loads((folder / "results" / "metrics.json").read_text()))
    print("| alpha | seeds | " + " | ".join(SCORES) + " |")
    print("| ---: | ---: | " + " | ".join("---:" for _ in SCORES) + " |")
    for alpha, metrics in sorted(runs.items(), reverse=True):
        cells = []
        for score, decimals in SCORES.items():
            values = [m[f"{benchmark}/{score}"] for m in metrics]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(f"{statistics.mean(values):,.{decimals}f} ± {spread:,.{decimals}f}")
        print(f"| {alpha:g} | {len(metrics)} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
