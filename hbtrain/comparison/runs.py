"""Finding the runs to compare: in folders, in MLflow and in remote storage; a sweep stands for all of its runs."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import ValidationError

from hbtrain.config import Config, flatten, to_flat
from hbtrain.config.batching import language_pair
from hbtrain.errors import ConfigError, DataError, shown
from hbtrain.evaluation.results import save_evaluation
from hbtrain.reporting.metric_names import SETTINGS
from hbtrain.storage import RemotePath, expand_home, fetch, is_remote, place

if TYPE_CHECKING:
    from hbtrain.evaluation.benchmark import Benchmark
    from hbtrain.tracking.past_runs import TrackedRun, TrackedRuns


SWEEP_SOURCES = ("hbtrain sweep ", "tune/sweep.py ")
"""The MLflow run of a sweep has a source (the command line) that begins so."""
SWEEP_FILE = "space.yaml"  # a file that the folder and the MLflow run of every sweep have
MERGES_FILE = "merge.json"  # a file that the folder of every sweep over merges has
POINTS = "points"  # the folder in it that holds a folder of results for each merge
NOT_COMPARED = ("ray", "tune", "initial", "model")
"""Folders of runs and sweeps that are not fetched, as they hold no scores."""


@dataclass(frozen=True, eq=False)
class Run:
    """A training run, or an evaluation of any model, with its scores."""

    given: str  # the name that the user gave; for a run of a sweep, the sweep's and the run's
    name: str
    results: Path  # the folder of `metrics.json`, `per_query.parquet` and `about.json`
    run_id: str | None  # of its MLflow run, if that is known
    config: dict[str, Any] | None  # {dotted key: value} of the training; None for a model that was only evaluated
    metrics: dict[str, float]  # content of `metrics.json`
    about: dict[str, Any]  # content of `about.json`
    # {benchmark: {language: (its share among the first ten candidates, its share of the pool)}} in the setting `multi`,
    # means over query languages; empty for evaluations without these shares
    first_ten: dict[str, dict[str, tuple[float, float]]]

    @property
    def trained_languages(self) -> tuple[str, ...] | None:
        """The languages it has seen in training, also in translations of single words; None if they are not known."""
        known = self.about.get("trained_languages")
        if known is None and self.config is not None:
            known = ["en"] if self.config.get("batching.mode") == "english" else self.config.get("data.languages")
            known = None if known is None else dict.fromkeys([*known, *_lexicon_languages(self.config)])
        return None if known is None else tuple(known)

    @property
    def unrelated_questions(self) -> frozenset[str]:
        """The benchmarks in which a question id means another question in every language."""
        benchmarks = self.about.get("benchmarks", {})
        return frozenset(name for name in benchmarks if self.about_benchmark(name).get("parallel_questions") is False)

    def about_benchmark(self, name: str) -> dict[str, Any]:
        found = self.about.get("benchmarks", {}).get(name, {})
        return found if isinstance(found, dict) else {}


def _lexicon_languages(config: Mapping[str, Any]) -> list[str]:
    """The languages of the translations in `switched` batches, from {dotted key: value} of a training."""
    if not any(re.fullmatch(r"batching\.mixture\.(\d+\.)?switched", key) and config[key] for key in config):
        return []
    prefix = "batching.switching.lexicons."
    return [language_pair(key.removeprefix(prefix))[1] for key in config if key.startswith(prefix)]


class RunFinder:
    """Finds runs by what users write."""

    def __init__(self, tracking_uri: str | None, downloads: Path, benchmarks: Sequence[Benchmark] = ()) -> None:
        """Copies of remote files go to `downloads`; `benchmarks` are those of run files."""
        self._uri = tracking_uri
        self._benchmarks = benchmarks
        self._downloads = downloads
        self.notes: list[str] = []
        """A sentence on every run of a sweep that is left out, because it is not finished; what run files' evaluations
        say."""

    @cached_property
    def server(self) -> TrackedRuns:
        from hbtrain.tracking.past_runs import TrackedRuns

        return TrackedRuns(self._uri)

    def find(self, text: str) -> list[Run]:
        """The run that `text` means, or all finished ones of a sweep.

        It may be a folder that `hbtrain evaluate` wrote, the folder of a run or of a sweep, a folder of TREC run files,
        each maybe an s3:// URI; or the id of an MLflow run, or of a sweep's, or the beginning of one.

        Raises:
            DataError: a folder that holds nothing of this kind, or an unfinished run.
            TrackingError: an unknown id, or a server that does not answer.
        """
        if not text.strip():
            raise DataError("a run's name is empty; give a folder, or the id of an MLflow run")
        if is_remote(text):
            return self._in_folder(self._fetched(text), text)
        path = expand_home(text)
        if path.is_dir():
            return self._in_folder(path.absolute(), text)
        if path.exists():
            raise DataError(f"run {text!r} is a file; name the folder that hbtrain evaluate wrote, or an MLflow run")
        if "/" in text or text.startswith("."):
            raise DataError(f"run {text!r}: there is no such folder")
        run = self.server.find(text)
        children = self.server.children(run)
        if not children:
            return [self._tracked(run, text)]
        return [self._tracked(child, f"{text} {child.name}") for child in self._finished(children, run.name)]

    def _fetched(self, uri: str) -> Path:
        """A copy of a folder in remote storage, without the large folders of a run."""
        source = place(uri)
        to = self._downloads / hashlib.sha256(uri.encode()).hexdigest()[:8] / source.name
        try:
            if isinstance(source, RemotePath):
                fetch(source, to, without=NOT_COMPARED, as_one=False)
        except OSError as error:
            raise DataError(f"run {uri!r} cannot be fetched: {error.strerror}") from error
        return to

    def _in_folder(self, path: Path, text: str) -> list[Run]:
        if (path / SWEEP_FILE).is_file():
            folders = [folder for folder in sorted(path.iterdir()) if (folder / "run.json").is_file()]
            done = [folder for folder in folders if _state(folder).get("finished") is True]
            self.notes += [f"{folder.name} of {text} is not finished" for folder in folders if folder not in done]
            if not done:
                raise DataError(f"sweep {text}: none of its {len(folders)} runs is finished")
            return [self._in_run_folder(folder, f"{text}/{folder.name}") for folder in done]
        if (path / MERGES_FILE).is_file():
            points = sorted(file.parent for file in path.glob(f"{POINTS}/*/metrics.json"))
            if not points:
                raise DataError(f"sweep {text}: none of its merges was evaluated; the command that began it goes on")
            return [_read(point, f"{text}/{point.name}", f"merge {point.name}", None, None) for point in points]
        if (path / "run.json").is_file() or (path / "config.yaml").is_file():
            return [self._in_run_folder(path, text)]
        if (path / "metrics.json").is_file() or (path / "per_query.parquet").is_file():
            trained = path.name == "results" and (path.parent / "run.json").is_file()
            return [self._in_run_folder(path.parent, text)] if trained else [_read(path, text, path.name, None, None)]
        if holds_trec_runs(path):
            results = Path(tempfile.mkdtemp(dir=self._downloads))
            self.notes += evaluate_trec_folder(path, text, self._benchmarks, results)
            return [_read(results, text, path.name, None, None)]
        raise DataError(
            f"run {text!r}: the folder holds neither results of hbtrain evaluate (metrics.json), nor a run (run.json), "
            "nor run files (mono/en.trec.gz)"
        )

    def _in_run_folder(self, path: Path, text: str) -> Run:
        state = _state(path)
        if state.get("finished") is False or ("finished" not in state and (path / "run.json").is_file()):
            raise DataError(f"run {text} is not finished; the command that began it goes on with it")
        return _read(path / "results", text, path.name, state.get("mlflow_run_id"), path / "config.yaml")

    def _finished(self, children: Sequence[TrackedRun], sweep: str) -> list[TrackedRun]:
        done = [child for child in children if child.is_finished]
        self.notes += [f"{c.name} of {sweep} has the status {c.status}" for c in children if not c.is_finished]
        if not done:
            raise DataError(f"sweep {sweep}: none of its {len(children)} runs is finished")
        return done

    def _tracked(self, run: TrackedRun, text: str) -> Run:
        if not run.is_finished:
            raise DataError(f"run {text} ({run.name}) has the status {run.status}; only finished runs are compared")
        into = self._downloads / run.run_id
        results = self.server.fetch(run, "results", into)
        if results is None:
            swept = run.source.startswith(SWEEP_SOURCES)
            kind = "it is a sweep without runs" if swept else "evaluation.benchmarks was empty"
            raise DataError(f"run {text} ({run.name}) has no results in MLflow: {kind}, or they were deleted")
        return _read(results, text, run.name, run.run_id, self.server.fetch(run, "config.yaml", into))


def _read(results: Path, text: str, name: str, run_id: str | None, config: Path | None) -> Run:
    metrics = _json(results / "metrics.json", text)
    if not metrics:
        raise DataError(f"run {text}: {results / 'metrics.json'} does not hold scores; evaluate again")
    for key, value in metrics.items():
        if not _is_score(value):
            raise DataError(
                f"run {text}: {results / 'metrics.json'} does not hold scores: {key} is {shown(value)}, and must be a "
                "finite number; evaluate again"
            )
    about = _json(results / "about.json", text)
    return Run(text, name, results, run_id, _config(config, text), metrics, about, _first_ten(results, text))


def _first_ten(results: Path, text: str) -> dict[str, dict[str, tuple[float, float]]]:
    path = results / "language_share.csv"
    if not path.is_file():
        return {}
    rows: dict[tuple[str, str], list[tuple[float, float]]] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            for row in csv.DictReader(stream):
                shares = float(row["share_in_first_ten"]), float(row["share_in_pool"])
                rows.setdefault((row["benchmark"], row["language"]), []).append(shares)
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"run {text}: {path} does not hold shares of languages; evaluate again") from error
    found: dict[str, dict[str, tuple[float, float]]] = {}
    for (benchmark, language), of_queries in rows.items():
        first_ten, pool = (sum(column) / len(column) for column in zip(*of_queries, strict=True))
        found.setdefault(benchmark, {})[language] = first_ten, pool
    return found


def _config(path: Path | None, text: str) -> dict[str, Any] | None:
    """{dotted key: value} of a configuration, with today's defaults for keys that are newer than the run."""
    if path is None or not path.is_file():
        return None
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:  # ValueError: also of a number too large for Python
        raise DataError(
            f"run {text}: {path} cannot be read as YAML; restore it or compare its results folder"
        ) from error
    if not isinstance(tree, dict):
        raise DataError(f"run {text}: {path} holds no configuration; restore it or compare its results folder")
    try:
        return to_flat(Config.model_validate(tree))
    except ValidationError:  # of another version: keys as they stand
        return flatten(tree)


def _state(folder: Path) -> dict[str, Any]:
    """The content of run.json (see `hbtrain.runs.run_folder.RunState`); empty if there is no such file."""
    file = folder / "run.json"
    try:
        state = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{file} is damaged ({reason}): put a copy of it back, or leave the run out") from error
    if not isinstance(state, dict):
        raise DataError(f"{file} is damaged (no object): put a copy of it back, or leave the run out")
    return state


def _json(path: Path, text: str) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise DataError(f"run {text} has no {path.name} in {path.parent}; evaluate it with hbtrain evaluate") from error
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"run {text}: {path} cannot be read as JSON ({error}); evaluate again") from error
    if not isinstance(found, dict):
        raise DataError(f"run {text}: {path} must hold a mapping; evaluate again")
    return found


def _is_score(value: object) -> bool:
    """Whether a JSON value is a finite number, and no integer that is too large for a float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def holds_trec_runs(folder: Path) -> bool:
    """Whether a folder has `<setting>/`, or `<benchmark>/<setting>/` for some benchmark."""
    parents = [folder, *(path for path in folder.iterdir() if path.is_dir())]
    return any((parent / setting).is_dir() for parent in parents for setting in SETTINGS)


def evaluate_trec_folder(folder: Path, text: str, benchmarks: Sequence[Benchmark], output: Path) -> list[str]:
    """Score the TREC run files in `folder` and write the results into `output`, as `hbtrain evaluate` does; gives the
    notes of the evaluations.

    The files are `<benchmark>/<setting>/<query language>.trec.gz` and the like, or `<setting>/...` if there is one
    benchmark; benchmarks without files are left out.

    Raises:
        ConfigError: there are files, but for none of these benchmarks.
        DataError: files do not fit their benchmark.
    """
    from hbtrain.evaluation.trec_evaluation import evaluate_trec_runs, find_trec_runs

    folders = {benchmark.name: folder / benchmark.name for benchmark in benchmarks}
    if len(benchmarks) == 1 and not folders[benchmarks[0].name].is_dir():
        folders = {benchmarks[0].name: folder}
    answered = [benchmark for benchmark in benchmarks if any((folders[benchmark.name] / s).is_dir() for s in SETTINGS)]
    if not answered:
        named = f" of {', '.join(folders)}" if folders else ""
        raise ConfigError(
            f"run {text!r} holds run files; say what they answer with --data, such as xquad-r or xquad-r=FOLDER"
            + (f" (there are none{named})" if named else "")
        )
    found = [evaluate_trec_runs(benchmark, find_trec_runs(folders[benchmark.name])) for benchmark in answered]
    save_evaluation(found, output, folder.name)
    return [note for evaluation in found for note in evaluation.notes]
