"""Run files of other systems, scored as if `hbtrain evaluate` had searched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hbtrain.errors import ConfigError
from hbtrain.evaluation.results import save_evaluation

if TYPE_CHECKING:
    from hbtrain.evaluation.pool import Benchmark

SETTINGS = ("mono", "cross", "multi")
"""Names of the folders that run files lie in."""


def holds_run_files(folder: Path) -> bool:
    """Whether a folder has `<setting>/`, or `<benchmark>/<setting>/` for some benchmark."""
    return any((place / setting).is_dir() for place in (folder, *_folders(folder)) for setting in SETTINGS)


def evaluate_run_files(folder: Path, text: str, benchmarks: Sequence[Benchmark], output: Path) -> None:
    """Score the run files in `folder` and write the results into `output`.

    Args:
        folder: holds `<benchmark>/<setting>/<query language>.trec.gz` and the like; with one benchmark its name may
            be left out.
        text: what the user calls the run.
        benchmarks: what was asked; those that have no files are passed over.
        output: as of `hbtrain evaluate`.

    Raises:
        ConfigError: there are files, but none of these benchmarks is theirs.
        DataError: files that do not fit the benchmark.
    """
    from hbtrain.evaluation.evaluate_run import evaluate_run, find_run_files

    places = {benchmark.name: folder / benchmark.name for benchmark in benchmarks}
    if len(benchmarks) == 1 and not places[benchmarks[0].name].is_dir():
        places = {benchmarks[0].name: folder}
    there = [benchmark for benchmark in benchmarks if any((places[benchmark.name] / s).is_dir() for s in SETTINGS)]
    if not there:
        named = f" of {', '.join(places)}" if places else ""
        raise ConfigError(
            f"run {text!r} holds run files; say what they answer with --data NAME=PATH, such as xquad-r=FOLDER"
            + (f" (there are none{named})" if named else "")
        )
    found = [evaluate_run(benchmark, find_run_files(places[benchmark.name])) for benchmark in there]
    save_evaluation(found, output, folder.name)


def _folders(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_dir()]
