"""A whole sweep: checks, its folder, its MLflow run with the trials' runs nested in it, training, and the summary."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from hbtrain.comparison.save import save_comparison
from hbtrain.config import Config, EvaluationConfig, absolute_paths, override, training_values, without_passwords
from hbtrain.errors import ConfigError, HbtrainError, StorageError, TrainingError
from hbtrain.events import NullObserver
from hbtrain.reporting.console import TextConsole
from hbtrain.reporting.text import counted, say
from hbtrain.runs.preflight import check_storage, preflight
from hbtrain.runs.run_folder import RunFolder
from hbtrain.runs.run_inputs import checked_inputs
from hbtrain.runs.run_status import StatusWriter
from hbtrain.runs.segments import measured_by, scores_in
from hbtrain.runs.usage import metrics_of, total_usage
from hbtrain.storage import Place, clear_leftovers, folders_in, place, pushed, write_text
from hbtrain.storage.lease import leased
from hbtrain.sweeps.findings import Summary
from hbtrain.sweeps.marks import Judged, judge
from hbtrain.sweeps.points import LEAST_DEPTH, Finished
from hbtrain.sweeps.search_methods import check_objectives, summary_of, trials_in
from hbtrain.sweeps.search_records import SearchOutcome, save_outcome
from hbtrain.sweeps.space import Space, Trial, base_config, probes_of, shown, trials_of
from hbtrain.tracking.tracker import Tracker, check_registration
from hbtrain.tracking.uris import tracking_uri


def sweep_folder(space: Space, base: Config) -> Place:
    """The folder of a sweep, with its trials' runs and its summary; its state, in `run.json`, is kept as a run's is.

    The name has a digest of what the trials have in common, evaluation included, but not of the values that are tried;
    so a sweep over more values continues the same sweep.
    """
    varied = {dotted for key in space.draws for dotted in space.keys_behind(key)}
    relevant: list[Any] = [{key: value for key, value in training_values(base).items() if not _below(key, varied)}]
    relevant.append(sorted(space.draws))
    relevant.append({"benchmarks": base.evaluation.benchmarks, **measured_by(base)})
    if space.search is not None:
        relevant.append(space.search.model_dump(mode="json", exclude={"trials"}))
    text = json.dumps(relevant, sort_keys=True)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return place(base.storage) / f"{space.name}-{digest}"


def run_sweep(space: Space, command: str | None = None, accept_changed_inputs: bool = False) -> None:
    """Train the trials of `space` that are not finished, and write the summary of all.

    Args:
        space: the configurations to try.
        command: the command line, which a new MLflow run shows as its source; by default one of that space.
        accept_changed_inputs: whether the sweep goes on if its trials' inputs have other content than before.

    Raises:
        HbtrainError: the input is wrong, and nothing has been started.
        TrainingError: trials failed.
        KeyboardInterrupt: Ctrl-C was pressed; finished trials are kept.
    """
    trials = probes_of(space) if space.search else trials_of(space)
    base = absolute_paths(base_config(space))
    tracking_uri(base)  # raises if there is none
    check_storage(base)
    check_registration(override(base, {"tracking.log_model": True}))  # the best point's is stored in any case
    _check(space, trials, base)
    folder = sweep_folder(space, base)
    configs = [absolute_paths(trial.config) for trial in trials]
    before = RunFolder(folder).state.inputs
    inputs = checked_inputs(configs, before, f"sweep {folder.name}", accept_changed_inputs)
    with leased(folder) as lease:
        _make(space, base, folder)
        if inputs.changed:
            say(f"goes on with other content: {inputs.changed}")
            _forget_inputs(folder)
        RunFolder(folder, lease).update(inputs=inputs.digests)
        tracker = _begin(space, base, folder, command or f"hbtrain sweep {space.name}")
        status = StatusWriter(
            folder,
            doing=f"sweep {space.name}",
            steps=len(trials) if space.search is None else trials_in(space.search),
            mlflow_run_id=tracker.run_id,
            tracking_uri=without_passwords(tracker.uri),
        )
        with status.beating(), tracker.ending(say):
            if space.search is not None:
                outcome = _search(space, base, folder, tracker)
            else:
                outcome = _try_all(trials, folder, tracker)
            lease.check()
            _deliver_for_trials(folder, tracker)
            objectives = space.search.objectives if space.search else ()
            judged = _report(outcome.finished, folder, tracker)
            summary = Summary(outcome.finished, outcome.failures, judged, objectives, outcome.failed)
            _save(summary, folder, tracker)
            if outcome.finished:
                _register(RunFolder(summary.best.folder), base, tracker)
            if outcome.failures:
                reasons = "; ".join(f"{label}: {reason}" for label, reason in outcome.failures.items())
                count = len(outcome.failures) + len(outcome.finished) + len(outcome.stopped)
                raise TrainingError(
                    f"{len(outcome.failures)} of {count} trials failed ({reasons}); the same command tries them again"
                )
        _show(summary, outcome, folder, tracker)


def _check(space: Space, trials: Sequence[Trial], base: Config) -> None:
    """Raise HbtrainError for anything that is wrong with any trial, before the first one starts."""
    if not base.evaluation.benchmarks:
        raise ConfigError("evaluation.benchmarks is empty, so trials cannot be compared; name one, such as demo")
    if space.search is not None:
        space.search.stops(base.training.steps)
    for trial in trials:
        _check_depth(trial.config.evaluation, space)
        checked = preflight(absolute_paths(trial.config), _Said())
    if space.search is not None:
        check_objectives(space.search.objectives, checked.benchmarks[0], base.evaluation)


def _check_depth(evaluation: EvaluationConfig, space: Space) -> None:
    """Check that trials whose candidates an index ranks have the scores that they are compared by (`AT_DEPTH`)."""
    if space.search is None and evaluation.index is not None and evaluation.depth < LEAST_DEPTH:
        raise ConfigError(
            f"evaluation.depth = {evaluation.depth}: trials whose candidates an index ranks are compared by "
            f"nDCG@{LEAST_DEPTH}; give {LEAST_DEPTH} or more"
        )


class _Said(NullObserver):
    """Prints what the checks of a trial fetch."""

    def phase(self, text: str) -> None:
        say(text)


def _make(space: Space, base: Config, folder: Place) -> None:
    """Write `space.yaml` into the sweep's folder, and clear it. Raises StorageError if it cannot be written."""
    try:
        clear_leftovers(folder)
        write_text(folder / "space.yaml", without_passwords(space.to_yaml()))
    except OSError as error:
        raise StorageError(f"storage = {base.storage!r} cannot be written: {error.strerror} ({folder})") from error


def _forget_inputs(folder: Place) -> None:
    """Have the runs of a sweep's trials go on with the content that their inputs have now."""
    for run in (RunFolder(folder / name) for name in folders_in(folder, "*")):
        if run.state.inputs is not None:
            run.update(inputs=None)


def _begin(space: Space, base: Config, folder: Place, command: str) -> Tracker:
    """The tracker of the sweep's MLflow run, which goes on after an interruption."""
    memory = RunFolder(folder)
    tracker = Tracker(
        base,
        memory.state.mlflow_run_id,
        folder.name,
        command=command,
        parameters={"space": space.name, "recipe": space.recipe},
        outbox=memory.undelivered,
    )
    _deliver_for_trials(folder, tracker)
    memory.update(mlflow_run_id=tracker.run_id)
    if space.search is None:
        tracker.tags({f"space.{key}": _listed(draw.probes, key) for key, draw in space.draws.items()})
    else:
        tracker.tags({f"space.{key}": json.dumps(draw.to_tree()) for key, draw in space.draws.items()})
        tracker.tags({f"search.{key}": value for key, value in space.search.model_dump(mode="json").items()})
    tracker.artifact(folder / "space.yaml")
    return tracker


def _listed(values: Iterable[Any], key: str) -> str:
    """The values of a grid in a tag; those that hold blanks, as mixtures do, stand apart by commas."""
    texts = [shown(value, key) for value in values]
    return (", " if any(" " in text for text in texts) else " ").join(texts)


def _deliver_for_trials(folder: Place, tracker: Tracker) -> None:
    """Deliver to MLflow what finished trials could not deliver."""
    for file in RunFolder.undelivered_in(folder):
        tracker.adopt(file)


def _placed(config: Config, folder: Place, tracker: Tracker) -> Config:
    """A trial's configuration, with its run in the sweep's folder and under the sweep's MLflow run."""
    overrides = {
        "storage": str(folder),
        "tracking.uri": tracking_uri(config),
        "tracking.parent_run_id": tracker.run_id,
        "tracking.register": None,  # the sweep registers the model of its best point
    }
    return absolute_paths(override(config, overrides))


def _search(space: Space, base: Config, folder: Place, tracker: Tracker) -> SearchOutcome:
    """Begin or continue the search, and write what became of its trials."""
    assert space.search is not None
    say(f"sweep {folder.name}: {summary_of(space.search)}")
    from hbtrain.sweeps.searches import search

    outcome = search(space, _placed(base, folder, tracker), folder)
    save_outcome(outcome, folder / "outcome.json")
    tracker.artifact(folder / "outcome.json")
    return outcome


def _try_all(trials: Sequence[Trial], folder: Place, tracker: Tracker) -> SearchOutcome:
    ready = []
    for trial in trials:
        config = override(_placed(trial.config, folder, tracker), {"tracking.run_name": trial.label})
        ready.append(Trial(trial.label, trial.values, config))
    pending = [trial for trial in ready if _finished(trial) is None]
    say(f"sweep {folder.name}: {counted(len(ready), 'trial')}, {len(ready) - len(pending)} finished before")
    failures: dict[str, str] = {}
    if pending:
        from hbtrain.sweeps.tuning import train_side_by_side

        failures |= train_side_by_side(pending, folder)
    finished = [done for trial in ready if (done := _finished(trial)) is not None]
    for label in {trial.label for trial in ready} - {one.trial.label for one in finished} - failures.keys():
        failures[label] = "it ended without scores on all benchmarks"
    return SearchOutcome(finished, failures=failures, failed=[one for one in ready if one.label in failures])


def _finished(trial: Trial) -> Finished | None:
    """The trial with the scores of a finished run of it on all its benchmarks; None if there is no such run."""
    for run in RunFolder.finished(trial.config):
        scores = scores_in(run, run.results / "metrics.json", trial.config)
        if scores is not None:
            return Finished(trial, scores, run.path)
    return None


def _report(finished: Sequence[Finished], folder: Place, tracker: Tracker) -> Judged | None:
    """Write the comparison of all points, if there are several. If that fails, say so; the sweep has not failed."""
    try:
        judged = judge(finished)
        if judged is not None:
            with pushed(folder / "report") as files:
                save_comparison(judged.comparison, files)
            tracker.artifact(folder / "report", "report")
    except HbtrainError as error:
        say(f"no report: {error}")
        return None
    return judged


def _save(summary: Summary, folder: Place, tracker: Tracker) -> None:
    """Write the summary, and store it with the resources that all runs took in the sweep's MLflow run."""
    with pushed(folder) as files:
        names = [file.name for file in summary.save(files)]
    for name in names:
        tracker.artifact(folder / name)
    tracker.describe(summary.markdown())
    runs = (RunFolder(folder / name) for name in folders_in(folder, "*"))
    tracker.metrics(metrics_of(total_usage(runs)), 0)


def _register(best: RunFolder, base: Config, tracker: Tracker) -> None:
    """Register the model of the best run, which is stored first where those of trials are not."""
    name, run_id = base.tracking.register, best.state.mlflow_run_id
    if name is None or run_id is None:
        return
    if not base.tracking.log_model:
        tracker.model(best.model, base.training.steps, run_id=run_id)
    tracker.register(name, run_id)


def _show(summary: Summary, outcome: SearchOutcome, folder: Place, tracker: Tracker) -> None:
    console = TextConsole()
    for table in summary.tables():
        console.print()
        console.print(table)
    if summary.judged is not None and summary.judged.legend:
        console.print(summary.judged.legend, style="dim")
    if outcome.stopped:
        say("\nstopped early: " + ", ".join(f"{one.trial.label} at step {one.step}" for one in outcome.stopped))
    report = folder / "report" / "report.html"
    lines = [
        f"summary  {folder}",
        f"best     hbtrain train {shlex.quote(str(folder / 'best.yaml'))}",
        *([f"report   {report}"] if report.exists() else []),
        f"MLflow   run {tracker.run_id}",
    ]
    say("\n" + "\n".join(lines))


def _below(key: str, roots: Iterable[str]) -> bool:
    """Whether a flattened key is one of `roots` or a part of its value, as `batching.alpha.100` is."""
    return any(key == root or key.startswith(f"{root}.") for root in roots)
