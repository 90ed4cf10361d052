"""A whole sweep: checks, its folder, the MLflow run that its trials are nested under, training, the summary."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from hbtrain.comparison.save import save_comparison
from hbtrain.comparison.tables import marks_legend
from hbtrain.config import Config, absolute_paths, override, to_flat
from hbtrain.config.keys import ELSEWHERE
from hbtrain.errors import ConfigError, HbtrainError, StorageError, TrainingError
from hbtrain.evaluation.benchmark import parse_benchmark
from hbtrain.launch.preflight import preflight
from hbtrain.launch.run_folder import RunFolder
from hbtrain.launch.usage import metrics_of, total_usage
from hbtrain.storage import Place, RemotePath, check_writable, folders_in, place, pushed
from hbtrain.tracking import Tracker, tracking_uri
from tune.points import Finished
from tune.report import Judged, judge
from tune.space import Space, Trial, base_config, shown, trials_of
from tune.summary import save_summary, summary_markdown, summary_tables


@dataclass(frozen=True)
class SweepFolder:
    """Where a sweep keeps its trials, its memory and its summary."""

    path: Place

    @property
    def memory(self) -> RunFolder:
        """A sweep remembers as a run does: in `run.json`."""
        return RunFolder(self.path)

    @property
    def report(self) -> Place:
        """The comparison of its points."""
        return self.path / "report"

    @classmethod
    def of(cls, space: Space, base: Config) -> SweepFolder:
        """Named by what the trials have in common, so that a wider range continues the sweep."""
        common = {key: value for key, value in to_flat(base).items() if not key.startswith(ELSEWHERE)}
        relevant = {key: value for key, value in common.items() if not _below(key, space.grids)}
        text = json.dumps([relevant, sorted(space.grids)], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        return cls(place(base.storage) / f"{space.name}-{digest}")


def run_sweep(space: Space) -> None:
    """Train the trials of `space` that are not finished, and write the summary of all.

    Raises:
        HbtrainError: what is wrong with the input, before anything starts; TrainingError if trials failed.
        KeyboardInterrupt: Ctrl-C; finished trials are kept.
    """
    console = Console()
    trials = trials_of(space)
    base = absolute_paths(base_config(space))
    _check(trials, base)
    folder = SweepFolder.of(space, base)
    tracker = _begin(space, base, folder)
    status = "FAILED"
    try:
        ready = [_placed(trial, folder, tracker) for trial in trials]
        failures = _train(ready, folder, console)
        finished = [done for trial in ready if (done := _finished(trial)) is not None]
        judged = _report(finished, folder, tracker, console)
        with pushed(folder.path) as files:
            kept = [file.name for file in save_summary(finished, failures, files, judged)]
        for name in kept:
            tracker.artifact(folder.path / name)
        tracker.describe(summary_markdown(finished, failures, judged))
        runs = (RunFolder(folder.path / name) for name in folders_in(folder.path, "*"))
        tracker.metrics(metrics_of(total_usage(runs)), 0)
        if failures:
            reasons = "; ".join(f"{label}: {reason}" for label, reason in failures.items())
            raise TrainingError(
                f"{len(failures)} of {len(trials)} trials failed ({reasons}); the same command tries them again"
            )
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        undelivered = tracker.finish(status)
        if undelivered:
            console.print(undelivered, highlight=False, soft_wrap=True)
    _show(console, finished, judged, folder, tracker)


def _check(trials: Sequence[Trial], base: Config) -> None:
    """Say what is wrong with any trial before the first one starts."""
    if not base.evaluation.benchmarks:
        raise ConfigError("evaluation.benchmarks is empty, so trials cannot be compared; name one, such as demo")
    for trial in trials:
        preflight(absolute_paths(trial.config))


def _begin(space: Space, base: Config, folder: SweepFolder) -> Tracker:
    """The sweep's folder and its MLflow run: the one of the sweep that was cut off, or a new one."""
    if isinstance(folder.path, RemotePath):
        check_writable(folder.path, "storage")
    try:
        if isinstance(folder.path, Path):
            folder.path.mkdir(parents=True, exist_ok=True)
        (folder.path / "space.yaml").write_text(space.to_yaml(), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"storage = {base.storage!r} cannot be written: {error.strerror} ({folder.path})") from error
    tracker = Tracker(
        base,
        folder.memory.recall("mlflow_run_id"),
        folder.path.name,
        command=f"tune/sweep.py {space.name}",
        parameters={"space": space.name, "recipe": space.recipe},
    )
    folder.memory.remember(mlflow_run_id=tracker.run_id)
    tracker.tags({f"space.{key}": " ".join(map(shown, values)) for key, values in space.grids.items()})
    tracker.artifact(folder.path / "space.yaml")
    return tracker


def _placed(trial: Trial, folder: SweepFolder, tracker: Tracker) -> Trial:
    """The trial with its place in the sweep's folder and under the sweep's MLflow run."""
    place = {
        "storage": str(folder.path),
        "tracking.uri": tracking_uri(trial.config),
        "tracking.parent_run_id": tracker.run_id,
        "tracking.run_name": trial.label,
    }
    return Trial(trial.label, trial.values, absolute_paths(override(trial.config, place)))


def _train(trials: Sequence[Trial], folder: SweepFolder, console: Console) -> Mapping[str, str]:
    """Train the trials that are not finished; {label: why it failed}."""
    pending = [trial for trial in trials if _finished(trial) is None]
    count = f"{len(trials)} trial{'s'[: len(trials) > 1]}"
    console.print(f"sweep {folder.path.name}: {count}, {len(trials) - len(pending)} finished before", highlight=False)
    if not pending:
        return {}
    from tune.schedule import train_side_by_side

    return train_side_by_side(pending, folder.path)


def _finished(trial: Trial) -> Finished | None:
    """The finished run of this trial, with its scores on all its benchmarks; None if there is no such run."""
    wanted = {parse_benchmark(text).name for text in trial.config.evaluation.benchmarks}
    for run in RunFolder.finished(trial.config):
        try:
            scores: dict[str, float] = json.loads((run.results / "metrics.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if wanted <= {key.partition("/")[0] for key in scores}:
            kept = {key: score for key, score in scores.items() if key.partition("/")[0] in wanted}
            return Finished(trial, kept, run.path)
    return None


def _report(finished: Sequence[Finished], folder: SweepFolder, tracker: Tracker, console: Console) -> Judged | None:
    """The comparison of all points, where there are several; a sweep does not fail for want of it."""
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


def _show(
    console: Console, finished: Sequence[Finished], judged: Judged | None, folder: SweepFolder, tracker: Tracker
) -> None:
    for table in summary_tables(finished, judged):
        console.print()
        console.print(table)
    if judged is not None:
        console.print(marks_legend(judged.comparison), style="dim", highlight=False)
    report = folder.report / "report.html"
    lines = [
        f"summary  {folder.path}",
        f"best     hbtrain train {folder.path / 'best.yaml'}",
        *([f"report   {report}"] if report.exists() else []),
        f"MLflow   run {tracker.run_id}",
    ]
    console.print("\n" + "\n".join(lines), highlight=False, soft_wrap=True)


def _below(key: str, roots: Mapping[str, object]) -> bool:
    """Whether `key` is one of `roots`, or a part of its value as `batching.alpha.100` is."""
    return any(key == root or key.startswith(f"{root}.") for root in roots)
