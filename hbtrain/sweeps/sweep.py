"""A whole sweep: checks, its folder, its MLflow run with the trials' runs nested in it, training, and the summary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from hbtrain.comparison.save import save_comparison
from hbtrain.config import Config, absolute_paths, override, to_flat, without_passwords
from hbtrain.config.keys import NON_TRAINING_KEYS
from hbtrain.errors import ConfigError, HbtrainError, StorageError, TrainingError
from hbtrain.reporting.text import counted
from hbtrain.runs.preflight import check_storage, preflight
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.segments import measured_by, scores_in
from hbtrain.runs.usage import metrics_of, total_usage
from hbtrain.storage import Place, RemoteError, folders_in, place, pushed, write_text
from hbtrain.storage.files import exclusive_access
from hbtrain.sweeps.findings import save_summary, summary_markdown, summary_tables
from hbtrain.sweeps.marks import Judged, judge
from hbtrain.sweeps.points import SCORES, Finished, Score
from hbtrain.sweeps.search_methods import check_budget, check_objectives, is_minimised
from hbtrain.sweeps.search_records import SearchOutcome, save_outcome
from hbtrain.sweeps.space import Space, Trial, base_config, probes_of, shown, trials_of
from hbtrain.tracking.tracker import Tracker, tracking_uri


@dataclass(frozen=True)
class SweepFolder:
    """The folder of a sweep: its trials' runs, its state (`run.json`) and its summary."""

    path: Place

    @property
    def memory(self) -> RunFolder:
        """The folder as that of a run, for the state in `run.json`, which a sweep keeps as a run does."""
        return RunFolder(self.path)

    @property
    def report(self) -> Place:
        """The folder of the comparison of its points."""
        return self.path / "report"

    @property
    def outcome(self) -> Place:
        """The file that says what became of the trials of a search."""
        return self.path / "outcome.json"

    @classmethod
    def of(cls, space: Space, base: Config) -> SweepFolder:
        """The folder of a sweep. Its name has a digest of what the trials have in common, evaluation included, but not
        of the values that are tried; so a sweep over more values continues the same sweep.
        """
        common = {key: value for key, value in to_flat(base).items() if not key.startswith(NON_TRAINING_KEYS)}
        varied = space.varied_keys
        relevant: list[Any] = [{key: value for key, value in common.items() if not _below(key, varied)}]
        relevant.append(sorted([*space.grids, *space.draws]))
        relevant.append({"benchmarks": base.evaluation.benchmarks, **measured_by(base)})
        if space.search is not None:
            relevant.append(space.search.model_dump(mode="json", exclude={"trials"}))
        text = json.dumps(relevant, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return cls(place(base.storage) / f"{space.name}-{digest}")


def run_sweep(space: Space, command: str = "hbtrain sweep") -> None:
    """Train the trials of `space` that are not finished, and write the summary of all.

    Args:
        space: the configurations to try.
        command: that started the sweep; a new MLflow run shows it, with the space's name, as its source.

    Raises:
        HbtrainError: the input is wrong, and nothing has been started.
        TrainingError: trials failed.
        KeyboardInterrupt: Ctrl-C was pressed; finished trials are kept.
    """
    console = Console()
    trials = probes_of(space) if space.search else trials_of(space)
    base = absolute_paths(base_config(space))
    tracking_uri(base)  # raises if there is none
    check_storage(base)
    _check(space, trials, base)
    folder = SweepFolder.of(space, base)
    _make(space, base, folder)
    with exclusive_access(folder.path):
        tracker = _begin(space, base, folder, f"{command} {space.name}")
        _run_in(folder, space, trials, base, tracker, console)


def _run_in(
    folder: SweepFolder, space: Space, trials: Sequence[Trial], base: Config, tracker: Tracker, console: Console
) -> None:
    """Train, summarise and report in the sweep's folder, which is locked."""
    status = "FAILED"
    try:
        if space.search:
            outcome = _search(space, base, folder, tracker, console)
        else:
            outcome = _try_all(trials, folder, tracker, console)
        finished, failures = outcome.finished, outcome.failures
        judged = _report(finished, folder, tracker, console)
        objectives = _objectives(space)
        with pushed(folder.path) as files:
            names = [file.name for file in save_summary(finished, failures, files, judged, objectives)]
        for name in names:
            tracker.artifact(folder.path / name)
        tracker.describe(summary_markdown(finished, failures, judged, objectives))
        runs = (RunFolder(folder.path / name) for name in folders_in(folder.path, "*"))
        tracker.metrics(metrics_of(total_usage(runs)), 0)
        if failures:
            reasons = "; ".join(f"{label}: {reason}" for label, reason in failures.items())
            count = len(failures) + len(finished) + len(outcome.stopped)
            raise TrainingError(
                f"{len(failures)} of {count} trials failed ({reasons}); the same command tries them again"
            )
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    except RemoteError as error:
        raise StorageError(f"{error.filename}: {error.strerror}; the same command goes on") from error
    finally:
        undelivered = tracker.finish(status)
        if undelivered:
            console.print(undelivered, highlight=False, soft_wrap=True)
    _show(console, outcome, judged, objectives, folder, tracker)


def _check(space: Space, trials: Sequence[Trial], base: Config) -> None:
    """Raise HbtrainError for anything that is wrong with any trial, before the first one starts."""
    if not base.evaluation.benchmarks:
        raise ConfigError("evaluation.benchmarks is empty, so trials cannot be compared; name one, such as demo")
    check_budget(space.search, base.training.steps)
    for trial in trials:
        checked = preflight(absolute_paths(trial.config))
    if space.search is not None:
        check_objectives(space.search.objectives, checked.benchmarks[0])


def _make(space: Space, base: Config, folder: SweepFolder) -> None:
    """Make the sweep's folder, with `space.yaml` in it. Raises StorageError if it cannot be written."""
    try:
        if isinstance(folder.path, Path):
            folder.path.mkdir(parents=True, exist_ok=True)
        write_text(folder.path / "space.yaml", without_passwords(space.to_yaml()))
    except OSError as error:
        raise StorageError(f"storage = {base.storage!r} cannot be written: {error.strerror} ({folder.path})") from error


def _begin(space: Space, base: Config, folder: SweepFolder, command: str) -> Tracker:
    """The tracker of the sweep's MLflow run, which goes on after an interruption."""
    tracker = Tracker(
        base,
        folder.memory.state.mlflow_run_id,
        folder.path.name,
        command=command,
        parameters={"space": space.name, "recipe": space.recipe},
    )
    folder.memory.update(mlflow_run_id=tracker.run_id)
    tracker.tags({f"space.{key}": " ".join(map(shown, values)) for key, values in space.grids.items()})
    tracker.tags({f"space.{key}": json.dumps(draw.to_tree()) for key, draw in space.draws.items()})
    if space.search is not None:
        tracker.tags({f"search.{key}": value for key, value in space.search.model_dump(mode="json").items()})
    tracker.artifact(folder.path / "space.yaml")
    return tracker


def _placed(config: Config, folder: SweepFolder, tracker: Tracker) -> Config:
    """A trial's configuration, with its run in the sweep's folder and under the sweep's MLflow run."""
    overrides = {
        "storage": str(folder.path),
        "tracking.uri": tracking_uri(config),
        "tracking.parent_run_id": tracker.run_id,
    }
    return absolute_paths(override(config, overrides))


def _search(space: Space, base: Config, folder: SweepFolder, tracker: Tracker, console: Console) -> SearchOutcome:
    """Begin or continue the search, and write what became of its trials."""
    assert space.search is not None
    console.print(f"sweep {folder.path.name}: {space.search.summary}", highlight=False, soft_wrap=True)
    from hbtrain.sweeps.searches import search

    outcome = search(space, _placed(base, folder, tracker), folder.path)
    save_outcome(outcome, folder.outcome)
    tracker.artifact(folder.outcome)
    return outcome


def _try_all(trials: Sequence[Trial], folder: SweepFolder, tracker: Tracker, console: Console) -> SearchOutcome:
    """Train the trials of a grid that are not finished."""
    ready = []
    for trial in trials:
        config = override(_placed(trial.config, folder, tracker), {"tracking.run_name": trial.label})
        ready.append(Trial(trial.label, trial.values, config))
    failures = dict(_train(ready, folder, console))
    finished = [done for trial in ready if (done := _finished(trial)) is not None]
    for label in {trial.label for trial in ready} - {one.trial.label for one in finished} - failures.keys():
        failures[label] = "it ended without scores on all benchmarks"
    return SearchOutcome(finished, failures=failures)


def _train(trials: Sequence[Trial], folder: SweepFolder, console: Console) -> Mapping[str, str]:
    """Train the trials that are not finished; returns {label: why it failed}."""
    pending = [trial for trial in trials if _finished(trial) is None]
    done = len(trials) - len(pending)
    console.print(f"sweep {folder.path.name}: {counted(len(trials), 'trial')}, {done} finished before", highlight=False)
    if not pending:
        return {}
    from hbtrain.sweeps.tuning import train_side_by_side

    return train_side_by_side(pending, folder.path)


def _finished(trial: Trial) -> Finished | None:
    """The trial with the scores of a finished run of it on all its benchmarks; None if there is no such run."""
    for run in RunFolder.finished(trial.config):
        scores = scores_in(run, run.results / "metrics.json", trial.config)
        if scores is not None:
            return Finished(trial, scores, run.path)
    return None


def _report(finished: Sequence[Finished], folder: SweepFolder, tracker: Tracker, console: Console) -> Judged | None:
    """Write the comparison of all points, if there are several. If that fails, say so; the sweep has not failed."""
    try:
        judged = judge(finished)
        if judged is not None:
            with pushed(folder.report) as files:
                save_comparison(judged.comparison, files)
            tracker.artifact(folder.report, "report")
    except HbtrainError as error:
        console.print(f"no report: {error}", highlight=False, soft_wrap=True)
        return None
    return judged


def _objectives(space: Space) -> list[Score]:
    """The objectives of a search as scores; none of a grid."""
    known = {score.key: score for score in SCORES}
    names = space.search.objectives if space.search else ()
    return [known.get(name) or Score(name, name, ".3f", not is_minimised(name)) for name in names]


def _show(
    console: Console,
    outcome: SearchOutcome,
    judged: Judged | None,
    objectives: Sequence[Score],
    folder: SweepFolder,
    tracker: Tracker,
) -> None:
    for table in summary_tables(outcome.finished, judged, objectives):
        console.print()
        console.print(table)
    if judged is not None and judged.legend:
        console.print(judged.legend, style="dim", highlight=False)
    if outcome.stopped:
        steps = ", ".join(f"{one.trial.label} at step {one.step}" for one in outcome.stopped)
        console.print(f"\nstopped early: {steps}", highlight=False, soft_wrap=True)
    report = folder.report / "report.html"
    lines = [
        f"summary  {folder.path}",
        f"best     hbtrain train {folder.path / 'best.yaml'}",
        *([f"report   {report}"] if report.exists() else []),
        f"MLflow   run {tracker.run_id}",
    ]
    console.print("\n" + "\n".join(lines), highlight=False, soft_wrap=True)


def _below(key: str, roots: Iterable[str]) -> bool:
    """Whether a flattened key is one of `roots` or a part of its value, as `batching.alpha.100` is."""
    return any(key == root or key.startswith(f"{root}.") for root in roots)
